"""numbers.txt, read once: which message a kind is, and the fields of a message.

The published .proto files say nothing about JSON, so the table also says which messages are inlined, and where a zero
means "absent" (Go sends fields that are not pointers even when they are empty). A message's line is taken apart when
somebody first needs it.
"""

import re
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

MAGIC = b"k8s\x00"
MEDIA_TYPE = "application/vnd.kubernetes.protobuf"

_FIELD = re.compile(r"(\S+?)=(\d+)([*%^+:-]?)(\S+)")


class Field(NamedTuple):
    """`flag` and `type` as explained at the top of numbers.txt."""

    name: str
    number: int
    flag: str
    type: str


class Table:
    """`kinds`: (apiVersion, kind) -> message; apiVersion "*" for kinds that every group has."""

    def __init__(self, text: str) -> None:
        self.kinds: dict[tuple[str, str], str] = {}
        self._lines: dict[str, str] = {
            "machinery.runtime.Unknown": "typeMeta=1:machinery.runtime.TypeMeta raw=2y contentEncoding=3s",
            "machinery.runtime.TypeMeta": "apiVersion=1s kind=2s",
        }
        self._messages: dict[str, tuple[Field, ...]] = {}
        for line in text.splitlines():
            if line.startswith("@ "):
                _, api_version, kind, name = line.split(" ")
                self.kinds[api_version, kind] = name
            elif not line.startswith("#"):
                name, _, fields = line.partition(" ")
                self._lines[name] = fields

    def find(self, api_version: str, kind: str) -> str | None:
        """The message of a kind, None for one that has none (custom resources have JSON only)."""
        return self.kinds.get((api_version, kind)) or self.kinds.get(("*", kind))

    def fields(self, message: str) -> tuple[Field, ...]:
        """KeyError for a message that there is not."""
        known = self._messages.get(message)
        if known is None:
            found = _FIELD.findall(self._lines[message])
            known = tuple(Field(name, int(number), flag, kind) for name, number, flag, kind in found)
            self._messages[message] = known
        return known


@lru_cache(maxsize=1)
def table() -> Table:
    """The one table; 120 KB of text, read when protobuf is first met."""
    return Table(Path(__file__).with_name("numbers.txt").read_text())
