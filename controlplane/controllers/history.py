"""ControllerRevisions: the remembered versions of a StatefulSet's or DaemonSet's template.

A revision holds the template as a patch that `kubectl rollout undo` applies; its name carries a hash; its number grows
with each change, and grows again when an old template comes back. Pure but for `Revisions.sync`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from controlplane.api import selectors
from controlplane.api.status import StatusError
from controlplane.client.resources import CONTROLLERREVISIONS, ApiResource
from controlplane.controllers import actions, meta
from controlplane.controllers.controllerref import controller_uid, new_ref
from controlplane.controllers.podcontrol import claimed
from controlplane.controllers.template import template_hash
from controlplane.controllers.view import View

HASH = "controller.kubernetes.io/hash"
REVISION_LABEL = "controller-revision-hash"
"""The pods' label that says which revision they are of."""


def snapshot(owner: meta.Object) -> meta.Object:
    """What a revision remembers of its owner: the template, as a patch that puts it back."""
    return {"spec": {"template": {"$patch": "replace", **owner["spec"]["template"]}}}


def template_of(revision: meta.Object) -> meta.Object:
    """The pod template in a revision."""
    return {k: v for k, v in revision["data"]["spec"]["template"].items() if k != "$patch"}


def manifest(resource: ApiResource, owner: meta.Object, number: int, collision_count: int | None = None) -> meta.Object:
    """The revision of the owner's current template."""
    data = snapshot(owner)
    digest = template_hash(data, collision_count)
    template_labels = (owner["spec"]["template"].get("metadata") or {}).get("labels") or {}
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": f"{meta.name(owner)}-{digest}",
            "namespace": meta.namespace(owner),
            "labels": {**template_labels, HASH: digest},
            "annotations": {
                k: v for k, v in meta.annotations(owner).items() if not k.endswith("last-applied-configuration")
            },
            "ownerReferences": [new_ref(resource.api_version, resource.kind, owner)],
        },
        "data": data,
        "revision": number,
    }


def superfluous(revisions: Sequence[meta.Object], live: set[str], limit: int) -> list[meta.Object]:
    """Those to delete, the oldest first: beyond `limit`, and not among the `live` names."""
    unused = sorted((r for r in revisions if meta.name(r) not in live), key=lambda r: r["revision"])
    return unused[: max(len(unused) - limit, 0)]


@dataclass(slots=True)
class Revisions:
    """The history of one owner: `all` of it, oldest first, and the `latest`, which is that of the current template."""

    all: list[meta.Object]
    latest: meta.Object

    def named(self, name: str) -> meta.Object | None:
        return next((r for r in self.all if meta.name(r) == name), None)


async def sync(
    writer: actions.Writer,
    view: View,
    resource: ApiResource,
    owner: meta.Object,
    selector: selectors.LabelSelector,
) -> Revisions:
    """Read the owner's history, adding or renumbering so that its current template is the latest."""
    found = await claimed(writer, CONTROLLERREVISIONS, view, resource, owner, selector)
    found.sort(key=lambda r: (r["revision"], meta.created(r), meta.name(r)))
    data = snapshot(owner)
    top = found[-1]["revision"] if found else 0
    same = next((r for r in reversed(found) if r["data"] == data), None)
    if same is not None and same["revision"] == top:
        return Revisions(found, same)
    if same is not None:
        latest = await writer.update(CONTROLLERREVISIONS, {**same, "revision": top + 1})
        found.remove(same)
    else:
        latest = await _create(writer, resource, owner, top + 1)
    return Revisions([*found, latest], latest)


async def _create(writer: actions.Writer, resource: ApiResource, owner: meta.Object, number: int) -> meta.Object:
    """Create the revision; when its name is taken by another template, hash again with another seed."""
    for collision_count in (None, *range(1, 10)):
        made = manifest(resource, owner, number, collision_count)
        try:
            return await writer.create(CONTROLLERREVISIONS, made)
        except StatusError as error:
            if error.reason != "AlreadyExists":
                raise
        there = await writer.client.get(CONTROLLERREVISIONS, meta.name(made), meta.namespace(made))
        if controller_uid(there) == meta.uid(owner) and there["data"] == made["data"]:
            return there
    raise RuntimeError(f"no free name for a revision of {meta.key(owner)}")
