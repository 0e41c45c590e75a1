"""What a mode of the proxy is: something that makes the kernel do what the plans say, and undoes it.

iptables and ipvs are two; each passes the same behaviour suite (tests/linux/netproxy). A backend knows nothing of the
API, of events or of when to run.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from netproxy.model import PortName
from netproxy.topology import ServicePlan

Plans = Mapping[PortName, ServicePlan]


class BackendError(Exception):
    """The kernel, or the tool that speaks to it, refused; the message has the command and the reason."""


class Backend(Protocol):
    async def check(self) -> None:
        """Whether this machine can do it at all. Raises BackendError saying what is missing and what to do."""

    async def replace(self, plans: Plans) -> None:
        """Make the kernel do exactly `plans`, whatever it did before. Raises BackendError; each Service then works as
        before or as planned."""

    async def update(self, changes: Mapping[PortName, ServicePlan | None]) -> None:
        """Apply what changed since the last successful call; None: the port is gone. Raises BackendError; then
        nothing has changed, and the caller should `replace`."""

    async def intact(self) -> bool:
        """Whether what was written is still there (somebody may have flushed it). Cheap: asked every sync period."""

    async def cleanup(self) -> None:
        """Remove every trace of every mode. Raises BackendError."""

    async def close(self) -> None:
        """Let go of threads and sockets; the rules stay."""
