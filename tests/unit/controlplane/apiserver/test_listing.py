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


EVENTS = "/api/v1/namespaces/default/events"


@pytest.mark.parametrize(
    ("path", "selector"),
    [
        (EVENTS, "involvedObject.kind=Pod,involvedObject.name=p"),
        (EVENTS, "type!=Warning,source=agent"),
        (EVENTS.replace("/api/v1", "/apis/events.k8s.io/v1"), "regarding.name=p,reportingController="),
        (EVENTS, "metadata.name=e,reason=Pulled"),
    ],
)
async def test_events_by_their_fields(api: Any, path: str, selector: str) -> None:
    about = {"kind": "Pod", "namespace": "default", "name": "p"}
    event = {"reason": "Pulled", "type": "Normal", "source": {"component": "agent"}}
    await api.ok("POST", EVENTS, {"metadata": {"name": "e"}, "involvedObject": about, **event})
    other = {"kind": "Node", "namespace": "default", "name": "n"}
    await api.ok("POST", EVENTS, {"metadata": {"name": "o"}, "involvedObject": other, "reason": "x", "type": "Warning"})
    assert names_of(await api.ok("GET", f"{path}?fieldSelector={selector.replace('=', '%3D')}")) == ["e"]


@pytest.mark.parametrize(
    ("path", "selector", "message"),
    [
        (CMS, "data.k=1", '"data.k" is not a known field selector: only "metadata.name", "metadata.namespace"'),
        ("/api/v1/pods", "spec.x=1", "field label not supported: spec.x"),
        ("/apis/events.k8s.io/v1/events", "involvedObject.name=p", "field label not supported: involvedObject.name"),
    ],
)
async def test_fields_that_cannot_be_selected_by(api: Any, path: str, selector: str, message: str) -> None:
    answer = await api("GET", f"{path}?fieldSelector={selector.replace('=', '%3D')}")
    assert (answer.status, answer.body["reason"], answer.body["message"]) == (400, "BadRequest", message)


@pytest.mark.parametrize(
    ("query", "messages"),
    [
        ("resourceVersionMatch=Exact", ["resourceVersionMatch is forbidden unless resourceVersion is provided"]),
        ("resourceVersion=0&resourceVersionMatch=Exact", ['"exact" is forbidden for resourceVersion "0"']),
        ("resourceVersion=1&resourceVersionMatch=x",
         ['Unsupported value: "x": supported values: "Exact", "NotOlderThan", ""']),
        ("resourceVersion=1&resourceVersionMatch=NotOlderThan&continue=a", ["forbidden when continue is provided"]),
        ("sendInitialEvents=true", ["sendInitialEvents is forbidden for list"]),
        ("watch=1&sendInitialEvents=true", ["sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"]),
        ("watch=1&resourceVersionMatch=NotOlderThan", ["forbidden for watch unless sendInitialEvents is provided"]),
        ("watch=1&sendInitialEvents=false&resourceVersionMatch=Exact",
         ["sendInitialEvents requires", 'Unsupported value: "Exact": supported values: "NotOlderThan"']),
    ],
)  # fmt: skip
async def test_options_that_do_not_go_together(api: Any, query: str, messages: list[str]) -> None:
    answer = await api("GET", f"{CMS}?{query}")
    assert (answer.status, answer.body["reason"]) == (422, "Invalid")
    for message in messages:
        assert message in answer.body["message"]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("limit=x", 'strconv.ParseInt: parsing "x": invalid syntax'),
        ("resourceVersion=x", 'resourceVersion: Invalid value: "x": strconv.ParseUint: parsing "x": invalid syntax'),
        ("watch=1&resourceVersion=x", 'invalid resource version: resourceVersion: Invalid value: "x"'),
        ("continue=bm8&resourceVersion=7", "specifying resource version is not allowed when using continue"),
        ("continue=e30", "invalid continue token: continue key is not valid"),
    ],
)
async def test_options_that_cannot_be_read(api: Any, query: str, message: str) -> None:
    answer = await api("GET", f"{CMS}?{query}")
    assert answer.status == 400
    assert message in answer.body["message"]


async def test_one_object_as_it_was(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selection, "_FUTURE_WAIT_S", 0.05)
    made = await api.ok("POST", CMS, {"metadata": {"name": "a"}, "data": {"k": "old"}})
    await api.ok("PATCH", f"{CMS}/a", {"data": {"k": "new"}}, kind=MERGE)
    await api.ok("DELETE", f"{CMS}/a")
    then = f"resourceVersion={made['metadata']['resourceVersion']}&resourceVersionMatch=Exact"
    assert (await api.ok("GET", f"{CMS}/a?{then}"))["data"] == {"k": "old"}
    assert (await api("GET", f"{CMS}/a?resourceVersion=1")).status == 404
    assert (await api("GET", f"{CMS}/a?resourceVersion=999999")).status == 504
    await api.server.cache.store.compact(api.server.cache.revision)
    gone = await api("GET", f"{CMS}/a?{then}")
    assert (gone.status, gone.body["reason"]) == (410, "Expired")
    listed = await api("GET", f"{CMS}?{then}")
    assert (listed.status, listed.body["message"]) == (410, "The resourceVersion for the provided list is too old.")


async def test_a_limit_with_a_revision_is_of_exactly_that_revision(api: Any) -> None:
    await fill(api, 4)
    revision = (await api.ok("GET", CMS))["metadata"]["resourceVersion"]
    await api.ok("DELETE", f"{CMS}/c000")
    page = await api.ok("GET", f"{CMS}?limit=2&resourceVersion={revision}")
    assert (names_of(page), page["metadata"]["resourceVersion"]) == (["c000", "c001"], revision)
    newer = await api.ok("GET", f"{CMS}?limit=2&resourceVersion={revision}&resourceVersionMatch=NotOlderThan")
    assert names_of(newer) == ["c001", "c002"]


async def test_pages_with_a_selector_that_few_fit(api: Any) -> None:
    names = await fill(api, 30)
    chosen = "labelSelector=odd%3D0"
    page = await api.ok("GET", f"{CMS}?limit=14&{chosen}")
    assert names_of(page) == names[0:28:2]
    page = await api.ok("GET", f"{CMS}?limit=14&{chosen}&continue={page['metadata']['continue']}")
    assert names_of(page) == [names[28]]
    assert "continue" not in page["metadata"]


async def test_tables_carry_what_is_asked_for(api: Any) -> None:
    await fill(api, 1)
    headers = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
    for include, expected in (("Object", "ConfigMap"), ("Metadata", "PartialObjectMetadata")):
        [row] = (await api.ok("GET", f"{CMS}?includeObject={include}", headers=headers))["rows"]
        assert row["object"]["kind"] == expected
    [row] = (await api.ok("GET", f"{CMS}?includeObject=None", headers=headers))["rows"]
    assert row["object"] is None
    assert (await api("GET", f"{CMS}?includeObject=Some", headers=headers)).status == 422
