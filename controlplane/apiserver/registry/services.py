"""Services: addresses and node ports, given and taken back without leaks or duplicates.

What is in use is learned from the stored Services at start and kept in memory; one API server owns its ranges. An
allocation is taken before the object is written and given back when the write fails.
"""

import ipaddress
from typing import Any

from controlplane import clock
from controlplane.api import status
from controlplane.api.resources import Resource
from controlplane.apiserver.registry.strategy import Object, Strategy
from controlplane.store.cache import WatchCache


class Exhausted(Exception):
    """No number is left in a range."""


class Range:
    """Integers from `first` to `last`: chosen at random, reserved by name, released."""

    def __init__(self, first: int, last: int) -> None:
        self.first, self.last = first, last
        self._used: set[int] = set()

    def reserve(self, number: int) -> bool:
        """False if it is taken."""
        if number in self._used:
            return False
        self._used.add(number)
        return True

    def release(self, number: int) -> None:
        self._used.discard(number)

    def choose(self) -> int:
        """Random, so that a number that was just released is not at once somebody else's."""
        size = self.last - self.first + 1
        if len(self._used) >= size:
            raise Exhausted
        number = self.first + clock.chance.randrange(size)
        while number in self._used:
            number = self.first if number == self.last else number + 1
        self._used.add(number)
        return number

    def __contains__(self, number: int) -> bool:
        return self.first <= number <= self.last


class ServiceStrategy(Strategy):
    def __init__(self, resource: Resource, cache: WatchCache, cluster_ips: str, node_ports: str) -> None:
        super().__init__(resource)
        network = ipaddress.ip_network(cluster_ips)
        self._network = network
        low, _, high = node_ports.partition("-")
        self.addresses = Range(int(network[1]), int(network[-2]))
        self.ports = Range(int(low), int(high))
        for cached in cache.list("core/services/")[0]:
            for address in _addresses(cached.object["spec"]):
                self.addresses.reserve(int(ipaddress.ip_address(address)))
            for port in _node_ports(cached.object["spec"]):
                self.ports.reserve(port)
        # What a write took that is not decided yet, by the object that it is about to write.
        self._taken: dict[int, tuple[list[int], list[int]]] = {}

    async def prepare_create(self, obj: Object) -> None:
        obj["status"] = {"loadBalancer": {}}
        self._taken[id(obj)] = self._take(obj, {})

    async def created(self, obj: Object) -> None:
        self._taken.pop(id(obj), None)

    async def updated(self, new: Object, old: Object) -> None:
        self._taken.pop(id(new), None)
        kept = set(_addresses(new["spec"]))
        for address in _addresses(old["spec"]):
            if address not in kept:
                self.addresses.release(int(ipaddress.ip_address(address)))
        for port in set(_node_ports(old["spec"])) - set(_node_ports(new["spec"])):
            self.ports.release(port)

    async def refused(self, obj: Object) -> None:
        addresses, ports = self._taken.pop(id(obj), ((), ()))
        for address in addresses:
            self.addresses.release(address)
        for port in ports:
            self.ports.release(port)

    async def deleted(self, obj: Object) -> None:
        for address in _addresses(obj["spec"]):
            self.addresses.release(int(ipaddress.ip_address(address)))
        for port in _node_ports(obj["spec"]):
            self.ports.release(port)

    async def prepare_update(self, new: Object, old: Object) -> None:
        await super().prepare_update(new, old)
        before, spec = old["spec"], new["spec"]
        kind = spec.get("type", "ClusterIP")
        if kind == "ExternalName":
            # Unless the client insists on them, what the old type had goes.
            for key in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy", "internalTrafficPolicy"):
                if spec.get(key) == before.get(key):
                    spec.pop(key, None)
        elif before.get("type") != "ExternalName":
            # An update that leaves these out means "as it is".
            for key in ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"):
                if not spec.get(key) and before.get(key):
                    spec[key] = before[key]
        if kind in ("NodePort", "LoadBalancer"):
            known = {(p["port"], p.get("protocol", "TCP")): p.get("nodePort") for p in before.get("ports", ())}
            spec["ports"] = [
                p
                if p.get("nodePort")
                else {**p, **({"nodePort": n} if (n := known.get((p["port"], p.get("protocol", "TCP")))) else {})}
                for p in spec.get("ports", ())
            ]
        else:
            spec["ports"] = [{k: v for k, v in p.items() if k != "nodePort"} if p.get("nodePort") in _node_ports(before)
                             else p for p in spec.get("ports", ())]  # fmt: skip
            spec.pop("externalTrafficPolicy", None) if not spec.get("externalIPs") else None
        self._taken[id(new)] = self._take(new, old)

    def _take(self, obj: Object, old: Object) -> tuple[list[int], list[int]]:
        """Fill in what is missing; returns what was newly taken. Raises StatusError 422, having taken nothing."""
        spec = obj["spec"]
        taken: tuple[list[int], list[int]] = ([], [])
        causes: list[status.Cause] = []
        kind = spec.setdefault("type", "ClusterIP")
        if kind == "ExternalName":
            return taken
        before = set(_addresses(old.get("spec", {})))
        asked = spec.get("clusterIP") or (spec.get("clusterIPs") or [""])[0]
        if asked == "None":
            spec["clusterIP"], spec["clusterIPs"] = "None", ["None"]
        elif asked:
            causes += self._reserve(asked, before, taken)
            spec["clusterIP"], spec["clusterIPs"] = asked, [asked]
        else:
            try:
                number = self.addresses.choose()
            except Exhausted:
                raise status.internal("failed to allocate a serviceIP: range is full") from None
            taken[0].append(number)
            spec["clusterIP"] = str(ipaddress.ip_address(number))
            spec["clusterIPs"] = [spec["clusterIP"]]
        family = "IPv6" if self._network.version == 6 else "IPv4"
        if asked != "None" or spec.get("selector"):
            causes += _families(spec, family)
        spec.setdefault("ipFamilies", [family])
        spec.setdefault("ipFamilyPolicy", "SingleStack")
        spec.setdefault("internalTrafficPolicy", "Cluster")
        if kind in ("NodePort", "LoadBalancer"):
            spec.setdefault("externalTrafficPolicy", "Cluster")
            if kind == "LoadBalancer":
                spec.setdefault("allocateLoadBalancerNodePorts", True)
                if spec["externalTrafficPolicy"] == "Local" and not spec.get("healthCheckNodePort"):
                    spec["healthCheckNodePort"] = old.get("spec", {}).get("healthCheckNodePort") or self._any_port(
                        taken
                    )
            held = set(_node_ports(old.get("spec", {})))
            spec["ports"] = [
                self._with_port(i, dict(p), held, taken, causes) for i, p in enumerate(spec.get("ports", ()))
            ]
        if causes:
            for number in taken[0]:
                self.addresses.release(number)
            for number in taken[1]:
                self.ports.release(number)
            raise status.invalid("", "Service", obj["metadata"].get("name", ""), causes)
        return taken

    def _reserve(self, asked: str, before: set[str], taken: tuple[list[int], list[int]]) -> list[status.Cause]:
        if asked in before:
            return []
        try:
            address = ipaddress.ip_address(asked)
        except ValueError:
            return [
                status.invalid_value(
                    "spec.clusterIPs[0]", asked, "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"
                )
            ]
        if address not in self._network:
            return [status.invalid_value("spec.clusterIPs", [asked],
                    f'failed to allocate IP {asked}: the provided IP ({asked}) is not in the valid range. The range of '
                    f"valid IPs is {self._network}")]  # fmt: skip
        if not self.addresses.reserve(int(address)):
            return [
                status.invalid_value(
                    "spec.clusterIPs", [asked], f"failed to allocate IP {asked}: provided IP is already allocated"
                )
            ]
        taken[0].append(int(address))
        return []

    def _any_port(self, taken: tuple[list[int], list[int]]) -> int:
        try:
            taken[1].append(self.ports.choose())
        except Exhausted:
            raise status.internal("failed to allocate a nodePort: range is full") from None
        return taken[1][-1]

    def _with_port(
        self, index: int, port: Object, held: set[int], taken: tuple[list[int], list[int]], causes: list[status.Cause]
    ) -> Object:
        asked: Any = port.get("nodePort")
        field = f"spec.ports[{index}].nodePort"
        if not asked:
            try:
                port["nodePort"] = self.ports.choose()
                taken[1].append(port["nodePort"])
            except Exhausted:
                causes.append(status.invalid_value(field, 0, "range is full"))
        elif asked not in self.ports:
            causes.append(
                status.invalid_value(
                    field,
                    asked,
                    "provided port is not in the valid range. The range of valid ports is "
                    f"{self.ports.first}-{self.ports.last}",
                )
            )
        elif asked not in held and asked not in taken[1]:
            if self.ports.reserve(asked):
                taken[1].append(asked)
            else:
                causes.append(status.invalid_value(field, asked, "provided port is already allocated"))
        return port


def _families(spec: Object, ours: str) -> list[status.Cause]:
    """What a Service may not ask of a cluster with one address family (registry/core/service/storage/alloc.go). One
    without selector and address may: its endpoints are somebody else's."""
    causes = []
    if spec.get("ipFamilyPolicy") == "RequireDualStack":
        text = "this cluster is not configured for dual-stack services"
        causes.append(status.invalid_value("spec.ipFamilyPolicy", "RequireDualStack", text))
    for index, family in enumerate(spec.get("ipFamilies") or ()):
        if family != ours:
            field = f"spec.ipFamilies[{index}]"
            causes.append(status.invalid_value(field, family, "not configured on this cluster"))
    return causes


def _addresses(spec: Object) -> list[str]:
    return [a for a in spec.get("clusterIPs") or [spec.get("clusterIP", "")] if a and a != "None"]


def _node_ports(spec: Object) -> list[int]:
    ports = [p["nodePort"] for p in spec.get("ports", ()) if p.get("nodePort")]
    return ports + ([spec["healthCheckNodePort"]] if spec.get("healthCheckNodePort") else [])
