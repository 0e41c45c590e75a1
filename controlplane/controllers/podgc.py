"""Pod garbage collector: pods that nobody else will ever remove.

`plan()` names them and the reason: pods of nodes that no longer exist (after a quarantine, and after asking the server
once more), terminating pods that were never scheduled, terminating pods on nodes declared out of service, and finished
pods beyond a threshold, the oldest first. They are marked Failed where they did not finish, and deleted without grace:
there is no agent left to wait for.
"""

import asyncio
import logging
from collections.abc import Iterable
from typing import NamedTuple

from controlplane import clock
from controlplane.api.status import StatusError
from controlplane.client.resources import NODES, PODS
from controlplane.controllers import meta, nodehealth, pods
from controlplane.controllers.reconcile import Context, Controller

log = logging.getLogger(__name__)
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"


class Doomed(NamedTuple):
    """A pod to remove, and why."""

    pod: meta.Object
    reason: str
    message: str


def plan(
    all_pods: Iterable[meta.Object], nodes: dict[str, meta.Object], missing: set[str], threshold: int
) -> list[Doomed]:
    """The pods to remove. `missing`: names of nodes known to be gone for long enough. `threshold`: finished pods that
    are kept, 0 for all."""
    result, finished = [], []
    for pod in all_pods:
        node = pods.node_name(pod)
        if node in missing:
            result.append(Doomed(pod, "DeletionByPodGC", "PodGC: node no longer exists"))
        elif meta.is_deleting(pod) and not node:
            result.append(Doomed(pod, "", ""))
        elif meta.is_deleting(pod) and node in nodes and _out_of_service(nodes[node]):
            result.append(Doomed(pod, "DeletionByPodGC", "PodGC: node out of service"))
        elif pods.is_terminal(pod) and not meta.is_deleting(pod):
            finished.append(pod)
    surplus = len(finished) - threshold if threshold > 0 else 0
    if surplus > 0:
        finished.sort(key=meta.created)
        result += [Doomed(pod, "", "") for pod in finished[:surplus]]
    return result


def _out_of_service(node: meta.Object) -> bool:
    return nodehealth.readiness(node) != "True" and any(
        t["key"] == OUT_OF_SERVICE for t in node["spec"].get("taints") or ()
    )


class PodGarbageCollector(Controller):
    """See the module. Looks at everything now and then: what it is for is rare."""

    name = "pod-garbage-collector-controller"
    workers = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.pods = self.view(PODS)
        self.nodes = self.view(NODES)
        self._missing_since: dict[str, float] = {}  # node -> loop time

    async def start(self) -> None:
        self.queue.add("all")

    async def reconcile(self, key: str) -> float | None:
        nodes = {meta.name(n): n for n in self.nodes.items()}
        missing = await self._missing(nodes)
        for pod, reason, message in plan(self.pods.items(), nodes, missing, self.config.terminated_pod_gc_threshold):
            try:
                await self._remove(pod, reason, message)
            except StatusError as error:
                log.info("pod=%s error=%s", meta.key(pod), error)  # next time
        return self.config.pod_gc_period_seconds

    async def _missing(self, nodes: dict[str, meta.Object]) -> set[str]:
        now = asyncio.get_running_loop().time()
        named = {pods.node_name(p) for p in self.pods.items()} - {""}
        self._missing_since = {n: self._missing_since.get(n, now) for n in named if n not in nodes}
        confirmed = set()
        for name, since in self._missing_since.items():
            if now - since >= self.config.pod_gc_quarantine_seconds:
                try:
                    await self.client.get(NODES, name)
                except StatusError as error:
                    if error.code == 404:
                        confirmed.add(name)
        return confirmed

    async def _remove(self, pod: meta.Object, reason: str, message: str) -> None:
        log.info("remove pod=%s node=%s reason=%s", meta.key(pod), pods.node_name(pod), reason or "Superfluous")
        if reason and not pods.is_terminal(pod):
            condition = {
                "type": "DisruptionTarget", "status": "True", "reason": reason, "message": message,
                "lastTransitionTime": clock.rfc3339(),
            }  # fmt: skip
            kept = [c for c in meta.status(pod).get("conditions") or () if c["type"] != "DisruptionTarget"]
            body = {"status": {"phase": "Failed", "conditions": [*kept, condition]}}
            await self.writer.patch(PODS, pod, body, "status")
        await self.writer.delete(PODS, pod, grace_period_seconds=0)
