"""Netlink by hand: attributes as bytes, and a socket that sends thousands of requests in a few system calls.

pyroute2 makes one message in 0.2 ms and waits for its answer; a table of 10,000 Services is 60,000 messages. Here a
batch goes out in one `send`, the kernel answers only errors and the last request (netlink(7): NLMSG_ERROR is sent for
every failure, asked for or not). Which attributes there are is the business of conntrack.py and ipvs/kernel.py.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator, Sequence

_REQUEST, _ACK, _DUMP = 0x1, 0x4, 0x300
CREATE, EXCL = 0x400, 0x200
_ERROR, _DONE = 2, 3
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
NESTED, NETWORK_ORDER, _TYPE_MASK = 0x8000, 0x4000, 0x3FFF
# Of requests in one send: if every one fails, the answers (a kilobyte each, as the kernel counts) fit our buffer.
_BATCH = 100
_SOL_NETLINK, _NETLINK_CAP_ACK = 270, 10

Request = tuple[int, int, bytes]
"""Message type, flags beyond NLM_F_REQUEST, payload."""


class NetlinkSocket:
    """A socket of one netlink protocol, in the network namespace of the thread that makes it. Blocks."""

    def __init__(self, protocol: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.settimeout(30.0)  # the kernel answers at once, or never
        self._socket.setsockopt(_SOL_NETLINK, _NETLINK_CAP_ACK, 1)  # errors without the request they answer
        self._sequence = 0

    def close(self) -> None:
        self._socket.close()

    def execute(self, requests: Sequence[Request]) -> list[tuple[int, int]]:
        """Send all, in order, and wait until the kernel has done them. Returns (index, errno) of those that failed; a
        failure stops nobody. Raises OSError if the socket itself fails."""
        failed: list[tuple[int, int]] = []
        for start in range(0, len(requests), _BATCH):
            batch = requests[start : start + _BATCH]
            first = self._sequence + 1
            self._sequence += len(batch)
            messages = [
                _message(kind, flags | (_ACK if sequence == self._sequence else 0), sequence, payload)
                for sequence, (kind, flags, payload) in enumerate(batch, first)
            ]
            self._socket.send(b"".join(messages))
            for sequence, code in self._answers(self._sequence):
                if code and sequence >= first:  # an older one answers what we no longer waited for
                    failed.append((start + sequence - first, code))
        return failed

    def dump(self, kind: int, payload: bytes, *, all_of_them: bool = True) -> Iterator[bytes]:
        """Payloads of all answers to a request for a list (or, without `all_of_them`, for one thing). Raises OSError.
        One list at a time: read it to its end before the next."""
        self._sequence += 1
        self._socket.send(_message(kind, _DUMP if all_of_them else _ACK, self._sequence, payload))
        while True:
            for answer, sequence, body in self._receive():
                if sequence != self._sequence:
                    continue
                if answer in (_ERROR, _DONE):
                    code = -struct.unpack_from("=i", body)[0] if len(body) >= 4 else 0
                    if code:
                        raise OSError(code, os.strerror(code))
                    return
                yield body

    def _answers(self, last: int) -> Iterator[tuple[int, int]]:
        """(sequence, errno) of the answers up to that of the request `last`."""
        while True:
            for kind, sequence, body in self._receive():
                if kind == _ERROR:
                    yield sequence, -struct.unpack_from("=i", body)[0]
                if sequence == last:
                    return

    def _receive(self) -> Iterator[tuple[int, int, bytes]]:
        data = self._socket.recv(1 << 18)
        offset = 0
        while offset + 16 <= len(data):
            length, kind, _flags, sequence, _port = _HEADER.unpack_from(data, offset)
            yield kind, sequence, data[offset + 16 : offset + length]
            offset += (length + 3) & ~3


def _message(kind: int, flags: int, sequence: int, payload: bytes) -> bytes:
    length = 16 + len(payload)
    return _HEADER.pack(length, kind, flags | _REQUEST, sequence, 0) + payload + bytes(-length % 4)


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    return _ATTRIBUTE.pack(len(value) + 4, kind) + value + bytes(-len(value) % 4)


def nested(kind: int, value: bytes) -> bytes:
    """An attribute whose value is attributes."""
    return attribute(kind | NESTED, value)


def big_endian(kind: int, value: bytes) -> bytes:
    """An attribute whose number is in network order and, as ipset wants it, says so."""
    return attribute(kind | NETWORK_ORDER, value)


def attributes(data: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """(type without flags, value, the whole attribute with padding)."""
    offset = 0
    while offset + 4 <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, offset)
        if length < 4:
            return
        end = offset + ((length + 3) & ~3)
        yield kind & _TYPE_MASK, data[offset + 4 : offset + length], data[offset:end]
        offset = end


def values(data: bytes) -> dict[int, bytes]:
    """The attributes by type; of several of one type the last."""
    return {kind: value for kind, value, _ in attributes(data)}
