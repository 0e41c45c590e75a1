"""Disruption: the status of PodDisruptionBudgets, which the eviction subresource asks before it lets a pod go.

`status()` counts the pods that a budget selects: how many work, how many must, so how many may be evicted now. The
expected number comes from the pods' controllers where the budget is relative to it (a percentage, or maxUnavailable).
`disruptedPods` (evictions granted that the cache does not show yet) is written by the API server and aged out here.
"""

from collections.abc import Sequence

from controlplane import clock
from controlplane.api import selectors
from controlplane.client.resources import (
    DEPLOYMENTS,
    PODDISRUPTIONBUDGETS,
    PODS,
    REPLICASETS,
    REPLICATIONCONTROLLERS,
    STATEFULSETS,
)
from controlplane.controllers import meta, pods
from controlplane.controllers.controllerref import controller_of
from controlplane.controllers.reconcile import Context, Controller

_DISRUPTED_SECONDS = 120.0


def status(pdb: meta.Object, selected: Sequence[meta.Object], expected: int, now: float) -> meta.Object:
    """`selected`: all pods that match; `expected`: how many there shall be, by their controllers' scale."""
    spec, before = pdb["spec"], meta.status(pdb)
    if spec.get("minAvailable") is not None:
        desired = meta.scaled(spec["minAvailable"], expected, round_up=True)
    else:
        desired = max(expected - meta.scaled(spec.get("maxUnavailable", 0), expected, round_up=True), 0)
    disrupted = {}
    for name, moment in (before.get("disruptedPods") or {}).items():
        pod = next((p for p in selected if meta.name(p) == name), None)
        if pod is not None and not meta.is_deleting(pod) and clock.parse_rfc3339(moment) + _DISRUPTED_SECONDS > now:
            disrupted[name] = moment
    healthy = sum(pods.is_active(p) and pods.is_ready(p) and meta.name(p) not in disrupted for p in selected)
    allowed = max(healthy - desired, 0) if expected > 0 else 0
    result: meta.Object = {
        "currentHealthy": healthy, "desiredHealthy": desired, "expectedPods": expected, "disruptionsAllowed": allowed,
        "observedGeneration": meta.generation(pdb),
    }  # fmt: skip
    if disrupted:
        result["disruptedPods"] = disrupted
    value, reason = ("True", "SufficientPods") if allowed else ("False", "InsufficientPods")
    current = meta.condition(before, "DisruptionAllowed")
    fresh = {
        "type": "DisruptionAllowed", "status": value, "reason": reason, "message": "",
        "observedGeneration": meta.generation(pdb), "lastTransitionTime": clock.rfc3339(now),
    }  # fmt: skip
    if current is not None and current["status"] == value:
        fresh["lastTransitionTime"] = current["lastTransitionTime"]
    return {**result, "conditions": [fresh]}


class DisruptionController(Controller):
    """See the module."""

    name = "disruption-controller"
    workers = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.pods = self.view(PODS)
        self.scales = {r.kind: self.view(r) for r in (REPLICASETS, REPLICATIONCONTROLLERS, STATEFULSETS, DEPLOYMENTS)}
        self.budgets = self.watch(PODDISRUPTIONBUDGETS)
        self.pods.add_handler(added=self._pod, updated=lambda old, new: self._pod(new), deleted=self._pod)

    def _pod(self, pod: meta.Object) -> None:
        for pdb in self.budgets.by_index("namespace", meta.namespace(pod)):
            if _selector(pdb).matches(meta.labels(pod)):
                self.enqueue(pdb)

    async def reconcile(self, key: str) -> float | None:
        pdb = self.budgets.get(key)
        if pdb is None or meta.is_deleting(pdb):
            return None
        matches = _selector(pdb).matches
        selected = [p for p in self.pods.by_index("namespace", meta.namespace(pdb)) if matches(meta.labels(p))]
        fresh = status(pdb, selected, self._expected(pdb, selected), clock.wall_time())
        if fresh != meta.status(pdb):
            await self.writer.update(PODDISRUPTIONBUDGETS, {**pdb, "status": fresh}, "status")
        return _DISRUPTED_SECONDS if fresh.get("disruptedPods") else None

    def _expected(self, pdb: meta.Object, selected: Sequence[meta.Object]) -> int:
        """With an absolute minAvailable the pods that are there; else what their controllers want."""
        if isinstance(pdb["spec"].get("minAvailable"), int):
            return len([p for p in selected if pods.is_active(p)])
        owners: dict[str, int] = {}
        loose = 0
        for pod in selected:
            ref = controller_of(pod)
            owner = self._owner(meta.namespace(pod), ref) if ref else None
            if owner is None:
                loose += pods.is_active(pod)
            else:
                owners[meta.uid(owner)] = meta.spec_replicas(owner)
        return sum(owners.values()) + loose

    def _owner(self, namespace: str, ref: meta.Object) -> meta.Object | None:
        """The scaled object at the end of the chain: a ReplicaSet's Deployment rather than the ReplicaSet."""
        view = self.scales.get(ref["kind"])
        found = view.get(f"{namespace}/{ref['name']}") if view is not None else None
        if found is None or meta.uid(found) != ref["uid"]:
            return None
        above = controller_of(found)
        return (self._owner(namespace, above) if above else None) or found


def _selector(pdb: meta.Object) -> selectors.LabelSelector:
    return selectors.from_selector(pdb["spec"].get("selector"))
