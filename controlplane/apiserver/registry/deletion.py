"""What a delete leaves of an object: finalizers by propagation policy, a grace period, or nothing.

Pure but for the clock; writing is generic.py's. Rules: k8s.io/apiserver registry/rest/delete.go (BeforeDelete) and
registry/generic/registry/store.go (deletionFinalizersForGarbageCollection).
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from controlplane import clock
from controlplane.api import status
from controlplane.api.resources import Resource
from controlplane.apiserver.registry.strategy import Strategy

Object = dict[str, Any]
_ORPHAN, _FOREGROUND = "orphan", "foregroundDeletion"
_POLICIES = ("Foreground", "Background", "Orphan")


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    grace_period: int | None = None
    """Seconds; None: the object's own."""
    uid: str = ""
    resource_version: str = ""
    propagation: str = ""
    """Foreground, Background, Orphan, or "" for the kind's own."""
    dry_run: bool = False


def propagation(policy: Any, orphan: bool | None) -> str:
    """The policy that the options of a delete name. Raises StatusError 422."""
    causes = []
    if policy and orphan is not None:
        text = "orphanDependents and deletionPropagation cannot be both set"
        causes.append(status.invalid_value("propagationPolicy", policy, text))
    if policy and policy not in _POLICIES:
        causes.append(status.not_supported("propagationPolicy", policy, _POLICIES))
    if causes:
        raise status.invalid("meta.k8s.io", "DeleteOptions", "", causes)
    if orphan is not None:
        return "Orphan" if orphan else "Background"
    return policy or ""


def check_preconditions(resource: Resource, obj: Object, options: DeleteOptions) -> None:
    """Raises StatusError 409 if the object is not the one that was meant."""
    meta = obj["metadata"]
    for what, wanted, is_ in (("UID", options.uid, meta["uid"]),
                              ("ResourceVersion", options.resource_version, meta["resourceVersion"])):  # fmt: skip
        if wanted and wanted != is_:
            raise status.conflict(
                resource.group_resource, meta["name"],
                f"Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {is_}",
            )  # fmt: skip


def marked(strategy: Strategy, old: Object, options: DeleteOptions) -> Object | None:
    """`old` with what a delete leaves on it; `old` itself if nothing changes; None if it can go at once."""
    meta, resource = old["metadata"], strategy.resource
    asked = None if options.grace_period is None else max(options.grace_period, 1 if options.grace_period < 0 else 0)
    if resource.kind == "Namespace" and not resource.group and old.get("spec", {}).get("finalizers"):
        if "deletionTimestamp" in meta:
            return old
        return {
            **old,
            "metadata": {**meta, "deletionTimestamp": clock.rfc3339()},
            "status": {**old.get("status", {}), "phase": "Terminating"},
        }
    if "deletionTimestamp" in meta:
        return _sooner(old, asked)
    finalizers = _finalizers(strategy, meta, options.propagation)
    grace = strategy.grace_period(old, asked)
    if not finalizers and not grace:
        return None
    changed = {key: value for key, value in meta.items() if key != "finalizers"}
    if finalizers:
        changed["finalizers"] = finalizers
    changed["deletionTimestamp"] = clock.rfc3339(clock.wall_time() + grace)
    changed["deletionGracePeriodSeconds"] = grace
    if "generation" in meta:
        changed["generation"] = meta["generation"] + 1
    return {**old, "metadata": changed}


def _sooner(old: Object, asked: int | None) -> Object | None:
    """A second delete may only shorten the time that is left; it does not change finalizers."""
    meta = old["metadata"]
    left = meta.get("deletionGracePeriodSeconds", 0)
    if not meta.get("finalizers") and (not left or asked == 0):
        return None
    if asked is None or asked >= left:
        return old
    began = datetime.fromisoformat(meta["deletionTimestamp"]).timestamp() - left
    changed = {**meta, "deletionTimestamp": clock.rfc3339(began + asked), "deletionGracePeriodSeconds": asked}
    return {**old, "metadata": changed}


def _finalizers(strategy: Strategy, meta: Object, policy: str) -> list[str]:
    """What must happen before the object goes. A policy that is named overrides the finalizers that it stands for;
    they override the kind's own policy."""
    before = meta.get("finalizers") or ()
    result = [each for each in before if each not in (_ORPHAN, _FOREGROUND)]
    if policy:
        orphan, foreground = policy == "Orphan", policy == "Foreground"
    else:
        said = next((each for each in before if each in (_ORPHAN, _FOREGROUND)), "")
        orphan, foreground = said == _ORPHAN or (not said and strategy.orphans), said == _FOREGROUND
    return result + [_ORPHAN] * orphan + [_FOREGROUND] * foreground
