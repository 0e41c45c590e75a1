"""StatefulSet: pods with lasting names, in order, each with its own volume claims.

`plan()` is one step of the rules of pkg/controller/statefulset: pods are made from the lowest ordinal up, each after
its predecessor works; removed from the highest down; updated from the highest down to the partition, one at a time.
With `podManagementPolicy: Parallel` making and removing do not wait. Which version a new pod has follows from the
current and the update revision. Claims are made before their pod and are never deleted with it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from controlplane import clock
from controlplane.api import selectors
from controlplane.api.status import StatusError
from controlplane.client.resources import CONTROLLERREVISIONS, PERSISTENTVOLUMECLAIMS, PODS, STATEFULSETS
from controlplane.controllers import actions, history, meta, pods
from controlplane.controllers.controllerref import controller_of, new_ref
from controlplane.controllers.podcontrol import PodControl, claimed, pod_from_template
from controlplane.controllers.reconcile import Context, Controller

POD_NAME = "statefulset.kubernetes.io/pod-name"
POD_INDEX = "apps.kubernetes.io/pod-index"


def ordinal(sts: meta.Object, pod: meta.Object) -> int:
    """The number at the end of the pod's name; -1 if it is not one of this set's."""
    parent, _, number = meta.name(pod).rpartition("-")
    return int(number) if parent == meta.name(sts) and number.isdigit() else -1


def start(sts: meta.Object) -> int:
    """The first ordinal."""
    return (sts["spec"].get("ordinals") or {}).get("start") or 0


def is_parallel(sts: meta.Object) -> bool:
    return bool(sts["spec"].get("podManagementPolicy") == "Parallel")


def _partition(sts: meta.Object) -> int | None:
    """The lowest ordinal (from the start) to update; None if pods are updated only when somebody deletes them."""
    strategy = sts["spec"].get("updateStrategy") or {}
    if strategy.get("type", "RollingUpdate") != "RollingUpdate":
        return None
    return (strategy.get("rollingUpdate") or {}).get("partition") or 0


@dataclass(slots=True)
class Plan:
    """What one pass does."""

    create: list[int] = field(default_factory=list)
    """Ordinals to make."""
    delete: list[meta.Object] = field(default_factory=list)


def _revision(pod: meta.Object) -> str:
    return meta.labels(pod).get(history.REVISION_LABEL, "")


def plan(sts: meta.Object, owned: Sequence[meta.Object], update_revision: str, now: float) -> Plan:
    """The next step. `update_revision`: the name of the revision of the current template."""
    result = Plan()
    first, count, wait = start(sts), meta.spec_replicas(sts), sts["spec"].get("minReadySeconds") or 0
    there = {ordinal(sts, p): p for p in owned}
    ordered = not is_parallel(sts)

    def works(pod: meta.Object) -> bool:
        return pods.is_active(pod) and pods.is_available(pod, wait, now)

    for number in range(first, first + count):
        pod = there.get(number)
        if pod is None:
            result.create.append(number)
        elif pods.is_terminal(pod):
            if not meta.is_deleting(pod):
                result.delete.append(pod)  # made again when it is gone: the name is taken until then
        elif not meta.is_deleting(pod) and works(pod):
            continue
        if ordered:
            return result
    healthy = all(works(there[n]) for n in range(first, first + count) if n in there)
    for number in sorted((n for n in there if not first <= n < first + count), reverse=True):
        pod = there[number]
        if ordered and (meta.is_deleting(pod) or result.create or not healthy):
            return result
        if not meta.is_deleting(pod):
            result.delete.append(pod)
        if ordered:
            return result
    lowest = _partition(sts)
    if result.create or result.delete or lowest is None:
        return result
    for number in range(first + count - 1, first + lowest - 1, -1):
        pod = there[number]
        if _revision(pod) != update_revision and not meta.is_deleting(pod):
            result.delete.append(pod)
            return result
        if not works(pod):
            return result
    return result


def wants_current(sts: meta.Object, number: int) -> bool:
    """Whether a pod made now with this ordinal is of the current (old) revision: below the partition of an update."""
    lowest = _partition(sts)
    return lowest is not None and number < start(sts) + lowest


def pod(sts: meta.Object, template: meta.Object, revision: str, number: int) -> meta.Object:
    """The pod with ordinal `number`, its claims mounted."""
    name = f"{meta.name(sts)}-{number}"
    made = pod_from_template(template, sts, new_ref("apps/v1", "StatefulSet", sts), name=name)
    labels = {**meta.labels(made), POD_NAME: name, POD_INDEX: str(number), history.REVISION_LABEL: revision}
    templates = sts["spec"].get("volumeClaimTemplates") or []
    mine = {t["metadata"]["name"] for t in templates}
    volumes = [v for v in made["spec"].get("volumes") or () if v["name"] not in mine]
    volumes += [
        {"name": t["metadata"]["name"], "persistentVolumeClaim": {"claimName": claim_name(sts, t, number)}}
        for t in templates
    ]
    spec = {**made["spec"], "hostname": name}
    if sts["spec"].get("serviceName"):
        spec["subdomain"] = sts["spec"]["serviceName"]
    if volumes:
        spec["volumes"] = volumes
    return {**meta.with_metadata(made, labels=labels), "spec": spec}


def claim_name(sts: meta.Object, template: meta.Object, number: int) -> str:
    return f"{template['metadata']['name']}-{meta.name(sts)}-{number}"


def claims(sts: meta.Object, number: int) -> list[meta.Object]:
    """The volume claims of one pod. They have no owner: data outlives the set."""
    labels = (sts["spec"]["selector"] or {}).get("matchLabels") or {}
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {
                **{k: v for k, v in t["metadata"].items() if k in ("annotations",)},
                "name": claim_name(sts, t, number),
                "namespace": meta.namespace(sts),
                "labels": {**(t["metadata"].get("labels") or {}), **labels},
            },
            "spec": t["spec"],
        }
        for t in sts["spec"].get("volumeClaimTemplates") or ()
    ]


def status(sts: meta.Object, owned: Sequence[meta.Object], update_revision: str, now: float) -> meta.Object:
    """Counters and revisions; when every pod is of the update revision and works, that becomes the current one."""
    before = meta.status(sts)
    current = before.get("currentRevision") or update_revision
    wait, alive = sts["spec"].get("minReadySeconds") or 0, [p for p in owned if pods.is_active(p)]
    numbers = {
        "readyReplicas": sum(pods.is_ready(p) for p in alive),
        "currentReplicas": sum(_revision(p) == current for p in alive),
        "updatedReplicas": sum(_revision(p) == update_revision for p in alive),
    }
    done = numbers["updatedReplicas"] == numbers["readyReplicas"] == len(alive) == meta.spec_replicas(sts)
    if current != update_revision and done and _partition(sts) is not None:
        current, numbers["currentReplicas"] = update_revision, numbers["updatedReplicas"]
    result: meta.Object = {
        "replicas": len([p for p in owned if not pods.is_terminal(p)]),
        "availableReplicas": sum(pods.is_available(p, wait, now) for p in alive),
        "currentRevision": current,
        "updateRevision": update_revision,
        "observedGeneration": meta.generation(sts),
        "collisionCount": before.get("collisionCount") or 0,
    }
    return result | {k: v for k, v in numbers.items() if v}


class StatefulSetController(Controller):
    """See the module."""

    name = "statefulset-controller"
    workers = 5

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.pods = self.view(PODS)
        self.revisions = self.view(CONTROLLERREVISIONS)
        self.sets = self.watch(STATEFULSETS)
        self.control = PodControl(self.writer, self.event)
        self.pods.add_handler(
            added=self._pod_changed, updated=lambda old, new: self._pod_changed(new), deleted=self._pod_changed
        )

    def _pod_changed(self, changed: meta.Object) -> None:
        ref = controller_of(changed)
        if ref is not None and ref["kind"] == "StatefulSet":
            self.queue.add(f"{meta.namespace(changed)}/{ref['name']}")

    async def reconcile(self, key: str) -> float | None:
        sts = self.sets.get(key)
        if sts is None or meta.is_deleting(sts):
            return None
        selector = selectors.from_selector(sts["spec"].get("selector"))
        versions = await history.sync(self.writer, self.revisions, STATEFULSETS, sts, selector)
        update = meta.name(versions.latest)
        current = versions.named(meta.status(sts).get("currentRevision") or update) or versions.latest
        owned = [
            p for p in await claimed(self.writer, PODS, self.pods, STATEFULSETS, sts, selector) if ordinal(sts, p) >= 0
        ]
        decision = plan(sts, owned, update, clock.wall_time())
        error = await self._execute(sts, decision, current, versions.latest)
        owned = [p for p in self.pods.by_index("owner", meta.uid(sts)) if ordinal(sts, p) >= 0]
        await self._write_status(key, owned, update)
        live = {update, meta.name(current), *map(_revision, owned)}
        limit = sts["spec"].get("revisionHistoryLimit")
        for revision in history.superfluous(versions.all, live, 10 if limit is None else limit):
            await self.perform(actions.Delete(CONTROLLERREVISIONS, revision))
        if error is not None:
            raise error
        return pods.next_available(owned, sts["spec"].get("minReadySeconds") or 0, clock.wall_time())

    async def _execute(
        self, sts: meta.Object, decision: Plan, current: meta.Object, latest: meta.Object
    ) -> Exception | None:
        made = []
        for number in decision.create:
            for claim in claims(sts, number):
                await self._claim(sts, claim)
            revision = current if wants_current(sts, number) else latest
            made.append(pod(sts, history.template_of(revision), meta.name(revision), number))
        error = await self.control.create(sts, made) if made else None
        if decision.delete:
            error = await self.control.delete(sts, decision.delete) or error
        return error

    async def _claim(self, sts: meta.Object, claim: meta.Object) -> None:
        try:
            await self.writer.create(PERSISTENTVOLUMECLAIMS, claim)
        except StatusError as error:
            if error.reason != "AlreadyExists":
                raise
            return
        text = f"create Claim {meta.name(claim)} Pod in StatefulSet {meta.name(sts)} success"
        self.event(sts, "SuccessfulCreate", text)

    async def _write_status(self, key: str, owned: list[meta.Object], update: str) -> None:
        sts = self.sets.get(key)
        if sts is None:
            return
        fresh = status(sts, owned, update, clock.wall_time())
        if fresh != meta.status(sts):
            await self.writer.update(STATEFULSETS, {**sts, "status": fresh}, "status")
