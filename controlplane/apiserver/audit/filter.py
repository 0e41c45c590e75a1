"""Where in its way a request is told: once when it is known who asks, once when it is answered.

`finished` stands outside of everything that can refuse a request, `received` right after authentication. A watch or a
stream is told when it has started and when it has ended. Every answer carries the event's id in `Audit-Id`, so that a
user's complaint can be found in the log.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from controlplane import clock
from controlplane.apiserver.audit.events import NOTHING, Told, event
from controlplane.apiserver.audit.policy import Level, Policy, PolicyError
from controlplane.apiserver.audit.sink import Sink
from controlplane.apiserver.http import Handler, Request, Response
from controlplane.apiserver.streams import Feed

A = TypeVar("A")
R = TypeVar("R")
_HEADER = "Audit-ID"
_LONGEST_ID = 64
DEFAULT_POLICY = {"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": [{"level": "Metadata"}]}


class Audit:
    """`policy_file`: empty for everything at Metadata."""

    def __init__(self, policy_file: str, sink: Sink) -> None:
        self._file, self.sink = policy_file, sink
        self._policy = self._read()

    def _read(self) -> Policy:
        """Raises PolicyError naming the file and the field."""
        if not self._file:
            return Policy.parse(DEFAULT_POLICY)
        import yaml

        try:
            return Policy.parse(yaml.safe_load(Path(self._file).read_bytes()))
        except (OSError, yaml.YAMLError, PolicyError) as error:
            raise PolicyError(f"{self._file}: {error}") from None

    def reload(self) -> None:
        """Read the policy again. Raises PolicyError, and keeps the old one."""
        self._policy = self._read()

    async def received(self, request: Request, rest: Handler) -> Response:
        """After authentication and impersonation."""
        told = self._begin(request)
        self._tell(told, request, "RequestReceived")
        return await rest(request)

    async def finished(self, request: Request, rest: Handler) -> Response:
        """Around everything that answers."""
        arrived = clock.wall_time()
        response = await rest(request)
        told: Told = request.audit or self._begin(request)  # none: refused before it was known who asks
        told.at = arrived
        response.headers = {**(response.headers or {}), "Audit-Id": told.id}
        if response.stream is None and response.takeover is None:
            self._tell(told, request, "ResponseComplete", response)
            return response
        self._tell(told, request, "ResponseStarted", response)
        self._follow(told, request, response)
        return response

    def _begin(self, request: Request) -> Told:
        user, impersonator = request.user, request.impersonator
        given = request.headers.get(_HEADER, "")
        request.audit = told = Told(
            given if 0 < len(given) <= _LONGEST_ID and given.isprintable() else clock.new_uid(),
            clock.wall_time(),
            self._policy.decide(user, request.info or NOTHING),
            impersonator or user,
            user if impersonator else None,
        )
        return told

    def _follow(self, told: Told, request: Request, response: Response) -> None:
        """Tell when a stream has ended."""
        stream, takeover = response.stream, response.takeover

        def ended() -> None:
            self._tell(told, request, "ResponseComplete", response)

        if takeover is not None:
            response.takeover = _then(takeover, ended)
        elif isinstance(stream, Feed):
            stream.run = _then(stream.run, ended)
        elif stream is not None:
            response.stream = _pass_on(stream, ended)

    def _tell(self, told: Told, request: Request, stage: str, response: Response | None = None) -> None:
        decision = told.decision
        if decision.level is not Level.NONE and stage not in decision.omit_stages:
            self.sink.tell(event(told, request, stage, response))


def _then(work: Callable[[A], Awaitable[R]], ended: Callable[[], None]) -> Callable[[A], Awaitable[R]]:
    async def whole(argument: A) -> R:
        try:
            return await work(argument)
        finally:
            ended()

    return whole


async def _pass_on(stream: AsyncGenerator[bytes, None], ended: Callable[[], None]) -> AsyncGenerator[bytes, None]:
    try:
        async for chunk in stream:
            yield chunk
    finally:
        await stream.aclose()
        ended()
