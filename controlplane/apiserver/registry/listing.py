"""Lists: stored bytes, joined; paging on one snapshot; resourceVersion semantics.

A list without selectors costs what its bytes cost. What has to be made of every object (another form, a selection by
fields) is made a little at a time, so that a large list does not keep the others waiting.
Source of the semantics: kubernetes.io/docs/reference/using-api/api-concepts.
"""

import asyncio
import base64
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import msgspec

from controlplane.api import status
from controlplane.api.resources import Resource
from controlplane.apiserver.customresources import conversion
from controlplane.apiserver.http import Request, Response, error_response
from controlplane.apiserver.registry import options as list_options
from controlplane.apiserver.registry import views
from controlplane.apiserver.registry.codec import to_json
from controlplane.apiserver.registry.generic import Registry
from controlplane.apiserver.registry.options import ListOptions
from controlplane.apiserver.registry.selection import Selection, selection, single_key, state, wait_for
from controlplane.store.cache import Cached
from controlplane.store.interface import Compacted, FutureRevision

Object = dict[str, Any]
A = TypeVar("A")
B = TypeVar("B")

_SLICE_S = 0.005  # how long the loop may be kept by one list
_LOOK = 32  # objects between two looks at the clock
_SELECTED_PAGE = 500
_VERSION = "meta.k8s.io/v1"
_TOO_OLD = "The resourceVersion for the provided list is too old."
_TOKEN_TOO_OLD = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
    "Continuing with the provided token results in an inconsistent list - objects that were created, modified, or "
    "deleted between the time the first chunk was returned and now may show up in the list."
)


async def list_objects(registry: Registry, request: Request, resource: Resource, namespace: str) -> Response:
    """Raises StatusError 400, 406, 410, 422, 504."""
    chosen = selection(request, resource)
    view = views.of(request, resource, listing=True)
    options = list_options.read(request, watching=False)
    prefix = registry.prefix(resource, namespace)
    cache = registry.cache
    if options.revision:
        await wait_for(cache, options.revision)
    single = single_key(prefix, chosen, namespace, resource)
    if not options.token and options.exact is None and (single or not options.limit):
        items, revision = state(cache, single or prefix)
        if not single and not chosen.everything:
            items = await _chosen(chosen, items)
        return await answer(view, items, {"resourceVersion": str(revision)})
    return await _page(registry, view, prefix, chosen, options)


async def find(registry: Registry, request: Request, resource: Resource, namespace: str, name: str) -> Cached:
    """One object, at least as new as the query's resourceVersion or, with resourceVersionMatch=Exact, as it was then.
    Raises StatusError 400, 404, 410, 422, 504."""
    options = list_options.read(request, watching=False)
    if not options.revision:
        return registry.find(resource, namespace, name)
    await wait_for(registry.cache, options.revision)
    if options.exact is None:
        return registry.find(resource, namespace, name)
    try:
        found = await registry.cache.get_at(registry.key(resource, namespace, name), options.exact)
    except Compacted:
        raise status.expired(f"The resourceVersion {options.exact} is too old.") from None
    if found is None:
        raise status.not_found(resource.group_resource, name)
    return found


async def _page(
    registry: Registry, view: views.View, prefix: str, chosen: Selection, options: ListOptions
) -> Response:  # fmt: skip
    """A part of a list on one snapshot; `continue` says where and when the next part starts."""
    limit = options.limit
    revision, after = _open_token(options.token, prefix) if options.token else (options.exact, "")
    found: list[Cached] = []
    remaining = 0
    try:
        while True:
            want = 0 if not limit else limit if chosen.everything else max(limit, _SELECTED_PAGE)
            items, revision, remaining = await registry.cache.page(
                prefix, start_after=after, limit=want, revision=None if revision == -1 else revision
            )
            after = items[-1].key if items else after
            matching = items if chosen.everything else await _chosen(chosen, items)
            room = limit - len(found) if limit else len(matching)
            found += matching[:room]
            if len(matching) > room:  # the rest of what was read belongs to the next part
                remaining, after = 1, found[-1].key
            if not remaining or (limit and len(found) >= limit):
                break
    except Compacted:
        if not options.token:
            raise status.expired(_TOO_OLD) from None
        return _token_expired(_token(-1, after, prefix))
    except FutureRevision:
        raise status.bad_request("invalid continue token: its resource version is in the future") from None
    metadata: Object = {"resourceVersion": str(revision)}
    if remaining:
        metadata["continue"] = _token(revision, after, prefix)
        if chosen.everything:
            metadata["remainingItemCount"] = remaining
    return await answer(view, found, metadata)


def _token_expired(fresh: str) -> Response:
    error = status.expired(_TOKEN_TOO_OLD)
    response = error_response(error)
    response.body = to_json({**error.to_dict(), "metadata": {"continue": fresh}})
    return response


async def _chosen(chosen: Selection, items: Iterable[Cached]) -> list[Cached]:
    kept = await gradually(lambda item: item if chosen.matches(item) else None, items)
    return [item for item in kept if item is not None]


async def answer(view: views.View, items: Sequence[Cached], metadata: Object) -> Response:
    """A list of these objects, in the form that is wanted."""
    if view.resource.custom is not None:
        await conversion.prepare(items, view.resource.custom)
    parts = [item.data for item in items] if view.ready else await gradually(view.item, items)
    pieces = view.listing(parts, metadata)
    if len(pieces) == 1:
        return Response(body=pieces[0], content_type=view.content_type)
    return Response(pieces=pieces, content_type=view.content_type)


async def gradually(make: Callable[[A], B], items: Iterable[A]) -> list[B]:
    """`make` of each; others have their turn every few milliseconds."""
    loop = asyncio.get_running_loop()
    until = loop.time() + _SLICE_S
    made: list[B] = []
    for at, item in enumerate(items):
        made.append(make(item))
        if not at % _LOOK and loop.time() > until:
            await asyncio.sleep(0)
            until = loop.time() + _SLICE_S
    return made


def _token(revision: int, after: str, prefix: str) -> str:
    text = msgspec.json.encode({"v": _VERSION, "rv": revision, "start": after.removeprefix(prefix)})
    return base64.urlsafe_b64encode(text).rstrip(b"=").decode()


class _Token(msgspec.Struct):
    v: str = ""
    rv: int = 0
    start: str = ""


def _open_token(token: str, prefix: str) -> tuple[int, str]:
    try:
        content = msgspec.json.decode(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)), type=_Token)
    except (ValueError, msgspec.DecodeError) as error:
        raise _bad_token(str(error)) from None
    if content.v != _VERSION:
        raise _bad_token(f'server does not recognize this encoded version "{content.v}"')
    if content.rv == 0 or content.rv < -1:
        raise _bad_token(f"incorrect encoded start resourceVersion (version {_VERSION})")
    if not content.start:
        raise _bad_token(f"encoded start key empty (version {_VERSION})")
    return content.rv, prefix + content.start


def _bad_token(why: str) -> status.StatusError:
    return status.bad_request(f"invalid continue token: continue key is not valid: {why}")
