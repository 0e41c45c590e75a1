"""kill -9 during 200 concurrent writes: what was acknowledged is there, whole; nothing is half there; time goes on."""

import json
import threading
from collections.abc import Callable
from typing import Any

CMS = "/api/v1/namespaces/default/configmaps"
WRITERS = 200


def writer(server: Any, number: int, acknowledged: dict[str, tuple[str, int]], enough: threading.Event) -> None:
    """Create and update objects until the server dies. Records what was acknowledged: name -> (content, revision)."""
    connection = server.connect()
    for i in range(1_000):
        name, content = f"w{number:03}-{i}", f"{number}-{i}-" + "x" * 1500
        body: Any = {"metadata": {"name": name}, "data": {"k": content, "end": name}}
        try:
            made = connection("POST", CMS, body)
            if made.status != 201:
                return
            acknowledged[name] = (content, int(made.json["metadata"]["resourceVersion"]))
            body["data"]["k"] = "new" + content
            made = connection("PUT", f"{CMS}/{name}", body)
            if made.status != 200:
                return
            acknowledged[name] = ("new" + content, int(made.json["metadata"]["resourceVersion"]))
        except (OSError, ValueError, EOFError):
            return
        except Exception as error:  # http.client's own: the server has gone
            assert type(error).__module__ == "http.client", error
            return
        if len(acknowledged) > 600:
            enough.set()


def test_kill_during_writes(fresh_server: Callable[..., Any]) -> None:
    server = fresh_server()
    admin = server.connect()
    began = int(admin.ok("GET", CMS)["metadata"]["resourceVersion"])
    acknowledged: dict[str, tuple[str, int]] = {}
    enough = threading.Event()
    threads = [threading.Thread(target=writer, args=(server, n, acknowledged, enough)) for n in range(WRITERS)]
    for thread in threads:
        thread.start()
    assert enough.wait(60)
    server.kill()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    highest = max(revision for _, revision in acknowledged.values())
    server.start()
    admin = server.connect()
    listed = admin.ok("GET", CMS)
    there = {item["metadata"]["name"]: item for item in listed["items"]}
    for name, (content, revision) in acknowledged.items():
        item = there[name]
        version = int(item["metadata"]["resourceVersion"])
        assert version >= revision
        if version == revision:
            assert item["data"]["k"] == content
        else:  # a write that was on its way and reached the disk
            assert item["data"]["k"] == "new" + content.removeprefix("new")
    for name, item in there.items():  # also what was never acknowledged is whole or absent
        assert item["data"]["end"] == name and item["data"]["k"].endswith("x" * 1500)
        assert item["metadata"]["uid"] and item["kind"] == "ConfigMap"
    assert int(listed["metadata"]["resourceVersion"]) >= highest
    fresh = admin.ok("POST", CMS, {"metadata": {"name": "after"}})
    assert int(fresh["metadata"]["resourceVersion"]) > int(listed["metadata"]["resourceVersion"])
    revisions = _resumed(admin, f"{CMS}?watch=1&resourceVersion={began}&timeoutSeconds=2")
    assert revisions == sorted(set(revisions)), "the history is in order, each revision once"
    assert highest in revisions and int(fresh["metadata"]["resourceVersion"]) == revisions[-1]


def _resumed(admin: Any, path: str) -> list[int]:
    """Revisions of the events after a revision from before the crash."""
    revisions = []
    with admin.watch(path) as watch:
        while (event := watch.next()) is not None:
            assert event["type"] in ("ADDED", "MODIFIED", "BOOKMARK"), json.dumps(event)[:300]
            if event["type"] != "BOOKMARK":
                revisions.append(int(event["object"]["metadata"]["resourceVersion"]))
    return revisions


def test_compacted_history_gives_410_after_restart(fresh_server: Callable[..., Any]) -> None:
    server = fresh_server(history_seconds="1")
    admin = server.connect()
    first = admin.ok("POST", CMS, {"metadata": {"name": "a"}})["metadata"]["resourceVersion"]
    with admin.watch(f"{CMS}?watch=1&resourceVersion={first}&timeoutSeconds=5") as watch:
        for i in range(3):
            admin.ok("POST", CMS, {"metadata": {"name": f"b{i}"}})
        assert [event["object"]["metadata"]["name"] for event in watch.take(3)] == ["b0", "b1", "b2"]
        assert watch.next() is None  # it lasted its five seconds: history is compacted by now
    server.kill()
    server.start()
    admin = server.connect()
    with admin.watch(f"{CMS}?watch=1&resourceVersion={first}") as watch:
        event = watch.next()
        assert event["type"] == "ERROR" and event["object"]["code"] == 410 and event["object"]["reason"] == "Expired"
        assert watch.next() is None
    assert len(admin.ok("GET", CMS)["items"]) >= 4
