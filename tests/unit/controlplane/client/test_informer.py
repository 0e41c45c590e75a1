import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import pytest

from controlplane.api import status
from controlplane.client import Informer
from controlplane.client.fake import FakeAPI
from controlplane.client.resources import PODS


def pod(name: str, node: str = "", **labels: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default", "labels": labels}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"nodeName": node} if node else {}}


class Log:
    """What the handlers were told."""

    def __init__(self, informer: Informer) -> None:
        self.lines: list[str] = []
        informer.add_handler(
            added=lambda o: self.lines.append(f"+{o['metadata']['name']}"),
            updated=lambda old, new: self.lines.append(f"~{new['metadata']['name']}"),
            deleted=lambda o: self.lines.append(f"-{o['metadata']['name']}"),
        )


@contextlib.asynccontextmanager
async def running(informer: Informer) -> AsyncIterator[None]:
    task = asyncio.create_task(informer.run())
    try:
        await informer.synced()
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def names(informer: Informer) -> list[str]:
    return sorted(o["metadata"]["name"] for o in informer.items())


@pytest.mark.parametrize("watch_list", [True, False])
def test_it_fills_follows_and_tells(api: FakeAPI, virtual, eventually, watch_list: bool) -> None:
    async def main() -> None:
        api.put(pod("a"))
        informer = Informer(api.client(), PODS, watch_list=watch_list)
        log = Log(informer)
        async with running(informer):
            assert names(informer) == ["a"]
            client = api.client()
            await client.create(PODS, pod("b"))
            await client.patch(PODS, "a", {"metadata": {"labels": {"x": "y"}}}, "default")
            await client.delete(PODS, "b", "default")
            await eventually(lambda: len(log.lines) == 4)
            assert log.lines == ["+a", "+b", "~a", "-b"]
            assert informer.get("default/a")["metadata"]["labels"] == {"x": "y"}
            assert informer.get("default/b") is None

    virtual(main())


def test_a_server_without_initial_events_is_listed(api: FakeAPI, virtual) -> None:
    async def main() -> None:
        api.put(pod("a"))
        error = status.invalid("", "ListOptions", "", [status.forbidden_field("sendInitialEvents", "disabled")])
        api.fail(error, method="WATCH", containing="sendInitialEvents")
        informer = Informer(api.client(), PODS)
        async with running(informer):
            assert names(informer) == ["a"]

    virtual(main())


def test_a_broken_watch_resumes_from_the_last_revision(api: FakeAPI, virtual, eventually) -> None:
    async def main() -> None:
        api.put(pod("a"))
        informer = Informer(api.client(), PODS)
        log = Log(informer)
        async with running(informer):
            api.put({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}})
            api.send_bookmarks()
            await eventually(lambda: informer.resource_version == "3")
            api.break_watches()
            api.put(pod("b"))
            await eventually(lambda: len(informer) == 2)
            assert log.lines == ["+a", "+b"]
            watches = [target for method, target in api.requests if method == "WATCH"]
            assert "sendInitialEvents" in watches[0]
            assert "resourceVersion=3" in watches[-1]
            assert "sendInitialEvents" not in watches[-1]

    virtual(main())


def test_a_server_away_for_hours_is_caught_up_with_and_not_hammered(api: FakeAPI, virtual, eventually) -> None:
    async def main() -> None:
        for name in ("kept", "gone", "changed", "replaced"):
            api.put(pod(name))
        informer = Informer(api.client(), PODS)
        log = Log(informer)
        async with running(informer):
            log.lines.clear()
            api.offline = True
            api.break_watches()
            before = len(api.requests)
            await asyncio.sleep(3 * 3600)
            assert names(informer) == ["changed", "gone", "kept", "replaced"]
            assert len(api.requests) - before < 3 * 3600 / 2
            api.offline = False
            client = api.client()
            await client.delete(PODS, "gone", "default")
            await client.delete(PODS, "replaced", "default")
            api.put(pod("changed", x="y"))
            api.put(pod("new"))
            api.put(pod("replaced"))
            api.expire()
            await eventually(lambda: len(log.lines) >= 5)
            assert sorted(log.lines) == ["+new", "+replaced", "-gone", "-replaced", "~changed"]
            assert names(informer) == ["changed", "kept", "new", "replaced"]

    virtual(main())


def test_indices_follow_changes(api: FakeAPI, virtual, eventually) -> None:
    async def main() -> None:
        api.put(pod("a", "n1"))
        informer = Informer(
            api.client(), PODS, indexers={"node": lambda o: [o["spec"]["nodeName"]] if "nodeName" in o["spec"] else []}
        )
        async with running(informer):
            assert [o["metadata"]["name"] for o in informer.by_index("node", "n1")] == ["a"]
            api.put(pod("b"))
            api.put(pod("a", "n2"))
            await eventually(lambda: informer.by_index("node", "n2"))
            assert informer.by_index("node", "n1") == []
            assert len(informer) == 2

    virtual(main())


def test_a_raising_handler_harms_nobody(api: FakeAPI, virtual, eventually, caplog) -> None:
    async def main() -> None:
        informer = Informer(api.client(), PODS)

        def bad(obj: dict[str, Any]) -> None:
            raise ValueError("a bug")

        informer.add_handler(added=bad)
        log = Log(informer)
        async with running(informer):
            api.put(pod("a"))
            await eventually(lambda: log.lines == ["+a"])
            late = Log(informer)
            assert late.lines == ["+a"]

    caplog.set_level(logging.ERROR)
    virtual(main())
    assert "handler_failed" in caplog.text


def test_selectors_make_objects_come_and_go(api: FakeAPI, virtual, eventually) -> None:
    async def main() -> None:
        informer = Informer(api.client(), PODS, field_selector="spec.nodeName=n1", label_selector="app=web")
        log = Log(informer)
        async with running(informer):
            api.put(pod("a", "n1", app="web"))
            api.put(pod("b", "n2", app="web"))
            api.put(pod("a", "n1", app="db"))
            await eventually(lambda: len(log.lines) == 2)
            assert log.lines == ["+a", "-a"]

    virtual(main())


def test_managed_fields_are_not_kept(api: FakeAPI, virtual) -> None:
    async def main() -> None:
        obj = pod("a")
        obj["metadata"]["managedFields"] = [{"manager": "kubectl"}]
        api.put(obj)
        informer = Informer(api.client(), PODS)
        async with running(informer):
            assert "managedFields" not in informer.items()[0]["metadata"]

    virtual(main())


def test_a_forbidden_watch_is_tried_again_slowly(api: FakeAPI, virtual) -> None:
    async def main() -> None:
        api.fail(status.forbidden("bob", "watch", "pods"), times=5, method="WATCH")
        informer = Informer(api.client(), PODS)
        start = asyncio.get_running_loop().time()
        async with running(informer):
            assert asyncio.get_running_loop().time() - start > 0.5

    virtual(main())
