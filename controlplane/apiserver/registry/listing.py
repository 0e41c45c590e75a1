"""Lists: stored bytes, joined; paging on one snapshot; resourceVersion semantics.

A list without selectors costs what its bytes cost.
Source of the semantics: kubernetes.io/docs/reference/using-api/api-concepts.
"""

import base64
from collections.abc import Sequence
from typing import Any

import msgspec

from controlplane.api import status
from controlplane.api.resources import Resource
from controlplane.apiserver.http import Request, Response, error_response
from controlplane.apiserver.registry import views
from controlplane.apiserver.registry.codec import in_version, to_json
from controlplane.apiserver.registry.generic import Registry
from controlplane.apiserver.registry.selection import Selection, number, selection, single_key, state, wait_for
from controlplane.store.cache import Cached
from controlplane.store.interface import Compacted

Object = dict[str, Any]
_SMALL = 64  # objects: not worth cutting up
_PIECE = 1 << 17


async def list_objects(registry: Registry, request: Request, resource: Resource, namespace: str) -> Response:
    chosen = selection(request, resource)
    view = views.of(request, resource, listing=True)
    prefix = registry.prefix(resource, namespace)
    cache = registry.cache
    limit = number(request, "limit") or 0
    token = request.query.get("continue", "")
    at = number(request, "resourceVersion")
    match = request.query.get("resourceVersionMatch", "")
    if match not in ("", "Exact", "NotOlderThan"):
        raise invalid_list(resource, f'resourceVersionMatch: Unsupported value: "{match}"')
    if match and at is None:
        raise invalid_list(resource, "resourceVersionMatch is forbidden unless resourceVersion is provided")
    if token and at:
        raise status.bad_request("specifying resource version is not allowed when using continue")
    if at and not token:
        await wait_for(cache, at)
    if not token and not limit and not (at and match == "Exact"):
        single = single_key(prefix, chosen, namespace, resource)
        items, revision = state(cache, single or prefix)
        if not single and not chosen.everything:
            items = [item for item in items if chosen.matches(item)]
        return _answer(view, items, {"resourceVersion": str(revision)})
    return await _page(registry, view, prefix, chosen, limit, token, at if match == "Exact" or limit else None, match)


async def _page(
    registry: Registry, view: views.View, prefix: str, chosen: Selection, limit: int, token: str,
    at: int | None, match: str,
) -> Response:  # fmt: skip
    """A part of a list on one snapshot; `continue` says where and when the next part starts."""
    revision, after = _open_token(token, prefix) if token else (at if match == "Exact" else None, "")
    found: list[Cached] = []
    remaining = 0
    try:
        while True:
            want = limit - len(found) if limit else 0
            items, revision, remaining = await registry.cache.page(
                prefix, start_after=after, limit=want, revision=None if revision == -1 else revision
            )
            after = items[-1].key if items else after
            found += items if chosen.everything else [item for item in items if chosen.matches(item)]
            if not remaining or (limit and len(found) >= limit):
                break
    except Compacted:
        if not token:
            raise status.expired() from None
        fresh = _token(-1, after, prefix)
        error = status.expired(
            "The provided continue parameter is too old to display a consistent list result. You can start a new list "
            "without the continue parameter, or use the continue token in this response to retrieve the remainder of "
            "the results. Continuing with the provided token results in an inconsistent list - objects that were "
            "created, modified, or deleted between the time the first chunk was returned and now may show up in the "
            "list."
        )
        body = {**error.to_dict(), "metadata": {"continue": fresh}}
        answer = error_response(error)
        answer.body = to_json(body)
        return answer
    metadata: Object = {"resourceVersion": str(revision)}
    if remaining:
        metadata["continue"] = _token(revision, after, prefix)
        if chosen.everything:
            metadata["remainingItemCount"] = remaining
    return _answer(view, found, metadata)


def _answer(view: views.View, items: Sequence[Cached], metadata: Object) -> Response:
    resource = view.resource
    if not view.plain:
        return Response(body=view.listing([item.object for item in items], metadata))
    if resource.storage_version == resource.api_version:
        parts = [item.data for item in items]
    else:
        parts = [in_version(item, resource) for item in items]
    head = b'{"kind":"%b","apiVersion":"%b","metadata":%b,"items":[' % (
        resource.list_kind.encode(), resource.api_version.encode(), to_json(metadata),
    )  # fmt: skip
    if len(parts) < _SMALL:
        return Response(body=b"%b%b]}" % (head, b",".join(parts)))
    return Response(pieces=_pieces(head, parts))


def _pieces(head: bytes, parts: Sequence[bytes]) -> list[bytes]:
    """The list's text in pieces of a size that suits a connection."""
    pieces = []
    start, size = 0, 0
    for at, part in enumerate(parts):
        size += len(part)
        if size > _PIECE:
            pieces.append(b"%b%b" % (b"," if start else head, b",".join(parts[start : at + 1])))
            start, size = at + 1, 0
    rest = b",".join(parts[start:])
    pieces.append(b"%b%b]}" % ((b"," if rest else b"") if start else head, rest))
    return pieces


def _token(revision: int, after: str, prefix: str) -> str:
    text = msgspec.json.encode({"v": "meta.k8s.io/v1", "rv": revision, "start": after.removeprefix(prefix)})
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


def _open_token(token: str, prefix: str) -> tuple[int, str]:
    try:
        content = msgspec.json.decode(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        return int(content["rv"]), prefix + str(content["start"])
    except (ValueError, KeyError, TypeError, msgspec.DecodeError):
        raise status.bad_request("continue key is not valid: illegal token") from None


def invalid_list(resource: Resource, message: str) -> status.StatusError:
    return status.StatusError(422, "Invalid", f'ListOptions.meta.k8s.io "" is invalid: {message}')
