"""The environment variables that tell a container of Services (docker links' names), and of the API server.

`ServiceVariables` follows an informer on Services: a namespace's variables are made once and kept until one of its
Services changes. Format: kubelet's pkg/kubelet/envvars.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Protocol

from nodeagent.pods.model import Object


class ServiceLister(Protocol):
    """Where Services come from: an informer with the index `namespace`."""

    def by_index(self, name: str, value: str) -> Iterable[Object]: ...


class ServiceVariables:
    """`fallback`: KUBERNETES_SERVICE_HOST and friends as long as Service default/kubernetes has not been seen."""

    def __init__(self, services: ServiceLister, fallback: Mapping[str, str]) -> None:
        self._services = services
        self._fallback = dict(fallback)
        self._made: dict[str, dict[str, str]] = {}

    def changed(self, service: Object) -> None:
        self._made.pop(service["metadata"].get("namespace", ""), None)

    def of(self, namespace: str, links: bool) -> dict[str, str]:
        """The variables for a pod of `namespace`; `links`: its enableServiceLinks. The API server's are always in."""
        master = self._all("default")
        result = {**self._fallback, **{k: v for k, v in master.items() if k.startswith("KUBERNETES_")}}
        if links:
            result.update(self._all(namespace))
        return result

    def _all(self, namespace: str) -> dict[str, str]:
        made = self._made.get(namespace)
        if made is None:
            made = {}
            for service in self._services.by_index("namespace", namespace):
                made.update(variables(service))
            self._made[namespace] = made
        return made


def variables(service: Object) -> dict[str, str]:
    """What one Service contributes; nothing for a headless one."""
    spec = service["spec"]
    ip, ports = spec.get("clusterIP"), spec.get("ports") or ()
    if not ip or ip == "None" or not ports:
        return {}
    prefix = service["metadata"]["name"].upper().replace("-", "_")
    result = {f"{prefix}_SERVICE_HOST": ip, f"{prefix}_SERVICE_PORT": str(ports[0]["port"])}
    host = f"[{ip}]" if ":" in ip else ip
    for index, port in enumerate(ports):
        number, protocol = port["port"], (port.get("protocol") or "TCP")
        if port.get("name"):
            result[f"{prefix}_SERVICE_PORT_{port['name'].upper().replace('-', '_')}"] = str(number)
        url = f"{protocol.lower()}://{host}:{number}"
        if index == 0:
            result[f"{prefix}_PORT"] = url
        base = f"{prefix}_PORT_{number}_{protocol.upper()}"
        result |= {base: url, f"{base}_PROTO": protocol.lower(), f"{base}_PORT": str(number), f"{base}_ADDR": ip}
    return result
