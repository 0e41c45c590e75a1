"""A pod as the agent sees it: what is desired (read once from the API object) and what actually runs.

`Desired` is made once for each update of the pod and then only read; `Actual` once for each look at the runtime.
Both are values: `plan.py` and `status.py` compare them without I/O. Nothing here knows the API server or the runtime's
implementation.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from controlplane.api import quantity
from nodeagent.runtime.interface import ContainerState, ContainerStatus, SandboxState, SandboxStatus

Object = dict[str, Any]
"""A Kubernetes object, decoded; shared with the informer's cache and never mutated."""

LABEL_POD = "io.kubernetes.pod.name"
LABEL_NAMESPACE = "io.kubernetes.pod.namespace"
LABEL_UID = "io.kubernetes.pod.uid"
LABEL_CONTAINER = "io.kubernetes.container.name"
ANNOTATION_HASH = "io.kubernetes.container.hash"
ANNOTATION_MESSAGE_PATH = "io.kubernetes.container.terminationMessagePath"  # the file on the node
ANNOTATION_MESSAGE_POLICY = "io.kubernetes.container.terminationMessagePolicy"

MIRROR_ANNOTATION = "kubernetes.io/config.mirror"
"""On a mirror pod: the API server's picture of a static pod, which the agent itself runs from a file."""

CONFIG_HASH_ANNOTATION = "kubernetes.io/config.hash"
CONFIG_SOURCE_ANNOTATION = "kubernetes.io/config.source"
"""On a static pod: which version of its file it is, and that it comes from one."""


class Kind(StrEnum):
    INIT = "init"
    SIDECAR = "sidecar"  # an init container with restartPolicy Always
    MAIN = "main"
    EPHEMERAL = "ephemeral"


@dataclass(frozen=True, slots=True)
class Wanted:
    """One container of the spec. `fingerprint` changes when a running container no longer fits its spec (its image:
    the only part of a container that may change without a new pod)."""

    name: str
    kind: Kind
    spec: Object
    fingerprint: str
    restart_policy: str  # Always, OnFailure or Never, after the container's own and the pod's

    @property
    def has_startup_probe(self) -> bool:
        return bool(self.spec.get("startupProbe"))


@dataclass(frozen=True, slots=True)
class Desired:
    """What the API server (or a static manifest) wants of one pod."""

    pod: Object
    uid: str
    namespace: str
    name: str
    init: tuple[Wanted, ...]  # init containers and sidecars, in order
    main: tuple[Wanted, ...]
    ephemeral: tuple[Wanted, ...]
    restart_policy: str
    termination_grace_s: float
    deletion_grace_s: float | None  # None: not being deleted
    active_deadline_s: float | None
    host_network: bool
    terminal_phase: str  # Succeeded or Failed when the API server already says so, else empty

    @classmethod
    def of(cls, pod: Object) -> Desired:
        meta, spec = pod["metadata"], pod["spec"]
        policy = spec.get("restartPolicy") or "Always"
        deletion: float | None = None
        if meta.get("deletionTimestamp"):
            deletion = float(meta.get("deletionGracePeriodSeconds") or 0)
        phase = (pod.get("status") or {}).get("phase", "")
        deadline = spec.get("activeDeadlineSeconds")
        grace = spec.get("terminationGracePeriodSeconds")
        return cls(
            pod=pod,
            uid=meta["uid"],
            namespace=meta.get("namespace", ""),
            name=meta["name"],
            init=tuple(_wanted(c, Kind.INIT, policy) for c in spec.get("initContainers") or ()),
            main=tuple(_wanted(c, Kind.MAIN, policy) for c in spec.get("containers") or ()),
            ephemeral=tuple(_wanted(c, Kind.EPHEMERAL, policy) for c in spec.get("ephemeralContainers") or ()),
            restart_policy=policy,
            termination_grace_s=30.0 if grace is None else float(grace),
            deletion_grace_s=deletion,
            active_deadline_s=None if deadline is None else float(deadline),
            host_network=bool(spec.get("hostNetwork")),
            terminal_phase=phase if phase in ("Succeeded", "Failed") else "",
        )

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"

    def container(self, name: str) -> Wanted | None:
        return next((w for w in (*self.init, *self.main, *self.ephemeral) if w.name == name), None)


def _wanted(spec: Object, kind: Kind, pod_policy: str) -> Wanted:
    own = spec.get("restartPolicy", "")
    if kind is Kind.INIT:
        # A failed init container is tried again unless the pod's policy is Never (Always and OnFailure mean the same).
        kind, policy = (Kind.SIDECAR, "Always") if own == "Always" else (kind, own or pod_policy)
        if kind is Kind.INIT and policy == "Always":
            policy = "OnFailure"
    elif kind is Kind.EPHEMERAL:
        policy = "Never"
    else:
        policy = own or pod_policy
    return Wanted(spec["name"], kind, spec, f"{zlib.crc32(spec.get('image', '').encode()):08x}", policy)


@dataclass(frozen=True, slots=True)
class Actual:
    """What the runtime has for one pod. Sandboxes newest first; containers of one name newest first."""

    sandboxes: Sequence[SandboxStatus] = ()
    by_name: Mapping[str, Sequence[ContainerStatus]] = None  # type: ignore[assignment]

    @classmethod
    def of(cls, sandboxes: Sequence[SandboxStatus], containers: Sequence[ContainerStatus]) -> Actual:
        by_name: dict[str, list[ContainerStatus]] = {}
        for container in containers:
            by_name.setdefault(container.name, []).append(container)
        for instances in by_name.values():
            if len(instances) > 1:
                instances.sort(key=lambda c: (c.attempt, c.created_at), reverse=True)
        return cls(sorted(sandboxes, key=lambda s: (s.identity.attempt, s.created_at), reverse=True), by_name)

    @property
    def sandbox(self) -> SandboxStatus | None:
        """The newest sandbox, if it is ready; an older one that still runs is never used again."""
        newest = self.sandboxes[0] if self.sandboxes else None
        return newest if newest is not None and newest.state is SandboxState.READY else None

    def newest(self, name: str) -> ContainerStatus | None:
        instances = self.by_name.get(name)
        return instances[0] if instances else None

    def previous(self, name: str) -> ContainerStatus | None:
        """The instance before the newest one."""
        instances = self.by_name.get(name)
        return instances[1] if instances and len(instances) > 1 else None

    def running(self) -> list[ContainerStatus]:
        return [c for cs in self.by_name.values() for c in cs if c.state is ContainerState.RUNNING]


def should_restart(wanted: Wanted, exit_code: int) -> bool:
    """Whether a container that ended with `exit_code` is to be started again, by its restart rules, then its policy."""
    for rule in wanted.spec.get("restartPolicyRules") or ():
        codes = rule.get("exitCodes") or {}
        listed = exit_code in (codes.get("values") or ())
        if (codes.get("operator") == "In") == listed:
            return bool(rule.get("action") == "Restart")
    if wanted.restart_policy == "Always":
        return True
    return wanted.restart_policy == "OnFailure" and exit_code != 0


def qos_class(pod: Object) -> str:
    """Guaranteed, Burstable or BestEffort (pkg/apis/core/helper/qos): from cpu and memory of all containers."""

    def milli(value: str | int | float) -> int:
        return quantity.of(value).milli()

    spec = pod["spec"]
    total = (
        [(spec.get("resources") or {})]
        if spec.get("resources")
        else [c.get("resources") or {} for c in [*(spec.get("initContainers") or ()), *spec["containers"]]]
    )
    some, guaranteed = False, True
    for resources in total:
        limits, requests = resources.get("limits") or {}, resources.get("requests") or {}
        for name in ("cpu", "memory"):
            limit = milli(limits[name]) if name in limits else 0
            request = milli(requests[name]) if name in requests else limit
            some = some or limit > 0 or request > 0
            guaranteed = guaranteed and limit > 0 and limit == request
    if not some:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"
