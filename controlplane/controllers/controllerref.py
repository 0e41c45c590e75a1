"""Who owns what: ownerReferences with `controller: true`, and adopting or releasing objects by selector.

`claim()` is pure and decides; `Claims` executes: it adopts orphans that match and releases owned objects that no longer
do (pkg/controller/controller_ref_manager.go). The UID is always compared: an owner made again under the same name is
another owner.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Protocol

from controlplane.controllers import meta


class Matcher(Protocol):
    """A compiled label selector (`controlplane.api.selectors.LabelSelector`)."""

    def matches(self, labels: dict[str, str]) -> bool: ...


def controller_of(obj: meta.Object) -> meta.Object | None:
    """The ownerReference of the managing controller, if there is one."""
    for ref in obj["metadata"].get("ownerReferences") or ():
        if ref.get("controller"):
            return ref  # type: ignore[no-any-return]
    return None


def controller_uid(obj: meta.Object) -> str:
    ref = controller_of(obj)
    return ref["uid"] if ref else ""


def new_ref(api_version: str, kind: str, owner: meta.Object) -> meta.Object:
    """The ownerReference that a controller writes: it manages the object and, in the foreground, waits for it."""
    return {
        "apiVersion": api_version,
        "kind": kind,
        "name": meta.name(owner),
        "uid": meta.uid(owner),
        "controller": True,
        "blockOwnerDeletion": True,
    }


def owner_index(obj: meta.Object) -> tuple[str, ...]:
    """Informer index `owner`: the controller's UID, or `orphans/<namespace>` of what has none."""
    ref = controller_of(obj)
    return (ref["uid"],) if ref else (orphans(meta.namespace(obj)),)


def orphans(namespace: str) -> str:
    """The value of the index `owner` for objects of `namespace` without controller."""
    return f"orphans/{namespace}"


@dataclass(slots=True)
class Claim:
    """What to do with candidates: `owned` stay, `adopt` get our reference, `release` lose it."""

    owned: list[meta.Object] = field(default_factory=list)
    adopt: list[meta.Object] = field(default_factory=list)
    release: list[meta.Object] = field(default_factory=list)


def claim(owner: meta.Object, selector: Matcher, candidates: Iterable[meta.Object]) -> Claim:
    """Sort `candidates` (same namespace) by what their references and labels say. An owner that is being deleted
    neither adopts nor releases; what is being deleted is left alone."""
    result = Claim()
    leaving = meta.is_deleting(owner)
    for obj in candidates:
        ref = controller_of(obj)
        matches = selector.matches(meta.labels(obj))
        if ref is not None:
            if ref["uid"] != meta.uid(owner):
                continue
            if matches:
                result.owned.append(obj)
            elif not leaving:
                result.release.append(obj)
        elif matches and not leaving and not meta.is_deleting(obj):
            result.adopt.append(obj)
    return result


def adoption_patch(owner_ref: meta.Object, obj: meta.Object) -> dict[str, Any]:
    """A merge patch that adds `owner_ref` to `obj`, guarded by its resourceVersion (merge patches replace lists)."""
    refs = [*(obj["metadata"].get("ownerReferences") or ()), owner_ref]
    return {"metadata": _guarded(obj, refs)}


def release_patch(owner_uid: str, obj: meta.Object) -> dict[str, Any]:
    """A merge patch that removes the references to `owner_uid` from `obj`, guarded likewise."""
    refs = [r for r in obj["metadata"].get("ownerReferences") or () if r["uid"] != owner_uid]
    return {"metadata": _guarded(obj, refs or None)}


def _guarded(obj: meta.Object, refs: list[meta.Object] | None) -> dict[str, Any]:
    # the uid is a precondition as well: a PATCH that would change it is refused
    return {"uid": meta.uid(obj), "resourceVersion": obj["metadata"]["resourceVersion"], "ownerReferences": refs}
