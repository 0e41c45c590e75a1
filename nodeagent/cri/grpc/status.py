"""How a call ends: gRPC's codes, its error, and the forms of both in HTTP/2 headers."""

from __future__ import annotations

from enum import IntEnum
from urllib.parse import quote, unquote


class Code(IntEnum):
    """grpc's doc/statuscodes.md."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


class GrpcError(Exception):
    """A call that did not end with OK."""

    def __init__(self, code: Code, message: str) -> None:
        super().__init__(message)
        self.code = code


_HTTP = {400: Code.INTERNAL, 401: Code.UNAUTHENTICATED, 403: Code.PERMISSION_DENIED, 404: Code.UNIMPLEMENTED}


def from_headers(headers: dict[str, str]) -> tuple[Code, str]:
    """The outcome that trailers (or, without them, an HTTP status) tell of."""
    text = headers.get("grpc-status", "")
    if text.isdigit():
        number = int(text)
        return Code(number) if number in Code.__members__.values() else Code.UNKNOWN, unquote(
            headers.get("grpc-message", "")
        )
    status = headers.get(":status", "")
    code = _HTTP.get(int(status), Code.UNAVAILABLE if status[0] == "5" else Code.UNKNOWN) if status else Code.INTERNAL
    return code, f"no gRPC status; HTTP status {status or 'missing'}"


def trailers(code: Code, message: str = "") -> list[tuple[str, str]]:
    found = [("grpc-status", str(int(code)))]
    if message:
        found.append(("grpc-message", quote(message[:_LONGEST_MESSAGE], safe=_PLAIN)))
    return found


_LONGEST_MESSAGE = 2048  # peers limit their header lists, and percent-encoding triples
_PLAIN = " !\"#$&'()*+,/:;<=>?@[\\]^`{|}~"  # printable ASCII but the percent sign

_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


def timeout_header(seconds: float) -> str:
    """grpc-timeout: at most eight digits and a unit."""
    milliseconds = max(1, int(seconds * 1000))
    return f"{milliseconds}m" if milliseconds < 10**8 else f"{min(int(seconds), 10**8 - 1)}S"


def timeout_seconds(header: str) -> float | None:
    """The reverse; None without a header. Raises ValueError."""
    if not header:
        return None
    if len(header) > 9 or not header[:-1].isdigit() or header[-1] not in _UNITS:
        raise ValueError(f"malformed grpc-timeout {header!r}")
    return int(header[:-1]) * _UNITS[header[-1]]
