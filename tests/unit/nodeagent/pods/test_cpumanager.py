"""CPUs of one's own: which are taken, what others keep, what a restarted agent believes, and how pods get them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nodeagent.pods import cpuset
from nodeagent.pods.cpumanager import FILE, CpuManager, NotEnough, reserved
from nodeagent.pods.cpuset import Place
from nodeagent.runtime.interface import LinuxResources

# Two sockets of two cores of two threads: 0 and 4 are one core, as x86 counts them.
PLACES = {cpu: Place(cpu % 4 // 2, cpu % 2) for cpu in range(8)}
ALL = frozenset(range(8))


def manager(tmp_path: Path, cpus: frozenset[int] = ALL, kept: str = "0") -> CpuManager:
    return CpuManager(str(tmp_path), "static", cpuset.parse(kept), cpus, {c: PLACES[c] for c in cpus})


def pod(uid: str, *cpus: str, init: tuple[str, ...] = (), memory: str = "1Mi", **init_fields: Any) -> dict[str, Any]:
    def container(name: str, cpu: str) -> dict[str, Any]:
        return {"name": name, "resources": {"limits": {"cpu": cpu, "memory": memory}}}

    spec = {
        "containers": [container(f"c{n}", cpu) for n, cpu in enumerate(cpus)],
        "initContainers": [container(f"i{n}", cpu) | init_fields for n, cpu in enumerate(init)],
    }
    return {"metadata": {"uid": uid, "name": uid, "namespace": "default"}, "spec": spec}


def own(cpus: CpuManager, uid: str, name: str) -> str:
    return cpus.place(uid, name, LinuxResources(cpu_quota_us=1000)).cpuset_cpus


def test_sets_as_the_kernel_writes_them() -> None:
    assert cpuset.parse("0-2,5, 7-7") == {0, 1, 2, 5, 7} and cpuset.parse("") == frozenset()
    assert cpuset.text({5, 0, 2, 1, 7}) == "0-2,5,7" and cpuset.text(()) == ""
    with pytest.raises(ValueError, match="no range"):
        cpuset.parse("3-1")


@pytest.mark.parametrize(
    ("count", "free", "taken"),
    [
        (4, "0-7", "0-1,4-5"),  # a whole socket
        (2, "0-7", "0,4"),  # a whole core
        (3, "0-7", "0-1,4"),  # a core, and a thread
        (1, "1-7", "4"),  # a thread of the core that is broken already
        (4, "1-7", "2-3,6-7"),  # the socket that is whole
        (5, "1-7", "2-4,6-7"),
    ],
)
def test_whole_sockets_then_cores_then_threads(count: int, free: str, taken: str) -> None:
    assert cpuset.text(cpuset.take(count, cpuset.parse(free), PLACES)) == taken


def test_whole_cpus_of_guaranteed_pods_are_exclusive(tmp_path: Path) -> None:
    cpus = manager(tmp_path)
    cpus.admit(pod("a", "2", "500m"))
    cpus.admit(pod("burstable", "2") | {"spec": {"containers": [{"resources": {"requests": {"cpu": "2"}}}]}})
    assert own(cpus, "a", "c0") == "1,5" and own(cpus, "a", "c1") == "0,2-4,6-7" == own(cpus, "burstable", "c0")
    given = cpus.place("a", "c0", LinuxResources(cpu_quota_us=200_000))
    assert given.cpu_quota_us == 0 and cpus.whole("a", LinuxResources(cpu_quota_us=1)).cpu_quota_us == 0
    assert cpus.place("a", "c1", LinuxResources(cpu_quota_us=50_000)).cpu_quota_us == 50_000
    cpus.admit(pod("a", "2", "500m"))  # once is enough
    assert cpuset.text(cpus.shared) == "0,2-4,6-7"
    with pytest.raises(NotEnough, match="not enough cpus available to satisfy request: requested=6, available=5"):
        cpus.admit(pod("b", "6"))
    cpus.retain(["b"])
    assert cpus.shared == ALL


def test_init_containers_cpus_are_used_again_but_not_a_sidecars(tmp_path: Path) -> None:
    cpus = manager(tmp_path)
    cpus.admit(pod("a", "2", init=("4",)))
    assert own(cpus, "a", "i0") == "2-3,6-7" and len(cpuset.parse(own(cpus, "a", "c0"))) == 2
    assert cpuset.parse(own(cpus, "a", "c0")) < cpuset.parse("2-3,6-7") and cpuset.text(cpus.shared) == "0-1,4-5"
    cpus.retain([])
    cpus.admit(pod("b", "2", init=("2",), restartPolicy="Always"))
    assert not cpuset.parse(own(cpus, "b", "i0")) & cpuset.parse(own(cpus, "b", "c0"))


def test_a_restarted_agent_knows_what_it_gave(tmp_path: Path) -> None:
    manager(tmp_path).admit(pod("a", "2"))
    again = manager(tmp_path)
    assert own(again, "a", "c0") == "1,5"
    with pytest.raises(ValueError, match=r"configured policy 'none' differs from .*cpu_manager_state's 'static'"):
        CpuManager(str(tmp_path), "none", cpus=ALL)
    with pytest.raises(ValueError, match="0-3 are not those in"):
        manager(tmp_path, frozenset(range(4)))
    with pytest.raises(ValueError, match="reserved CPUs are given away"):
        manager(tmp_path, kept="0-1")
    file = tmp_path / FILE
    document = json.loads(file.read_text())
    file.write_text(json.dumps(document | {"defaultCpuSet": "0-7"}))
    with pytest.raises(ValueError, match="is corrupted: drain the node and remove the file"):
        manager(tmp_path)
    file.write_text("{")
    with pytest.raises(ValueError, match="cannot be read"):
        manager(tmp_path)


def test_reservations(tmp_path: Path) -> None:
    assert reserved("1-2", ["500m"], ALL) == {1, 2}
    assert len(reserved("", ["500m", "1"], ALL)) == 2 and reserved("", [], ALL) == frozenset()
    with pytest.raises(ValueError, match="requires reserved CPUs"):
        manager(tmp_path, kept="")
    with pytest.raises(ValueError, match="this machine has 0-7"):
        manager(tmp_path, kept="9")


async def test_pods_of_a_node_get_theirs_and_the_others_move(world: Any, tmp_path: Path) -> None:
    await world.kill()
    world.cpus = lambda: manager(tmp_path)
    await world.start()
    limits = {"limits": {"cpu": "2", "memory": "32Mi"}}

    def cpus_of(name: str) -> str:
        return str(world.find(pod=name).config.resources.cpuset_cpus)

    async def running(name: str, **resources: Any) -> None:
        world.pod(name, containers=[{"name": "app", "image": "busybox:1", "resources": resources}])
        await world.until(lambda: world.status(name).get("phase") == "Running")

    await running("shared")
    assert cpus_of("shared") == "0-7"
    await running("own", **limits)
    assert cpus_of("own") == "1,5"
    await world.until(lambda: cpus_of("shared") == "0,2-4,6-7")
    await world.kill()
    await world.start()  # the new agent neither takes nor gives
    await running("late")
    assert (cpus_of("own"), cpus_of("late")) == ("1,5", "0,2-4,6-7")
    world.pod(
        "huge",
        containers=[{"name": "app", "image": "busybox:1", "resources": {"limits": {"cpu": "6", "memory": "1Mi"}}}],
    )
    await world.until(lambda: world.status("huge").get("phase") == "Failed")
    assert world.status("huge")["reason"] == "UnexpectedAdmissionError"
    assert "not enough cpus available to satisfy request: requested=6, available=5" in world.status("huge")["message"]
    await world.delete("own", grace=0)
    await world.until(lambda: cpus_of("shared") == cpus_of("late") == "0-7")
