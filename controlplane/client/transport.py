"""The seam between what a client asks (`rest.py`) and how it gets there (`https.py`, `inprocess.py`, `fake.py`).

A transport carries bytes: a request with a whole body, answered by a whole body or by a stream of chunks. It knows
nothing of objects, resources or Status.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole HTTP answer. Header names are lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


class Stream(Protocol):
    """An answer that is read while it is written: a watch, a log. Close it, always."""

    status: int
    headers: Mapping[str, str]

    async def read(self) -> bytes:
        """The next bytes, as they came; empty at the end. Raises Unreachable if the peer died or fell silent."""
        ...

    def close(self) -> None:
        """Give the connection up. May be called twice."""
        ...


class Transport(Protocol):
    """Carries requests to one API server. `target` is the path with its query; one of these serves a whole process."""

    async def request(
        self, method: str, target: str, body: bytes = b"", *, content_type: str = "application/json", timeout: float
    ) -> Answer:
        """Raises Unreachable if there was no whole answer within `timeout` seconds."""
        ...

    async def stream(self, target: str, *, timeout: float, silence: float) -> Stream:
        """GET `target`. `timeout` (seconds) bounds the wait for the answer's head; `silence` each later read."""
        ...

    def reload(self) -> None:
        """Read certificates and tokens again; requests from now on use the new ones."""
        ...

    async def close(self) -> None:
        """Close every connection; requests under way fail with Unreachable."""
        ...
