"""Whom to evict first, and why somebody must go for its own limits."""

from __future__ import annotations

import pytest

from nodeagent.pods.eviction import ranking, storage
from nodeagent.pods.eviction.manager import refuse
from nodeagent.pods.eviction.ranking import Holding
from nodeagent.pods.eviction.thresholds import Observation, parse
from nodeagent.runtime.interface import DiskUsage

MIB = 1 << 20


def pod(name="p", requests=None, limits=None, **spec):
    resources = {"requests": requests or {}, "limits": limits or {}}
    containers = [{"name": "app", "resources": resources}]
    return {"metadata": {"name": name, "uid": name}, "spec": {"containers": containers, **spec}}


def names(order):
    return [p["metadata"]["name"] for p, _ in order]


def test_memory_goes_by_excess_then_priority_then_how_much() -> None:
    within = pod("within", {"memory": "300Mi"})
    modest, greedy = pod("modest", {"memory": "100Mi"}), pod("greedy")
    important = pod("important", {"memory": "10Mi"}, priority=1000)
    pods = [
        (within, Holding(memory=290 * MIB)), (important, Holding(memory=900 * MIB)),
        (modest, Holding(memory=110 * MIB)), (greedy, Holding(memory=50 * MIB)),
    ]  # fmt: skip
    assert names(ranking.rank(pods, "memory")) == ["greedy", "modest", "important", "within"]


def test_pids_go_by_priority_then_number() -> None:
    holding = {"few": Holding(pids=3), "many": Holding(pids=900), "vip": Holding(pids=999)}
    pods = [(pod(name, priority=5 if name == "vip" else 0), held) for name, held in holding.items()]
    assert names(ranking.rank(pods, "pids")) == ["many", "few", "vip"]


def test_the_node_keeps_what_it_cannot_do_without() -> None:
    static = pod("static")
    static["metadata"]["annotations"] = {"kubernetes.io/config.source": "file"}
    critical = pod("critical", priority=2_000_001_000)
    assert ranking.rank([(static, Holding(memory=9)), (critical, Holding(memory=9))], "memory") == []


def test_the_words() -> None:
    threshold = parse(["memory.available<100Mi"])[0]
    holding = Holding(memory=50 * MIB, memory_of={"app": 50 * MIB})
    decision = ranking.verdict(pod(requests={"memory": "10Mi"}), holding, threshold, Observation(90 * MIB, 1 << 30), 1)
    assert (decision.phase, decision.reason, decision.disruption) == ("Failed", "Evicted", "TerminationByKubelet")
    assert decision.message == (
        "The node was low on resource: memory. Threshold quantity: 102400Ki, available: 92160Ki. "
        "Container app was using 51200Ki, request is 10Mi, has larger consumption of memory. "
    )


EMPTY = {"volumes": [{"name": "scratch", "emptyDir": {"sizeLimit": "1Mi"}}]}


@pytest.mark.parametrize(
    ("given", "used", "message"),
    [
        (pod(**EMPTY), {"volumes": {"scratch": DiskUsage(2 * MIB)}}, 'volume "scratch" exceeds the limit "1Mi"'),
        (pod(**EMPTY), {"volumes": {"scratch": DiskUsage(MIB)}}, None),
        (pod(limits={"ephemeral-storage": "2Mi"}), {"layers": {"app": DiskUsage(MIB)}}, None),
        (
            pod(limits={"ephemeral-storage": "2Mi"}),
            {"layers": {"app": DiskUsage(MIB)}, "logs": {"app": DiskUsage(2 * MIB)}},
            'Container app exceeded its local ephemeral storage limit "2Mi"',
        ),
        (
            pod(limits={"ephemeral-storage": "2Mi"}, volumes=[{"name": "v", "emptyDir": {}}]),
            {"layers": {"app": DiskUsage(MIB)}, "volumes": {"v": DiskUsage(2 * MIB)}},
            "Pod ephemeral local storage usage exceeds the total limit of containers 2",
        ),
        (pod(), {"volumes": {"v": DiskUsage(1 << 40)}}, None),
    ],
)
def test_limits_of_local_storage(given, used, message) -> None:
    decision = storage.judge(given, storage.LocalStorage(**used))
    assert message in decision.message if message else decision is None


def test_what_is_measured_on_disk(tmp_path) -> None:
    from nodeagent.pods.node import NodeFacts

    node = NodeFacts("n", [], str(tmp_path / "root"), str(tmp_path / "logs"))
    given = pod(volumes=[{"name": "v", "emptyDir": {}}, {"name": "ram", "emptyDir": {"medium": "Memory"}}])
    for path in ("logs/_p_p/app", "root/pods/p/volumes/kubernetes.io~empty-dir/v"):
        (tmp_path / path).mkdir(parents=True)
        (tmp_path / path / "file").write_bytes(b"x" * 100_000)
    used = storage.measure(node, given, {"app": DiskUsage(5, 1)})
    assert used.logs["app"].bytes >= 100_000 and used.volumes["v"].bytes >= 100_000 and used.volumes.keys() == {"v"}
    assert used.of_container("app") == used.logs["app"].bytes + 5 and used.total.inodes == 5


MEMORY, DISK = frozenset({"MemoryPressure"}), frozenset({"MemoryPressure", "DiskPressure"})


def test_who_is_taken_under_pressure() -> None:
    burstable = pod(requests={"memory": "1Mi"})
    tolerant = pod(tolerations=[{"key": "node.kubernetes.io/memory-pressure", "operator": "Exists"}])
    assert refuse(pod(), frozenset()) is None
    assert refuse(burstable, MEMORY) is None and refuse(tolerant, MEMORY) is None
    assert refuse(pod(), MEMORY).message == "The node had condition: [MemoryPressure]. "
    assert refuse(burstable, DISK).reason == "Evicted"
    assert refuse(pod(priority=2_000_000_000), DISK) is None
