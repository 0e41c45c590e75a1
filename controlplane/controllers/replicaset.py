"""ReplicaSet (and ReplicationController): keep `spec.replicas` pods of one template.

`plan()` decides from the pods there are; reconcile creates or deletes the difference and writes the status. The
rules follow pkg/controller/replicaset: only active pods count (terminating and finished ones are replaced at once), at
most 500 are made or deleted a pass, and pods to delete are ranked (pods.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from controlplane import clock
from controlplane.api import selectors
from controlplane.client.resources import PODS, REPLICASETS, REPLICATIONCONTROLLERS, ApiResource
from controlplane.controllers import meta, pods
from controlplane.controllers.controllerref import controller_of, controller_uid, new_ref
from controlplane.controllers.podcontrol import PodControl, claimed, pod_from_template
from controlplane.controllers.reconcile import Context, Controller

BURST_REPLICAS = 500


@dataclass(slots=True)
class Plan:
    """What one pass does."""

    create: int = 0
    delete: list[meta.Object] = field(default_factory=list)


def plan(rs: meta.Object, owned: Sequence[meta.Object], related: Sequence[meta.Object], now: float) -> Plan:
    """How many pods to create or which to delete. `owned`: all pods of this set; `related`: those of its owner's other
    sets as well, for spreading."""
    active = [p for p in owned if pods.is_active(p)]
    missing = meta.spec_replicas(rs) - len(active)
    if meta.is_deleting(rs) or missing == 0:
        return Plan()
    if missing > 0:
        return Plan(create=min(missing, BURST_REPLICAS))
    surplus = min(-missing, BURST_REPLICAS)
    if surplus == len(active):
        return Plan(delete=active)
    return Plan(delete=pods.ranked_for_deletion(active, related, now)[:surplus])


def status(rs: meta.Object, owned: Sequence[meta.Object], error: Exception | None, now: float) -> meta.Object:
    """The status that `owned` pods and the outcome of the pass make."""
    active = [p for p in owned if pods.is_active(p)]
    wait = rs["spec"].get("minReadySeconds") or 0
    template_labels = ((rs["spec"].get("template") or {}).get("metadata") or {}).get("labels") or {}
    labelled = sum(template_labels.items() <= meta.labels(p).items() for p in active)
    ready = sum(pods.is_ready(p) for p in active)
    available = sum(pods.is_available(p, wait, now) for p in active)
    result: meta.Object = {"replicas": len(active), "observedGeneration": meta.generation(rs)}
    numbers = {"fullyLabeledReplicas": labelled, "readyReplicas": ready, "availableReplicas": available}
    if rs["kind"] == "ReplicaSet":
        numbers["terminatingReplicas"] = sum(pods.is_terminating(p) for p in owned)
    result |= {k: v for k, v in numbers.items() if v}
    conditions = [c for c in meta.status(rs).get("conditions") or () if c["type"] != "ReplicaFailure"]
    if error is not None:
        current = meta.condition(meta.status(rs), "ReplicaFailure")
        reason = "FailedCreate" if len(active) < meta.spec_replicas(rs) else "FailedDelete"
        conditions.append(current or {
            "type": "ReplicaFailure", "status": "True", "reason": reason, "message": str(error),
            "lastTransitionTime": clock.rfc3339(now),
        })  # fmt: skip
    return {**result, "conditions": conditions} if conditions else result


class ReplicaSetController(Controller):
    """See the module."""

    name = "replicaset-controller"
    workers = 5
    resource: ApiResource = REPLICASETS

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.pods = self.view(PODS)
        self.sets = self.watch(self.resource, ignore_status=True)
        self.control = PodControl(self.writer, self.event)
        self.pods.add_handler(added=self._pod_changed, updated=self._pod_updated, deleted=self._pod_changed)

    def selector(self, rs: meta.Object) -> selectors.LabelSelector:
        return selectors.from_selector(rs["spec"].get("selector"))

    def _pod_updated(self, old: meta.Object, new: meta.Object) -> None:
        if controller_uid(old) != controller_uid(new):
            self._pod_changed(old)
        # a pod that stops counting is replaced at once; all else only changes the status
        self._pod_changed(new, at_once=pods.is_active(old) and not pods.is_active(new))

    def _pod_changed(self, pod: meta.Object, at_once: bool = True) -> None:
        ref = controller_of(pod)
        if ref is not None:
            if ref["kind"] == self.resource.kind and ref["apiVersion"] == self.resource.api_version:
                key = f"{meta.namespace(pod)}/{ref['name']}"
                self.queue.add(key) if at_once else self.enqueue_paced(key)
        elif not meta.is_deleting(pod):
            for rs in self.sets.by_index("namespace", meta.namespace(pod)):
                if self.selector(rs).matches(meta.labels(pod)):
                    self.enqueue(rs)

    async def reconcile(self, key: str) -> float | None:
        rs = self.sets.get(key)
        if rs is None:
            return None
        owned = await claimed(self.writer, PODS, self.pods, self.resource, rs, self.selector(rs))
        now = clock.wall_time()
        decision = plan(rs, owned, self._related(rs, owned), now)
        error = None
        if decision.create:
            ref = new_ref(self.resource.api_version, self.resource.kind, rs)
            pod = pod_from_template(rs["spec"]["template"], rs, ref)
            error = await self.control.create(rs, [pod] * decision.create)
        elif decision.delete:
            error = await self.control.delete(rs, decision.delete)
        if decision.create or decision.delete:
            owned = self.pods.by_index("owner", meta.uid(rs))  # our own writes are in it already
        await self._write_status(key, owned, error)
        if error is not None:
            raise error
        active = [p for p in owned if pods.is_active(p)]
        return pods.next_available(active, rs["spec"].get("minReadySeconds") or 0, clock.wall_time())

    def _related(self, rs: meta.Object, owned: list[meta.Object]) -> list[meta.Object]:
        owner = controller_uid(rs)
        if not owner:
            return owned
        siblings = self.sets.by_index("owner", owner)
        return [pod for sibling in siblings for pod in self.pods.by_index("owner", meta.uid(sibling))]

    async def _write_status(self, key: str, owned: Sequence[meta.Object], error: Exception | None) -> None:
        rs = self.sets.get(key)
        if rs is None:
            return
        fresh = status(rs, owned, error, clock.wall_time())
        if fresh != {"replicas": 0} | meta.status(rs):
            await self.writer.update(self.resource, {**rs, "status": fresh}, "status")


class ReplicationControllerController(ReplicaSetController):
    """The same for v1 ReplicationControllers, whose selector is a plain map."""

    name = "replicationcontroller-controller"
    resource = REPLICATIONCONTROLLERS

    def selector(self, rs: meta.Object) -> selectors.LabelSelector:
        return selectors.from_map(rs["spec"].get("selector"))
