"""Statuses: minimal patches, the latest wins, nothing is lost."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from controlplane.api.status import StatusError, conflict, not_found
from controlplane.client.errors import Unreachable
from nodeagent.pods import statusmanager
from nodeagent.pods.statusmanager import StatusManager, changes

Obj = dict[str, Any]
POD: Obj = {"metadata": {"name": "p", "namespace": "ns", "uid": "u"}, "spec": {}, "status": {"phase": "Pending"}}


class Api:
    def __init__(self) -> None:
        self.patches: list[Obj] = []
        self.deleted: list[str] = []
        self.troubles: list[Exception] = []
        self.status: Obj = {"phase": "Pending"}
        self.gate = asyncio.Event()
        self.gate.set()

    async def patch_status(self, namespace: str, name: str, body: Obj) -> Obj:
        await self.gate.wait()
        if self.troubles:
            raise self.troubles.pop(0)
        self.patches.append(body)
        self.status = {**self.status, **body["status"]}
        return {"status": self.status}

    async def delete(self, namespace: str, name: str, uid: str) -> None:
        if self.troubles:
            raise self.troubles.pop(0)
        self.deleted.append(uid)


def status(phase: str, reason: str = "", **more: Any) -> Obj:
    state = {"running": {}} if phase == "Running" else {"waiting": {"reason": reason or "ContainerCreating"}}
    return {"phase": phase, "containerStatuses": [{"name": "a", "state": state, "ready": False}], **more}


@pytest.fixture(autouse=True)
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statusmanager, "_RETRY_FIRST_S", 0.001)
    monkeypatch.setattr(statusmanager, "DULL_DELAY_S", 0.02)


async def test_a_dull_status_waits_for_a_better_one() -> None:
    api = Api()
    manager = StatusManager(api)
    manager.set(POD, status("Pending"))
    manager.set(POD, status("Running"))
    await manager.flush()
    assert [p["status"]["phase"] for p in api.patches] == ["Running"]
    assert api.patches[0]["metadata"] == {"uid": "u"}


async def test_a_dull_status_is_sent_if_nothing_better_comes_and_bad_news_at_once() -> None:
    api = Api()
    manager = StatusManager(api)
    manager.set(POD, status("Pending"))
    assert not api.patches
    await asyncio.sleep(0.05)
    await manager.flush()
    assert len(api.patches) == 1
    manager.set(POD, status("Pending", "ErrImagePull"))
    await manager.flush()
    assert len(api.patches) == 2 and list(api.patches[1]["status"]) == ["containerStatuses"]


async def test_the_latest_wins_while_a_request_is_under_way() -> None:
    api = Api()
    manager = StatusManager(api)
    api.gate.clear()
    for number in range(10):
        manager.set(POD, status("Running", message=str(number)))
        await asyncio.sleep(0)
    api.gate.set()
    await manager.flush()
    assert len(api.patches) == 2 and api.status["message"] == "9"


async def test_nothing_is_lost_to_trouble() -> None:
    api = Api()
    manager = StatusManager(api)
    api.troubles = [
        Unreachable("away"),
        StatusError(500, "InternalError", "x"),
        StatusError(429, "TooManyRequests", "x"),
    ]
    manager.set(POD, status("Running"))
    await manager.flush()
    assert api.status["phase"] == "Running"
    manager.set(POD, status("Running"))
    await manager.flush()
    assert len(api.patches) == 1


@pytest.mark.parametrize("trouble", [not_found("pods", "p"), conflict("pods", "p")])
async def test_a_pod_that_is_gone_has_no_status(trouble: StatusError) -> None:
    api, gone = Api(), []
    manager = StatusManager(api)
    api.troubles = [trouble]
    manager.set(POD, status("Running"))
    await manager.flush()
    api.troubles = [trouble]
    manager.finish(POD, lambda: gone.append(1))
    await manager.flush()
    assert gone == [1] and not api.patches


async def test_the_end_is_one_deletion_and_a_last_status_only_for_who_waits_for_it() -> None:
    api, gone = Api(), []
    manager = StatusManager(api)
    api.troubles = [Unreachable("away")]
    manager.set(POD, status("Running"))
    await manager.flush()
    api.patches.clear()
    doomed = {**POD, "metadata": {**POD["metadata"], "deletionTimestamp": "x"}}
    manager.set(doomed, status("Succeeded"))
    manager.finish(doomed, lambda: gone.append(1))
    await manager.flush()
    assert (api.patches, api.deleted, gone) == ([], ["u"], [1])
    held = {**doomed, "metadata": {**doomed["metadata"], "uid": "v", "finalizers": ["job"]}}
    manager.set(held, status("Succeeded"))
    manager.finish(held, lambda: gone.append(2))
    await manager.flush()
    assert [p["status"]["phase"] for p in api.patches] == ["Succeeded"] and api.deleted == ["u", "v"]


def test_changes() -> None:
    known = {
        "phase": "Pending", "reason": "Old", "podIPs": [{"ip": "1"}],
        "conditions": [{"type": "Ready", "status": "False", "reason": "X"}, {"type": "Gate", "status": "True"}],
        "containerStatuses": [{"name": "a", "extra": 1}],
    }  # fmt: skip
    wanted = {
        "phase": "Pending", "podIPs": [{"ip": "2"}], "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [{"name": "a", "ready": False, "state": {}}],
    }  # fmt: skip
    assert changes(known, wanted) == {
        "podIPs": [{"$patch": "replace"}, {"ip": "2"}],
        "conditions": [{"reason": None, "type": "Ready", "status": "True"}],
        "reason": None,
    }
    assert changes({**known, "reason": None}, {"phase": "Pending"}) == {}
