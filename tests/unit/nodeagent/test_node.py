"""The Node's status and heartbeat."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import pytest

from controlplane.api.status import StatusError
from controlplane.client.fake import FakeAPI
from nodeagent.config import Config
from nodeagent.machine import Machine, hugepages, inspect, pressure
from nodeagent.node import (
    NodeKeeper,
    NodeView,
    Readiness,
    all_pods,
    allocatable,
    conditions,
    differs,
    node_status,
    taints,
)

MACHINE = Machine(4, 8 << 30, 100 << 30, "amd64", "6.1", "Debian", "m", "s", "b", 0.0)
READY = Readiness("", "")


def view(**changes: Any) -> NodeView:
    given = {"pressures": frozenset(), "readiness": READY, "config": Config()} | changes
    return NodeView("n1", ["10.0.0.1"], MACHINE, **given)


def states(v: NodeView) -> dict[str, tuple[str, str]]:
    return {c["type"]: (c["status"], c["reason"]) for c in conditions(v, {}, 0.0)}


def test_conditions() -> None:
    assert states(view()) == {
        "MemoryPressure": ("False", "KubeletHasSufficientMemory"),
        "DiskPressure": ("False", "KubeletHasNoDiskPressure"),
        "PIDPressure": ("False", "KubeletHasSufficientPID"),
        "NetworkUnavailable": ("False", "RouteCreated"),
        "Ready": ("True", "KubeletReady"),
    }
    bad = view(pressures=frozenset({"MemoryPressure", "DiskPressure", "PIDPressure"}), readiness=Readiness())
    assert {k: v[0] for k, v in states(bad).items()} == {
        "MemoryPressure": "True", "DiskPressure": "True", "PIDPressure": "True", "NetworkUnavailable": "True",
        "Ready": "False",
    }  # fmt: skip


def test_a_transition_time_changes_with_the_status_alone_and_heartbeats_say_nothing_new() -> None:
    first = node_status(view(), {}, 1000.0)
    assert first["features"] == {"supplementalGroupsPolicy": True}
    assert all(handler["features"]["userNamespaces"] for handler in first["runtimeHandlers"])
    later = node_status(view(), first, 2000.0)
    assert not differs(first, later)
    assert later["conditions"][0]["lastHeartbeatTime"] != first["conditions"][0]["lastHeartbeatTime"]
    assert later["conditions"][0]["lastTransitionTime"] == first["conditions"][0]["lastTransitionTime"]
    down = node_status(view(readiness=Readiness("dead", "")), later, 3000.0)
    assert (
        differs(later, down)
        and down["conditions"][-1]["lastTransitionTime"] > later["conditions"][-1]["lastTransitionTime"]
    )


def test_what_is_kept_free_is_not_allocatable() -> None:
    assert allocatable(MACHINE, Config())["memory"] == f"{(8 << 20) - 102400}Ki"
    reserving = Config(
        kube_reserved=["cpu=100m", "memory=1Gi"], system_reserved=["cpu=0.15"], eviction_hard=["memory.available<10%"]
    )
    assert allocatable(MACHINE, reserving)["cpu"] == "3750m"
    assert allocatable(MACHINE, reserving)["memory"] == f"{(8 << 20) - (1 << 20) - (8 << 20) // 10 - 1}Ki"
    assert allocatable(MACHINE, reserving)["ephemeral-storage"] == str(100 << 30)
    with pytest.raises(ValueError, match="resource=quantity"):
        allocatable(MACHINE, Config(kube_reserved=["gpu=1"]))


def test_taints() -> None:
    assert taints(["a=b:NoSchedule", "c:NoExecute"]) == [
        {"key": "a", "value": "b", "effect": "NoSchedule"}, {"key": "c", "effect": "NoExecute"},
    ]  # fmt: skip
    with pytest.raises(ValueError, match="no effect"):
        taints(["a"])


def test_this_machine(tmp_path: Any) -> None:
    machine, now = inspect(str(tmp_path)), pressure(str(tmp_path))
    assert machine.cpus > 0 and machine.memory_bytes > now.memory_available > 0 and now.pids_free > 0


async def test_heartbeats_survive_a_lost_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    from controlplane.client.resources import LEASES

    api = FakeAPI()

    async def look() -> NodeView:
        return view()

    keeper = NodeKeeper(api.client(), "n1", look, Config(node_lease_duration_seconds=1))
    task = asyncio.create_task(keeper.run())

    def lease() -> Any:
        return api.get("leases", "n1", "kube-node-lease", "coordination.k8s.io")

    async def until(condition: Any) -> None:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110 - no event to wait for
                await asyncio.sleep(0.005)

    await until(lease)
    first = lease()["spec"]["renewTime"]
    await until(lambda: lease()["spec"]["renewTime"] != first)
    assert lease()["metadata"]["ownerReferences"][0]["uid"] == api.get("nodes", "n1")["metadata"]["uid"]
    await api.client().delete(LEASES, "n1", "kube-node-lease")
    api.fail(StatusError(500, "InternalError", "x"), times=2, containing="leases")
    await until(lease)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_what_all_pods_may_have() -> None:
    machine = dataclasses.replace(MACHINE, pids=32_768)
    whole = all_pods(machine, Config(kube_reserved=["cpu=500m", "memory=1Gi"], system_reserved=["memory=1Gi"]))
    assert whole and (whole.cpu_shares, whole.memory_limit_bytes) == (3584, 6 << 30)
    assert whole.pids_limit == 32_768 - 1024  # enough for the daemons, whatever pods do
    kept = all_pods(machine, Config(system_reserved=["pid=2000"]))
    assert kept and kept.pids_limit == 30_768
    assert all_pods(machine, Config(enforce_node_allocatable=["none"])) is None
    with pytest.raises(ValueError, match="only pods is known"):
        all_pods(machine, Config(enforce_node_allocatable=["system-reserved"]))


def test_reserved_cpus_count_instead_of_a_number_of_them() -> None:
    left = allocatable(MACHINE, Config(reserved_cpus="0,3", kube_reserved=["cpu=500m"]))
    assert left["cpu"] == "2"


def test_huge_pages_are_not_memory(tmp_path: Path) -> None:
    for name, count in (("hugepages-2048kB", "16"), ("hugepages-1048576kB", "0")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "nr_hugepages").write_text(count + "\n")
    pages = hugepages(str(tmp_path))
    assert pages == {"2Mi": 32 << 20, "1Gi": 0}
    machine = dataclasses.replace(MACHINE, hugepages=pages)
    with_pages, without = allocatable(machine, Config()), allocatable(MACHINE, Config())
    assert (with_pages["hugepages-2Mi"], with_pages["hugepages-1Gi"]) == ("32Mi", "0")
    lost = int(without["memory"].removesuffix("Ki")) - int(with_pages["memory"].removesuffix("Ki"))
    assert lost == 32 << 10
