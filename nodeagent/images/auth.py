"""Answering a registry's 401: basic credentials, or a bearer token from the server that the challenge names.

Source: distribution/docs, "Token Authentication Specification". Credentials go only to the registry they are for, or
to its token server, and never over plain HTTP unless the registry itself is spoken to that way.
"""

from __future__ import annotations

import asyncio
import base64
import re
import ssl
from collections.abc import Sequence

import aiohttp

from nodeagent.runtime.interface import RegistryAuth, RuntimeFailure

_CHALLENGE = re.compile(r'(\w+)=(?:"((?:[^"\\]|\\.)*)"|([^\s,]+))')


class Denied(RuntimeFailure):
    """The registry does not let us in, with what we have."""

    def __init__(self, message: str) -> None:
        super().__init__(message, "ErrImagePull")


def parse_challenge(header: str) -> tuple[str, dict[str, str]]:
    """(scheme in lower case, parameters) of a WWW-Authenticate header."""
    scheme, _, rest = header.strip().partition(" ")
    return scheme.lower(), {m[1].lower(): m[2] if m[2] is not None else m[3] for m in _CHALLENGE.finditer(rest)}


def basic(auth: RegistryAuth) -> str:
    return "Basic " + base64.b64encode(f"{auth.username}:{auth.password}".encode()).decode()


class Authorizer:
    """The Authorization header for one repository at one endpoint. Tries the credentials in turn, then none."""

    def __init__(
        self, session: aiohttp.ClientSession, context: ssl.SSLContext, auth: Sequence[RegistryAuth], *, plain_http: bool
    ) -> None:
        self._session = session
        self._context = context
        self._plain_http = plain_http
        self._all = [*auth, RegistryAuth()]
        self._left = list(self._all)
        self._lock = asyncio.Lock()
        self.header = ""
        self.accepted = False  # set by the caller when a request succeeded

    async def answer(self, challenge: str, scope: str, sent: str) -> bool:
        """Try the next credentials against `challenge`, which the header `sent` brought; whether the request is worth
        repeating. Raises aiohttp's errors, Denied."""
        async with self._lock:
            if sent != self.header:
                return True  # a parallel request has got a new one meanwhile
            if self.accepted:  # it worked before, so it has expired: start over
                self.accepted = False
                self._left = list(self._all)
            return await self._next(*parse_challenge(challenge), scope)

    async def _next(self, scheme: str, parameters: dict[str, str], scope: str) -> bool:
        while self._left:
            auth = self._left.pop(0)
            anonymous = not (auth.username or auth.password or auth.token)
            if scheme == "basic":
                if anonymous:
                    continue
                self.header = f"Bearer {auth.token}" if auth.token else basic(auth)
                return True
            if scheme == "bearer":
                if auth.token:
                    self.header = f"Bearer {auth.token}"
                    return True
                token = await self._token(parameters, scope, None if anonymous else auth)
                if token:
                    self.header = f"Bearer {token}"
                    return True
        return False

    async def _token(self, parameters: dict[str, str], scope: str, auth: RegistryAuth | None) -> str:
        """A token from the realm, or empty if it refuses."""
        realm = parameters.get("realm", "")
        if not realm.startswith("https://") and not (self._plain_http and realm.startswith("http://")):
            raise Denied(f"registry names a token server that is not to be trusted: {realm[:200]!r}")
        query = {"scope": parameters.get("scope") or scope}
        if "service" in parameters:
            query["service"] = parameters["service"]
        headers = {"Authorization": basic(auth)} if auth is not None else {}
        async with self._session.get(realm, params=query, headers=headers, ssl=self._context) as response:
            if response.status >= 400:
                return ""
            document = await response.json(content_type=None)
        token = document.get("token") or document.get("access_token") if isinstance(document, dict) else ""
        return token if isinstance(token, str) else ""
