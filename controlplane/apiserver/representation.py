"""How an answer is written, whatever is in it: YAML or indented when asked for, compressed when it is large.

The last thing that happens to a response. Compression runs in a thread, piece by piece, so that a large list does not
hold up the others; answers smaller than Kubernetes' threshold of 128 KiB are left alone.
"""

import asyncio
import json
import zlib
from collections.abc import AsyncGenerator, Sequence

import msgspec

from controlplane.apiserver.http import JSON, Handler, Request, Response

_GZIP_FROM = 128 * 1024
_SLICE = 256 * 1024
_YAML = "application/yaml"


async def represent(request: Request, rest: Handler) -> Response:
    response = await rest(request)
    if response.stream is not None or response.takeover is not None:
        return response
    if response.content_type == JSON:
        if "pretty" in request.query_string and request.flag("pretty"):
            content = msgspec.json.decode(response.body)
            response.body = json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n"
        elif _prefers_yaml(request):
            import yaml

            content = msgspec.json.decode(response.body)
            response.body = yaml.safe_dump(content, default_flow_style=False, allow_unicode=True).encode()
            response.content_type = _YAML
    if request.method != "HEAD" and _accepts_gzip(request.headers.get("Accept-Encoding", "")):
        return _compressed(response)
    return response


def _accepts_gzip(header: str) -> bool:
    if "gzip" not in header:
        return False
    for choice in header.split(","):
        coding, _, weight = choice.replace(" ", "").partition(";q=")
        if coding == "gzip":
            return weight.strip("0.") != "" or not weight
    return False


def _prefers_yaml(request: Request) -> bool:
    accept = request.headers.get("Accept", "")
    return "yaml" in accept and accept.split(",")[0].partition(";")[0].strip() == _YAML


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
