"""Which endpoints a packet may be sent to: readiness, termination, traffic policies and hints. Pure.

    cluster   for traffic under policy Cluster: all ready ones, or those that the topology hints choose for this node;
              if nothing is ready, those that terminate but still serve
    local     for traffic under policy Local: the same among this node's own

The rules are those of Kubernetes (KEP-1669 terminating endpoints, KEP-2433 hints, KEP-3015 same node).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from netproxy.model import Endpoint, ServicePort


@dataclass(frozen=True, slots=True)
class Location:
    """Where this proxy is."""

    node_name: str
    zone: str = ""  # label topology.kubernetes.io/zone of the Node


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """A Service port and where its packets go: everything that a backend needs to know."""

    port: ServicePort
    cluster: tuple[Endpoint, ...] = ()
    local: tuple[Endpoint, ...] = ()
    has_any: bool = False  # somewhere in the cluster there is an endpoint, even if this node must not use it

    @property
    def internal(self) -> tuple[Endpoint, ...]:
        """For packets to the ClusterIP."""
        return self.local if self.port.internal_local else self.cluster

    @property
    def external(self) -> tuple[Endpoint, ...]:
        """For packets from outside to a NodePort, external IP or load balancer address."""
        return self.local if self.port.external_local else self.cluster

    @property
    def all(self) -> tuple[Endpoint, ...]:
        """Every endpoint in use, each once."""
        return tuple(dict.fromkeys(self.cluster + self.local))


def plan(port: ServicePort, endpoints: Sequence[Endpoint], location: Location) -> ServicePlan:
    """Decide for one Service port."""
    usable = _usable(endpoints)
    local: tuple[Endpoint, ...] = ()
    if port.internal_local or port.external_local:
        local = _usable([e for e in endpoints if e.local])
    # With both policies Local nothing is ever sent across the cluster, except from this node to its own Service.
    needs_cluster = not port.internal_local or port.external
    cluster = _hinted(usable, location) if needs_cluster else ()
    return ServicePlan(port, cluster, local, bool(usable))


def _usable(endpoints: Sequence[Endpoint]) -> tuple[Endpoint, ...]:
    ready = tuple(e for e in endpoints if e.ready)
    return ready or tuple(e for e in endpoints if e.serving and e.terminating)


def _hinted(endpoints: tuple[Endpoint, ...], location: Location) -> tuple[Endpoint, ...]:
    """Those meant for this node, then for this zone; all of them when a hint is missing or would leave none, since
    half-written hints must not starve anybody."""
    if not all(e.ready for e in endpoints):
        return endpoints
    if location.node_name and all(e.node_hints for e in endpoints):
        chosen = tuple(e for e in endpoints if location.node_name in e.node_hints)
        if chosen:
            return chosen
    if location.zone and all(e.zone_hints for e in endpoints):
        chosen = tuple(e for e in endpoints if location.zone in e.zone_hints)
        if chosen:
            return chosen
    return endpoints
