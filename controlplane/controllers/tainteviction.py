"""Taint eviction: delete the pods of a node with `NoExecute` taints that they do not tolerate, when their time is up.

`grace()` is the rule: a taint that is not tolerated evicts at once; one tolerated with `tolerationSeconds` evicts after
the shortest of them; one tolerated for ever never. Time runs from the taint's `timeAdded`, so that a restart of this
process does not start it again. Removing the taint cancels: the pod is looked at anew.
"""

from collections.abc import Iterable, Sequence

from controlplane import clock
from controlplane.client.resources import NODES, PODS
from controlplane.controllers import meta, pods
from controlplane.controllers.reconcile import Context, Controller


def tolerates(toleration: meta.Object, taint: meta.Object) -> bool:
    """v1.Toleration.ToleratesTaint."""
    if toleration.get("effect") not in (None, "", taint["effect"]):
        return False
    key = toleration.get("key") or ""
    if key and key != taint["key"]:
        return False
    operator = toleration.get("operator") or "Equal"
    if operator == "Exists":
        return True
    return bool(key) and operator == "Equal" and (toleration.get("value") or "") == (taint.get("value") or "")


def grace(tolerations: Sequence[meta.Object], taints: Iterable[meta.Object]) -> float | None:
    """Seconds that a pod may stay on a node with these NoExecute taints: 0 not at all, None for ever."""
    shortest: float | None = None
    for taint in taints:
        fitting = [t for t in tolerations if tolerates(t, taint)]
        if not fitting:
            return 0.0
        for toleration in fitting:
            seconds = toleration.get("tolerationSeconds")
            if seconds is not None:
                shortest = min(max(float(seconds), 0.0), float("inf") if shortest is None else shortest)
    return shortest


def evicting_taints(node: meta.Object) -> list[meta.Object]:
    return [t for t in node["spec"].get("taints") or () if t["effect"] == "NoExecute"]


class TaintEvictionController(Controller):
    """See the module. Keys are pods."""

    name = "taint-eviction-controller"
    workers = 8

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.nodes = self.view(NODES)
        self.pods = self.view(PODS)
        self._waiting: dict[str, tuple[str, float]] = {}  # pod -> (its UID, when its time began, wall clock)
        self.pods.add_handler(added=self._pod, updated=self._pod_updated, deleted=self._pod_gone)
        self.nodes.add_handler(added=self._node, updated=self._node_updated)

    def _pod(self, pod: meta.Object) -> None:
        node = self.nodes.get(pods.node_name(pod)) if pods.node_name(pod) else None
        if node is not None and evicting_taints(node):
            self.enqueue(pod)

    def _pod_updated(self, old: meta.Object, new: meta.Object) -> None:
        tolerations = (old["spec"].get("tolerations"), new["spec"].get("tolerations"))
        if pods.node_name(old) != pods.node_name(new) or tolerations[0] != tolerations[1]:
            self._pod(new)

    def _pod_gone(self, pod: meta.Object) -> None:
        self._waiting.pop(meta.key(pod), None)

    def _node(self, node: meta.Object) -> None:
        if evicting_taints(node):
            self._all_pods(node)

    def _node_updated(self, old: meta.Object, new: meta.Object) -> None:
        if evicting_taints(old) != evicting_taints(new):
            self._all_pods(new)

    def _all_pods(self, node: meta.Object) -> None:
        for pod in self.pods.by_index("node", meta.name(node)):
            self.enqueue(pod)

    async def reconcile(self, key: str) -> float | None:
        pod = self.pods.get(key)
        node = self.nodes.get(pods.node_name(pod)) if pod is not None else None
        if pod is None or node is None or meta.is_deleting(pod) or pods.is_terminal(pod):
            return None
        taints = evicting_taints(node)
        allowed = grace(pod["spec"].get("tolerations") or [], taints) if taints else None
        if allowed is None:
            if self._waiting.pop(key, None) is not None:
                self.event(pod, "TaintManagerEviction", f"Cancelling deletion of Pod {key}")
            return None
        uid, since = self._waiting.get(key, ("", 0.0))
        now = clock.wall_time()
        if uid != meta.uid(pod):
            since = min([now, *(clock.parse_rfc3339(t["timeAdded"]) for t in taints if t.get("timeAdded"))])
            self._waiting[key] = (meta.uid(pod), since)
        left = since + allowed - now
        if left > 0:
            return left
        self.event(pod, "TaintManagerEviction", f"Marking for deletion Pod {key}")
        await self._condemn(pod)
        await self.writer.delete(PODS, pod)
        self._waiting.pop(key, None)
        return None

    async def _condemn(self, pod: meta.Object) -> None:
        """Say why it is deleted: Jobs and people read the condition."""
        condition = {
            "type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager",
            "message": "Taint manager: deleting due to NoExecute taint", "lastTransitionTime": clock.rfc3339(),
        }  # fmt: skip
        kept = [c for c in meta.status(pod).get("conditions") or () if c["type"] != "DisruptionTarget"]
        guard = {"resourceVersion": pod["metadata"]["resourceVersion"]}
        body = {"metadata": guard, "status": {"conditions": [*kept, condition]}}
        await self.writer.patch(PODS, pod, body, "status")
