"""Header blocks: names and values in SPDY's counted form, compressed as one zlib stream a direction (section 2.6.10).

Both ends keep a zlib context for the life of the connection, so every block that arrives must be decompressed, in
order, even if its frame is of no interest. A block's expanded size is bounded: 32 KiB of zeros take 50 bytes.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping

from nodeagent.server.spdy.dictionary import DICTIONARY
from nodeagent.server.spdy.errors import ProtocolError

LONGEST = 32 * 1024


class Compressor:
    """What we send. A small window: our blocks are nearly empty, and the default would cost 256 KB a connection."""

    def __init__(self) -> None:
        self._zlib = zlib.compressobj(wbits=11, memLevel=1, zdict=DICTIONARY)

    def pack(self, headers: Mapping[str, str]) -> bytes:
        parts = [struct.pack("!I", len(headers))]
        for name, value in headers.items():
            for text in (name.lower().encode("latin-1"), value.encode("latin-1")):
                parts += (struct.pack("!I", len(text)), text)
        return self._zlib.compress(b"".join(parts)) + self._zlib.flush(zlib.Z_SYNC_FLUSH)


class Decompressor:
    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(zdict=DICTIONARY)

    def unpack(self, block: bytes) -> dict[str, str]:
        """Names in lower case; several values of a name are one, joined by NUL. Raises ProtocolError: the connection
        cannot go on, its compression context is lost."""
        try:
            raw = self._zlib.decompress(block, LONGEST)
        except zlib.error as error:
            raise ProtocolError(f"header block cannot be decompressed: {error}") from error
        if self._zlib.unconsumed_tail:
            raise ProtocolError("header block too large")
        try:
            return _parse(raw)
        except (struct.error, ValueError) as error:
            raise ProtocolError(f"malformed header block: {error}") from error


def _parse(raw: bytes) -> dict[str, str]:
    headers: dict[str, str] = {}
    (count,) = struct.unpack_from("!I", raw)
    at = 4
    for _ in range(count):
        pair = []
        for _ in range(2):
            (size,) = struct.unpack_from("!I", raw, at)
            text = raw[at + 4 : at + 4 + size]
            if len(text) != size:
                raise ValueError("ends too early")
            pair.append(text.decode("latin-1"))
            at += 4 + size
        name, value = pair
        if not name or name.lower() in headers:
            raise ValueError("empty or repeated name")
        headers[name.lower()] = value
    return headers
