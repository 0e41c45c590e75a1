"""Lists and watches as client-go uses them: revisions, initial events, selectors, paging, forms."""

from collections.abc import Callable
from typing import Any

import pytest

MERGE = "application/merge-patch+json"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
PARTIAL = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
END = {"k8s.io/initial-events-end": "true"}


@pytest.fixture
def cms(ns: str) -> str:
    return f"/api/v1/namespaces/{ns}/configmaps"


def make(admin: Any, cms: str, name: str, **labels: str) -> Any:
    return admin.ok("POST", cms, {"metadata": {"name": name, "labels": labels}})


def seen(event: Any) -> tuple[str, str]:
    return event["type"], event["object"]["metadata"].get("name", "")


def test_from_a_revision(admin: Any, cms: str) -> None:
    first = make(admin, cms, "a")
    make(admin, cms, "b")
    admin.ok("PATCH", f"{cms}/a", {"data": {"k": "v"}}, kind=MERGE)
    admin.ok("DELETE", f"{cms}/b")
    with admin.watch(f"{cms}?watch=1&resourceVersion={first['metadata']['resourceVersion']}") as watch:
        events = watch.take(3)
    assert [seen(e) for e in events] == [("ADDED", "b"), ("MODIFIED", "a"), ("DELETED", "b")]
    versions = [int(e["object"]["metadata"]["resourceVersion"]) for e in events]
    assert versions == sorted(versions) and versions[0] > int(first["metadata"]["resourceVersion"])
    assert all(e["object"]["kind"] == "ConfigMap" and e["object"]["apiVersion"] == "v1" for e in events)


@pytest.mark.parametrize("version", ["", "&resourceVersion=0"])
def test_without_a_revision_the_state_comes_first(admin: Any, cms: str, version: str) -> None:
    make(admin, cms, "a")
    with admin.watch(f"{cms}?watch=1{version}") as watch:
        assert seen(watch.next()) == ("ADDED", "a")
        make(admin, cms, "b")
        assert seen(watch.next()) == ("ADDED", "b")


@pytest.mark.parametrize("accept", ["application/json", TABLE, PARTIAL])
def test_initial_events_and_their_end(admin: Any, cms: str, accept: str) -> None:
    make(admin, cms, "a")
    query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    with admin.watch(f"{cms}?{query}", Accept=accept) as watch:
        added, end = watch.take(2)
        assert (added["type"], end["type"]) == ("ADDED", "BOOKMARK")
        if accept == TABLE:
            assert added["object"]["columnDefinitions"] and added["object"]["rows"][0]["cells"][0] == "a"
            meta = end["object"]["rows"][0]["object"]["metadata"]
            assert end["object"]["kind"] == "Table"
        else:
            kind = "ConfigMap" if accept == "application/json" else "PartialObjectMetadata"
            assert (added["object"]["kind"], end["object"]["kind"]) == (kind, kind)
            assert "data" not in end["object"]
            meta = end["object"]["metadata"]
        assert meta["annotations"] == END and int(meta["resourceVersion"]) > 0
        make(admin, cms, "b")
        later = watch.next()
        assert later["type"] == "ADDED"
        if accept == TABLE:
            assert not later["object"]["columnDefinitions"] and later["object"]["rows"][0]["cells"][0] == "b"


def test_initial_events_need_their_companion(admin: Any, cms: str) -> None:
    assert admin("GET", f"{cms}?watch=1&sendInitialEvents=true").status == 422


@pytest.mark.parametrize("accept", ["application/json", PARTIAL])
def test_selectors_turn_updates_into_arrivals_and_departures(admin: Any, cms: str, accept: str) -> None:
    start = admin.ok("GET", cms)["metadata"]["resourceVersion"]
    make(admin, cms, "a", app="x")
    make(admin, cms, "b", app="y")
    with admin.watch(f"{cms}?watch=1&labelSelector=app%3Dx&resourceVersion={start}", Accept=accept) as watch:
        assert seen(watch.next()) == ("ADDED", "a")
        admin.ok("PATCH", f"{cms}/a", {"data": {"k": "1"}}, kind=MERGE)
        assert seen(watch.next()) == ("MODIFIED", "a")
        left = admin.ok("PATCH", f"{cms}/a", {"metadata": {"labels": {"app": "z"}}}, kind=MERGE)
        gone = watch.next()
        assert seen(gone) == ("DELETED", "a")
        assert gone["object"]["metadata"]["labels"] == {"app": "x"}  # as the watcher knew it
        assert gone["object"]["metadata"]["resourceVersion"] == left["metadata"]["resourceVersion"]
        admin.ok("PATCH", f"{cms}/b", {"metadata": {"labels": {"app": "x"}}}, kind=MERGE)
        assert seen(watch.next()) == ("ADDED", "b")
        admin.ok("DELETE", f"{cms}/a")
        admin.ok("DELETE", f"{cms}/b")
        assert seen(watch.next()) == ("DELETED", "b")


def test_by_name_and_by_field(admin: Any, ns: str, cms: str) -> None:
    make(admin, cms, "a")
    make(admin, cms, "ab")
    with admin.watch(f"{cms}?watch=1&fieldSelector=metadata.name%3Da") as watch:
        assert seen(watch.next()) == ("ADDED", "a")
        admin.ok("DELETE", f"{cms}/ab")
        admin.ok("DELETE", f"{cms}/a")
        assert seen(watch.next()) == ("DELETED", "a")
    pods = f"/api/v1/namespaces/{ns}/pods"
    with admin.watch("/api/v1/pods?watch=1&fieldSelector=spec.nodeName%3Dnode-x") as watch:
        for name in ("p", "q"):
            admin.ok("POST", pods, {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}})
        admin.ok("POST", f"{pods}/q/binding", {"target": {"name": "node-x"}})
        assert seen(watch.next()) == ("ADDED", "q")


def test_one_object(admin: Any, cms: str) -> None:
    """The old form: a watch on the object's own path."""
    make(admin, cms, "a")
    with admin.watch(f"{cms}/a?watch=1&resourceVersion=0") as watch:
        assert seen(watch.next()) == ("ADDED", "a")
        make(admin, cms, "b")
        admin.ok("DELETE", f"{cms}/a")
        assert seen(watch.next()) == ("DELETED", "a")


def test_a_watch_ends_in_time_with_a_bookmark(admin: Any, cms: str) -> None:
    with admin.watch(f"{cms}?watch=1&timeoutSeconds=1&allowWatchBookmarks=true&resourceVersion=0") as watch:
        made = make(admin, cms, "a")
        assert seen(watch.next()) == ("ADDED", "a")
        last = watch.next()
        assert last["type"] == "BOOKMARK"
        assert int(last["object"]["metadata"]["resourceVersion"]) >= int(made["metadata"]["resourceVersion"])
        assert watch.next() is None


def test_pages_show_one_moment(admin: Any, cms: str) -> None:
    for i in range(7):
        make(admin, cms, f"c{i}", odd=str(i % 2))
    page = admin.ok("GET", f"{cms}?limit=3")
    assert page["metadata"]["remainingItemCount"] == 4
    make(admin, cms, "c3a")
    admin.ok("DELETE", f"{cms}/c6")
    names, version = [], page["metadata"]["resourceVersion"]
    while True:
        names += [item["metadata"]["name"] for item in page["items"]]
        assert page["metadata"]["resourceVersion"] == version
        if not page["metadata"].get("continue"):
            break
        page = admin.ok("GET", f"{cms}?limit=3&continue={page['metadata']['continue']}")
    assert names == [f"c{i}" for i in range(7)]
    page = admin.ok("GET", f"{cms}?limit=2&labelSelector=odd%3D1")
    assert [item["metadata"]["name"] for item in page["items"]] == ["c1", "c3"] and page["metadata"]["continue"]
    exact = admin.ok("GET", f"{cms}?resourceVersion={version}&resourceVersionMatch=Exact")
    assert [item["metadata"]["name"] for item in exact["items"]] == [f"c{i}" for i in range(7)]


def test_expired_continue_token_offers_a_fresh_one(fresh_server: Callable[..., Any]) -> None:
    server = fresh_server(history_seconds="1")
    admin, cms = server.connect(), "/api/v1/namespaces/default/configmaps"
    for i in range(5):
        make(admin, cms, f"c{i}")
    page = admin.ok("GET", f"{cms}?limit=2")
    make(admin, cms, "later")
    with admin.watch(f"{cms}?watch=1&timeoutSeconds=4&resourceVersion=0") as watch:
        while watch.next() is not None:
            pass
    server.kill()  # the snapshot that the pages are of may live on in memory
    server.start()
    admin = server.connect()
    answer = admin("GET", f"{cms}?limit=2&continue={page['metadata']['continue']}")
    assert answer.status == 410 and answer.json["reason"] == "Expired"
    rest = admin.ok("GET", f"{cms}?continue={answer.json['metadata']['continue']}")
    assert [item["metadata"]["name"] for item in rest["items"]] == ["c2", "c3", "c4", "later"]
    answer = admin("GET", f"{cms}?resourceVersion=2&resourceVersionMatch=Exact")
    assert answer.status == 410
