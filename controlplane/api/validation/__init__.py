"""Validation: the rules about an object's values, kind by kind, that the schema cannot state.

`create` and `update` run after the structural check and defaults, on whole objects, and return what is wrong as field
errors in Kubernetes' words; the caller makes a 422 of them. They only look. An update checks the new object like a
created one, and then what may not change; if only metadata and status differ, neither is looked at, so that stricter
rules do not lock objects that were stored before them.

Kinds without rules of their own get the metadata rules and a check that the fields their schema requires are there.
Not here: anything that needs other objects (does the namespace exist, is the node port free).
"""

from collections.abc import Callable
from typing import Any

from controlplane.api.resources import Resource
from controlplane.api.status import Cause
from controlplane.api.validation import (
    admissionregistration,
    apiregistration,
    autoscaling,
    batch,
    cluster,
    config,
    csi,
    flowcontrol,
    metadata,
    networking,
    pod_updates,
    pods,
    quotas,
    rbac,
    services,
    storage,
    updates,
    workloads,
)
from controlplane.api.validation.common import Rules
from controlplane.api.validation.required import missing

Object = dict[str, Any]


def _definition(obj: Object) -> list[Cause]:
    from controlplane.api.validation import customresources  # and all that schemas need: only where there are some

    return customresources.definition(obj)


def _definition_changes(new: Object, old: Object) -> list[Cause]:
    from controlplane.api.validation import customresources

    return customresources.changes(new, old)


_BY_KIND: dict[tuple[str, str], Rules] = {
    **pods.BY_KIND,
    **workloads.BY_KIND,
    **batch.BY_KIND,
    **autoscaling.BY_KIND,
    **services.BY_KIND,
    **networking.BY_KIND,
    **storage.BY_KIND,
    **csi.BY_KIND,
    **quotas.BY_KIND,
    **flowcontrol.BY_KIND,
    **config.BY_KIND,
    **rbac.BY_KIND,
    **cluster.BY_KIND,
    **admissionregistration.BY_KIND,
    **apiregistration.BY_KIND,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): _definition,
}
# Kinds of which more is asked when they are created than later.
_NEW: dict[tuple[str, str], Rules] = {
    ("", "Pod"): pods.new_pod,
    (networking.GROUP, "Ingress"): networking.new_ingress,
}
_CHANGES: dict[tuple[str, str], Callable[[Object, Object], list[Cause]]] = {
    **updates.BY_KIND,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): _definition_changes,
}


def create(resource: Resource, obj: Object) -> list[Cause]:
    """What is wrong with a new object of `resource`; [] if nothing is."""
    causes = metadata.check(resource, obj.get("metadata") or {})
    if resource.custom is not None:
        return causes + resource.custom.validate(obj)
    rules = _NEW.get((resource.group, resource.kind))
    return causes + (rules(obj) if rules is not None else _own(resource, obj))


def update(resource: Resource, new: Object, old: Object) -> list[Cause]:
    """What is wrong with `new` in place of the stored `old`; [] if nothing is."""
    causes = metadata.check_update(resource, new.get("metadata") or {}, old.get("metadata") or {})
    if resource.custom is not None:
        return causes + resource.custom.validate(new, old)
    if not _same(new, old):
        causes += _own(resource, new)
        changed = _CHANGES.get((resource.group, resource.kind))
        if changed is not None:
            causes += changed(new, old)
    if resource.kind == "Pod" and not resource.group:
        causes += pod_updates.metadata(new.get("metadata") or {}, old.get("metadata") or {})
    return causes


def _own(resource: Resource, obj: Object) -> list[Cause]:
    rules = _BY_KIND.get((resource.group, resource.kind))
    if rules is not None:
        return rules(obj)
    return missing(resource.schema, obj) if resource.schema else []


def _same(new: Object, old: Object) -> bool:
    """Whether nothing but metadata and status differs."""
    return all(key in ("metadata", "status") or new.get(key) == old.get(key) for key in {**new, **old})
