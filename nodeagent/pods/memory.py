"""What a pod's worker remembers between looks at the runtime: failures, back-off, health, what is in flight.

None of it must survive the agent: after a restart it is rebuilt from the runtime and from the status in the API.
`plan.py` and `status.py` read it, the worker and its probes write it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nodeagent.pods.backoff import Backoff
from nodeagent.runtime.interface import ContainerStatus

if TYPE_CHECKING:
    from nodeagent.pods.resize import Pending


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the last attempt to start something failed. `retry_at`: seconds since the epoch, 0 when the crash back-off
    of the container decides. `exists`: a container was made and failed to start."""

    reason: str
    message: str
    at: float
    retry_at: float = 0.0
    exists: bool = False


@dataclass(frozen=True, slots=True)
class Condemned:
    """A running container that must be stopped (failed probe or hook); its restart policy decides what follows."""

    message: str
    grace_s: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """The agent's own decision that this pod is over: rejected, out of time, evicted. `disruption`: the pod was well,
    and had to go for reasons of the node's (the reason of its DisruptionTarget condition)."""

    phase: str
    reason: str
    message: str
    grace_s: float | None = None
    disruption: str = ""


@dataclass(slots=True)
class Health:
    """What probes say of one running container. Without a probe of a kind, its answer is yes."""

    started: bool = False
    ready: bool = False


SANDBOX = ""
"""The key of `Memory.failures` for the sandbox itself (a container has its name)."""


@dataclass(slots=True)
class Memory:
    """`busy`: operations in flight by key (`plan.Action.key`), with the time by which a stop will have ended (0 for
    others). `next_attempt`: the number of the next instance of a container that the runtime knows nothing of."""

    started_at: float = 0.0  # when the agent took the pod up (status.startTime), seconds since the epoch
    crashes: Backoff = field(default_factory=Backoff)
    failures: dict[str, Failure] = field(default_factory=dict)
    condemned: dict[str, Condemned] = field(default_factory=dict)
    health: dict[str, Health] = field(default_factory=dict)
    busy: dict[str, float] = field(default_factory=dict)
    next_attempt: dict[str, int] = field(default_factory=dict)
    ended: dict[str, dict[int, ContainerStatus]] = field(default_factory=dict)  # by name and attempt, the last two
    messages: dict[str, str] = field(default_factory=dict)  # container id -> termination message
    allocated: dict[str, dict[str, Any]] = field(default_factory=dict)  # container name -> resources granted
    applied: dict[str, dict[str, Any]] = field(default_factory=dict)  # container id -> resources in force
    resize: Pending | None = None  # why what the spec asks for is not granted
    verdict: Verdict | None = None
    ending_since: float | None = None
    volumes_gone: bool = False
