"""Lists: whole, in pages, as of a revision, and cut into pieces for the connection."""

import json
from typing import Any

import pytest

from controlplane.apiserver.registry import selection, views

CMS = "/api/v1/namespaces/default/configmaps"
MERGE = "application/merge-patch+json"


async def fill(api: Any, count: int) -> list[str]:
    names = [f"c{i:03}" for i in range(count)]
    for name in names:
        await api.ok("POST", CMS, {"metadata": {"name": name, "labels": {"odd": str(int(name[1:]) % 2)}}})
    return names


def names_of(body: Any) -> list[str]:
    return [item["metadata"]["name"] for item in body["items"]]


async def test_pages_are_of_one_snapshot(api: Any) -> None:
    names = await fill(api, 25)
    page = await api.ok("GET", f"{CMS}?limit=10")
    assert page["metadata"]["remainingItemCount"] == 15
    revision, found = page["metadata"]["resourceVersion"], names_of(page)
    await api.ok("DELETE", f"{CMS}/c020")
    await api.ok("POST", CMS, {"metadata": {"name": "late"}})
    while token := page["metadata"].get("continue"):
        page = await api.ok("GET", f"{CMS}?limit=10&continue={token}")
        assert page["metadata"]["resourceVersion"] == revision
        found += names_of(page)
    assert found == names
    assert "remainingItemCount" not in page["metadata"]


async def test_pages_with_a_selector(api: Any) -> None:
    names = await fill(api, 20)
    page, found = await api.ok("GET", f"{CMS}?limit=3&labelSelector=odd%3D1"), []
    while True:
        found += names_of(page)
        assert len(page["items"]) <= 3
        if not (token := page["metadata"].get("continue")):
            break
        page = await api.ok("GET", f"{CMS}?limit=3&labelSelector=odd%3D1&continue={token}")
    assert found == names[1::2]


async def test_an_expired_token_comes_with_a_fresh_one(api: Any) -> None:
    names = await fill(api, 20)
    page = await api.ok("GET", f"{CMS}?limit=5")
    for i in range(10):
        await api.ok("PATCH", f"{CMS}/c000", {"data": {"k": str(i)}}, kind=MERGE)
    cache = api.server.cache
    cache._snapshots.clear()
    await cache.store.compact(cache.revision)
    gone = await api("GET", f"{CMS}?limit=5&continue={page['metadata']['continue']}")
    assert (gone.status, gone.body["reason"]) == (410, "Expired")
    fresh = await api.ok("GET", f"{CMS}?limit=50&continue={gone.body['metadata']['continue']}")
    assert names_of(fresh) == names[5:]


async def test_nonsense(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "_FUTURE_WAIT_S", 0.05)
    for query in (
        "continue=nonsense", "continue=e30", "limit=x", "resourceVersion=x", "labelSelector=a%3D%3D%3D",
        "fieldSelector=data.k%3D1",
    ):  # fmt: skip
        answer = await api("GET", f"{CMS}?{query}")
        assert answer.status == 400, query
        assert answer.body["kind"] == "Status"
    for query in ("resourceVersionMatch=Exact", "resourceVersion=1&resourceVersionMatch=Sometimes"):
        assert (await api("GET", f"{CMS}?{query}")).status == 422, query
    future = await api("GET", f"{CMS}?resourceVersion=999999999")
    assert future.status == 504
    assert future.body["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"


async def test_exactly_as_it_was(api: Any) -> None:
    await fill(api, 3)
    revision = (await api.ok("GET", CMS))["metadata"]["resourceVersion"]
    await api.ok("DELETE", f"{CMS}/c001")
    past = await api.ok("GET", f"{CMS}?resourceVersion={revision}&resourceVersionMatch=Exact")
    assert names_of(past) == ["c000", "c001", "c002"]
    assert names_of(await api.ok("GET", f"{CMS}?resourceVersion={revision}&resourceVersionMatch=NotOlderThan")) == [
        "c000",
        "c002",
    ]


async def test_forms(api: Any) -> None:
    await fill(api, 2)
    table = await api.ok("GET", CMS, headers={"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"})
    assert table["kind"] == "Table"
    assert [row["cells"][0] for row in table["rows"]] == ["c000", "c001"]
    accept = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"
    partial = await api.ok("GET", CMS, headers={"Accept": accept})
    assert partial["kind"] == "PartialObjectMetadataList"
    assert (await api("GET", CMS, headers={"Accept": "text/html"})).status == 406


@pytest.mark.parametrize("size", [1, 100, 1000, 100_000])
def test_pieces_join_to_the_whole(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "_PIECE", size)
    parts = [json.dumps({"n": i, "x": "y" * (i % 50)}).encode() for i in range(100)]
    whole = json.loads(b"".join(views._pieces(b'{"items":[', parts)))
    assert [item["n"] for item in whole["items"]] == list(range(100))
