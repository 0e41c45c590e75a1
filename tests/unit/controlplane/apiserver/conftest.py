"""An API server in this process over a store in memory, called without a socket, as whoever the test likes."""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from controlplane.apiserver.http import Request, Response, User
from controlplane.apiserver.server import ApiServer, Config
from pki import provision
from pki.layout import Layout

ADMIN = User("kubernetes-admin", ("system:masters", "system:authenticated"))


class Answer(NamedTuple):
    status: int
    body: Any
    headers: dict[str, str]


class Api:
    """`await api("POST", "/api/v1/namespaces", {...})`."""

    def __init__(self, server: ApiServer) -> None:
        self.server = server

    async def raw(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        *,
        user: User | None = ADMIN,
        headers: dict[str, str] | None = None,
    ) -> Response:
        path, _, query = target.partition("?")
        given = CIMultiDictProxy(CIMultiDict({"Content-Type": "application/json", **(headers or {})}))
        return await self.server.handle(Request(method, path, query, given, body, peer=user))

    async def __call__(
        self,
        method: str,
        target: str,
        body: Any = None,
        *,
        user: User | None = ADMIN,
        headers: dict[str, str] | None = None,
        kind: str = "",
    ) -> Answer:
        content = b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        more = {**(headers or {}), **({"Content-Type": kind} if kind else {})}
        response = await self.raw(method, target, content, user=user, headers=more)
        assert response.stream is None
        try:
            decoded = json.loads(response.body) if response.body else None
        except ValueError:
            decoded = response.body
        return Answer(response.status, decoded, dict(response.headers or {}))

    async def ok(self, method: str, target: str, body: Any = None, **more: Any) -> Any:
        """The body of an answer that must be a success."""
        answer = await self(method, target, body, **more)
        assert answer.status in (200, 201), answer
        return answer.body

    async def namespace(self, name: str) -> str:
        """A namespace with the ServiceAccount that a controller would make; returns its path."""
        await self.ok("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        path = f"/api/v1/namespaces/{name}"
        await self.ok("POST", f"{path}/serviceaccounts", {"metadata": {"name": "default"}})
        return path


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    layout, now = Layout.under(tmp_path_factory.mktemp("pki")), datetime.now(UTC)
    provision.control_plane(layout, provision.authority(layout, now), "https://127.0.0.1:6443", (), now)
    return layout


def config(keys: Layout, **settings: Any) -> Config:
    return Config(
        "192.0.2.1",
        **{"store": "memory:", **settings},
        service_account_signing_key_file=str(keys.service_account_key),
        kubelet_client_certificate=str(keys.identity("apiserver-kubelet-client")),
        kubelet_client_key=str(keys.identity("apiserver-kubelet-client")),
        kubelet_certificate_authority=str(keys.ca_cert),
    )


@pytest.fixture
async def api(keys: Layout, tmp_path: Path) -> AsyncIterator[Api]:
    server = ApiServer(config(keys))
    await server.start()
    yield Api(server)
    await server.stop()


@pytest.fixture
def pod() -> Any:
    """Makes a small pod's manifest."""

    def make(name: str, **spec: Any) -> dict[str, Any]:
        return {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "example"}], **spec}}

    return make
