"""The past stays readable for as long as it is kept, also after a restart, and is told to be gone afterwards."""

import time
from typing import Any

CMS = "/api/v1/namespaces/default/configmaps"
MERGE = "application/merge-patch+json"


def test_the_past_survives_a_restart(fresh_server: Any) -> None:
    server = fresh_server()
    admin = server.connect()
    made = admin.ok("POST", CMS, {"metadata": {"name": "a"}, "data": {"k": "old"}})
    admin.ok("POST", CMS, {"metadata": {"name": "b"}})
    then = admin.ok("GET", CMS)["metadata"]["resourceVersion"]
    admin.ok("PATCH", f"{CMS}/a", {"data": {"k": "new"}}, kind=MERGE)
    admin.ok("DELETE", f"{CMS}/b")
    server.stop()
    server.start()
    admin = server.connect()
    exact = f"resourceVersion={then}&resourceVersionMatch=Exact"
    past = admin.ok("GET", f"{CMS}?{exact}")
    names = [item["metadata"]["name"] for item in past["items"]]
    assert {"a", "b"} <= set(names) and past["metadata"]["resourceVersion"] == then
    assert next(item for item in past["items"] if item["metadata"]["name"] == "a") == made
    assert admin.ok("GET", f"{CMS}/a?{exact}") == made
    assert admin.ok("GET", f"{CMS}/b?{exact}")["metadata"]["name"] == "b"
    page = admin.ok("GET", f"{CMS}?limit=1&{exact}")
    rest = admin.ok("GET", f"{CMS}?continue={page['metadata']['continue']}")
    assert [item["metadata"]["name"] for item in (*page["items"], *rest["items"])] == names
    labelled = admin.ok("GET", f"{CMS}?fieldSelector=metadata.name%3Db&{exact}")
    assert [item["metadata"]["name"] for item in labelled["items"]] == ["b"]


def test_a_short_memory(fresh_server: Any) -> None:
    server = fresh_server(history_seconds="1")
    admin = server.connect()
    then = admin.ok("POST", CMS, {"metadata": {"name": "a"}})["metadata"]["resourceVersion"]
    deadline = time.monotonic() + 30
    for count in range(10_000):
        admin.ok("PATCH", f"{CMS}/a", {"data": {"k": str(count)}}, kind=MERGE)
        gone = admin("GET", f"{CMS}?resourceVersion={then}&resourceVersionMatch=Exact")
        if gone.status != 200:
            break
        assert time.monotonic() < deadline, "nothing is ever forgotten"
    assert (gone.status, gone.json["reason"]) == (410, "Expired")
    assert gone.json["message"] == "The resourceVersion for the provided list is too old."
    assert admin.ok("GET", f"{CMS}/a")["data"] == {"k": str(count)}
