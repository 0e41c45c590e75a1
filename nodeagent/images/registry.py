"""Talking to registries: the pulling half of the OCI distribution specification, over aiohttp.

`fetch_manifest` and `fetch_blob` try a registry's mirrors in order, then the registry itself. A blob is written and
hashed while it arrives (in a thread, a megabyte at a time), and a connection that breaks is taken up again where it
ended. What is kept and how it is unpacked is decided elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TypeVar

import aiohttp

from nodeagent.images.auth import Authorizer, Denied
from nodeagent.images.content import Content, Download
from nodeagent.images.endpoints import Registries
from nodeagent.images.hosts import Host
from nodeagent.images.manifest import ACCEPT, Descriptor, ImageInvalid, check_digest
from nodeagent.images.references import Reference
from nodeagent.runtime.interface import NotFound, RegistryAuth, RuntimeFailure

T = TypeVar("T")

log = logging.getLogger(__name__)

_MAX_DOCUMENT = 8 << 20
_CHUNK = 1 << 20
_ATTEMPTS = 4
_BACKOFF_S = 0.5
_MAX_CONTEXTS = 64


class Unavailable(RuntimeFailure):
    """Nobody answers, or answers that it cannot."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "RegistryUnavailable")


class RegistryClient:
    """One HTTP session for all registries. `close()` it."""

    def __init__(self, registries: Registries) -> None:
        self._registries = registries
        self._session: aiohttp.ClientSession | None = None
        self._contexts: dict[object, ssl.SSLContext] = {}

    def _open_session(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=32),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=10, sock_read=60),
                headers={"User-Agent": "wherry"},
                auto_decompress=False,  # digests are of the bytes as they are sent
                trust_env=True,
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        return self._session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    def repository(self, reference: Reference, auth: Sequence[RegistryAuth]) -> Repository:
        """For the requests of one pull: what is learnt about access is kept between them. Raises RuntimeFailure for
        settings that cannot be used."""
        session = self._open_session()
        endpoints = []
        for host in self._registries.hosts(reference.registry):
            context = self._context(host)
            authorizer = Authorizer(session, context, auth if host.own else (), plain_http=host.plain_http)
            endpoints.append(_Endpoint(host, context, authorizer))
        return Repository(session, reference, endpoints)

    def _context(self, host: Host) -> ssl.SSLContext:
        """How to verify `host`, and what to show it. Made anew when a file has changed."""
        files = [*((self._registries.ca_file,) if self._registries.ca_file else ()), *host.ca_files]
        try:
            times = tuple(os.stat(file).st_mtime_ns for file in (*files, *filter(None, host.client or ())))
            key = (tuple(files), host.client, host.skip_verify, times)
            if key not in self._contexts:
                if len(self._contexts) > _MAX_CONTEXTS:
                    self._contexts.clear()
                context = ssl.create_default_context()
                for file in files:
                    context.load_verify_locations(file)
                if host.client:
                    context.load_cert_chain(host.client[0], host.client[1] or None)
                if host.skip_verify:
                    context.check_hostname = False
                    context.verify_mode = ssl.CERT_NONE
                self._contexts[key] = context
            return self._contexts[key]
        except (OSError, ssl.SSLError) as error:
            raise RuntimeFailure(f"certificates for {host.base}: {error}", "ErrImagePull") from error


@dataclass(slots=True)
class _Endpoint:
    host: Host
    context: ssl.SSLContext
    authorizer: Authorizer


class Repository:
    """One repository, wherever it is mirrored."""

    def __init__(self, session: aiohttp.ClientSession, reference: Reference, endpoints: list[_Endpoint]) -> None:
        self._session = session
        self._reference = reference
        self._endpoints = endpoints

    async def fetch_manifest(self, target: str) -> bytes:
        """An index or manifest by tag or digest (then verified). Raises NotFound, Denied, Unavailable,
        ImageInvalid."""
        return await self._first(
            lambda endpoint: self._document(endpoint, f"manifests/{target}", target), resolve=":" not in target
        )

    async def fetch_small_blob(self, wanted: Descriptor) -> bytes:
        """A blob that is a document (the image config), verified."""
        return await self._first(lambda endpoint: self._document(endpoint, f"blobs/{wanted.digest}", wanted.digest))

    async def fetch_blob(self, wanted: Descriptor, content: Content) -> None:
        """Bring a blob into `content`, verified. Resumes what an earlier attempt left."""
        download = Download(content, wanted)
        try:
            await asyncio.to_thread(download.start)
            await self._first(lambda endpoint: self._blob(endpoint, download))
            await asyncio.to_thread(download.finish)
        finally:
            download.close()

    async def _first(self, request: Callable[[_Endpoint], Awaitable[T]], *, resolve: bool = False) -> T:
        """The answer of the first endpoint that has one; else the last one's error (the registry's own)."""
        endpoints = [endpoint for endpoint in self._endpoints if endpoint.host.resolve or not resolve]
        for i, endpoint in enumerate(endpoints):
            try:
                return await request(endpoint)
            except RuntimeFailure as error:
                if i == len(endpoints) - 1:
                    raise
                log.info("mirror passed over url=%s image=%s error=%s", endpoint.host.base, self._reference, error)
        raise Unavailable(f'failed to pull image "{self._reference}": no host that may be asked')

    async def _document(self, endpoint: _Endpoint, path: str, target: str) -> bytes:
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                async with self._get(endpoint, path, {"Accept": ", ".join(ACCEPT)}) as response:
                    data = await _read_bounded(response)
                if ":" in target:
                    check_digest(data, target, str(self._reference))
                return data
            except (aiohttp.ClientError, TimeoutError) as error:
                await self._pause(endpoint, attempt, error)
        raise AssertionError("unreachable")

    async def _blob(self, endpoint: _Endpoint, download: Download) -> None:
        """Write the blob, or what is missing of it."""
        attempt = 1
        while True:
            before = download.length
            try:
                await self._blob_once(endpoint, download)
                return
            except (aiohttp.ClientError, TimeoutError) as error:
                if download.length > before:
                    attempt = 1  # it moves: be patient
                await self._pause(endpoint, attempt, error)
                attempt += 1

    async def _blob_once(self, endpoint: _Endpoint, download: Download) -> None:
        wanted = download.wanted
        if download.length == wanted.size:
            return
        headers = {"Range": f"bytes={download.length}-"} if download.length else {}
        async with self._get(endpoint, f"blobs/{wanted.digest}", headers) as response:
            if download.length and response.status != 206:
                await asyncio.to_thread(download.start, afresh=True)
            pending: list[bytes] = []
            size = 0
            try:
                async for data in response.content.iter_any():
                    pending.append(data)
                    size += len(data)
                    if size >= _CHUNK:
                        chunk, pending, size = b"".join(pending), [], 0
                        await asyncio.to_thread(download.write, chunk)
            finally:  # also when the connection broke: what came need not come again
                if pending:
                    download.write(b"".join(pending))
        if 0 <= download.length < wanted.size:
            raise aiohttp.ClientPayloadError(f"{download.length} of {wanted.size} bytes")

    async def _pause(self, endpoint: _Endpoint, attempt: int, error: Exception) -> None:
        """Before another attempt. Raises Unavailable when there were enough."""
        # aiohttp puts the repr of an object into some: "Cannot connect to host x:443 ssl:<ssl.SSLContext …> [why]".
        reason = re.sub(r" ssl:(<.*?>|\w+)", "", str(error)) or type(error).__name__
        if attempt >= _ATTEMPTS or isinstance(error, aiohttp.ClientConnectorError):
            raise Unavailable(f'failed to pull image "{self._reference}": {endpoint.host.base}: {reason}') from error
        log.info("registry request repeated image=%s attempt=%d error=%s", self._reference, attempt, reason)
        await asyncio.sleep(_BACKOFF_S * 2**attempt)

    @asynccontextmanager
    async def _get(
        self, endpoint: _Endpoint, path: str, headers: dict[str, str]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """A successful answer, having proved who we are if asked to."""
        host, authorizer = endpoint.host, endpoint.authorizer
        url = f"{host.base}/{self._reference.path}/{path}"
        query = {} if host.own else {"ns": self._reference.registry}  # for mirrors of several registries
        headers = {**dict(host.headers), **headers}
        while True:
            sent = {**headers, "Authorization": authorizer.header} if authorizer.header else headers
            async with self._session.get(url, params=query, headers=sent, ssl=endpoint.context) as response:
                if response.status < 300:
                    authorizer.accepted = True
                    yield response
                    return
                if response.status == 401:
                    challenge = response.headers.get("WWW-Authenticate", "")
                    scope = f"repository:{self._reference.path}:pull"
                    if await authorizer.answer(challenge, scope, sent.get("Authorization", "")):
                        continue
                await self._refuse(response, path)

    async def _refuse(self, response: aiohttp.ClientResponse, path: str) -> None:
        """The error for an answer that is none."""
        said = (await response.content.read(2000)).decode("utf-8", "replace").strip()
        message = f'failed to pull image "{self._reference}": {path}: {response.status} {response.reason}: {said}'
        if response.status == 404:
            raise NotFound(message, "ErrImagePull")
        if response.status in (401, 403):
            raise Denied(message)
        if response.status == 416:
            raise ImageInvalid(message)
        if response.status == 429 or response.status >= 500:
            raise aiohttp.ClientResponseError(
                response.request_info, (), status=response.status, message=f"{response.reason}: {said}"
            )
        raise RuntimeFailure(message, "ErrImagePull")


async def _read_bounded(response: aiohttp.ClientResponse) -> bytes:
    data = bytearray()
    async for part in response.content.iter_any():
        data += part
        if len(data) > _MAX_DOCUMENT:
            raise ImageInvalid(f"document is larger than {_MAX_DOCUMENT} bytes")
    return bytes(data)
