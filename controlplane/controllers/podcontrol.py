"""Making and deleting pods for a controller that keeps a number of them: ReplicaSet, DaemonSet, StatefulSet, Job.

`pod_from_template()` is pure. `PodControl` executes creations in slow-start batches and deletions all at once, and
records the events users know (SuccessfulCreate, FailedCreate, SuccessfulDelete, FailedDelete). Adoption of orphans and
release of strangers is here too, since it is the same for all of them.
"""

from collections.abc import Callable, Iterable, Sequence

from controlplane.api.selectors import LabelSelector
from controlplane.api.status import StatusError
from controlplane.client.resources import PODS, ApiResource
from controlplane.controllers import actions, controllerref, meta
from controlplane.controllers.view import View

Event = Callable[..., None]


def pod_from_template(
    template: meta.Object, owner: meta.Object, owner_ref: meta.Object, *, name: str = ""
) -> meta.Object:
    """A pod as `template` describes it, owned by `owner`: called `name`, or given a name by the server."""
    inside = template.get("metadata") or {}
    pod_meta = {k: inside[k] for k in ("labels", "annotations", "finalizers") if inside.get(k)}
    pod_meta |= {"namespace": meta.namespace(owner), "ownerReferences": [owner_ref]}
    if name:
        pod_meta["name"] = name
    else:
        pod_meta["generateName"] = _prefix(meta.name(owner))
    return {"apiVersion": "v1", "kind": "Pod", "metadata": pod_meta, "spec": template["spec"]}


def _prefix(owner_name: str) -> str:
    return owner_name + "-"  # the server shortens a prefix that would make the name too long


class PodControl:
    """Executes pod writes for one controller; `event(obj, reason, message, warning=…)` records events."""

    def __init__(self, writer: actions.Writer, event: Event) -> None:
        self.writer = writer
        self._event = event

    async def create(self, owner: meta.Object, manifests: Sequence[meta.Object]) -> Exception | None:
        """Create pods in slow-start batches. Returns the first failure; a namespace that is going away is none."""
        wanted = [actions.Create(PODS, pod) for pod in manifests]

        def done(action: actions.Action, pod: meta.Object | None) -> None:
            assert pod is not None
            self._event(owner, "SuccessfulCreate", f"Created pod: {meta.name(pod)}")

        def failed(action: actions.Action, error: Exception) -> None:
            if not namespace_terminating(error):
                self._event(owner, "FailedCreate", f"Error creating: {error}", warning=True)

        error = await actions.slow_start(self.writer, wanted, done, failed)
        return None if error is not None and namespace_terminating(error) else error

    async def delete(self, owner: meta.Object, doomed: Iterable[meta.Object]) -> Exception | None:
        """Delete pods, all at once. Returns the first failure."""

        def done(action: actions.Action, answer: meta.Object | None) -> None:
            assert isinstance(action, actions.Delete)
            self._event(owner, "SuccessfulDelete", f"Deleted pod: {meta.name(action.obj)}")

        def failed(action: actions.Action, error: Exception) -> None:
            self._event(owner, "FailedDelete", f"Error deleting: {error}", warning=True)

        return await actions.all_at_once(self.writer, [actions.Delete(PODS, p) for p in doomed], done, failed)


def namespace_terminating(error: Exception) -> bool:
    """Whether the server refused a create because the namespace is being deleted."""
    if not isinstance(error, StatusError):
        return False
    causes = (error.to_dict().get("details") or {}).get("causes") or ()
    return any(cause.get("reason") == "NamespaceTerminating" for cause in causes)


async def claimed(
    writer: actions.Writer,
    resource: ApiResource,
    view: View,
    owner_resource: ApiResource,
    owner: meta.Object,
    selector: LabelSelector,
) -> list[meta.Object]:
    """The objects of `resource` that `owner` controls, after adopting matching orphans and releasing strangers.

    Before the first adoption the owner is read from the server: a stale cache must not adopt for an owner that is being
    deleted, or its orphans would be deleted with it."""
    ours = view.by_index("owner", meta.uid(owner))
    orphans = view.by_index("owner", controllerref.orphans(meta.namespace(owner)))
    decision = controllerref.claim(owner, selector, [*ours, *orphans])
    for obj in decision.release:
        await _unless_gone(writer, resource, obj, controllerref.release_patch(meta.uid(owner), obj))
    if decision.adopt:
        fresh = await writer.client.get(owner_resource, meta.name(owner), meta.namespace(owner))
        if meta.uid(fresh) != meta.uid(owner) or meta.is_deleting(fresh):
            return decision.owned
        ref = controllerref.new_ref(owner_resource.api_version, owner_resource.kind, owner)
        for obj in decision.adopt:
            adopted = await _unless_gone(writer, resource, obj, controllerref.adoption_patch(ref, obj))
            if adopted is not None:
                decision.owned.append(adopted)
    return decision.owned


async def _unless_gone(
    writer: actions.Writer, resource: ApiResource, obj: meta.Object, body: meta.Object
) -> meta.Object | None:
    try:
        return await writer.patch(resource, obj, body)
    except StatusError as error:
        if error.code not in (404, 422):  # 422: the name now belongs to another object (uid differs)
            raise
        return None
