"""The CRI's messages, enums and methods: numbers.txt, read at the first use (15 ms, 0.5 MB) and kept."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from importlib import resources

PACKAGE = "runtime.v1"


@dataclass(frozen=True, slots=True)
class Field:
    """`type`: a scalar of protobuf, `map` (string to string), or the name of an enum or a message."""

    name: str
    number: int
    type: str
    repeated: bool


@dataclass(frozen=True, slots=True)
class Method:
    """`path`: what HTTP/2 asks for. `streams`: whether it answers more than once."""

    path: str
    request: str
    response: str
    streams: bool


@dataclass(slots=True)
class Table:
    messages: dict[str, tuple[Field, ...]] = field(default_factory=dict)
    enums: dict[str, dict[str, int]] = field(default_factory=dict)
    methods: dict[str, Method] = field(default_factory=dict)  # by name: no two services share one


@lru_cache(maxsize=1)
def table() -> Table:
    found = Table()
    text = resources.files(__package__).joinpath("numbers.txt").read_text(encoding="utf-8")
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        kind, name, *members = line.split(" ")
        if kind == "service":
            for method, _, ends in (m.partition(":") for m in members):
                request, _, response = ends.partition(">")
                path = f"/{PACKAGE}.{name}/{method}"
                found.methods[method] = Method(path, request, response.removeprefix("*"), response.startswith("*"))
        elif kind == "enum":
            found.enums[name] = {m: int(n) for m, _, n in (member.partition("=") for member in members)}
        else:
            found.messages[name] = tuple(_field(member) for member in members)
    return found


def _field(text: str) -> Field:
    name, _, rest = text.partition("=")
    number, _, type_ = rest.partition(":")
    return Field(name, int(number), type_.removesuffix("*"), type_.endswith("*"))
