"""Node lifecycle: notice that a node is silent, mark it and its pods, and taint it so that its pods are evicted.

A node speaks by renewing its Lease or posting its status. There is no polling: each node has one timer, due when its
grace period would end, and set again by whatever it says. Silence is measured on our own monotonic clock from when we
last saw a change, so clocks that differ do no harm, and silence during which we could not reach the API server
ourselves does not count. The decisions are in nodehealth.py; evicting pods is tainteviction.py's.
"""

import asyncio

from controlplane import clock
from controlplane.client.errors import Unreachable
from controlplane.client.resources import LEASES, NODES, PODS
from controlplane.controllers import meta, pods
from controlplane.controllers import nodehealth as health
from controlplane.controllers.reconcile import Context, Controller

LEASE_NAMESPACE = "kube-node-lease"
_AFTER_DEAFNESS_SECONDS = 20.0
"""What nodes are given to speak after the API server was away: twice their lease's renewal."""


class NodeLifecycleController(Controller):
    """See the module."""

    name = "node-lifecycle-controller"
    workers = 4

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.pods = self.view(PODS)
        self.leases = self.view(LEASES, namespace=LEASE_NAMESPACE)
        self.nodes = self.view(NODES)
        self._heard: dict[str, float] = {}  # node -> loop time
        self._marked: set[str] = set()  # nodes whose pods were marked not ready since the node was last well
        self._next_eviction: dict[str, float] = {}  # zone -> loop time
        self.leases.add_handler(added=self._lease, updated=self._lease_renewed)
        self.nodes.add_handler(added=self._node, updated=self._node_updated, deleted=self._node_gone)

    def _hear(self, name: str) -> None:
        self._heard[name] = asyncio.get_running_loop().time()

    def _lease(self, lease: meta.Object) -> None:
        self._hear(meta.name(lease))

    def _lease_renewed(self, old: meta.Object, new: meta.Object) -> None:
        if old["spec"].get("renewTime") != new["spec"].get("renewTime"):
            self._hear(meta.name(new))

    def _node(self, node: meta.Object) -> None:
        self._hear(meta.name(node))
        self.enqueue(node)
        name = meta.name(node)
        self.event(node, "RegisteredNode", f"Node {name} event: Registered Node {name} in Controller")

    def _node_updated(self, old: meta.Object, new: meta.Object) -> None:
        if _heartbeat(old) != _heartbeat(new):
            self._hear(meta.name(new))
        if [(c["type"], c["status"]) for c in meta.status(old).get("conditions") or ()] != [
            (c["type"], c["status"]) for c in meta.status(new).get("conditions") or ()
        ] or old["spec"] != new["spec"]:
            self.enqueue(new)

    def _node_gone(self, node: meta.Object) -> None:
        name = meta.name(node)
        self._heard.pop(name, None)
        self._marked.discard(name)
        self.event(node, "RemovingNode", f"Node {name} event: Removing Node {name} from Controller")

    async def reconcile(self, key: str) -> float | None:
        node = self.nodes.get(key)
        if node is None:
            return None
        loop = asyncio.get_running_loop()
        known = meta.condition(meta.status(node), "Ready") is not None
        grace = (
            self.config.node_monitor_grace_period_seconds if known else self.config.node_startup_grace_period_seconds
        )
        left = self._heard.get(key, loop.time()) + grace - loop.time()
        if left <= 0:
            node = await self._silence(node)
        if health.readiness(node) == "True":
            self._marked.discard(key)
        elif known and key not in self._marked:
            await self._mark_pods(node)
            self._marked.add(key)
        postponed = await self._taint(node)
        if postponed:
            return self.config.node_monitor_period_seconds
        return left if left > 0 else None  # a silent node is looked at again when it speaks: its status changes

    async def _silence(self, node: meta.Object) -> meta.Object:
        conditions = health.silenced(node, clock.wall_time())
        if conditions is None:
            return node
        silent = {**node, "status": {**meta.status(node), "conditions": conditions}}
        try:
            answer = await self.writer.update(NODES, silent, "status")
        except Unreachable:
            # we could not have heard anybody: all nodes get time to speak once the server is back
            loop = asyncio.get_running_loop()
            earliest = loop.time() - self.config.node_monitor_grace_period_seconds + _AFTER_DEAFNESS_SECONDS
            self._heard = {name: max(heard, earliest) for name, heard in self._heard.items()}
            raise
        if health.readiness(node) == "True":
            self.event(answer, "NodeNotReady", f"Node {meta.name(node)} status is now: NodeNotReady")
        return answer

    async def _mark_pods(self, node: meta.Object) -> None:
        """Ready=False on the node's pods, so that they leave their Services' endpoints."""
        now = clock.rfc3339()
        for pod in self.pods.by_index("node", meta.name(node)):
            if not pods.is_ready(pod) or pods.is_terminal(pod):
                continue
            conditions = [
                {**c, "status": "False", "lastTransitionTime": now} if c["type"] == "Ready" else c
                for c in pod["status"]["conditions"]
            ]
            guard = {"resourceVersion": pod["metadata"]["resourceVersion"]}
            await self.writer.patch(PODS, pod, {"metadata": guard, "status": {"conditions": conditions}}, "status")
            self.event(pod, "NodeNotReady", "Node is not ready", warning=True)

    async def _taint(self, node: meta.Object) -> bool:
        """Bring our taints up to date. Returns whether a NoExecute taint was postponed."""
        ready, evict = health.readiness(node) == "True", False
        known = meta.condition(meta.status(node), "Ready") is not None
        if not ready and known:  # the weather costs a look at every node
            weather = health.weather(self.nodes.items(), self.config.unhealthy_zone_threshold)[health.zone_of(node)]
            evict = not weather.everything_lost and (health.is_evicting(node) or self._may_evict(node, weather))
        taints = health.wanted_taints(node, evict=evict, now=clock.wall_time())
        if taints != (node["spec"].get("taints") or []):
            guard = {"resourceVersion": node["metadata"]["resourceVersion"]}
            await self.writer.patch(NODES, node, {"metadata": guard, "spec": {"taints": taints or None}})
        return not ready and known and not evict

    def _may_evict(self, node: meta.Object, weather: health.Weather) -> bool:
        """Take a token of the zone's eviction rate, if there is one now. A node without pods costs none."""
        if not self.pods.by_index("node", meta.name(node)):
            return True
        rate = self.config.node_eviction_rate
        if weather.zone is health.Zone.PARTIAL:
            large = weather.size > self.config.large_cluster_size_threshold
            rate = self.config.secondary_node_eviction_rate if large else 0.0
        now, zone = asyncio.get_running_loop().time(), health.zone_of(node)
        if rate <= 0 or now < self._next_eviction.get(zone, 0.0):
            return False
        self._next_eviction[zone] = now + 1 / rate
        return True


def _heartbeat(node: meta.Object) -> tuple[str, ...]:
    return tuple(c.get("lastHeartbeatTime") or "" for c in meta.status(node).get("conditions") or ())
