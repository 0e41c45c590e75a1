"""What the proxy knows of a Service port and of an endpoint, read from the API's objects. Pure.

Only what decides where a packet goes is kept, so that "equal" here means "no rule can differ": a Service whose labels
changed, or a slice whose pods' conditions changed back and forth, costs nothing further down.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

Obj = dict[str, Any]

PROXY_NAME_LABEL = "service.kubernetes.io/service-proxy-name"
HEADLESS_LABEL = "service.kubernetes.io/headless"
SERVICE_NAME_LABEL = "kubernetes.io/service-name"
_DEFAULT_AFFINITY_S = 10800


class ServiceName(NamedTuple):
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


class PortName(NamedTuple):
    """A port of a Service; prints as `namespace/name:port`, as kube-proxy's comments and hashes have it."""

    service: ServiceName
    port: str
    protocol: str

    def __str__(self) -> str:
        return f"{self.service}:{self.port}" if self.port else str(self.service)


@dataclass(frozen=True, slots=True)
class ServicePort:
    """One port of a Service in one address family."""

    name: PortName
    cluster_ip: str
    port: int
    protocol: str  # TCP, UDP or SCTP
    node_port: int = 0
    external_ips: tuple[str, ...] = ()
    load_balancer_ips: tuple[str, ...] = ()  # those with ipMode VIP: traffic to a Proxy's never arrives as such
    source_ranges: tuple[str, ...] = ()  # who may use the load balancer's addresses; empty: everybody
    affinity_s: int = 0  # session affinity by client address for so many seconds; 0: none
    internal_local: bool = False  # internalTrafficPolicy: Local
    external_local: bool = False  # externalTrafficPolicy: Local
    health_check_node_port: int = 0

    @property
    def external(self) -> bool:
        """Whether it is reachable by another way than its ClusterIP."""
        return bool(self.node_port or self.external_ips or self.load_balancer_ips)


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """One address and port of a pod behind a Service port."""

    ip: str
    port: int
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    local: bool = False  # on this node
    zone_hints: frozenset[str] = frozenset()
    node_hints: frozenset[str] = frozenset()

    def __str__(self) -> str:
        return f"[{self.ip}]:{self.port}" if ":" in self.ip else f"{self.ip}:{self.port}"


Endpoints = Mapping[str, Sequence[Endpoint]]
"""By port name."""


def service_name(obj: Obj) -> ServiceName:
    return ServiceName(obj["metadata"]["namespace"], obj["metadata"]["name"])


def is_ours(service: Obj) -> bool:
    """Whether this proxy serves it: it has a ClusterIP and no other proxy claims it."""
    spec = service.get("spec", {})
    if PROXY_NAME_LABEL in (service["metadata"].get("labels") or {}):
        return False
    return spec.get("type") != "ExternalName" and spec.get("clusterIP") not in (None, "", "None")


def service_ports(service: Obj, family: int = 4) -> tuple[ServicePort, ...]:
    """The ports of a Service in the address family 4 or 6; none if this proxy does not serve it."""
    if not is_ours(service):
        return ()
    spec = service["spec"]
    cluster_ip = next((ip for ip in spec.get("clusterIPs") or [spec["clusterIP"]] if _family(ip) == family), None)
    if cluster_ip is None:
        return ()
    name = service_name(service)
    kind = spec.get("type", "ClusterIP")
    affinity_s = 0
    if spec.get("sessionAffinity") == "ClientIP":
        client_ip = (spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}
        affinity_s = client_ip.get("timeoutSeconds") or _DEFAULT_AFFINITY_S
    ingress = (service.get("status", {}).get("loadBalancer") or {}).get("ingress") or ()
    balancers = tuple(
        sorted(
            i["ip"] for i in ingress if i.get("ip") and i.get("ipMode", "VIP") == "VIP" and _family(i["ip"]) == family
        )
    )
    external_local = spec.get("externalTrafficPolicy") == "Local"
    return tuple(
        ServicePort(
            name=PortName(name, port.get("name", ""), port.get("protocol", "TCP")),
            cluster_ip=cluster_ip,
            port=port["port"],
            protocol=port.get("protocol", "TCP"),
            node_port=port.get("nodePort", 0) if kind in ("NodePort", "LoadBalancer") else 0,
            external_ips=tuple(sorted(ip for ip in spec.get("externalIPs") or () if _family(ip) == family)),
            load_balancer_ips=balancers if kind == "LoadBalancer" else (),
            source_ranges=tuple(
                sorted(r.strip() for r in spec.get("loadBalancerSourceRanges") or () if _family(r) == family)
            ),
            affinity_s=affinity_s,
            internal_local=spec.get("internalTrafficPolicy") == "Local",
            external_local=external_local,
            health_check_node_port=spec.get("healthCheckNodePort", 0) if external_local else 0,
        )
        for port in spec.get("ports") or ()
    )


def slice_owner(endpoint_slice: Obj) -> ServiceName | None:
    """The Service that an EndpointSlice belongs to; None for one that this proxy should ignore."""
    metadata = endpoint_slice["metadata"]
    labels = metadata.get("labels") or {}
    if SERVICE_NAME_LABEL not in labels or HEADLESS_LABEL in labels or PROXY_NAME_LABEL in labels:
        return None
    return ServiceName(metadata["namespace"], labels[SERVICE_NAME_LABEL])


def slice_endpoints(endpoint_slice: Obj, node_name: str, family: int = 4) -> dict[str, tuple[Endpoint, ...]]:
    """The endpoints of one slice by port name; none if it is of another address family (or of type FQDN).
    `node_name` decides which are local."""
    if endpoint_slice.get("addressType") != f"IPv{family}":
        return {}
    addresses = tuple(_endpoints(endpoint_slice, node_name))
    return {
        port.get("name") or "": tuple(Endpoint(address, port["port"], *rest) for address, rest in addresses)
        for port in endpoint_slice.get("ports") or ()
        if port.get("port")
    }


def _endpoints(endpoint_slice: Obj, node_name: str) -> Iterator[tuple[str, tuple[Any, ...]]]:
    for endpoint in endpoint_slice.get("endpoints") or ():
        if not endpoint.get("addresses"):
            continue
        conditions = endpoint.get("conditions") or {}
        ready = conditions.get("ready") is not False  # unknown means ready, says the API
        serving = ready if conditions.get("serving") is None else conditions["serving"]
        hints = endpoint.get("hints") or {}
        rest = (
            ready,
            serving,
            conditions.get("terminating") is True,
            endpoint.get("nodeName") == node_name,
            frozenset(zone["name"] for zone in hints.get("forZones") or ()),
            frozenset(node["name"] for node in hints.get("forNodes") or ()),
        )
        yield (
            endpoint["addresses"][0],
            rest,
        )  # all addresses of one endpoint are the same pod; the first is the one used


def _family(address: str) -> int:
    return 6 if ":" in address else 4
