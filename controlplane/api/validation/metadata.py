"""Rules for metadata, which are the same for every kind (apimachinery api/validation/objectmeta.go)."""

from collections.abc import Mapping
from typing import Any

from controlplane.api import names
from controlplane.api.resources import Resource
from controlplane.api.status import Cause, forbidden_field, invalid_value, required, show, too_long
from controlplane.api.validation.common import IMMUTABLE, good_key, labels

ANNOTATIONS_BYTES = 256 * 1024
_STANDARD_FINALIZERS = ("kubernetes", "orphan", "foregroundDeletion")


def check(resource: Resource, meta: Mapping[str, Any]) -> list[Cause]:
    """Metadata of a new object. The name must be there: generateName has been used before this."""
    causes: list[Cause] = []
    kind = resource.kind if resource.custom is None else ""  # a custom "Service" has no Service's rules
    prefix = meta.get("generateName")
    if prefix:
        complaints = names.generate_name_errors(kind, prefix)
        causes += [invalid_value("metadata.generateName", prefix, each) for each in complaints]
    name = meta.get("name")
    if not name:
        if not prefix:
            causes.append(required("metadata.name", "name or generateName is required"))
    else:
        complaints = names.name_errors(kind, name)
        if complaints:
            causes += [invalid_value("metadata.name", name, each) for each in complaints]
    causes += _namespace(resource, meta.get("namespace"))
    causes += template(meta, "metadata")
    if meta.get("generation", 0) < 0:
        causes.append(invalid_value("metadata.generation", meta["generation"], "must be greater than or equal to 0"))
    if "ownerReferences" in meta:
        causes += _owners(meta["ownerReferences"])
    if "finalizers" in meta:
        causes += _finalizers(meta["finalizers"])
    return causes


def template(meta: Mapping[str, Any], path: str) -> list[Cause]:
    """The labels and annotations, also those of a template."""
    causes = labels(meta.get("labels"), f"{path}.labels")
    annotations = meta.get("annotations")
    if annotations:
        causes += _annotations(annotations, f"{path}.annotations")
    return causes


def _annotations(annotations: Mapping[str, str], path: str) -> list[Cause]:
    causes = []
    size = 0
    for key, value in annotations.items():
        size += len(key) + len(value)
        # The prefix of an annotation's key may have upper case.
        if not good_key(key) and not good_key(key.lower()):
            causes += [invalid_value(path, key, each) for each in names.qualified_name(key.lower())]
    if size * 4 > ANNOTATIONS_BYTES:  # a character has at most four bytes: count only when it may matter
        size = sum(len(key.encode()) + len(value.encode()) for key, value in annotations.items())
        if size > ANNOTATIONS_BYTES:
            causes.append(too_long(path, ANNOTATIONS_BYTES))
    return causes


def _namespace(resource: Resource, namespace: str | None) -> list[Cause]:
    if not resource.namespaced:
        return [forbidden_field("metadata.namespace", "not allowed on this type")] if namespace else []
    if not namespace:
        return [required("metadata.namespace")]
    return [invalid_value("metadata.namespace", namespace, each) for each in names.dns1123_label(namespace)]


def _owners(owners: list[Mapping[str, Any]]) -> list[Cause]:
    causes = []
    controller = ""
    for index, owner in enumerate(owners):
        path = f"metadata.ownerReferences[{index}]"
        api_version = owner.get("apiVersion", "")
        if not api_version.rpartition("/")[2] or api_version.count("/") > 1:
            causes.append(invalid_value(f"{path}.apiVersion", api_version, "version must not be empty"))
        causes += [
            invalid_value(f"{path}.{field}", owner.get(field, ""), "must not be empty")
            for field in ("kind", "name", "uid")
            if not owner.get(field)
        ]
        if api_version == "v1" and owner.get("kind") == "Event":
            causes.append(invalid_value(path, owner, "/v1, Kind=Event is disallowed from being an owner"))
        if owner.get("controller"):
            if controller:
                text = (
                    "Only one reference can have Controller set to true. "
                    f'Found "true" in references for {controller} and {owner.get("name", "")}'
                )
                causes.append(invalid_value("metadata.ownerReferences", owners, text))
            controller = owner.get("name", "")
    return causes


def _finalizers(finalizers: list[str]) -> list[Cause]:
    causes = []
    path = "metadata.finalizers"
    for name in finalizers:
        complaints = names.qualified_name(name)
        causes += [invalid_value(path, name, each) for each in complaints]
        if not complaints and "/" not in name and name not in _STANDARD_FINALIZERS:
            text = "name is neither a standard finalizer name nor is it fully qualified"
            causes.append(invalid_value(path, name, text))
    if "orphan" in finalizers and "foregroundDeletion" in finalizers:
        text = "finalizer orphan and foregroundDeletion cannot be both set"
        causes.append(invalid_value(path, finalizers, text))
    return causes


def check_update(resource: Resource, new: Mapping[str, Any], old: Mapping[str, Any]) -> list[Cause]:
    """Metadata of `new` in place of `old`: as for a new object, and names and times do not change."""
    causes = check(resource, new)
    for field in ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp"):
        if new.get(field) != old.get(field):
            # What the server fills in may be left out by the client.
            if field in ("uid", "creationTimestamp") and field not in new:
                continue
            causes.append(invalid_value(f"metadata.{field}", new.get(field), IMMUTABLE))
    if new.get("generation", 0) < old.get("generation", 0):
        causes.append(invalid_value("metadata.generation", new.get("generation", 0), "must not be decremented"))
    if old.get("deletionTimestamp"):
        added = [name for name in new.get("finalizers") or () if name not in (old.get("finalizers") or ())]
        if added:
            text = f"no new finalizers can be added if the object is being deleted, found new finalizers {show(added)}"
            causes.append(forbidden_field("metadata.finalizers", text))
    return causes
