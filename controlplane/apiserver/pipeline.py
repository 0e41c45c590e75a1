"""The way of a request: the filters in their order, as one readable list.

A filter takes the request and the rest of the way; it may answer itself. Errors travel as StatusError and become a
`Status` in exactly one place, here; anything else that escapes is our fault, is logged with its trace, and becomes 500.
"""

import asyncio
import logging
import unicodedata
from collections.abc import Awaitable, Callable, Sequence

from controlplane.api import status
from controlplane.apiserver import requestinfo
from controlplane.apiserver.http import Handler, Request, Response, error_response
from controlplane.store.interface import StoreClosed, StoreFull

log = logging.getLogger(__name__)

Filter = Callable[[Request, Handler], Awaitable[Response]]


def chain(filters: Sequence[Filter], last: Handler) -> Handler:
    """One handler: the filters around `last`, the first outermost."""
    handler = last
    for each in reversed(filters):
        handler = _before(each, handler)
    return handler


def _before(each: Filter, rest: Handler) -> Handler:
    def handler(request: Request) -> Awaitable[Response]:
        return each(request, rest)

    return handler


_ALL_WARNINGS, _LONG_WARNING = 4096, 256  # characters
_STREAMS = frozenset(("exec", "attach", "portforward", "proxy"))


class ToTheEnd:
    """A write that has begun is finished, also when its client goes away meanwhile (which cancels the handler), or has
    waited for `timeout_s` and is told so: half of it may be durable already, and what belongs to it (a Service's
    address) must follow. Reads need no limit of time: they do not wait for anybody."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._writes: set[asyncio.Task[Response]] = set()

    async def filter(self, request: Request, rest: Handler) -> Response:
        if request.method in ("GET", "HEAD"):
            return await rest(request)
        write = asyncio.ensure_future(rest(request))
        self._writes.add(write)  # the loop itself only holds tasks weakly
        write.add_done_callback(self._writes.discard)
        endless = not _STREAMS.isdisjoint(request.path.split("/")[6:])
        if await _ended(write, None if endless else self._timeout_s):
            return write.result()
        message = f"request did not complete within requested timeout - {self._timeout_s:g}s"
        return error_response(status.timeout(message))


async def _ended(write: asyncio.Task[Response], timeout_s: float | None) -> bool:
    """Whether `write` ends in time. It goes on if it does not, or if whoever waits is cancelled. (What asyncio has for
    this costs several futures more for each write.)"""
    loop = asyncio.get_running_loop()
    told: asyncio.Future[bool] = loop.create_future()

    def tell(task: asyncio.Task[Response] | None) -> None:
        if not told.done():
            told.set_result(task is not None)
        elif task is not None and not task.cancelled():
            task.exception()  # nobody is left to be told

    timer = None if timeout_s is None else loop.call_later(timeout_s, tell, None)
    write.add_done_callback(tell)
    try:
        return await told
    finally:
        if timer is not None:
            timer.cancel()


async def with_errors(request: Request, rest: Handler) -> Response:
    """Whatever goes wrong becomes a Status; whatever a handler wants to warn of becomes a Warning header."""
    try:
        response = await rest(request)
    except status.StatusError as error:
        response = error_response(error)
    except StoreFull:
        response = error_response(status.StatusError(507, "InsufficientStorage", "the store's disk is full"))
    except StoreClosed:
        response = error_response(status.service_unavailable("the server is shutting down", retry_after=1))
    except asyncio.CancelledError:
        raise
    except Exception:
        log.exception("request failed method=%s path=%s", request.method, request.path)
        response = error_response(status.internal(f"an error on the server prevented {request.method} {request.path}"))
    if request.warnings:
        from multidict import CIMultiDict

        headers = CIMultiDict(response.headers or {})
        for text in _sendable(request.warnings):
            quoted = text.replace("\\", "\\\\").replace('"', '\\"')
            headers.add("Warning", f'299 - "{quoted}"')
        response.headers = headers
    return response


def _sendable(warnings: list[str]) -> list[str]:
    """Each text once, none with control characters (they have no place in a header), and cut short when all together
    are long: clients bound the headers that they read (k8s.io/apiserver, filters/warning.go)."""
    texts = [text for text in dict.fromkeys(warnings) if not any(unicodedata.category(char) == "Cc" for char in text)]
    if sum(map(len, texts)) <= _ALL_WARNINGS:
        return texts
    kept, written = [], 0
    for text in texts:
        if written >= _ALL_WARNINGS:
            break
        kept.append(text[:_LONG_WARNING])
        written += len(kept[-1])
    return kept


async def with_request_info(request: Request, rest: Handler) -> Response:
    request.info = requestinfo.parse(request)
    return await rest(request)
