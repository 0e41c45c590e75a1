"""CPUs of one's own: the static CPU manager policy.

A container that asks for whole CPUs in a Guaranteed pod gets that many to itself; all others share what is left
(cpuset). The reserved CPUs are never given away, but the others may use them. What was given is kept in a file of the
agent's root directory, `cpu_manager_state`, because a restarted agent must not give it again; a file that does not fit
the configuration or the machine stops the agent, as it would the kubelet: somebody has to drain the node first.

    admit      when the node takes a pod: CPUs for its containers, or a refusal
    place      the cpuset of a container, when its settings are made
    retain     pods that are over give theirs back
    run        the others' containers follow the shared set as it shrinks and grows

Rules: kubelet's cm/cpumanager/policy_static.go. Not here: topology hints, policy options, exclusive memory.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import math
import os
import zlib
from collections.abc import Callable, Iterable
from typing import Any

from controlplane.api import quantity
from nodeagent.pods import cpuset
from nodeagent.pods.cpuset import Cpus
from nodeagent.pods.model import Object, qos_class
from nodeagent.runtime.interface import ContainerState, LinuxResources, Runtime, RuntimeFailure

log = logging.getLogger(__name__)

FILE = "cpu_manager_state"
RECONCILE_S = 10.0


class NotEnough(Exception):
    """The pod cannot have the CPUs that it asks for."""


class CpuManager:
    """The policy `static`, or `none` (then everything here does nothing)."""

    def __init__(self, directory: str, policy: str = "none", reserved: Cpus = frozenset(), cpus: Cpus = frozenset(),
                 places: dict[int, cpuset.Place] | None = None) -> None:  # fmt: skip
        """`cpus`: all that the node has. Raises ValueError if the policy cannot be, or the file says otherwise."""
        if policy not in ("none", "static"):
            raise ValueError(f"unknown CPU manager policy {policy!r}: none or static")
        self.static = policy == "static"
        self._path = os.path.join(directory, FILE)
        self._places = places or cpuset.topology(cpus)
        self._all, self.reserved = cpus, reserved
        self._given: dict[str, dict[str, Cpus]] = {}  # pod uid → container name → its own CPUs
        self._applied: dict[str, str] = {}  # container id → the cpuset it has
        self._changed = asyncio.Event()
        if self.static and not reserved:
            raise ValueError("the static policy requires reserved CPUs: set reserved-cpus, or cpu in kube-reserved")
        if not reserved <= cpus:
            raise ValueError(f"reserved-cpus {cpuset.text(reserved)}: this machine has {cpuset.text(cpus)}")
        self._load(policy)

    @property
    def shared(self) -> Cpus:
        """What no container has to itself."""
        return self._all.difference(*(cpus for pod in self._given.values() for cpus in pod.values()))

    def admit(self, pod: Object) -> None:
        """Give `pod` what its containers ask for; nothing if it has that already. Raises NotEnough."""
        uid = pod["metadata"]["uid"]
        if not self.static or uid in self._given or qos_class(pod) != "Guaranteed":
            return
        spec, mine, reusable = pod["spec"], {}, Cpus()
        free = self.shared - self.reserved
        for container in (*(spec.get("initContainers") or ()), *spec["containers"]):
            count = _whole_cpus(container)
            if not count:
                continue
            again = cpuset.take(min(count, len(reusable)), reusable, self._places)
            try:
                taken = again | cpuset.take(count - len(again), free - again, self._places)
            except ValueError as error:
                raise NotEnough(f"not enough cpus available to satisfy request: {error}") from None
            mine[container["name"]] = taken
            once = container.get("restartPolicy") != "Always" and container not in spec["containers"]
            reusable = reusable | taken if once else reusable - taken
            free -= taken
        if mine:
            self._given[uid] = mine
            self._save()
            log.info("cpus given pod=%s %s", uid, " ".join(f"{n}={cpuset.text(c)}" for n, c in mine.items()))
            self._changed.set()

    def place(self, uid: str, container: str, resources: LinuxResources) -> LinuxResources:
        """`resources` with the container's cpuset. Who owns CPUs needs no quota."""
        if not self.static:
            return resources
        own = self._given.get(uid, {}).get(container)
        if own is None:
            return dataclasses.replace(resources, cpuset_cpus=cpuset.text(self.shared))
        return dataclasses.replace(resources, cpuset_cpus=cpuset.text(own), cpu_quota_us=0)

    def whole(self, uid: str, resources: LinuxResources) -> LinuxResources:
        """The pod's own settings: no quota above containers that own CPUs."""
        return dataclasses.replace(resources, cpu_quota_us=0) if uid in self._given else resources

    def retain(self, uids: Iterable[str]) -> None:
        """Take back what pods other than `uids` have."""
        over = self._given.keys() - set(uids)
        for uid in over:
            del self._given[uid]
            log.info("cpus back pod=%s", uid)
        if over:
            self._save()
            self._changed.set()

    def poke(self) -> None:
        """A pod has gone."""
        self._changed.set()

    async def run(self, runtime: Runtime, active: Callable[[], Iterable[str] | None]) -> None:
        """Until cancelled: containers that share move with the shared set. `active`: uids of pods that are not over,
        None as long as that is not known."""
        while self.static:
            self._changed.clear()
            uids = active()
            if uids is not None:
                self.retain(uids)
            try:
                await self._reconcile(runtime)
            except RuntimeFailure as failure:
                log.warning("cpus error=%s", failure)
            try:
                async with asyncio.timeout(RECONCILE_S):
                    await self._changed.wait()
            except TimeoutError:
                pass

    async def _reconcile(self, runtime: Runtime) -> None:
        pods = {sandbox.id: sandbox.identity.uid for sandbox in await runtime.sandboxes()}
        running = [c for c in await runtime.containers() if c.state is ContainerState.RUNNING and c.sandbox_id in pods]
        self._applied = {c.id: self._applied.get(c.id, "") for c in running}
        for container in running:
            own = self._given.get(pods[container.sandbox_id], {}).get(container.name)
            wanted = cpuset.text(self.shared if own is None else own)
            if self._applied.get(container.id) == wanted:
                continue
            try:
                await runtime.update_resources(container.id, LinuxResources(cpuset_cpus=wanted))
                self._applied[container.id] = wanted
            except RuntimeFailure as failure:  # it has just ended, or it will be tried again
                log.info("cpus container=%s cpuset=%s error=%s", container.id, wanted, failure)

    # The file.

    def _load(self, policy: str) -> None:
        try:
            with open(self._path, encoding="utf-8") as file:
                document = json.load(file)
            checksum = document.pop("checksum")
            said, default = document["policyName"], cpuset.parse(document["defaultCpuSet"])
            given = {u: {n: cpuset.parse(c) for n, c in m.items()} for u, m in (document.get("entries") or {}).items()}
        except FileNotFoundError:
            if self.static:
                self._save()
            return
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{self._path} cannot be read ({error}): {_ADVICE}") from None
        if checksum != _checksum(document):
            raise ValueError(f"{self._path} is corrupted: {_ADVICE}")
        if said != policy:
            raise ValueError(f"configured policy {policy!r} differs from {self._path}'s {said!r}: {_ADVICE}")
        self._given = given
        known = default.union(*(cpus for pod in given.values() for cpus in pod.values()))
        if known != self._all:
            text = f"the machine's CPUs {cpuset.text(self._all)} are not those in {self._path}, {cpuset.text(known)}"
            raise ValueError(f"{text}: {_ADVICE}")
        if not self.reserved <= default:
            raise ValueError(f"{self._path}: some of the reserved CPUs are given away: {_ADVICE}")

    def _save(self) -> None:
        entries = {uid: {name: cpuset.text(cpus) for name, cpus in pod.items()} for uid, pod in self._given.items()}
        document: dict[str, Any] = {"policyName": "static", "defaultCpuSet": cpuset.text(self.shared)}
        document["entries"] = entries
        with open(self._path + ".new", "w", encoding="utf-8") as file:
            json.dump({**document, "checksum": _checksum(document)}, file)
        os.replace(self._path + ".new", self._path)


_ADVICE = "drain the node and remove the file"


def _checksum(document: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(document, sort_keys=True).encode())


def _whole_cpus(container: Object) -> int:
    """How many CPUs the container wants to itself: its request, if that is whole."""
    resources = container.get("resources") or {}
    asked = (resources.get("requests") or {}).get("cpu", (resources.get("limits") or {}).get("cpu", 0))
    milli = quantity.of(asked).milli()
    return milli // 1000 if milli % 1000 == 0 else 0


def reserved(explicit: str, cpu_reservations: Iterable[str], cpus: Cpus) -> Cpus:
    """The reserved CPUs: those named, or as many of the first as the reservations (quantities) come to, rounded up.
    Raises ValueError."""
    if explicit:
        return cpuset.parse(explicit)
    milli = sum(quantity.of(value).milli() for value in cpu_reservations)
    count = math.ceil(milli / 1000)
    return cpuset.take(count, cpus, cpuset.topology(cpus)) if count else Cpus()
