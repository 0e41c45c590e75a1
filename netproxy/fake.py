"""A backend that remembers instead of programming a kernel: for tests of the proxy, and for simulated nodes."""

from __future__ import annotations

from collections.abc import Mapping

from netproxy.backend import BackendError, Plans
from netproxy.model import PortName
from netproxy.topology import ServicePlan


class FakeBackend:
    """`plans` is what a kernel would do now. Trouble on request: `fail` so many calls, or set `lost`."""

    def __init__(self) -> None:
        self.plans: dict[PortName, ServicePlan] = {}
        self.calls: list[str] = []
        self.fail = 0
        self.lost = False

    async def check(self) -> None:
        self.calls.append("check")

    async def replace(self, plans: Plans) -> None:
        self._call("replace")
        self.plans, self.lost = dict(plans), False

    async def update(self, changes: Mapping[PortName, ServicePlan | None]) -> None:
        self._call("update")
        for name, plan in changes.items():
            if plan is None:
                del self.plans[name]
            else:
                self.plans[name] = plan

    async def intact(self) -> bool:
        return not self.lost

    async def cleanup(self) -> None:
        self._call("cleanup")
        self.plans = {}

    async def close(self) -> None:
        self.calls.append("close")

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if self.fail:
            self.fail -= 1
            raise BackendError(f"{name}: told to fail")
