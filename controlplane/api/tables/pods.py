"""The row of a pod: its state in one word, which is the most read text of Kubernetes (printers.go printPod)."""

from typing import Any

from controlplane.api.tables.columns import AGE, NAME, Column, at, duration, joined, seconds_since

Object = dict[str, Any]


def _statuses(obj: Object, key: str) -> list[Object]:
    return obj.get("status", {}).get(key) or []


def _restartable(obj: Object) -> set[str]:
    """Names of the init containers that run along with the pod (sidecars)."""
    found = obj.get("spec", {}).get("initContainers") or ()
    return {each.get("name", "") for each in found if each.get("restartPolicy") == "Always"}


def ready(obj: Object, now: float) -> str:
    """Ready containers of all, sidecars included: "1/2"."""
    spec = obj.get("spec", {})
    sidecars = _restartable(obj)
    total = len(spec.get("containers") or ()) + len(sidecars)
    count = sum(
        bool(each.get("ready")) and "running" in (each.get("state") or {})
        for each in _statuses(obj, "containerStatuses")
    )
    init = _statuses(obj, "initContainerStatuses")
    count += sum(bool(each.get("ready")) for each in init if each.get("name") in sidecars)
    return f"{count}/{total}"


def _exit(terminated: Object) -> str:
    if terminated.get("reason"):
        text: str = terminated["reason"]
        return text
    if terminated.get("signal"):
        return f"Signal:{terminated['signal']}"
    return f"ExitCode:{terminated.get('exitCode', 0)}"


def status(obj: Object, now: float) -> str:
    """The pod's state: the phase, or what the containers say that matters more."""
    found = obj.get("status", {})
    conditions = {each.get("type"): each for each in found.get("conditions") or ()}
    text: str = found.get("reason") or found.get("phase") or "Unknown"
    if conditions.get("PodScheduled", {}).get("reason") == "SchedulingGated":
        text = "SchedulingGated"
    initializing = _initializing(obj)
    if initializing:
        text = initializing
    if not initializing or conditions.get("Initialized", {}).get("status") == "True":
        text = _running(obj, text, conditions)
    if obj["metadata"].get("deletionTimestamp"):
        if found.get("reason") == "NodeLost":
            return "Unknown"
        if found.get("phase") not in ("Succeeded", "Failed"):
            return "Terminating"
    return text


def _initializing(obj: Object) -> str:
    sidecars = _restartable(obj)
    total = len(obj.get("spec", {}).get("initContainers") or ())
    for index, each in enumerate(_statuses(obj, "initContainerStatuses")):
        state = each.get("state") or {}
        terminated, waiting = state.get("terminated"), state.get("waiting")
        if terminated is not None and terminated.get("exitCode", 0) == 0:
            continue
        if each.get("name") in sidecars and each.get("started"):
            continue
        if terminated is not None:
            return f"Init:{_exit(terminated)}"
        if waiting and waiting.get("reason") not in (None, "", "PodInitializing"):
            return f"Init:{waiting['reason']}"
        return f"Init:{index}/{total}"
    return ""


def _running(obj: Object, text: str, conditions: dict[Any, Object]) -> str:
    has_running = False
    for each in reversed(_statuses(obj, "containerStatuses")):
        state = each.get("state") or {}
        waiting, terminated = state.get("waiting"), state.get("terminated")
        if waiting and waiting.get("reason"):
            text = waiting["reason"]
        elif terminated is not None:
            text = _exit(terminated)
        elif each.get("ready") and "running" in state:
            has_running = True
    if text == "Completed" and has_running:
        return "Running" if conditions.get("Ready", {}).get("status") == "True" else "NotReady"
    return text


def restarts(obj: Object, now: float) -> str:
    """How often containers were restarted, and how long ago the last time: "3 (2m ago)"."""
    count = 0
    last: float | None = None
    for each in (*_statuses(obj, "initContainerStatuses"), *_statuses(obj, "containerStatuses")):
        count += each.get("restartCount", 0)
        ended = ((each.get("lastState") or {}).get("terminated") or {}).get("finishedAt")
        ago = seconds_since(ended, now)
        if ago is not None and (last is None or ago < last):
            last = ago
    return f"{count} ({duration(last)} ago)" if count and last is not None else str(count)


def _ip(obj: Object, now: float) -> str:
    found = obj.get("status", {})
    ips = found.get("podIPs") or ()
    return (ips[0].get("ip") if ips else found.get("podIP")) or "<none>"


def _gates(obj: Object, now: float) -> str:
    gates = obj.get("spec", {}).get("readinessGates") or ()
    if not gates:
        return "<none>"
    conditions = {each.get("type"): each.get("status") for each in obj.get("status", {}).get("conditions") or ()}
    count = sum(conditions.get(gate.get("conditionType")) == "True" for gate in gates)
    return f"{count}/{len(gates)}"


def _template_labels(obj: Object, now: float) -> str:
    labels = obj.get("template", {}).get("metadata", {}).get("labels") or {}
    return joined(f"{key}={value}" for key, value in sorted(labels.items()))


def _template(field: str) -> Column:
    def cell(obj: Object, now: float) -> str:
        containers = obj.get("template", {}).get("spec", {}).get("containers") or ()
        return joined((each.get(field, "") for each in containers), "")

    return Column("Containers" if field == "name" else "Images", cell)


BY_KIND = {
    ("", "Pod"): (
        NAME,
        Column("Ready", ready, description="The aggregate readiness state of this pod for accepting traffic."),
        Column("Status", status, description="The aggregate status of the containers in this pod."),
        Column(
            "Restarts",
            restarts,
            description="The number of times the containers in this pod have been restarted and when the last "
            "container in this pod has restarted.",
        ),
        AGE,
        Column("IP", _ip, wide=True),
        Column("Node", at("spec", "nodeName"), wide=True),
        Column("Nominated Node", at("status", "nominatedNodeName"), wide=True),
        Column("Readiness Gates", _gates, wide=True),
    ),
    ("", "PodTemplate"): (NAME, _template("name"), _template("image"), Column("Pod Labels", _template_labels)),
}
