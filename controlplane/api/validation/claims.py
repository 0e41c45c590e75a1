"""Rules for PersistentVolumeClaims, and for the templates from which they are made."""

from collections.abc import Mapping
from typing import Any

from controlplane.api import names, quantity
from controlplane.api.status import Cause, forbidden_field, invalid_value, not_supported, required
from controlplane.api.validation import metadata
from controlplane.api.validation.common import IMMUTABLE, Object, complain, maybe_one_of, need, selector

Each = Mapping[str, Any]

ACCESS_MODES = ("ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod")
VOLUME_MODES = ("Block", "Filesystem")
BETA_CLASS = "volume.beta.kubernetes.io/storage-class"


def claim(obj: Object) -> list[Cause]:
    """v1 PersistentVolumeClaim."""
    causes: list[Cause] = []
    claim_spec(causes, obj.get("spec") or {}, "spec")
    return causes


def template(causes: list[Cause], found: Each, path: str) -> None:
    """The volumeClaimTemplate of an ephemeral volume: a spec with labels and annotations."""
    meta = found.get("metadata") or {}
    causes += metadata.template(meta, f"{path}.metadata")
    for field in meta:
        if field not in ("labels", "annotations"):
            causes.append(forbidden_field(f"{path}.metadata.{field}", "cannot be set"))
    claim_spec(causes, found.get("spec") or {}, f"{path}.spec")


def access_modes(causes: list[Cause], modes: list[str] | None, path: str, detail: str = "") -> None:
    """Who may mount a volume at a time."""
    if not modes:
        causes.append(required(path, detail))
        return
    causes += [not_supported(path, mode, ACCESS_MODES) for mode in modes if mode not in ACCESS_MODES]
    if "ReadWriteOncePod" in modes and any(mode in ACCESS_MODES[:3] for mode in modes):
        causes.append(forbidden_field(path, "may not use ReadWriteOncePod with other access modes"))


def positive(causes: list[Cause], value: str, at: str) -> bool:
    """A quantity above zero. Whether it is."""
    if quantity.parse(value) > quantity.ZERO:
        return True
    causes.append(invalid_value(at, value, "must be greater than zero"))
    return False


def claim_spec(causes: list[Cause], spec: Each, path: str) -> None:
    """The spec of a claim."""
    access_modes(causes, spec.get("accessModes"), f"{path}.accessModes", "at least 1 access mode is required")
    if "selector" in spec:
        causes += selector(spec["selector"], f"{path}.selector")
    storage = ((spec.get("resources") or {}).get("requests") or {}).get("storage")
    if storage is None:
        causes.append(required(f"{path}.resources[storage]"))
    else:
        positive(causes, storage, f"{path}.resources[storage]")
    for field in ("storageClassName", "volumeAttributesClassName"):
        if spec.get(field):
            complain(causes, f"{path}.{field}", spec[field], names.dns1123_subdomain(spec[field]))
    maybe_one_of(causes, spec, path, "volumeMode", VOLUME_MODES)
    _data_sources(causes, spec, path)


def _data_sources(causes: list[Cause], spec: Each, path: str) -> None:
    source, reference = spec.get("dataSource"), spec.get("dataSourceRef")
    for field, found in (("dataSource", source), ("dataSourceRef", reference)):
        if found is None:
            continue
        at = f"{path}.{field}"
        need(causes, found, at, "name", "kind")
        group = found.get("apiGroup") or ""
        if group:
            complain(causes, f"{at}.apiGroup", group, names.dns1123_subdomain(group))
        elif found.get("kind") != "PersistentVolumeClaim":
            text = "must be 'PersistentVolumeClaim' when referencing the default apiGroup"
            causes.append(invalid_value(at, found.get("kind", ""), text))
    if reference is None:
        return
    namespace = reference.get("namespace")
    if namespace:
        complain(causes, f"{path}.dataSourceRef.namespace", namespace, names.dns1123_label(namespace))
        if source is not None:
            text = "may not be specified when dataSourceRef.namespace is specified"
            causes.append(invalid_value(path, f"{path}.dataSource", text))
    elif source is not None and any(source.get(key) != reference.get(key) for key in ("apiGroup", "kind", "name")):
        causes.append(invalid_value(path, f"{path}.dataSource", "must match dataSourceRef"))


def changes(new: Object, old: Object) -> list[Cause]:
    """A claim's spec does not change, but for its volume (once), its class (once), and, when it is bound, its size
    (upwards; back down only to what it really has) and its attributes class."""
    after, before = new.get("spec") or {}, old.get("spec") or {}
    causes: list[Cause] = []
    free = set() if before.get("volumeName") else {"volumeName"}
    was_noted = _beta_class(old)
    given = after.get("storageClassName")
    if before.get("storageClassName") is None and given is not None and was_noted in (None, given):
        free.add("storageClassName")
    if _beta_class(new) != was_noted and not ("storageClassName" in free and _beta_class(new) is None):
        at = f"metadata.annotations.{BETA_CLASS}"
        causes.append(invalid_value(at, _beta_class(new) or "", IMMUTABLE))
    bound = (new.get("status") or {}).get("phase") == "Bound"
    if bound and after.get("volumeAttributesClassName") is not None:
        free.add("volumeAttributesClassName")
    if _fixed(after, free, bound) != _fixed(before, free, bound):
        text = (
            "spec is immutable after creation except resources.requests and volumeAttributesClassName for bound claims"
        )
        causes.append(forbidden_field("spec", text))
    size, was = _storage(after), _storage(before)
    if size < was:
        real = quantity.parse(((old.get("status") or {}).get("capacity") or {}).get("storage", "0"))
        if size <= real or not bound:
            text = "field can not be less than status.capacity"
            causes.append(forbidden_field("spec.resources.requests.storage", text))
    if after.get("volumeMode") != before.get("volumeMode"):
        causes.append(invalid_value("volumeMode", after.get("volumeMode"), IMMUTABLE))
    if before.get("volumeAttributesClassName") is not None and not after.get("volumeAttributesClassName"):
        to = "an empty string" if after.get("volumeAttributesClassName") == "" else "nil"
        text = f"update from non-nil value to {to} is forbidden"
        causes.append(forbidden_field("spec.volumeAttributesClassName", text))
    return causes


def _fixed(spec: Each, free: set[str], bound: bool) -> dict[str, Any]:
    kept = {key: value for key, value in spec.items() if key not in free}
    resources = kept.get("resources")
    if bound and resources and "requests" in resources:
        requests = {name: value for name, value in resources["requests"].items() if name != "storage"}
        kept["resources"] = {**resources, "requests": requests}
    return kept


def _beta_class(obj: Object) -> str | None:
    noted: str | None = ((obj.get("metadata") or {}).get("annotations") or {}).get(BETA_CLASS)
    return noted


def _storage(spec: Each) -> quantity.Quantity:
    return quantity.parse(((spec.get("resources") or {}).get("requests") or {}).get("storage", "0"))
