"""Leader election by a Lease: of several processes with one job, one does it.

client-go's semantics: a candidate watches the Lease's *record* and counts time from when it saw the record change, on
its own clock, so that skewed clocks do no harm; the leader renews every `retry_period` and stops when it could not for
`renew_deadline`; a leader that stops in order gives the Lease back, so that the next one need not wait. It does not
fence: for up to `lease_duration - renew_deadline` a stopped leader's last requests may still be on their way.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Any

from controlplane.api.status import StatusError
from controlplane.client.errors import Unreachable
from controlplane.client.resources import LEASES
from controlplane.client.rest import Client, Obj
from controlplane.clock import chance, new_uid, rfc3339_micro

log = logging.getLogger(__name__)


class LeadershipLost(Exception):
    """The Lease could not be renewed in time, or somebody else holds it. The process should end and start again."""


def default_identity() -> str:
    """A name for this process alone: host name and a random part."""
    return f"{socket.gethostname()}_{new_uid()}"


class LeaderElector:
    """One candidate for one Lease."""

    def __init__(
        self,
        client: Client,
        name: str,
        *,
        namespace: str = "kube-system",
        identity: str = "",
        lease_duration: float = 15.0,
        renew_deadline: float = 10.0,
        retry_period: float = 2.0,
        enabled: bool = True,
    ) -> None:
        """Times in seconds. An `identity` that is the same after a restart gets its Lease back at once, and must then
        be no other process's."""
        if not lease_duration > renew_deadline > retry_period > 0:
            raise ValueError("lease_duration > renew_deadline > retry_period > 0 must hold")
        self.identity = identity or default_identity()
        self.is_leader = False
        self._client = client.with_timeout(max(retry_period, renew_deadline / 2))
        self._name, self._namespace = name, namespace
        self._duration, self._deadline, self._period = lease_duration, renew_deadline, retry_period
        self._enabled = enabled
        self._lease: Obj | None = None
        self._seen: Any = None
        self._seen_at = 0.0

    async def run(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Wait for the Lease, then run `lead()` while holding it; give it back at the end. Raises LeadershipLost,
        after `lead` has been cancelled. Disabled: run `lead()` at once."""
        if not self._enabled:
            await lead()
            return
        await self._acquire()
        self.is_leader = True
        log.info("leader lease=%s/%s identity=%s", self._namespace, self._name, self.identity)
        work = asyncio.ensure_future(lead())
        renewal = asyncio.ensure_future(self._renew())
        try:
            await asyncio.wait((work, renewal), return_when=asyncio.FIRST_COMPLETED)
        finally:
            work.cancel()
            renewal.cancel()
            await asyncio.gather(work, renewal, return_exceptions=True)
            self.is_leader = False
            await self._release()
        if not work.cancelled():
            work.result()  # raise what it raised
        elif not renewal.cancelled():
            raise LeadershipLost(f"lease {self._namespace}/{self._name}")

    async def _acquire(self) -> None:
        while True:
            if await self._try():
                return
            await asyncio.sleep(self._period * (1 + 0.2 * chance.random()))

    async def _renew(self) -> None:
        """Return when the Lease is lost."""
        loop = asyncio.get_running_loop()
        renewed = loop.time()
        while True:
            await asyncio.sleep(self._period)
            while True:
                ours = False
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout_at(renewed + self._deadline):
                        ours = await self._try()
                if ours:
                    renewed = loop.time()
                    break
                if loop.time() >= renewed + self._deadline or self._holder() not in ("", self.identity):
                    log.error("leadership_lost lease=%s/%s", self._namespace, self._name)
                    return
                await asyncio.sleep(min(self._period, max(renewed + self._deadline - loop.time(), 0)))

    async def _try(self) -> bool:
        """Take or renew the Lease; whether it is ours now."""
        try:
            return await self._take()
        except StatusError as error:
            self._lease = None  # changed under us, or gone: read it again
            if error.code not in (404, 409):
                log.warning("lease_failed lease=%s/%s error=%s", self._namespace, self._name, error)
        except Unreachable as error:
            log.info("lease_unreachable lease=%s/%s error=%s", self._namespace, self._name, error)
        return False

    async def _take(self) -> bool:
        now = rfc3339_micro()
        if self._lease is None or self._holder() != self.identity:
            try:
                self._observe(await self._client.get(LEASES, self._name, self._namespace))
            except StatusError as error:
                if error.code != 404:
                    raise
                metadata = {"name": self._name, "namespace": self._namespace}
                spec = self._spec(now, now, 0)
                lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}
                self._observe(await self._client.create(LEASES, lease))
                return True
        assert self._lease is not None
        old = self._lease.get("spec") or {}
        holder = self._holder()
        if holder and holder != self.identity:
            # The duration is the holder's word, as in client-go: our own could be shorter.
            until = self._seen_at + float(old.get("leaseDurationSeconds") or self._duration)
            if asyncio.get_running_loop().time() < until:
                return False
        transitions = int(old.get("leaseTransitions") or 0)
        if holder == self.identity:
            spec = self._spec(old.get("acquireTime") or now, now, transitions)
        else:
            spec = self._spec(now, now, transitions + 1)
        self._observe(await self._client.update(LEASES, {**self._lease, "spec": {**old, **spec}}))
        return True

    async def _release(self) -> None:
        if self._lease is None or self._holder() != self.identity:
            return
        now = rfc3339_micro()
        old = self._lease["spec"]
        spec = {**self._spec(now, now, int(old.get("leaseTransitions") or 0)), "holderIdentity": ""}
        spec["leaseDurationSeconds"] = 1
        try:
            await self._client.with_timeout(2.0).update(LEASES, {**self._lease, "spec": {**old, **spec}})
            log.info("released lease=%s/%s", self._namespace, self._name)
        except (StatusError, Unreachable) as error:
            log.info("release_failed lease=%s/%s error=%s", self._namespace, self._name, error)
        self._lease = None

    def _spec(self, acquired: str, renewed: str, transitions: int) -> Obj:
        return {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": max(int(self._duration), 1),
            "acquireTime": acquired,
            "renewTime": renewed,
            "leaseTransitions": transitions,
        }

    def _observe(self, lease: Obj) -> None:
        self._lease = lease
        record = lease.get("spec")
        if record != self._seen:
            self._seen, self._seen_at = record, asyncio.get_running_loop().time()

    def _holder(self) -> str:
        return str(((self._lease or {}).get("spec") or {}).get("holderIdentity") or "")
