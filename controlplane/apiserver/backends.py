"""Where a pod or Service is reached: for `pods/proxy` and `services/proxy`, which the API server dials itself.

Names may carry a scheme and a port: `https:web:443`, `web:http`, `web`. A Service means one of its ready endpoints.
"""

import ipaddress
from collections.abc import Iterator
from typing import Any

from controlplane import clock
from controlplane.api import status
from controlplane.apiserver.requestinfo import RequestInfo
from controlplane.store.cache import WatchCache

Object = dict[str, Any]


def locate(cache: WatchCache, info: RequestInfo) -> str:
    """The URL, without a path, of what `info` names. Raises StatusError 400, 404, 503."""
    scheme, name, port = _split(info.name)
    if info.resource == "pods":
        address, number = _pod(cache, info.namespace, name, port)
    else:
        address, number = endpoint(cache, info.namespace, name, port)
    if not _reachable(address):
        raise status.bad_request("address not allowed")
    return f"{scheme}://[{address}]:{number}" if ":" in address else f"{scheme}://{address}:{number}"


def _split(name: str) -> tuple[str, str, str]:
    parts = name.split(":")
    if len(parts) == 3 and parts[0] in ("http", "https", ""):
        return parts[0] or "http", parts[1], parts[2]
    if len(parts) <= 2:
        return "http", parts[0], parts[1] if len(parts) == 2 else ""
    raise status.bad_request(f"invalid request {name!r}")


def _pod(cache: WatchCache, namespace: str, name: str, port: str) -> tuple[str, str]:
    cached = cache.get(f"core/pods/{namespace}/{name}")
    if cached is None:
        raise status.not_found("pods", name)
    pod = cached.object
    ports = [p for c in pod["spec"].get("containers", ()) for p in c.get("ports") or ()]
    if not port:
        port = str(ports[0]["containerPort"]) if ports else "80"
    elif not port.isdigit():
        port = next((str(p["containerPort"]) for p in ports if p.get("name") == port), "")
    address = pod.get("status", {}).get("podIP", "")
    if not address or not port:
        raise status.bad_request(f"pod {name!r} has no address or no such port")
    return address, port


def endpoint(cache: WatchCache, namespace: str, name: str, port: str) -> tuple[str, str]:
    """Address and port of a ready endpoint of a Service's port. Raises StatusError 404, 503."""
    cached = cache.get(f"core/services/{namespace}/{name}")
    if cached is None:
        raise status.not_found("services", name)
    ports = cached.object["spec"].get("ports") or []
    if not port and len(ports) == 1:
        wanted = ports[0]
    else:
        wanted = next((p for p in ports if port in (p.get("name", ""), str(p["port"]))), None)
    if wanted is None:
        raise status.service_unavailable(f'no service port "{port}" found for service "{name}"')
    choices = list(_ready(cache, namespace, name, wanted.get("name", "")))
    if not choices:
        raise status.service_unavailable(f'no endpoints available for service "{name}"')
    return clock.chance.choice(choices)


def _ready(cache: WatchCache, namespace: str, service: str, port: str) -> Iterator[tuple[str, str]]:
    for cached in cache.list(f"discovery.k8s.io/endpointslices/{namespace}/")[0]:
        if cached.labels.get("kubernetes.io/service-name") != service:
            continue
        slice_ = cached.object
        number = next((p.get("port") for p in slice_.get("ports") or () if p.get("name", "") == port), None)
        for endpoint in slice_.get("endpoints") or ():
            if number and endpoint.get("conditions", {}).get("ready", True):
                yield from ((address, str(number)) for address in endpoint["addresses"])


def _reachable(address: str) -> bool:
    """Not the server's own machine, nor anything that only means something on it."""
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    return not (ip.is_loopback or ip.is_link_local or ip.is_multicast or ip.is_unspecified)
