"""Rules for probes and lifecycle hooks."""

from collections.abc import Mapping
from typing import Any

from controlplane.api import names
from controlplane.api.status import Cause, forbidden_field, invalid_value, not_supported, required
from controlplane.api.validation.common import at_least, complain

Each = Mapping[str, Any]


def probe(causes: list[Cause], found: Each, path: str, kind: str) -> None:
    """A container's livenessProbe, readinessProbe or startupProbe (`kind`)."""
    _handler(causes, found, path, ("exec", "httpGet", "tcpSocket", "grpc"))
    at_least(
        causes,
        found,
        path,
        0,
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    )
    if kind == "readinessProbe":
        if found.get("terminationGracePeriodSeconds") is not None:
            value = found["terminationGracePeriodSeconds"]
            text = "must not be set for readinessProbes"
            causes.append(invalid_value(f"{path}.terminationGracePeriodSeconds", value, text))
    else:
        at_least(causes, found, path, 1, "terminationGracePeriodSeconds")
        if found.get("successThreshold", 1) != 1:
            causes.append(invalid_value(f"{path}.successThreshold", found["successThreshold"], "must be 1"))


def lifecycle(causes: list[Cause], found: Each, path: str, grace: int | None, *, has_system: bool) -> None:
    """A container's postStart and preStop. `grace`: the pod's termination grace period in seconds."""
    for name in ("postStart", "preStop"):
        if name in found:
            _handler(causes, found[name], f"{path}.{name}", ("exec", "httpGet", "tcpSocket", "sleep"))
            seconds = (found[name].get("sleep") or {}).get("seconds", 0)
            if grace is not None and not 0 <= seconds <= max(grace, 0):
                text = f"must be non-negative and less than terminationGracePeriodSeconds ({grace})"
                causes.append(invalid_value(f"{path}.{name}.sleep", seconds, text))
    if found.get("stopSignal") and not has_system:
        text = "may not be set for containers with empty `spec.os.name`"
        causes.append(forbidden_field(f"{path}.stopSignal", text))


def _handler(causes: list[Cause], found: Each, path: str, kinds: tuple[str, ...]) -> None:
    count = 0
    for kind in kinds:
        if kind not in found:
            continue
        count += 1
        if count > 1:
            causes.append(forbidden_field(f"{path}.{kind}", "may not specify more than 1 handler type"))
            continue
        _ACTIONS[kind](causes, found[kind], f"{path}.{kind}")
    if not count:
        causes.append(required(path, "must specify a handler type"))


def _exec(causes: list[Cause], action: Each, path: str) -> None:
    if not action.get("command"):
        causes.append(required(f"{path}.command"))


def _http_get(causes: list[Cause], action: Each, path: str) -> None:
    if not action.get("path"):
        causes.append(required(f"{path}.path"))
    port(causes, action.get("port", 0), f"{path}.port")
    if action.get("scheme") not in ("HTTP", "HTTPS"):
        causes.append(not_supported(f"{path}.scheme", action.get("scheme", ""), ("HTTP", "HTTPS")))
    for header in action.get("httpHeaders") or ():
        complain(causes, f"{path}.httpHeaders", header.get("name", ""), names.http_header_name(header.get("name", "")))


def _tcp_socket(causes: list[Cause], action: Each, path: str) -> None:
    port(causes, action.get("port", 0), f"{path}.port")


def _grpc(causes: list[Cause], action: Each, path: str) -> None:
    number = action.get("port", 0)
    causes += [invalid_value(f"{path}.port", number, each) for each in names.port_number(number)]


def _sleep(causes: list[Cause], action: Each, path: str) -> None:
    """Its length is judged where the grace period is known."""


_ACTIONS = {"exec": _exec, "httpGet": _http_get, "tcpSocket": _tcp_socket, "grpc": _grpc, "sleep": _sleep}


def port(causes: list[Cause], value: int | str, path: str) -> None:
    """A port by number, or by the name of a container's port."""
    complaints = names.port_name(value) if isinstance(value, str) else names.port_number(value)
    causes += [invalid_value(path, value, each) for each in complaints]
