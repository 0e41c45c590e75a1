"""What is fetched for pods, how often, and tokens."""

from __future__ import annotations

import asyncio
from typing import Any

from controlplane import clock
from controlplane.client.fake import FakeAPI
from nodeagent.pods.objects import ROOT_CA, Objects

POD = {"metadata": {"name": "p", "namespace": "ns", "uid": "u"}, "spec": {"serviceAccountName": "sa"}}


def put(api: FakeAPI, name: str) -> None:
    api.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "ns"}, "data": {}})


def gets(api: FakeAPI) -> int:
    return len([r for r in api.requests if r[0] == "GET"])


async def test_requests_are_shared_but_never_older_than_the_pod() -> None:
    api = FakeAPI()
    put(api, "cm")
    objects, now = Objects(api.client()), clock.wall_time()
    found = await asyncio.gather(*[objects.config_map("ns", "cm", now) for _ in range(30)])
    assert all(found) and gets(api) == 1
    await objects.config_map("ns", "cm", now)
    assert gets(api) == 1
    await objects.config_map("ns", "cm", clock.wall_time() + 1)
    assert gets(api) == 2


async def test_the_root_certificates_may_be_a_minute_old() -> None:
    api = FakeAPI()
    put(api, ROOT_CA)
    objects, now = Objects(api.client()), clock.wall_time()
    for later in (0, 30, 59):
        assert await objects.config_map("ns", ROOT_CA, now + later)
    assert gets(api) == 1
    assert await objects.config_map("ns", ROOT_CA, now + 90)
    assert gets(api) == 2


class Issuer:
    """An API server that issues tokens of a given life."""

    def __init__(self, life_s: float) -> None:
        self.life_s = life_s
        self.asked: list[dict[str, Any]] = []

    async def get(self, *_: Any, **__: Any) -> dict[str, Any]:
        raise AssertionError

    async def create(self, r: Any, obj: dict[str, Any], namespace: str = "", **_: Any) -> dict[str, Any]:
        self.asked.append(obj)
        return {"status": {"token": "t", "expirationTimestamp": clock.rfc3339(clock.wall_time() + self.life_s)}}


async def test_a_token_is_bound_and_renewed_before_four_fifths_of_its_life() -> None:
    issuer = Issuer(3600)
    token = await Objects(issuer).token(POD, "vault", 3600)
    spec = issuer.asked[0]["spec"]
    assert spec["audiences"] == ["vault"] and spec["boundObjectRef"]["uid"] == "u"
    assert 0.69 * 3600 < token.refresh_at - clock.wall_time() <= 0.8 * 3600
    forever = await Objects(Issuer(10 * 365 * 86400)).token(POD, "", 3600)
    assert forever.refresh_at - clock.wall_time() <= 24 * 3600
