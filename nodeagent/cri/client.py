"""Calls of the CRI by name: dicts in, dicts out, and the runtime's errors in the agent's own terms."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from nodeagent.cri.codec import Malformed, Message, decode, encode
from nodeagent.cri.grpc.client import Channel
from nodeagent.cri.grpc.status import Code, GrpcError
from nodeagent.cri.table import table
from nodeagent.runtime.interface import NotFound, RuntimeFailure

TIMEOUT_S = 120.0  # kubelet's runtimeRequestTimeout


class CallFailed(RuntimeFailure):
    """A call that the runtime refused or did not answer."""

    def __init__(self, message: str, reason: str, code: Code) -> None:
        super().__init__(message, reason)
        self.code = code


class MissingThere(CallFailed, NotFound):
    """The runtime knows no such thing."""


class Client:
    """One CRI endpoint. `call("Version", {…})`; methods are found by name, whichever service they belong to."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    async def call(
        self, method: str, request: Mapping[str, Any] | None = None, *,
        timeout_s: float = TIMEOUT_S, reason: str = "RunContainerError",
    ) -> Message:  # fmt: skip
        """Raises CallFailed with `reason`; MissingThere if the runtime said NOT_FOUND."""
        about = table().methods[method]
        try:
            answer = await self._channel.unary(about.path, encode(about.request, request or {}), timeout_s)
            return decode(about.response, answer)
        except GrpcError as error:
            raise _failure(method, error, reason) from error
        except Malformed as error:
            raise CallFailed(f"{method}: malformed answer: {error}", reason, Code.INTERNAL) from error

    async def stream(self, method: str, request: Mapping[str, Any] | None = None) -> AsyncIterator[Message]:
        """Every answer. Raises CallFailed."""
        about = table().methods[method]
        try:
            async for answer in self._channel.stream(about.path, encode(about.request, request or {})):
                yield decode(about.response, answer)
        except GrpcError as error:
            raise _failure(method, error, "RunContainerError") from error
        except Malformed as error:
            raise CallFailed(f"{method}: malformed answer: {error}", "RunContainerError", Code.INTERNAL) from error

    async def close(self) -> None:
        await self._channel.close()


def _failure(method: str, error: GrpcError, reason: str) -> CallFailed:
    kind = MissingThere if error.code is Code.NOT_FOUND else CallFailed
    words = str(error) or error.code.name
    return kind(words if error.code is Code.UNKNOWN else f"{method}: {words}", reason, error.code)


def endpoint_path(endpoint: str) -> str:
    """The socket's path of `unix:///run/x.sock` (or of a bare path). Raises ValueError."""
    path = endpoint.removeprefix("unix://")
    if not path.startswith("/"):
        raise ValueError(f"{endpoint!r} is not an endpoint of a container runtime: unix:///path/of/socket is expected")
    return path
