"""Rules for apiextensions.k8s.io/v1 CustomResourceDefinitions (pkg/apis/apiextensions/validation/validation.go).

What all versions share is named as Kubernetes names it, `spec.validation`, `spec.subresources`, because it moves what
is the same everywhere out of the versions before it looks.
"""

from typing import Any

from controlplane.api import names
from controlplane.api.schema.paths import BadPath, Path, simple
from controlplane.api.status import (
    Cause,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
    too_many,
)
from controlplane.api.validation import schemas
from controlplane.api.validation.common import IMMUTABLE

Object = dict[str, Any]
_APPROVAL = "api-approved.kubernetes.io"
_COLUMN_TYPES = ("boolean", "date", "integer", "number", "string")
_COLUMN_FORMATS = ("byte", "date", "date-time", "double", "float", "int32", "int64", "password")


def definition(obj: Object) -> list[Cause]:
    """CustomResourceDefinition."""
    spec, meta = obj.get("spec") or {}, obj.get("metadata") or {}
    wanted, group = spec.get("names") or {}, spec.get("group") or ""
    causes: list[Cause] = []
    name = meta.get("name", "")
    if name != f"{wanted.get('plural', '')}.{group}":
        causes.append(invalid_value("metadata.name", name, 'must be spec.names.plural+"."+spec.group'))
    _group(group, meta, causes)
    scope = spec.get("scope")
    if not scope:
        causes.append(required("spec.scope"))
    elif scope not in ("Cluster", "Namespaced"):
        causes.append(not_supported("spec.scope", scope, ("Cluster", "Namespaced")))
    _versions(spec, causes)
    causes += [
        required(f"spec.names.{key}") for key in ("plural", "singular", "kind", "listKind") if not wanted.get(key)
    ]
    _names(wanted, causes)
    if spec.get("preserveUnknownFields"):
        text = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead"
        causes.append(invalid_value("spec.preserveUnknownFields", True, text))
    _conversion(spec.get("conversion") or {}, causes)
    for field, where, version in _hoisted(spec, "schema", "spec.validation"):
        if field is None or field.get("openAPIV3Schema") is None:
            at = f"{version}.schema.openAPIV3Schema"
            causes.append(required(at, "schemas are required"))
        else:
            causes += schemas.check(field["openAPIV3Schema"], f"{where}.openAPIV3Schema")
    for field, where, _ in _hoisted(spec, "subresources", "spec.subresources"):
        _scale((field or {}).get("scale"), f"{where}.scale", causes)
    for field, where, _ in _hoisted(spec, "additionalPrinterColumns", "spec.additionalPrinterColumns"):
        for index, column in enumerate(field or ()):
            _column(column, f"{where}[{index}]", causes)
    for index, version_ in enumerate(spec.get("versions") or ()):
        _selectable(version_, f"spec.versions[{index}].selectableFields", causes)
    return causes


def changes(new: Object, old: Object) -> list[Cause]:
    """What may not change."""
    causes: list[Cause] = []
    after, before = new.get("spec") or {}, old.get("spec") or {}
    conditions = old.get("status", {}).get("conditions") or ()
    fields = [("group",), ("names", "plural")]
    if any(c.get("type") == "Established" and c.get("status") == "True" for c in conditions):
        fields = [("scope",), ("names", "kind"), *fields]
    for path in fields:
        one, other = after, before
        for key in path:
            one, other = one.get(key) or {}, other.get(key) or {}
        if one != other:
            causes.append(invalid_value(f"spec.{'.'.join(path)}", one, IMMUTABLE))
    known = {version.get("name") for version in after.get("versions") or ()}
    for index, version in enumerate(old.get("status", {}).get("storedVersions") or ()):
        if version not in known:
            text = (
                f"missing from spec.versions; {version} was previously a storage version, and must remain in "
                f"spec.versions until a storage migration ensures no data remains persisted in {version} and removes "
                f"{version} from status.storedVersions"
            )
            causes.append(invalid_value(f"status.storedVersions[{index}]", version, text))
    return causes


def _hoisted(spec: Object, key: str, common: str) -> list[tuple[Any, str, str]]:
    """A field of the versions as (value, its path, path of its version): once if it is the same in all of them."""
    versions = spec.get("versions") or ()
    values = [version.get(key) for version in versions]
    if values and values[0] is not None and all(value == values[0] for value in values):
        return [(values[0], common, "spec.versions[0]")]
    return [(value, f"spec.versions[{i}].{key}", f"spec.versions[{i}]") for i, value in enumerate(values)]


def _group(group: str, meta: Object, causes: list[Cause]) -> None:
    if not group:
        causes.append(required("spec.group"))
    elif complaints := names.dns1123_subdomain(group):
        causes.append(invalid_value("spec.group", group, ",".join(complaints)))
    elif "." not in group:
        causes.append(invalid_value("spec.group", group, "should be a domain with at least one dot"))
    if not group.endswith((".k8s.io", ".kubernetes.io")) and group not in ("k8s.io", "kubernetes.io"):
        return
    value = (meta.get("annotations") or {}).get(_APPROVAL)
    at = f"metadata.annotations[{_APPROVAL}]"
    see = "see https://github.com/kubernetes/enhancements/pull/1111"
    if not value:
        causes.append(required(at, f'protected groups must have approval annotation "{_APPROVAL}", {see}'))
    elif not value.startswith(("unapproved", "https://", "http://")):
        text = (
            f'protected groups must have approval annotation "{_APPROVAL}" with either a URL or a reason starting with '
            f'"unapproved", {see}'
        )
        causes.append(invalid_value(at, value, text))


def _versions(spec: Object, causes: list[Cause]) -> None:
    versions = spec.get("versions") or []
    for index, version in enumerate(versions):
        at = f"spec.versions[{index}]"
        if complaints := names.dns1035_label(version.get("name", "")):
            causes.append(invalid_value(f"{at}.name", version.get("name", ""), ",".join(complaints)))
        warning = version.get("deprecationWarning")
        if warning is not None:
            if not version.get("deprecated"):
                text = "can only be set for deprecated versions"
                causes.append(invalid_value(f"{at}.deprecationWarning", warning, text))
            elif not warning or len(warning) > 256:
                text = "must be between 1 and 256 characters"
                causes.append(invalid_value(f"{at}.deprecationWarning", warning, text))
    if len({version.get("name") for version in versions}) < len(versions):
        causes.append(invalid_value("spec.versions", versions, "must contain unique version names"))
    if sum(1 for version in versions if version.get("storage")) != 1:
        text = "must have exactly one version marked as storage version"
        causes.append(invalid_value("spec.versions", versions, text))


def _names(wanted: Object, causes: list[Cause]) -> None:
    for key in ("plural", "singular"):
        value = wanted.get(key)
        if value and (complaints := names.dns1035_label(value)):
            causes.append(invalid_value(f"spec.names.{key}", value, ",".join(complaints)))
    for key in ("kind", "listKind"):
        value = wanted.get(key)
        if value and (complaints := names.dns1035_label(value.lower())):
            text = f"may have mixed case, but should otherwise match: {','.join(complaints)}"
            causes.append(invalid_value(f"spec.names.{key}", value, text))
    for key in ("shortNames", "categories"):
        for index, value in enumerate(wanted.get(key) or ()):
            if complaints := names.dns1035_label(value):
                causes.append(invalid_value(f"spec.names.{key}[{index}]", value, ",".join(complaints)))
    if wanted.get("kind") and wanted["kind"] == wanted.get("listKind"):
        text = "kind and listKind may not be the same"
        causes.append(invalid_value("spec.names.listKind", wanted["listKind"], text))


def _conversion(conversion: Object, causes: list[Cause]) -> None:
    strategy, webhook = conversion.get("strategy"), conversion.get("webhook")
    at = "spec.conversion"
    if strategy not in ("None", "Webhook"):
        if not strategy:
            causes.append(required(f"{at}.strategy"))
        else:
            causes.append(not_supported(f"{at}.strategy", strategy, ("None", "Webhook")))
    elif strategy == "None":
        if webhook is not None:
            text = "should not be set when strategy is not set to Webhook"
            causes.append(forbidden_field(f"{at}.webhookClientConfig", text))
    else:
        if not (webhook or {}).get("clientConfig"):
            causes.append(required(f"{at}.webhookClientConfig", "required when strategy is set to Webhook"))
        if not (webhook or {}).get("conversionReviewVersions"):
            causes.append(required(f"{at}.conversionReviewVersions"))


def _scale(scale: Object | None, at: str, causes: list[Cause]) -> None:
    if scale is None:
        return
    for key, below, needed in (
        ("specReplicasPath", ".spec.", True), ("statusReplicasPath", ".status.", True),
        ("labelSelectorPath", (".status.", ".spec."), False),
    ):  # fmt: skip
        path = scale.get(key)
        if not path:
            if needed:
                causes.append(required(f"{at}.{key}"))
        elif not _is_simple(path):
            text = "must be a simple json path starting with ."
            causes.append(invalid_value(f"{at}.{key}", path, text))
        elif not path.startswith(below):
            where = below[:-1] if isinstance(below, str) else "either .spec or .status"
            causes.append(invalid_value(f"{at}.{key}", path, f"should be a json path under {where}"))


def _is_simple(path: str) -> bool:
    try:
        return bool(simple(path))
    except BadPath:
        return False


def _column(column: Object, at: str, causes: list[Cause]) -> None:
    if not column.get("name"):
        causes.append(required(f"{at}.name"))
    kinds = ",".join(_COLUMN_TYPES)
    if not column.get("type"):
        causes.append(required(f"{at}.type", f"must be one of {kinds}"))
    elif column["type"] not in _COLUMN_TYPES:
        causes.append(invalid_value(f"{at}.type", column["type"], f"must be one of {kinds}"))
    form = column.get("format")
    if form and form not in _COLUMN_FORMATS:
        causes.append(invalid_value(f"{at}.format", form, f"must be one of {','.join(_COLUMN_FORMATS)}"))
    path = column.get("jsonPath")
    if not path:
        causes.append(required(f"{at}.JSONPath"))
    elif not path.startswith("."):
        causes.append(invalid_value(f"{at}.JSONPath", path, "must be a simple json path starting with ."))
    else:
        try:
            Path(path)
        except BadPath as error:
            causes.append(invalid_value(f"{at}.JSONPath", path, f"is an invalid path: {error}"))


def _selectable(version: Object, at: str, causes: list[Cause]) -> None:
    chosen = version.get("selectableFields") or ()
    if len(chosen) > 8:
        causes.append(too_many(at, len(chosen), 8))
    schema = (version.get("schema") or {}).get("openAPIV3Schema") or {}
    seen = set()
    for index, each in enumerate(chosen):
        path, where = each.get("jsonPath", ""), f"{at}[{index}].jsonPath"
        if not path:
            causes.append(required(where))
            continue
        if path in seen:
            causes.append(Cause("FieldValueDuplicate", where, f'Duplicate value: "{path}"'))
        seen.add(path)
        try:
            fields = simple(path)
        except BadPath as error:
            causes.append(invalid_value(where, path, f"is an invalid path: {error}"))
            continue
        if fields[0] == "metadata":
            causes.append(invalid_value(where, path, "must not point to fields in metadata"))
            continue
        place: Object | None = schema
        for field in fields:
            place = (place.get("properties") or {}).get(field) if place is not None else None
        if place is None:
            causes.append(invalid_value(where, path, "is an invalid path: does not match schema"))
        elif place.get("type") not in ("string", "integer", "boolean"):
            text = (
                "must point to a field of type string, boolean or integer. Enum string fields and strings with formats "
                "are allowed."
            )
            causes.append(invalid_value(where, path, text))
