"""The arithmetic of roll-outs: limits are never broken, and they end."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controlplane.controllers import deployment_rolling as rolling
from controlplane.controllers import meta

Obj = dict[str, Any]


def replica_set(name: str, replicas: int, available: int, created: int = 0, **annotations: str) -> Obj:
    notes = {"deployment.kubernetes.io/" + k.replace("_", "-"): v for k, v in annotations.items()}
    metadata = {"name": name, "creationTimestamp": f"2026-01-01T00:00:{created:02d}Z", "annotations": notes}
    status = {"replicas": replicas, "availableReplicas": available}
    return {"kind": "ReplicaSet", "metadata": metadata, "spec": {"replicas": replicas}, "status": status}


def deployment(replicas: int, surge: int | str, unavailable: int | str, status: int = 0) -> Obj:
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}
    return {"spec": {"replicas": replicas, "strategy": strategy}, "status": {"replicas": status}}


amounts = st.one_of(st.integers(0, 12), st.integers(0, 100).map(lambda n: f"{n}%"))


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 20), amounts, amounts, st.lists(st.integers(0, 20), max_size=3), st.data())
def test_a_rollout_keeps_its_limits_and_ends(
    replicas: int, surge: int | str, unavailable: int | str, old_sizes: list[int], data: st.DataObject
) -> None:
    """Simulate: after each step pods appear (and become available, one by one) as the controller asked."""
    wanted = deployment(replicas, surge, unavailable)
    share = [min(n, replicas) for n in old_sizes]
    old = [replica_set(f"old{i}", n, n, i) for i, n in enumerate(share)]
    new = replica_set("new", 0, 0, 9)
    most = max(replicas + rolling.max_surge(wanted), sum(share))
    least = min(replicas - rolling.max_unavailable(wanted), sum(share))
    for _ in range(400):
        sizes = rolling.grow_new(wanted, new, old) or rolling.shrink_old(wanted, new, old)
        for rs, size in sizes:
            rs["spec"]["replicas"] = size
            rs["status"]["availableReplicas"] = min(size, rs["status"]["availableReplicas"])
        every = [new, *old]
        assert sum(map(meta.spec_replicas, every)) <= most
        assert sum(map(rolling.available, every)) >= least
        if not sizes:
            if rolling.available(new) == meta.spec_replicas(new):
                break
            step = data.draw(st.integers(1, 3))
            new["status"]["availableReplicas"] = min(meta.spec_replicas(new), rolling.available(new) + step)
    assert meta.spec_replicas(new) == replicas
    assert not rolling.active(old)


@pytest.mark.parametrize(
    ("replicas", "surge", "unavailable", "expected"),
    [
        (10, "25%", "25%", (3, 2)),  # surge rounds up, unavailable down
        (3, "25%", "25%", (1, 0)),
        (1, "25%", "25%", (1, 0)),
        (4, 0, 0, (0, 1)),  # both nothing: one must move
        (2, 0, "10%", (0, 1)),
        (3, 5, 7, (5, 3)),  # never more unavailable than there are
    ],
)
def test_percentages(replicas: int, surge: Any, unavailable: Any, expected: tuple[int, int]) -> None:
    wanted = deployment(replicas, surge, unavailable)
    assert (rolling.max_surge(wanted), rolling.max_unavailable(wanted)) == expected


def test_unhealthy_old_pods_go_first() -> None:
    wanted = deployment(10, 3, 2)
    new = replica_set("new", 5, 0, 9)
    old = [replica_set("a", 4, 4, 1), replica_set("b", 4, 1, 2)]
    sizes = {meta.name(rs): n for rs, n in rolling.shrink_old(wanted, new, old)}
    assert sizes == {}, "13 pods, 5 of the new ones unavailable: nothing may go yet"
    new["status"]["availableReplicas"] = 3
    sizes = {meta.name(rs): n for rs, n in rolling.shrink_old(wanted, new, old)}
    assert sizes == {"b": 1}, "three that are not available cost nothing"


def test_scaling_in_the_middle_of_a_rollout_is_proportional() -> None:
    """The example of Kubernetes' documentation: 10 replicas (surge 3), 8 old and 5 new, scaled to 15."""
    wanted = deployment(15, 3, 2, status=13)
    notes = {"desired_replicas": "10", "max_replicas": "13"}
    new, old = replica_set("new", 5, 0, 9, **notes), replica_set("old", 8, 8, 1, **notes)
    assert rolling.is_scaling(wanted, [new, old])
    assert {meta.name(rs): n for rs, n in rolling.rescale(wanted, new, [old])} == {"old": 11, "new": 7}


def test_scaling_to_zero_empties_every_set() -> None:
    wanted = deployment(0, 1, 0, status=5)
    notes = {"desired_replicas": "4", "max_replicas": "5"}
    new, old = replica_set("new", 2, 1, 9, **notes), replica_set("old", 3, 3, 1, **notes)
    assert {n for _, n in rolling.rescale(wanted, new, [old])} == {0}
