"""What changed since the rules were last written: Services and EndpointSlices come in, names of Services go out.

Events only fill this tracker (microseconds each); the rules are made later, once, for whatever has piled up. The
endpoints of a Service are spread over several slices, and one may be in two of them while it moves: here they become
one list. An event that changes nothing that matters marks nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from netproxy.model import (
    Endpoint,
    Obj,
    ServiceName,
    ServicePort,
    service_name,
    service_ports,
    slice_endpoints,
    slice_owner,
)


class ChangeTracker:
    """All Services and endpoints of one address family, and which Services changed since `take()`."""

    def __init__(self, node_name: str, family: int = 4) -> None:
        self._node_name, self._family = node_name, family
        self._services: dict[ServiceName, tuple[ServicePort, ...]] = {}
        self._slices: dict[ServiceName, dict[str, Mapping[str, tuple[Endpoint, ...]]]] = {}
        self._owners: dict[tuple[str, str], ServiceName] = {}
        self._changed: set[ServiceName] = set()

    def service_changed(self, service: Obj) -> bool:
        """A Service was added or updated. Whether that matters."""
        return self._store_service(service_name(service), service_ports(service, self._family))

    def service_deleted(self, service: Obj) -> bool:
        return self._store_service(service_name(service), ())

    def slice_changed(self, endpoint_slice: Obj) -> bool:
        """An EndpointSlice was added or updated. Whether that matters."""
        metadata = endpoint_slice["metadata"]
        key = (metadata["namespace"], metadata["name"])
        owner, before = slice_owner(endpoint_slice), self._owners.get(key)
        moved = before is not None and before != owner and self._drop_slice(key, before)
        if owner is None:
            return moved
        found = slice_endpoints(endpoint_slice, self._node_name, self._family)
        self._owners[key] = owner
        slices = self._slices.setdefault(owner, {})
        if slices.get(key[1]) == found:
            return moved
        slices[key[1]] = found
        return self._mark(owner) or moved

    def slice_deleted(self, endpoint_slice: Obj) -> bool:
        key = (endpoint_slice["metadata"]["namespace"], endpoint_slice["metadata"]["name"])
        owner = self._owners.get(key)
        return owner is not None and self._drop_slice(key, owner)

    def take(self) -> set[ServiceName]:
        """The Services that changed since the last call; they count as seen now."""
        changed, self._changed = self._changed, set()
        return changed

    def put_back(self, names: set[ServiceName]) -> None:
        """What was taken could not be written: it is still to do."""
        self._changed |= names

    @property
    def pending(self) -> int:
        return len(self._changed)

    def names(self) -> list[ServiceName]:
        """Every Service that has ports."""
        return list(self._services)

    def ports(self, name: ServiceName) -> tuple[ServicePort, ...]:
        return self._services.get(name, ())

    def endpoints(self, name: ServiceName, port: str) -> list[Endpoint]:
        """The endpoints of a Service's port from all its slices, each address and port once, in order."""
        found: dict[tuple[str, int], Endpoint] = {}
        for by_port in self._slices.get(name, {}).values():
            for endpoint in by_port.get(port, ()):
                key = (endpoint.ip, endpoint.port)
                # While it moves from one slice to another it may be in both: the ready one is the fresher.
                if key not in found or (endpoint.ready and not found[key].ready):
                    found[key] = endpoint
        return sorted(found.values(), key=lambda e: (e.ip, e.port))

    def _store_service(self, name: ServiceName, ports: tuple[ServicePort, ...]) -> bool:
        if self._services.get(name, ()) == ports:
            return False
        if ports:
            self._services[name] = ports
        else:
            del self._services[name]
        self._changed.add(name)
        return True

    def _drop_slice(self, key: tuple[str, str], owner: ServiceName) -> bool:
        del self._owners[key]
        slices = self._slices[owner]
        gone = slices.pop(key[1], None)
        if not slices:
            del self._slices[owner]
        return bool(gone) and self._mark(owner)

    def _mark(self, name: ServiceName) -> bool:
        """Endpoints without their Service wait for it silently."""
        if name not in self._services:
            return False
        self._changed.add(name)
        return True
