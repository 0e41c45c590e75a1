"""A probe by gRPC: one call of grpc.health.v1.Health/Check, over HTTP/2 in the clear, as kubelet makes it.

    request  {1: service name}        answer  {1: 0 UNKNOWN | 1 SERVING | 2 NOT_SERVING | 3 SERVICE_UNKNOWN}

h2 does HTTP/2 (imported at the first probe: 2 MB, where grpcio would cost each node 15); two protobuf fields are done
by hand. Sources: grpc's doc/health-checking.md and PROTOCOL-HTTP2.md, the words from kubelet's pkg/probe/grpc.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

_STATUS = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
_SERVING = 1
_OK, _UNIMPLEMENTED = "0", "12"
_LONGEST_ANSWER = 64 * 1024


@dataclass(slots=True)
class _Answer:
    body: bytearray = field(default_factory=bytearray)
    headers: dict[str, str] = field(default_factory=dict)  # trailers among them
    broken: str = ""


async def check(host: str, port: int, service: str) -> tuple[bool, str]:
    """Whether the service (empty: the server as a whole) says that it serves, and in words what it said if not. Raises
    OSError if there is no connection."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        answer = await _call(reader, writer, authority, _request(service))
    finally:
        writer.transport.abort()
    return _verdict(answer)


def _verdict(answer: _Answer) -> tuple[bool, str]:
    code = answer.headers.get("grpc-status", "")
    if code == _UNIMPLEMENTED:
        words = "error: this server does not implement the grpc health protocol (grpc.health.v1.Health): "
        return False, words + answer.headers.get("grpc-message", "")
    if answer.broken or code != _OK:
        detail = answer.broken or answer.headers.get("grpc-message") or f"HTTP status {answer.headers.get(':status')}"
        return False, f"error: health rpc probe failed: {detail}"
    status = _status(bytes(answer.body))
    if status == _SERVING:
        return True, "service healthy"
    return False, f'service unhealthy (responded with "{_STATUS.get(status, str(status))}")'


async def _call(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, authority: str, body: bytes) -> _Answer:
    import h2.config
    import h2.connection
    import h2.exceptions

    connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
    connection.initiate_connection()
    headers = [
        (":method", "POST"),
        (":scheme", "http"),
        (":path", "/grpc.health.v1.Health/Check"),
        (":authority", authority),
        ("te", "trailers"),
        ("content-type", "application/grpc"),
        ("user-agent", "kube-probe/wherry"),
    ]
    connection.send_headers(1, headers)
    connection.send_data(1, body, end_stream=True)
    writer.write(connection.data_to_send())
    answer = _Answer()
    try:
        while data := await reader.read(1 << 14):
            ended = _take(connection, connection.receive_data(data), answer)
            writer.write(connection.data_to_send())
            if ended:
                return answer
        answer.broken = "the server closed the connection"
    except h2.exceptions.ProtocolError as error:
        answer.broken = f"not HTTP/2: {error}"
    return answer


def _take(connection: Any, events: Sequence[Any], answer: _Answer) -> bool:
    """Put what came into `answer`; true when it is complete."""
    import h2.events as happened

    for event in events:
        if isinstance(event, happened.ResponseReceived | happened.TrailersReceived):
            answer.headers.update((str(name), str(value)) for name, value in event.headers or ())
        elif isinstance(event, happened.DataReceived):
            answer.body += event.data or b""
            connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            if len(answer.body) > _LONGEST_ANSWER:
                answer.broken = f"the answer is longer than {_LONGEST_ANSWER} bytes"
                return True
        elif isinstance(event, happened.StreamReset | happened.ConnectionTerminated):
            answer.broken = f"the server ended the call with code {event.error_code!r}"
            return True
        elif isinstance(event, happened.StreamEnded):
            return True
    return False


def _request(service: str) -> bytes:
    name = service.encode()
    message = b"\x0a" + _varint(len(name)) + name if name else b""
    return b"\0" + len(message).to_bytes(4, "big") + message


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def _status(body: bytes) -> int:
    """Field 1 of the first message in `body`; 0 (UNKNOWN, protobuf's default) if it is not there."""
    message = body[5 : 5 + int.from_bytes(body[1:5], "big")]
    return message[1] if len(message) >= 2 and message[0] == 0x08 else 0
