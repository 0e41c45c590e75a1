"""Aggregated APIs as the server sees them: who answers a request, and what discovery shows of them."""

import asyncio
import contextlib
from collections.abc import Callable

from controlplane.api import status
from controlplane.api.resources import ResourceTable
from controlplane.apiserver.aggregation.apiservices import PREFIX, APIServices, Backend
from controlplane.apiserver.aggregation.availability import Availability, Published
from controlplane.apiserver.aggregation.relay import Relay
from controlplane.apiserver.aggregation.strategy import APIServiceStrategy
from controlplane.apiserver.http import Request, Response
from controlplane.apiserver.registry.generic import Registry
from controlplane.store.broadcaster import Overflow
from controlplane.store.interface import StoreError

_ROUND_S = 30.0


class Aggregator:
    """`publish` is given what aggregated APIs say of themselves when that changes."""

    def __init__(
        self, registry: Registry, table: ResourceTable, certificate: str, key: str,
        publish: Callable[[tuple[Published, ...]], None],
    ) -> None:  # fmt: skip
        resource = table.preferred("apiregistration.k8s.io", "apiservices")
        assert resource is not None
        registry.set_strategy(resource, APIServiceStrategy(resource))
        self.table = table
        self._cache = registry.cache
        self._services = APIServices(registry.cache)
        self._relay = Relay(registry.cache, certificate, key)
        self._availability = Availability(registry, resource, self._services, self._relay)
        self._publish = publish
        self._published: tuple[Published, ...] = ()
        self._again = asyncio.Event()

    def backend(self, group: str, version: str) -> Backend | None:
        """Who answers for a group's version that we do not serve ourselves."""
        found = self._services.backend(group, version)
        return found if found is None or not self.table.resources(group, version) else None

    async def forward(self, request: Request, backend: Backend) -> Response:
        """Raises StatusError 503."""
        try:
            return await self._relay.forward(request, backend)
        except status.StatusError as error:
            if error.code == 404:  # the Service is not there
                raise status.service_unavailable("service unavailable") from None
            raise

    def serve(self, table: ResourceTable) -> None:
        """The resources that there are from now on."""
        self.table = table
        self._again.set()

    async def start(self) -> None:
        """Have an APIService for everything that we serve."""
        await self._availability.own(self.table)

    async def run(self) -> None:
        """Look after APIServices until cancelled: every half a minute, and when one changes."""
        watcher = self._cache.subscribe(PREFIX)
        try:
            while True:
                self._again.clear()
                await self._availability.own(self.table)
                await self._look()
                with contextlib.suppress(Overflow):
                    watcher.take()
                waits = [asyncio.ensure_future(watcher.next(_ROUND_S)), asyncio.ensure_future(self._again.wait())]
                try:
                    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for each in waits:
                        each.cancel()
                    await asyncio.gather(*waits, return_exceptions=True)
        except StoreError:
            return
        finally:
            watcher.close()

    async def _look(self) -> None:
        found = tuple(each for each in await self._availability.round() if self._is_ours(each.backend))
        if found != self._published:
            self._published = found
            self._publish(found)

    def _is_ours(self, backend: Backend) -> bool:
        return not self.table.resources(backend.group, backend.version)

    async def close(self) -> None:
        self._services.close()
        await self._relay.close()
