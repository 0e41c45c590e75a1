"""The published OpenAPI definitions of one Kubernetes version: the project's type system.

`load("1.37")` finds the definitions that the installed package kubernetes-validate ships and reads the file as data,
without importing that package. The document is JSON-Schema-ised there ("type": ["string", "null"], oneOf for
quantities, an enum on every apiVersion and kind); here it goes back to the form in which Kubernetes publishes it,
so that what the server shows as OpenAPI is what clients know. Only references keep their "#/$defs/" prefix.

The file stays in memory as bytes (1.8 MB); a schema is decoded when somebody asks for it, and is not kept: a server
compiles what it needs from a few dozen of the 860 schemas, and the descriptions never weigh on it.

It is not a validator (validate.py) and knows no REST paths (resources.py).
"""

import importlib.util
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import msgspec

Schema = dict[str, Any]
"""An OpenAPI v2 schema object as published, with references of the form "#/$defs/NAME"."""

NEWEST = "1.37"
REF_PREFIX = "#/$defs/"

OBJECT_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
LIST_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta"
QUANTITY = "io.k8s.apimachinery.pkg.api.resource.Quantity"
INT_OR_STRING = "io.k8s.apimachinery.pkg.util.intstr.IntOrString"
RAW_EXTENSION = "io.k8s.apimachinery.pkg.runtime.RawExtension"
TIME = "io.k8s.apimachinery.pkg.apis.meta.v1.Time"
MICRO_TIME = "io.k8s.apimachinery.pkg.apis.meta.v1.MicroTime"

_REF = re.compile(rb'"\$ref":\s*"#/\$defs/([^"]+)"')
_GVK = b'"x-kubernetes-group-version-kind"'


class UnknownVersion(ValueError):
    """No definitions are installed for the Kubernetes version asked for."""


class _Document(msgspec.Struct):
    defs: dict[str, msgspec.Raw] = msgspec.field(name="$defs")


class _Gvk(msgspec.Struct):
    group: str
    version: str
    kind: str


class _Head(msgspec.Struct):
    gvks: list[_Gvk] = msgspec.field(name="x-kubernetes-group-version-kind")


class _Schemas(Mapping[str, Schema]):
    """Definition name -> schema, decoded anew at each access (some 20 µs); the caller owns the result."""

    def __init__(self, raw: dict[str, msgspec.Raw]) -> None:
        self._raw = raw

    def __getitem__(self, name: str) -> Schema:
        schema: Schema = msgspec.json.decode(self._raw[name])
        if name == QUANTITY:
            return {"description": schema.get("description", "A fixed-point number."), "type": "string"}
        if name == INT_OR_STRING:
            return {
                "description": schema.get("description", "An integer, or a string."),
                "type": "string",
                "format": "int-or-string",
            }
        _publish(schema)
        return schema

    def __iter__(self) -> Iterator[str]:
        return iter(self._raw)

    def __len__(self) -> int:
        return len(self._raw)

    def __contains__(self, name: object) -> bool:
        return name in self._raw


class Definitions:
    """All definitions of one Kubernetes version."""

    def __init__(self, version: str, document: bytes) -> None:
        raw = msgspec.json.decode(document, type=_Document).defs
        self.version = version
        self.schemas: Mapping[str, Schema] = _Schemas(raw)
        self._raw = raw
        self._names: dict[tuple[str, str, str], str] = {}
        for name, text in raw.items():
            if _GVK in memoryview(text).tobytes():
                for gvk in msgspec.json.decode(text, type=_Head).gvks:
                    self._names[gvk.group, gvk.version, gvk.kind] = name

    def gvks(self) -> Mapping[tuple[str, str, str], str]:
        """(group, version, kind) -> definition name, for every kind that the document names."""
        return self._names

    def for_gvk(self, group: str, version: str, kind: str) -> tuple[str, Schema] | None:
        """Definition name and schema of a kind, or None."""
        name = self._names.get((group, version, kind))
        return None if name is None else (name, self.schemas[name])

    def resolve(self, schema: Schema) -> Schema:
        """`schema` itself, or what its "$ref" leads to. KeyError if it leads nowhere."""
        while (ref := schema.get("$ref")) is not None:
            schema = self.schemas[ref_name(ref)]
        return schema

    def references(self, name: str) -> list[str]:
        """Names of the definitions that `name` refers to directly."""
        return [found.decode() for found in _REF.findall(memoryview(self._raw[name]).tobytes())]

    def closure(self, names: Iterable[str]) -> set[str]:
        """`names` and every definition that they need, directly or not."""
        todo = [name for name in names if name in self._raw]
        seen = set(todo)
        while todo:
            for name in self.references(todo.pop()):
                if name not in seen and name in self._raw:
                    seen.add(name)
                    todo.append(name)
        return seen


def ref_name(ref: str) -> str:
    """The definition name in a reference: "#/$defs/a.b.C" -> "a.b.C"."""
    return ref[len(REF_PREFIX) :]


def versions() -> list[str]:
    """Kubernetes versions ("1.37") whose definitions are installed, newest first."""
    found = [folder.name[1:].removesuffix(".0-local") for folder in _home().glob("v1.*.0-local")]
    return sorted(found, key=lambda version: -int(version.partition(".")[2]))


@lru_cache(maxsize=2)
def load(version: str | None = None) -> Definitions:
    """Definitions of a Kubernetes version such as "1.37" or "v1.37.1" (None: the newest known to this code).

    Takes some 5 ms; the same object on every call. Raises UnknownVersion.
    """
    wanted = NEWEST if version is None else ".".join(version.removeprefix("v").split(".")[:2])
    path = _home() / f"v{wanted}.0-local" / "_definitions.json"
    try:
        document = path.read_bytes()
    except FileNotFoundError:
        raise UnknownVersion(f"no definitions of Kubernetes {wanted}; installed: {', '.join(versions())}") from None
    return Definitions(wanted, document)


def _home() -> Path:
    spec = importlib.util.find_spec("kubernetes_validate")
    if spec is None or not spec.submodule_search_locations:
        raise UnknownVersion("the package kubernetes-validate, which ships the definitions, is not installed")
    return Path(next(iter(spec.submodule_search_locations))) / "kubernetes-json-schema"


def _publish(schema: Schema) -> None:
    """Undo in place what the JSON-Schema conversion did to a schema and everything in it."""
    kind = schema.get("type")
    if isinstance(kind, list):
        schema["type"] = next(name for name in kind if name != "null")
    properties = schema.get("properties")
    if properties is not None:
        for name, value in properties.items():
            if name in ("apiVersion", "kind"):
                value.pop("enum", None)
            _publish(value)
    for nested in (schema.get("items"), schema.get("additionalProperties")):
        if isinstance(nested, dict):
            _publish(nested)
