"""The structural check: does a decoded JSON object have the fields and types that its kind has?

Two passes over the kind's tree of nodes (structure.py). `fits` only looks, and is all that a well-formed object pays
for (some 10 µs for a pod). If it says no, `repair` walks again with paths at hand and does what Kubernetes' decoder
does: drops unknown fields (and tells), drops nulls, writes quantities and times in canonical form, and objects to a
wrong type, which is a 400 in the decoder's words. `repair` changes the freshly decoded object in place.

Not here: whether required fields are there and values make sense (validation/), defaults (defaults/), and references
between objects (the API server's admission).
"""

from collections.abc import Sequence
from typing import Any

from controlplane.api.definitions import Definitions
from controlplane.api.resources import Resource
from controlplane.api.status import bad_request
from controlplane.api.structure import Object, WrongType, below, structure, word


def decode_checked(
    resource: Resource,
    obj: Any,
    field_validation: str = "Warn",
    *,
    definitions: Definitions | None = None,
    duplicates: Sequence[str] = (),
) -> tuple[Object, list[str]]:
    """A freshly decoded `obj` of `resource`, made to fit its schema in place, and warnings for the client.

    `duplicates` tells of fields that the text had twice, as the client is told. Raises StatusError 400 for a wrong
    type, and under "Strict" for unknown and duplicate fields.
    """
    if resource.custom is not None:
        return resource.custom.decode(obj, field_validation, duplicates)
    return check_body(
        resource.schema,
        resource.kind,
        resource.version,
        obj,
        field_validation,
        definitions=definitions,
        duplicates=duplicates,
    )


def check_body(
    schema: str,
    kind: str,
    version: str,
    obj: Any,
    field_validation: str = "Warn",
    *,
    definitions: Definitions | None = None,
    duplicates: Sequence[str] = (),
) -> tuple[Object, list[str]]:
    """Like decode_checked for any definition: the body of a subresource, DeleteOptions."""
    if type(obj) is not dict:
        raise bad_request(
            f"the object provided is unrecognized (must be of type {kind}): json: cannot unmarshal {word(obj)} "
            f"into Go value of type {version}.{kind}"
        )
    node = structure(schema, definitions)
    report = list(duplicates)
    try:
        if not duplicates and node.fits(obj):
            return obj, []
        node.repair(obj, "", report)
    except RecursionError:
        raise bad_request(f'{kind} in version "{version}" cannot be handled as a {kind}: nested too deeply') from None
    except WrongType as wrong:
        raise bad_request(f'{kind} in version "{version}" cannot be handled as a {kind}: {wrong}') from None
    if field_validation == "Strict" and report:
        raise bad_request(
            f'{kind} in version "{version}" cannot be handled as a {kind}: strict decoding error: {", ".join(report)}'
        )
    return obj, [] if field_validation == "Ignore" else report


def duplicate_fields(body: bytes) -> list[str]:
    """Paths of the fields that occur twice in one object of a JSON text; [] if it is not JSON.

    Costs a second parse (stdlib json): do it only for bodies whose fieldValidation asks for it.
    """
    import json

    repeated = False

    def keep(pairs: list[tuple[str, Any]]) -> Any:
        nonlocal repeated
        whole = dict(pairs)
        if len(whole) == len(pairs):
            return whole
        repeated = True
        return pairs

    try:
        tree = json.loads(body, object_pairs_hook=keep)
    except ValueError:
        return []
    found: list[str] = []
    if repeated:
        _find_repeated(tree, "", found)
    return found


def _find_repeated(value: Any, path: str, found: list[str]) -> None:
    pairs: Any = value.items() if isinstance(value, dict) else value
    if isinstance(value, list) and not (value and isinstance(value[0], tuple)):
        for index, item in enumerate(value):
            _find_repeated(item, f"{path}[{index}]", found)
    elif isinstance(value, dict | list):
        seen: set[str] = set()
        for key, item in pairs:
            field = below(path, key)
            if key in seen:
                found.append(field)
            seen.add(key)
            _find_repeated(item, field, found)
