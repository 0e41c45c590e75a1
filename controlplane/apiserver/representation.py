"""How an answer is written, whatever is in it: YAML, indented or protobuf when asked for, compressed when it is large.

The last thing that happens to a response. Objects that are read and watched come in their form already (views.py); what
passes here in JSON and is wanted otherwise are the small answers: errors, reviews, discovery. Compression runs in a
thread, piece by piece, so that a large list does not hold up the others; answers smaller than Kubernetes' threshold of
128 KiB are left alone.
"""

import asyncio
import zlib
from collections.abc import AsyncGenerator, Sequence

import msgspec

from controlplane.api import wire
from controlplane.api.wire import MEDIA_TYPE as PROTOBUF
from controlplane.apiserver.http import JSON, Handler, Request, Response
from controlplane.apiserver.negotiation import YAML, Offer, prefers

_GZIP_FROM = 128 * 1024
_SLICE = 256 * 1024
_ANYTHING = Offer()
_PEOPLE = ("curl", "Wget", "Mozilla/5.0")


async def represent(request: Request, rest: Handler) -> Response:
    response = await rest(request)
    if response.stream is not None or response.takeover is not None:
        return response
    if response.content_type == JSON:
        accept = request.headers.get("Accept", "")
        if accept != JSON and "protobuf" in accept and prefers(accept, PROTOBUF, _ANYTHING):
            _as_protobuf(response)
        elif accept != JSON and "yaml" in accept and prefers(accept, YAML, _ANYTHING):
            await _as_yaml(response)
        elif _pretty(request, accept):
            response.body = msgspec.json.format(response.body, indent=2) + b"\n"
    if request.method != "HEAD" and _accepts_gzip(request.headers.get("Accept-Encoding", "")):
        return _compressed(response)
    return response


def _as_protobuf(response: Response) -> None:
    """What has no message stays JSON, which the Content-Type says; Go clients look at that."""
    try:
        content = msgspec.json.decode(response.body)
    except msgspec.DecodeError:
        return
    encoded = wire.encode(content) if isinstance(content, dict) else None
    if encoded is not None:
        response.body = encoded
        response.content_type = PROTOBUF


async def _as_yaml(response: Response) -> None:
    import yaml

    body = response.body

    def rewritten() -> bytes:
        dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
        content = msgspec.json.decode(body)
        text: str = yaml.dump(content, Dumper=dumper, default_flow_style=False, allow_unicode=True)
        return text.encode()

    large = len(body) > _GZIP_FROM  # a second of work in a large list: not on the loop
    response.body = await asyncio.to_thread(rewritten) if large else rewritten()
    response.content_type = YAML


def _pretty(request: Request, accept: str) -> bool:
    """As Kubernetes: a parameter decides, then the media type's own, and people's tools get it unasked."""
    if "pretty" in request.query_string and (asked := request.query.get("pretty")):
        return asked.lower() in ("1", "t", "true")
    if "pretty=1" in accept.replace(" ", ""):
        return True
    return request.headers.get("User-Agent", "").startswith(_PEOPLE)


def _accepts_gzip(header: str) -> bool:
    if "gzip" not in header:
        return False
    for choice in header.split(","):
        coding, _, weight = choice.replace(" ", "").partition(";q=")
        if coding == "gzip":
            return weight.strip("0.") != "" or not weight
    return False


def _compressed(response: Response) -> Response:
    pieces: Sequence[bytes] = response.pieces or (response.body,)
    if sum(map(len, pieces)) < _GZIP_FROM or response.status != 200:
        return response
    if len(pieces) == 1:
        body = pieces[0]
        pieces = [body[at : at + _SLICE] for at in range(0, len(body), _SLICE)]
    headers = {**(response.headers or {}), "Content-Encoding": "gzip", "Vary": "Accept-Encoding, Accept"}
    return Response(response.status, content_type=response.content_type, headers=headers, stream=_gzip(pieces))


async def _gzip(pieces: Sequence[bytes]) -> AsyncGenerator[bytes, None]:
    loop = asyncio.get_running_loop()
    squeeze = zlib.compressobj(level=1, wbits=16 + zlib.MAX_WBITS)
    for piece in pieces:
        if out := await loop.run_in_executor(None, squeeze.compress, piece):
            yield out
    yield squeeze.flush()
