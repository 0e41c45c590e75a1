"""Deployment: roll a new pod template out over ReplicaSets, one a revision, without leaving the limits asked for.

`plan()` is the whole decision: from the Deployment and its ReplicaSets to the next writes and the status. It puts
together which ReplicaSet is the new one (deployment_revision.py), how large each shall be (deployment_rolling.py) and
what to say about it (deployment_status.py). Pods are never touched here: ReplicaSets make and delete them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from controlplane import clock
from controlplane.api import selectors
from controlplane.api.status import StatusError
from controlplane.client.resources import DEPLOYMENTS, PODS, REPLICASETS
from controlplane.controllers import actions, meta, pods
from controlplane.controllers import deployment_revision as revisions
from controlplane.controllers import deployment_rolling as rolling
from controlplane.controllers import deployment_status as conditions
from controlplane.controllers.controllerref import controller_of, controller_uid
from controlplane.controllers.podcontrol import claimed
from controlplane.controllers.reconcile import Context, Controller
from controlplane.controllers.template import same_template


@dataclass(slots=True)
class Plan:
    """One pass: writes in order, each with the event that tells of it; then what to write to the Deployment itself."""

    writes: list[tuple[actions.Action, str]] = field(default_factory=list)
    revision: str = ""
    """The revision annotation to set, "" if it is right."""
    status: meta.Object | None = None
    """The status to write; None if nothing changed."""
    again: float | None = None
    """Seconds until the progress deadline, if one runs."""


def plan(deployment: meta.Object, sets: Sequence[meta.Object], old_pods: Callable[[str], bool], now: float) -> Plan:
    """`sets`: the ReplicaSets of this Deployment. `old_pods(uid)`: whether unfinished pods exist that belong to any set
    but that with this UID (asked only for the strategy Recreate)."""
    new = revisions.find_new(deployment, sets)
    old = [rs for rs in sets if rs is not new]
    if meta.is_deleting(deployment):
        return _with_status(Plan(), deployment, conditions.counters(deployment, new, sets, now), new, now)
    result = Plan()
    note = conditions.pause_note(deployment)
    current = new
    if new is not None:
        current = revisions.brought_up_to_date(deployment, new, old)
        if conditions.has_deadline(deployment) and meta.condition(meta.status(deployment), "Progressing") is None:
            note = note or conditions.Note("True", "FoundNewReplicaSet", f'Found new replica set "{meta.name(new)}"')
    paused = bool(deployment["spec"].get("paused"))
    held = paused or rolling.is_scaling(deployment, sets)
    if held:
        sizes = rolling.rescale(deployment, current, old)
    elif not rolling.is_rolling(deployment):
        left = old_pods(meta.uid(new) if new else "")
        if current is None and not rolling.active(old) and not left:
            current, note = _create(result, deployment, old)
            sizes = []
        else:
            sizes = rolling.recreate(deployment, current, old, left)
    else:
        if current is None:
            current, note = _create(result, deployment, old)
        sizes = rolling.grow_new(deployment, current, old) or rolling.shrink_old(deployment, current, old)
    current = _resize(result, deployment, new, current, sizes)

    wanted = [*old, current] if current is not None else old
    if held:
        status = conditions.counters(deployment, current, wanted, now)
        if note is not None:
            status["conditions"] = conditions.set_condition(status["conditions"], "Progressing", note, now)
    else:
        status = conditions.rollout_status(deployment, current, wanted, note, now)
    if paused or (not held and conditions.is_complete(deployment, status)):
        for rs in revisions.superfluous(deployment, old):
            result.writes.append((actions.Delete(REPLICASETS, rs), ""))
    return _with_status(result, deployment, status, current, now)


def _create(
    result: Plan, deployment: meta.Object, old: Sequence[meta.Object]
) -> tuple[meta.Object, conditions.Note | None]:
    made = revisions.manifest(deployment, old)
    size, name = meta.spec_replicas(made), meta.name(made)
    told = f"Scaled up replica set {name} from 0 to {size}" if size else ""
    result.writes.append((actions.Create(REPLICASETS, made), told))
    return made, conditions.Note("True", "NewReplicaSetCreated", f'Created new replica set "{name}"')


def _resize(
    result: Plan, deployment: meta.Object, new: meta.Object | None, current: meta.Object | None, sizes: rolling.Sizes
) -> meta.Object | None:
    """Append the updates that give ReplicaSets their sizes and annotations; returns the new set as it will be."""
    for rs, size in sizes:
        before = meta.spec_replicas(rs)
        notes = meta.annotations(rs) | revisions.size_annotations(deployment)
        changed = rs
        if notes != meta.annotations(rs):
            changed = meta.with_metadata(changed, annotations=notes)
        if size != before:
            changed = meta.with_spec(changed, replicas=size)
        told = f"Scaled {'up' if size > before else 'down'} replica set {meta.name(rs)} from {before} to {size}"
        if rs is current:
            if changed is not new:
                result.writes.append((actions.Update(REPLICASETS, changed), told if size != before else ""))
            current = new = changed
        elif changed is not rs:
            result.writes.append((actions.Update(REPLICASETS, changed), told if size != before else ""))
    if new is not None and current is not None and current is not new:
        result.writes.append((actions.Update(REPLICASETS, current), ""))
    return current


def _with_status(
    result: Plan, deployment: meta.Object, status: meta.Object, new: meta.Object | None, now: float
) -> Plan:
    number = meta.annotations(new).get(revisions.REVISION) if new is not None else None
    if number is not None and meta.annotations(deployment).get(revisions.REVISION) != number:
        result.revision = number
    result.status = status if status != meta.status(deployment) else None
    if not conditions.is_complete(deployment, status):
        left = conditions.overdue_in(deployment, status["conditions"], now)
        result.again = left + 1 if left else None
    return result


class DeploymentController(Controller):
    """See the module."""

    name = "deployment-controller"
    workers = 5

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.pods = self.view(PODS)
        self.sets = self.view(REPLICASETS)
        self.deployments = self.watch(DEPLOYMENTS, ignore_status=True)
        self.sets.add_handler(added=self._set_changed, updated=self._set_updated, deleted=self._set_changed)
        self.pods.add_handler(deleted=self._pod_gone, updated=self._pod_updated)

    def _set_updated(self, old: meta.Object, new: meta.Object) -> None:
        if controller_uid(old) != controller_uid(new):
            self._set_changed(old)
        self._set_changed(new)

    def _set_changed(self, rs: meta.Object) -> None:
        ref = controller_of(rs)
        if ref is not None:
            if ref["kind"] == "Deployment":
                self.queue.add(f"{meta.namespace(rs)}/{ref['name']}")
            return
        for deployment in self.deployments.by_index("namespace", meta.namespace(rs)):
            if _selector(deployment).matches(meta.labels(rs)):
                self.enqueue(deployment)

    def _pod_updated(self, old: meta.Object, new: meta.Object) -> None:
        if pods.is_terminal(new) and not pods.is_terminal(old):
            self._pod_gone(new)

    def _pod_gone(self, pod: meta.Object) -> None:
        """Recreate waits for the last old pod."""
        ref = controller_of(pod)
        rs = self.sets.get(f"{meta.namespace(pod)}/{ref['name']}") if ref and ref["kind"] == "ReplicaSet" else None
        owner = controller_of(rs) if rs else None
        if owner is not None and owner["kind"] == "Deployment":
            deployment = self.deployments.get(f"{meta.namespace(pod)}/{owner['name']}")
            if deployment is not None and not rolling.is_rolling(deployment):
                self.enqueue(deployment)

    async def reconcile(self, key: str) -> float | None:
        deployment = self.deployments.get(key)
        if deployment is None:
            return None
        selector = _selector(deployment)
        if selector.empty:
            self.event(
                deployment, "SelectingAll",
                "This deployment is selecting all pods. A non-empty selector is required.", warning=True,
            )  # fmt: skip
            return None
        sets = await claimed(self.writer, REPLICASETS, self.sets, DEPLOYMENTS, deployment, selector)

        def old_pods(new_uid: str) -> bool:
            others = (rs for rs in sets if meta.uid(rs) != new_uid)
            return any(not pods.is_terminal(p) for rs in others for p in self.pods.by_index("owner", meta.uid(rs)))

        decision = plan(deployment, sets, old_pods, clock.wall_time())
        for write, told in decision.writes:
            if isinstance(write, actions.Create):
                await self._create(deployment, write)
            else:
                await self.perform(write)
            if told:
                self.event(deployment, "ScalingReplicaSet", told)
        if decision.revision:
            note = {"metadata": {"annotations": {revisions.REVISION: decision.revision}}}
            deployment = await self.writer.patch(DEPLOYMENTS, deployment, note)
        if decision.status is not None:
            await self.writer.update(DEPLOYMENTS, {**deployment, "status": decision.status}, "status")
        return decision.again

    async def _create(self, deployment: meta.Object, write: actions.Create) -> None:
        """Create the new ReplicaSet. Its name is a hash: when it is taken by ours, the cache was behind; when it is
        taken by another template, the next pass hashes with a higher collisionCount."""
        try:
            await self.perform(write)
            return
        except StatusError as error:
            if error.reason != "AlreadyExists":
                await self._creation_failed(deployment, write, error)
                raise
            there = await self.client.get(REPLICASETS, meta.name(write.obj), meta.namespace(write.obj))
            ours = controller_uid(there) == meta.uid(deployment)
            if not (ours and same_template(there["spec"]["template"], deployment["spec"]["template"])):
                count = (meta.status(deployment).get("collisionCount") or 0) + 1
                status = {**meta.status(deployment), "collisionCount": count}
                await self.writer.update(DEPLOYMENTS, {**deployment, "status": status}, "status")
            raise

    async def _creation_failed(self, deployment: meta.Object, write: actions.Create, error: StatusError) -> None:
        message = f'Failed to create new replica set "{meta.name(write.obj)}": {error}'
        self.event(deployment, "ReplicaSetCreateError", message, warning=True)
        if not conditions.has_deadline(deployment):
            return
        note = conditions.Note("False", "ReplicaSetCreateError", message)
        before = meta.status(deployment).get("conditions") or []
        after = conditions.set_condition(before, "Progressing", note, clock.wall_time())
        if after is not before:
            status = {**meta.status(deployment), "conditions": after}
            await self.writer.update(DEPLOYMENTS, {**deployment, "status": status}, "status")


def _selector(deployment: meta.Object) -> selectors.LabelSelector:
    return selectors.from_selector(deployment["spec"].get("selector"))
