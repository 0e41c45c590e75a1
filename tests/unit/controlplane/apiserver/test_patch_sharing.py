"""A patch shares what it does not change with the stored object, and never changes that."""

from typing import Any

import msgspec
import pytest

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
POD = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "one"}]}}
RUNNING = {"status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}


@pytest.fixture
async def path(api: Any) -> str:
    pods = f"{await api.namespace('sharing')}/pods"
    await api.ok("POST", pods, POD)
    return f"{pods}/p"


def _stored(api: Any) -> Any:
    return api.server.cache.get("core/pods/sharing/p")


@pytest.mark.parametrize("kind", [MERGE, STRATEGIC])
async def test_the_stored_object_stays_as_it_was(api: Any, path: str, kind: str) -> None:
    before = _stored(api)
    as_it_was = msgspec.json.encode(before.object)
    await api.ok("PATCH", f"{path}/status", RUNNING, kind=kind)
    await api.ok("PATCH", path, {"spec": {"activeDeadlineSeconds": 5}}, kind=kind)
    await api.ok("PATCH", path, {"metadata": {"labels": {"a": "b"}}}, kind=kind)
    assert msgspec.json.encode(before.object) == as_it_was
    now = _stored(api).object
    assert (now["status"]["phase"], now["spec"]["activeDeadlineSeconds"]) == ("Running", 5)
    assert {**now["spec"], "activeDeadlineSeconds": 0} == {**before.object["spec"], "activeDeadlineSeconds": 0}


async def test_what_the_wrong_door_says_changes_nothing(api: Any, path: str) -> None:
    both = {**RUNNING, "spec": {"activeDeadlineSeconds": 7}}
    await api.ok("PATCH", f"{path}/status", both, kind=MERGE)
    assert "activeDeadlineSeconds" not in _stored(api).object["spec"]
    await api.ok("PATCH", path, {"status": {"phase": "Failed"}, "spec": {"activeDeadlineSeconds": 7}}, kind=MERGE)
    found = _stored(api).object
    assert (found["status"]["phase"], found["spec"]["activeDeadlineSeconds"]) == ("Running", 7)


async def test_what_does_not_fit_is_still_seen(api: Any, path: str) -> None:
    answer = await api("PATCH", f"{path}/status", {"status": {"phase": 5}}, kind=MERGE)
    assert answer.status == 422
    answer = await api("PATCH", f"{path}/status?fieldValidation=Strict", {"status": {"fase": "x"}}, kind=MERGE)
    assert answer.status >= 400 and 'unknown field "status.fase"' in answer.body["message"]
    answer = await api("PATCH", f"{path}/status", {"status": {"fase": "x", "phase": "Running"}}, kind=MERGE)
    assert answer.status == 200 and "unknown field" in answer.headers["Warning"]
    assert "fase" not in _stored(api).object["status"]
