"""The status of a pod, computed whole from what is wanted, what runs and what the worker remembers. Pure.

`pod_status` gives the fields that the node owns; conditions of others (readiness gates, PodScheduled) are read and left
alone. Sending it, and sending only what changed, is statusmanager.py's work.
Semantics: kubelet's kubelet_pods.go (getPhase, convertStatusToAPIStatus) and status/generate.go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from controlplane import clock
from nodeagent.pods import resize
from nodeagent.pods.memory import Failure, Memory
from nodeagent.pods.model import Actual, Desired, Kind, Object, Wanted, qos_class, should_restart
from nodeagent.pods.plan import Plan, Stage, initialized, is_started
from nodeagent.runtime.interface import ContainerState, ContainerStatus

_MOST_MESSAGE_BYTES = 12 * 1024  # kubelet's MaxPodTerminationMessageLogLength


@dataclass(frozen=True, slots=True)
class Facts:
    """What a status needs beside the pod itself. `image_ids`: image id of the runtime -> what users see as imageID."""

    host_ips: Sequence[str] = ()
    image_ids: Mapping[str, str] = field(default_factory=dict)


def pod_status(want: Desired, actual: Actual, memory: Memory, plan: Plan, facts: Facts, now: float) -> Object:
    """The node's part of `status`. `now`: seconds since the epoch."""
    before: Object = want.pod.get("status") or {}
    ended = plan.stage is Stage.ENDED
    context = _Context(want, actual, memory, plan, facts, before, ended)
    init = [context.container(w) for w in want.init]
    main = [context.container(w) for w in want.main]
    ephemeral = [context.container(w) for w in want.ephemeral]
    phase, reason, message = _phase(context, init, main)
    status: Object = {"phase": phase, "qosClass": before.get("qosClass") or qos_class(want.pod)}
    status["startTime"] = before.get("startTime") or clock.rfc3339(memory.started_at)
    if want.pod["metadata"].get("generation"):
        status["observedGeneration"] = want.pod["metadata"]["generation"]
    if facts.host_ips:
        status["hostIP"] = facts.host_ips[0]
        status["hostIPs"] = [{"ip": ip} for ip in facts.host_ips]
    ips = pod_ips(want, actual, facts) or ([i["ip"] for i in before.get("podIPs") or ()] if ended else [])
    if ips:
        status["podIP"] = ips[0]
        status["podIPs"] = [{"ip": ip} for ip in ips]
    if reason:
        status["reason"] = reason
    if message:
        status["message"] = message
    if init:
        status["initContainerStatuses"] = init
    status["containerStatuses"] = main
    if ephemeral:
        status["ephemeralContainerStatuses"] = ephemeral
    _shorten_messages([*init, *main, *ephemeral])
    status["conditions"] = _conditions(context, status, init, main, now)
    return status


def _shorten_messages(statuses: list[Object]) -> None:
    """All last messages of a pod together have 12 KiB, each container its share."""
    share = _MOST_MESSAGE_BYTES // len(statuses) if statuses else 0
    for status in statuses:
        for ended in (status["state"].get("terminated"), status["lastState"].get("terminated")):
            if ended is not None and len(ended.get("message") or "") * 4 > share:
                text = ended["message"].encode()
                if len(text) > share:
                    ended["message"] = text[:share].decode("utf-8", "ignore")


def pod_ips(want: Desired, actual: Actual, facts: Facts) -> list[str]:
    """The pod's addresses, primary first; empty until it has a sandbox."""
    sandbox = actual.sandbox
    if sandbox is None:
        return []
    return list(facts.host_ips) if want.host_network else list(sandbox.ips)


@dataclass(frozen=True, slots=True)
class _Context:
    want: Desired
    actual: Actual
    memory: Memory
    plan: Plan
    facts: Facts
    before: Object  # the status that the API server has
    ended: bool

    def container(self, wanted: Wanted) -> Object:
        """One entry of containerStatuses."""
        newest = self.actual.newest(wanted.name)
        before = self._before(wanted)
        status: Object = {
            "name": wanted.name, "image": wanted.spec.get("image", ""), "imageID": "", "restartCount": 0,
            "ready": False, "started": False, "state": {}, "lastState": {},
        }  # fmt: skip
        if newest is None:
            return self._unmade(wanted, status, before)
        status |= _facts_of(wanted, newest)
        status["restartCount"] = max(newest.attempt, before.get("restartCount") or 0)
        status["containerID"] = f"wherry://{newest.id}"
        status["imageID"] = self.facts.image_ids.get(newest.image, newest.image)
        failure = self.memory.failures.get(wanted.name)
        delay = self.plan.waiting.get(wanted.name)
        if newest.state is ContainerState.RUNNING:
            status["state"] = {"running": {"startedAt": clock.rfc3339(newest.started_at)}}
            status["started"] = is_started(wanted, newest, self.memory)
            health = self.memory.health.get(newest.id)
            ready = health.ready if health is not None else not wanted.spec.get("readinessProbe")
            status["ready"] = status["started"] and ready and wanted.kind is not Kind.INIT
            status |= self._resources(newest)
        elif newest.state is ContainerState.EXITED:
            ended = self._terminated(newest)
            status["state"] = {"terminated": ended}
            status["ready"] = wanted.kind is Kind.INIT and newest.exit_code == 0
            if not self.ended and self.plan.stage is Stage.RUNNING and should_restart(wanted, newest.exit_code):
                waiting = self._waiting_again(wanted, failure, delay)
                if waiting is not None:
                    status["state"], status["lastState"] = {"waiting": waiting}, {"terminated": ended}
        else:
            status["state"] = {"waiting": _reason(failure, "ContainerCreating")}
        previous = self.actual.previous(wanted.name)
        if not status["lastState"]:
            if previous is not None and previous.state is ContainerState.EXITED:
                status["lastState"] = {"terminated": self._terminated(previous)}
            elif newest.attempt > 0:
                status["lastState"] = self._last_known(before, newest)
        return status

    def _resources(self, running: ContainerStatus) -> Object:
        """What the node granted the container, and what is in force."""
        found: Object = {}
        granted = self.memory.allocated.get(running.name) or {}
        if granted.get("requests"):
            found["allocatedResources"] = granted["requests"]
        applied = self.memory.applied.get(running.id)
        if applied is not None:
            found["resources"] = {k: applied[k] for k in ("limits", "requests") if applied.get(k)}
        return found

    def _unmade(self, wanted: Wanted, status: Object, before: Object) -> Object:
        """The status of a container that the runtime has no instance of."""
        known = (before.get("state") or {}).get("terminated")
        if known is None and self.ended and before.get("containerID"):
            # It ran, and its record is lost (a reboot, a wiped runtime): nobody will ever know how it ended.
            known = {
                "reason": "ContainerStatusUnknown", "exitCode": 137, "startedAt": None, "finishedAt": None,
                "message": "The container could not be located when the pod was terminated",
            }  # fmt: skip
        status["restartCount"] = before.get("restartCount") or 0
        if known is not None:
            keep = ("containerID", "imageID", "lastState", "ready")
            status.update({k: before[k] for k in keep if k in before})
            status["state"] = {"terminated": {k: v for k, v in known.items() if v is not None}}
            return status
        default = "ContainerCreating"
        if wanted.kind is not Kind.EPHEMERAL and self.want.init and not initialized(self.want, self.actual):
            default = "PodInitializing"
        status["state"] = {"waiting": _reason(self.memory.failures.get(wanted.name), default)}
        status["lastState"] = before.get("lastState") or {}
        return status

    def _before(self, wanted: Wanted) -> Object:
        field_name = {Kind.MAIN: "containerStatuses", Kind.EPHEMERAL: "ephemeralContainerStatuses"}
        entries: list[Object] = self.before.get(field_name.get(wanted.kind, "initContainerStatuses")) or []
        return next((e for e in entries if e.get("name") == wanted.name), {})

    def _last_known(self, before: Object, newest: ContainerStatus) -> Object:
        """lastState when the runtime no longer has the instance before the newest one."""
        known = self.memory.ended.get(newest.name, {}).get(newest.attempt - 1)
        if known is not None:
            return {"terminated": self._terminated(known)}
        ended = (before.get("state") or {}).get("terminated")
        if ended is not None and before.get("containerID") != f"wherry://{newest.id}":
            return {"terminated": ended}
        return before.get("lastState") or {}

    def _waiting_again(self, wanted: Wanted, failure: Failure | None, delay: float | None) -> Object | None:
        """What a dead container that is to be started again waits for; None at the moment of its death."""
        if delay is not None:
            message = f"back-off {_duration(delay)} restarting failed container={wanted.name} "
            return {
                "reason": "CrashLoopBackOff",
                "message": message + f"pod={self.want.name}_{self.want.namespace}({self.want.uid})",
            }
        if failure is not None:
            return _reason(failure, "ContainerCreating")
        return None

    def _terminated(self, container: ContainerStatus) -> Object:
        reason = container.reason or ("Completed" if container.exit_code == 0 else "Error")
        state: Object = {"exitCode": container.exit_code, "reason": "OOMKilled" if container.oom_killed else reason}
        if container.started_at:
            state["startedAt"] = clock.rfc3339(container.started_at)
        if container.finished_at:
            state["finishedAt"] = clock.rfc3339(container.finished_at)
        state["containerID"] = f"wherry://{container.id}"
        message = self.memory.messages.get(container.id) or container.message
        if message:
            state["message"] = message
        return state


def _facts_of(wanted: Wanted, container: ContainerStatus) -> Object:
    """What was made of the spec for this instance: its mounts, its user, the signal that stops it."""
    found: Object = {}
    mounts = []
    for mount in wanted.spec.get("volumeMounts") or ():
        shown: Object = {"name": mount["name"], "mountPath": mount["mountPath"]}
        if mount.get("readOnly"):
            recursive = mount.get("recursiveReadOnly") in ("Enabled", "IfPossible")
            shown |= {"readOnly": True, "recursiveReadOnly": "Enabled" if recursive else "Disabled"}
        mounts.append(shown)
    if mounts:
        found["volumeMounts"] = mounts
    if container.user is not None:
        user = container.user
        groups = list(user.supplemental_groups)
        found["user"] = {"linux": {"uid": user.uid, "gid": user.gid, "supplementalGroups": groups}}
    signal = (wanted.spec.get("lifecycle") or {}).get("stopSignal")
    return found | ({"stopSignal": signal} if signal else {})


def _reason(failure: Failure | None, default: str) -> Object:
    if failure is None:
        return {"reason": default}
    return {"reason": failure.reason, "message": failure.message} if failure.message else {"reason": failure.reason}


def _duration(seconds: float) -> str:
    """Go's way to write a whole number of seconds: 10s, 2m40s, 5m0s."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def _phase(context: _Context, init: list[Object], main: list[Object]) -> tuple[str, str, str]:
    """phase, reason, message."""
    want, memory = context.want, context.memory
    if memory.verdict is not None:
        done = memory.verdict.phase
        # While something still runs the pod stays Running: a finished phase lets others take its place.
        phase = done if context.ended else context.before.get("phase") or "Pending"
        return phase, memory.verdict.reason, memory.verdict.message
    if want.terminal_phase:
        return want.terminal_phase, context.before.get("reason") or "", context.before.get("message") or ""
    phase = _phase_of_containers(context, init, main)
    if context.ended and phase not in ("Succeeded", "Failed"):
        codes = [((c["state"].get("terminated")) or {}).get("exitCode", 137) for c in main]
        phase = "Succeeded" if codes and not any(codes) else "Failed"
    return phase, "", ""


def _phase_of_containers(context: _Context, init: list[Object], main: list[Object]) -> str:
    want = context.want
    is_past = initialized(want, context.actual)
    for wanted, status in zip(want.init, init, strict=True):
        ended = status["state"].get("terminated")
        if wanted.kind is Kind.SIDECAR:
            if not is_past and not status["started"]:
                return "Pending"
        elif ended is not None and ended["exitCode"] != 0 and not should_restart(wanted, ended["exitCode"]):
            if not is_past:
                return "Failed"
        elif not is_past and (ended is None or ended["exitCode"] != 0):
            return "Pending"
    running = stopped = succeeded = 0
    for status in main:
        state = status["state"]
        ended = state.get("terminated") or (status["lastState"].get("terminated") if "waiting" in state else None)
        if "running" in state:
            running += 1
        elif ended is None:
            return "Pending"
        else:
            stopped += 1
            succeeded += ended["exitCode"] == 0
    if running:
        return "Running"
    restarts = [
        should_restart(w, (s["state"].get("terminated") or s["lastState"]["terminated"])["exitCode"])
        for w, s in zip(want.main, main, strict=True)
    ]
    if any(restarts):
        return "Running"
    # The containers are done for good, but the pod is over only when its sidecars are.
    if context.plan.stage is not Stage.ENDED and context.actual.running():
        return "Running"
    return "Succeeded" if stopped == succeeded else "Failed"


def _conditions(context: _Context, status: Object, init: list[Object], main: list[Object], now: float) -> list[Object]:
    """The conditions that the node owns; a transition time changes only with the status."""
    phase = status["phase"]
    old = {c["type"]: c for c in context.before.get("conditions") or ()}
    result: list[Object] = []
    generation = status.get("observedGeneration")

    def add(kind: str, unmet: tuple[str, str] | None) -> None:
        condition: Object = {"type": kind, "status": "True" if unmet is None else "False"}
        if unmet is not None:
            condition["reason"] = unmet[0]
            if unmet[1]:
                condition["message"] = unmet[1]
        if generation:
            condition["observedGeneration"] = generation
        before = old.get(kind)
        same = before is not None and before.get("status") == condition["status"]
        changed = before.get("lastTransitionTime") if same and before is not None else None
        condition["lastTransitionTime"] = changed or clock.rfc3339(now)
        result.append(condition)

    network_ready = context.actual.sandbox is not None and (context.want.host_network or bool(status.get("podIP")))
    add("PodReadyToStartContainers", None if network_ready else ("", ""))
    add("Initialized", _initialized(context, phase, init))
    if phase == "Succeeded":
        result[-1]["reason"] = "PodCompleted"
    containers_ready = _containers_ready(context, phase, init, main)
    add("ContainersReady", containers_ready)
    add("Ready", containers_ready or _gates(context, old))
    if "PodScheduled" not in old:
        add("PodScheduled", None)
    if not network_ready:
        result[0].pop("reason", None)
    for kind, reason, message in _resizing(context):
        add(kind, None)
        result[-1] |= {key: text for key, text in (("reason", reason), ("message", message)) if text}
    verdict = context.memory.verdict
    if verdict is not None and verdict.disruption:
        add("DisruptionTarget", None)
        result[-1] |= {"reason": verdict.disruption, "message": verdict.message}
    return result


def _resizing(context: _Context) -> list[tuple[str, str, str]]:
    """The conditions of a resize that is not done: type, reason, message."""
    memory, found = context.memory, []
    if context.ended:
        return []
    if memory.resize is not None:
        found.append(("PodResizePending", memory.resize.reason, memory.resize.message))
    for container in context.actual.running():
        granted, applied = memory.allocated.get(container.name), memory.applied.get(container.id)
        if granted is not None and applied is not None and not resize.same(granted, applied):
            failure = memory.failures.get(f"resize:{container.id}")
            reason, message = ("Error", failure.message) if failure is not None else ("", "")
            return [*found, ("PodResizeInProgress", reason, message)]
    return found


def _initialized(context: _Context, phase: str, init: list[Object]) -> tuple[str, str] | None:
    if phase == "Succeeded" or initialized(context.want, context.actual):
        return None
    unfinished = [
        w.name
        for w, s in zip(context.want.init, init, strict=True)
        if not (s["started"] if w.kind is Kind.SIDECAR else s["ready"])
    ]
    if not unfinished:
        return None
    return "ContainersNotInitialized", f"containers with incomplete status: [{' '.join(unfinished)}]"


def _containers_ready(context: _Context, phase: str, init: list[Object], main: list[Object]) -> tuple[str, str] | None:
    if phase == "Succeeded":
        return "PodCompleted", ""
    if phase == "Failed":
        return "PodFailed", ""
    sidecars = [s for w, s in zip(context.want.init, init, strict=True) if w.kind is Kind.SIDECAR]
    unready = [s["name"] for s in (*sidecars, *main) if not s["ready"]]
    if not unready:
        return None
    return "ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]"


def _gates(context: _Context, conditions: Mapping[str, Object]) -> tuple[str, str] | None:
    messages = []
    for gate in context.want.pod["spec"].get("readinessGates") or ():
        kind = gate["conditionType"]
        if kind not in conditions:
            messages.append(f'corresponding condition of pod readiness gate "{kind}" does not exist.')
        elif conditions[kind].get("status") != "True":
            state = conditions[kind].get("status")
            messages.append(f'the status of pod readiness gate "{kind}" is not "True", but {state}')
    return ("ReadinessGatesNotReady", ", ".join(messages)) if messages else None
