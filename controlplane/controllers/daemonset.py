"""DaemonSet: one pod on every node that its template may run on.

`plan()` is the decision: which nodes lack a pod, which pods are too many or out of date. A pod is bound to its node by
a required node affinity on the node's name and then scheduled like any other. A rolling update deletes old pods, those
that do not work first, so that never more than maxUnavailable nodes are without (or, with maxSurge, starts the new pod
beside the old one). Rules: pkg/controller/daemon.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from controlplane import clock
from controlplane.api import selectors
from controlplane.client.resources import CONTROLLERREVISIONS, DAEMONSETS, NODES, PODS
from controlplane.controllers import actions, history, meta, nodematch, pods
from controlplane.controllers.controllerref import controller_of, new_ref
from controlplane.controllers.podcontrol import PodControl, claimed, pod_from_template
from controlplane.controllers.reconcile import Context, Controller

_FAILED_PAUSE_SECONDS = 1.0
_TOLERATED = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
]


def pod_spec(spec: meta.Object, node: str) -> meta.Object:
    """The template's pod spec for `node`: with the tolerations of every daemon, and tied to the node."""
    wanted = [
        *_TOLERATED,
        *([("node.kubernetes.io/network-unavailable", "NoSchedule")] if spec.get("hostNetwork") else []),
    ]
    added = [{"key": k, "operator": "Exists", "effect": e} for k, e in wanted]
    tolerations = [*(spec.get("tolerations") or []), *(t for t in added if t not in (spec.get("tolerations") or []))]
    affinity = spec.get("affinity") or {}
    node_affinity = affinity.get("nodeAffinity") or {}
    required = node_affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    here = [{"key": "metadata.name", "operator": "In", "values": [node]}]
    terms = [{**term, "matchFields": here} for term in required.get("nodeSelectorTerms") or [{}]]
    tied = {**node_affinity, "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}
    return {**spec, "tolerations": tolerations, "affinity": {**affinity, "nodeAffinity": tied}}


def target(pod: meta.Object) -> str:
    """The node that a daemon's pod is meant for, also before it is scheduled."""
    if pods.node_name(pod):
        return pods.node_name(pod)
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or {}
    for term in required.get("nodeSelectorTerms") or ():
        for entry in term.get("matchFields") or ():
            if entry["key"] == "metadata.name" and entry["operator"] == "In" and len(entry["values"]) == 1:
                return entry["values"][0]  # type: ignore[no-any-return]
    return ""


def placement(ds: meta.Object, node: meta.Object) -> tuple[bool, bool]:
    """(whether a pod shall be on `node`, whether one that is there may stay)."""
    spec = pod_spec(ds["spec"]["template"]["spec"], meta.name(node))
    if not nodematch.selected(spec, node):
        return False, False
    if nodematch.untolerated(spec["tolerations"], node, ("NoExecute",)):
        return False, False
    return nodematch.untolerated(spec["tolerations"], node, ("NoSchedule",)) is None, True


@dataclass(slots=True)
class Plan:
    """What one pass does."""

    create: list[str] = field(default_factory=list)
    """Names of the nodes that need a pod."""
    delete: list[meta.Object] = field(default_factory=list)
    failed: list[meta.Object] = field(default_factory=list)
    """Finished pods among `delete`, which a running daemon leaves only by failing."""


def by_node(owned: Iterable[meta.Object]) -> dict[str, list[meta.Object]]:
    """Pods by the node they are meant for, the oldest first."""
    result: dict[str, list[meta.Object]] = {}
    for pod in sorted(owned, key=lambda p: (not pods.node_name(p), meta.created(p), meta.name(p))):
        result.setdefault(target(pod), []).append(pod)
    return result


def plan(ds: meta.Object, nodes: Sequence[meta.Object], owned: Sequence[meta.Object], digest: str, now: float) -> Plan:
    """`digest`: the hash of the current template, which up-to-date pods carry as a label."""
    result = Plan()
    there = by_node(owned)
    known = {meta.name(n) for n in nodes}
    surge, unavailable = _limits(ds, sum(placement(ds, n)[0] for n in nodes))
    for node in nodes:
        name = meta.name(node)
        should, may_stay = placement(ds, node)
        mine = there.get(name, [])
        alive = [p for p in mine if pods.is_active(p)]
        failed = [p for p in mine if pods.is_terminal(p) and not meta.is_deleting(p)]
        result.failed += failed
        result.delete += failed
        if should and not alive and not failed and not any(pods.is_terminating(p) for p in mine):
            result.create.append(name)
        elif not may_stay:
            result.delete += alive
        elif len(alive) > 1:
            result.delete += _surplus(alive, digest, surge, ds, now)
    result.delete += [p for n, mine in there.items() if n and n not in known for p in mine if pods.is_active(p)]
    if (ds["spec"].get("updateStrategy") or {}).get("type", "RollingUpdate") == "RollingUpdate" and not result.delete:
        _roll(result, ds, nodes, there, digest, surge, unavailable, now)
    return result


def _surplus(alive: list[meta.Object], digest: str, surge: int, ds: meta.Object, now: float) -> list[meta.Object]:
    """Of several pods on one node, those to delete. During a surge an old and a new one may stand side by side until
    the new one is available."""
    old = [p for p in alive if not _is_new(p, digest)]
    new = [p for p in alive if _is_new(p, digest)]
    if surge and old and new:
        available = pods.is_available(new[0], ds["spec"].get("minReadySeconds") or 0, now)
        return [*old[0 if available else 1 :], *new[1:]]
    return alive[1:]


def _roll(
    result: Plan,
    ds: meta.Object,
    nodes: Sequence[meta.Object],
    there: dict[str, list[meta.Object]],
    digest: str,
    surge: int,
    unavailable: int,
    now: float,
) -> None:
    """Append the next step of a rolling update."""
    wait = ds["spec"].get("minReadySeconds") or 0
    lacking, old_working, surging = 0, [], 0
    for node in nodes:
        if not placement(ds, node)[0]:
            continue
        alive = [p for p in there.get(meta.name(node), []) if pods.is_active(p)]
        old = [p for p in alive if not _is_new(p, digest)]
        working = [p for p in alive if pods.is_available(p, wait, now)]
        surging += len(alive) > 1
        if not working:
            lacking += 1
            if len(alive) == len(old) and not surge:
                result.delete += old  # it does not work anyway
        elif old and len(alive) == 1:
            old_working.append(old[0])
    if surge:
        result.create += [target(p) for p in old_working[: max(surge - surging, 0)]]
    else:
        result.delete += old_working[: max(unavailable - lacking, 0)]


def _is_new(pod: meta.Object, digest: str) -> bool:
    return meta.labels(pod).get(history.REVISION_LABEL) == digest


def _limits(ds: meta.Object, desired: int) -> tuple[int, int]:
    """(maxSurge, maxUnavailable), both rounded up; never both 0."""
    rolling = (ds["spec"].get("updateStrategy") or {}).get("rollingUpdate") or {}
    surge = meta.scaled(rolling.get("maxSurge", 0), desired, round_up=True)
    unavailable = meta.scaled(rolling.get("maxUnavailable", 1), desired, round_up=True)
    return surge, unavailable if surge or unavailable else 1


def status(
    ds: meta.Object, nodes: Sequence[meta.Object], owned: Sequence[meta.Object], digest: str, now: float
) -> meta.Object:
    """The counters; all required ones are written even when 0."""
    there, wait = by_node(p for p in owned if pods.is_active(p)), ds["spec"].get("minReadySeconds") or 0
    numbers = dict.fromkeys(
        ("desiredNumberScheduled", "currentNumberScheduled", "numberMisscheduled", "numberReady",
         "updatedNumberScheduled", "numberAvailable", "numberUnavailable"), 0,
    )  # fmt: skip
    for node in nodes:
        mine = there.get(meta.name(node), [])
        if not placement(ds, node)[0]:
            numbers["numberMisscheduled"] += bool(mine)
            continue
        numbers["desiredNumberScheduled"] += 1
        if mine:
            numbers["currentNumberScheduled"] += 1
            numbers["numberReady"] += any(pods.is_ready(p) for p in mine)
            numbers["numberAvailable"] += any(pods.is_available(p, wait, now) for p in mine)
            numbers["updatedNumberScheduled"] += any(_is_new(p, digest) for p in mine)
    numbers["numberUnavailable"] = numbers["desiredNumberScheduled"] - numbers["numberAvailable"]
    for optional in ("updatedNumberScheduled", "numberAvailable", "numberUnavailable"):
        if not numbers[optional]:
            del numbers[optional]
    return {**numbers, "observedGeneration": meta.generation(ds)}


class DaemonSetController(Controller):
    """See the module."""

    name = "daemonset-controller"
    workers = 2

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.pods, self.nodes = self.view(PODS), self.view(NODES)
        self.revisions = self.view(CONTROLLERREVISIONS)
        self.sets = self.watch(DAEMONSETS)
        self.control = PodControl(self.writer, self.event)
        self.pods.add_handler(
            added=self._pod_changed, updated=lambda old, new: self._pod_changed(new), deleted=self._pod_changed
        )
        self.nodes.add_handler(added=self._all, updated=self._node_updated, deleted=self._all)

    def _pod_changed(self, pod: meta.Object) -> None:
        ref = controller_of(pod)
        if ref is not None and ref["kind"] == "DaemonSet":
            self.queue.add(f"{meta.namespace(pod)}/{ref['name']}")

    def _all(self, node: meta.Object) -> None:
        for ds in self.sets.items():
            self.enqueue(ds)

    def _node_updated(self, old: meta.Object, new: meta.Object) -> None:
        if meta.labels(old) != meta.labels(new) or old["spec"].get("taints") != new["spec"].get("taints"):
            self._all(new)

    async def reconcile(self, key: str) -> float | None:
        ds = self.sets.get(key)
        if ds is None or meta.is_deleting(ds):
            return None
        selector = selectors.from_selector(ds["spec"].get("selector"))
        versions = await history.sync(self.writer, self.revisions, DAEMONSETS, ds, selector)
        digest = meta.labels(versions.latest)[history.HASH]
        owned = await claimed(self.writer, PODS, self.pods, DAEMONSETS, ds, selector)
        nodes = self.nodes.items()
        decision = plan(ds, nodes, owned, digest, clock.wall_time())
        error = await self.control.delete(ds, decision.delete) if decision.delete else None
        if decision.create:
            made = [self._pod(ds, node, digest) for node in decision.create]
            error = await self.control.create(ds, made) or error
        for pod in decision.failed:
            text = f"Found failed daemon pod {meta.key(pod)} on node {target(pod)}, will try to kill it"
            self.event(ds, "FailedDaemonPod", text, warning=True)
        owned = self.pods.by_index("owner", meta.uid(ds))
        await self._finish(key, ds, nodes, owned, digest, versions)
        if error is not None:
            raise error
        if decision.failed:
            return _FAILED_PAUSE_SECONDS
        return pods.next_available(owned, ds["spec"].get("minReadySeconds") or 0, clock.wall_time())

    def _pod(self, ds: meta.Object, node: str, digest: str) -> meta.Object:
        pod = pod_from_template(ds["spec"]["template"], ds, new_ref("apps/v1", "DaemonSet", ds))
        labels = {**meta.labels(pod), history.REVISION_LABEL: digest}
        return {**meta.with_metadata(pod, labels=labels), "spec": pod_spec(pod["spec"], node)}

    async def _finish(
        self,
        key: str,
        ds: meta.Object,
        nodes: Sequence[meta.Object],
        owned: list[meta.Object],
        digest: str,
        versions: history.Revisions,
    ) -> None:
        """Write the status and drop revisions that nobody needs."""
        fresh = status(ds, nodes, owned, digest, clock.wall_time())
        current = self.sets.get(key)
        if current is not None and fresh != meta.status(current):
            await self.writer.update(DAEMONSETS, {**current, "status": fresh}, "status")
        used = {meta.labels(p).get(history.REVISION_LABEL) for p in owned}
        live = {meta.name(r) for r in versions.all if meta.labels(r).get(history.HASH) in used}
        live.add(meta.name(versions.latest))
        limit = ds["spec"].get("revisionHistoryLimit")
        for revision in history.superfluous(versions.all, live, 10 if limit is None else limit):
            await self.perform(actions.Delete(CONTROLLERREVISIONS, revision))
