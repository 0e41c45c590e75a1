"""One served version of a custom resource: everything that the API server asks about its objects.

It stands where a built-in kind has its definition, its defaults, its rules and its columns; `Resource.custom` holds it.
It knows no store: how stored objects are read under a newer schema is the API server's (customresources/reading.py),
with `present` as the pure part.
"""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Protocol

import msgspec

from controlplane.api.apply.entries import plain
from controlplane.api.definitions import Definitions
from controlplane.api.schema import shape
from controlplane.api.schema.columns import Columns
from controlplane.api.schema.paths import get, simple
from controlplane.api.schema.rules import Rules
from controlplane.api.schema.structural import MISSING, Node
from controlplane.api.schema.values import BLOCKING, check
from controlplane.api.status import Cause, bad_request, invalid_value
from controlplane.api.structure import WrongType, word

Object = dict[str, Any]


class Converter(Protocol):
    """Converts between versions by other means than changing the apiVersion."""

    async def convert(self, objects: Sequence[Object], api_version: str) -> list[Object]: ...


_UNCHECKED = (
    "some validation rules were not checked because the object was invalid; correct the existing errors to complete "
    "validation"
)


class CustomKind:
    """`version` is an entry of a CustomResourceDefinition's spec.versions, `kind` its spec.names.kind."""

    def __init__(
        self,
        group: str,
        kind: str,
        version: Object,
        *,
        list_kind: str = "",
        preserve: bool = False,
        definitions: Definitions | None = None,
    ) -> None:
        """`preserve`: spec.preserveUnknownFields, which CustomResourceDefinitions of v1beta1 times may still have."""
        self.kind = kind
        self.list_kind = list_kind or f"{kind}List"
        self.version: str = version["name"]
        self.api_version = f"{group}/{self.version}"
        schema = (version.get("schema") or {}).get("openAPIV3Schema") or {}
        if preserve:
            schema = {**schema, "x-kubernetes-preserve-unknown-fields": True}
        self._schema = msgspec.json.encode(schema)  # decoded it takes eight times as much
        self._said = hashlib.sha256(msgspec.json.encode(version))
        self.table = Columns(list(version.get("additionalPrinterColumns") or ()))
        subresources = version.get("subresources") or {}
        self.has_status = subresources.get("status") is not None
        self.scale: Object | None = subresources.get("scale")
        self.selectable = {
            each["jsonPath"].removeprefix("."): simple(each["jsonPath"])
            for each in version.get("selectableFields") or ()
        }
        """Field selectors beside metadata.name and metadata.namespace."""
        self.deprecation: str = ""
        if version.get("deprecated"):
            self.deprecation = version.get("deprecationWarning") or f"{self.api_version} {kind} is deprecated"
        self.retired = False
        """Set when another definition took this one's place: who watches by it must ask again."""
        self.terminating = False
        """The definition is being deleted: no new objects."""
        self.since: int | None = None
        """What was stored after this revision was stored by this very schema; None: nothing is known."""
        self.converter: Converter | None = None
        self.siblings: Sequence[CustomKind] = (self,)
        """The definition's served versions."""
        self.is_read = False
        self.foreseen: dict[str, list[tuple[bytes, bytes]]] = {}
        """customresources/conversion.py's own, as is `is_read`."""
        self.head = f'{{"kind":"{kind}","apiVersion":"{self.api_version}",'.encode()
        """How an object begins that is stored in this version."""
        self.seen: dict[str, tuple[bytes, Any]] = {}
        """Stored objects that were read by this schema; customresources/reading.py's own."""
        self._definitions = definitions

    @property
    def schema(self) -> Object:
        """The openAPIV3Schema, decoded anew: the caller's own."""
        decoded: Object = msgspec.json.decode(self._schema)
        return decoded

    @cached_property
    def node(self) -> Node:
        """The schema, compiled at the first object: a starting server may have hundreds of definitions."""
        return Node(self.schema)

    @cached_property
    def rules(self) -> Rules:
        return Rules(self.node)

    @cached_property
    def digest(self) -> str:
        """Tells this definition of the version from others."""
        return self._said.hexdigest()

    # --- on the way in ------------------------------------------------------------------------------------------------

    def decode(
        self, obj: Any, field_validation: str = "Warn", duplicates: Sequence[str] = ()
    ) -> tuple[Object, list[str]]:
        """A freshly decoded object, pruned and defaulted in place, and warnings. Raises StatusError 400."""
        if type(obj) is not dict:
            raise bad_request(
                f"the object provided is unrecognized (must be of type {self.kind}): json: cannot unmarshal "
                f"{word(obj)} into Go value of type map[string]interface {{}}"
            )
        report = list(duplicates)
        prefix = f'{self.kind} in version "{self.version}" cannot be handled as a {self.kind}:'
        try:
            shape.check_head(obj, "", report, self._definitions)
            shape.check_embedded(obj, self.node, "", report, self._definitions)
            shape.prune(obj, self.node, "", report, root=True)
            self.default(obj)
        except RecursionError:
            raise bad_request(f"{prefix} nested too deeply") from None
        except WrongType as wrong:
            raise bad_request(f"{prefix} {wrong}") from None
        if field_validation == "Strict" and report:
            raise bad_request(f"{prefix} strict decoding error: {', '.join(report)}")
        return obj, [] if field_validation == "Ignore" else report

    def default(self, obj: Object) -> None:
        """Nulls out, defaults in, in place."""
        shape.drop_nulls(obj, self.node)
        shape.fill(obj, self.node)

    def present(self, obj: Object) -> Object:
        """A stored object of any version as this version shows it. The caller owns `obj`, and gets it back."""
        obj["apiVersion"] = self.api_version
        shape.prune(obj, self.node, "", [], root=True)
        self.default(obj)
        return obj

    # --- rules --------------------------------------------------------------------------------------------------------

    def validate(self, obj: Object, old: Object | None = None) -> list[Cause]:
        """What the schema and its rules say against an object, beside metadata."""
        causes: list[Cause] = []
        before: Any = MISSING if old is None else old
        check(obj, self.node, "", causes, before)
        if self.node.has_rules:
            if any(cause.reason in BLOCKING for cause in causes):
                causes.append(invalid_value("<nil>", None, _UNCHECKED))
            else:
                causes += self.rules.check(plain(obj), before if old is None else plain(old))
        return causes

    # --- what clients see ---------------------------------------------------------------------------------------------

    def columns(self) -> list[Object]:
        return self.table.definitions

    def cells(self, obj: Object, now: float) -> list[Any]:
        return self.table.cells(obj, now)

    def select(self, path: str, obj: Object) -> str:
        """The value of a selectable field, as text."""
        value = get(obj, self.selectable[path])
        if isinstance(value, bool):
            return "true" if value else "false"
        return "" if value is None else str(value)
