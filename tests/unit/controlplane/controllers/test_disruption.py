"""Disruption budgets: how many pods may be evicted now."""

from typing import Any

import pytest

from controlplane.controllers import disruption


@pytest.mark.parametrize(
    ("spec", "healthy", "expected", "allowed"),
    [
        ({"minAvailable": 2}, 3, 3, 1),
        ({"minAvailable": 2}, 2, 3, 0),
        ({"minAvailable": "50%"}, 5, 5, 2),  # 2.5 rounds up to 3
        ({"maxUnavailable": 1}, 3, 3, 1),
        ({"maxUnavailable": 1}, 2, 3, 0),
        ({"maxUnavailable": "100%"}, 3, 3, 3),
        ({"maxUnavailable": 0}, 3, 3, 0),
    ],
)
def test_allowed(
    namespaced: Any, make_running: Any, spec: dict[str, Any], healthy: int, expected: int, allowed: int
) -> None:
    pdb = namespaced("PodDisruptionBudget", "b", "policy/v1", spec=spec)
    pods = [make_running(namespaced("Pod", f"p{i}", spec={})) for i in range(healthy)]
    told = disruption.status(pdb, pods, expected, 0)
    assert told["disruptionsAllowed"] == allowed
    assert told["currentHealthy"] == healthy
    assert told["conditions"][0]["status"] == ("True" if allowed else "False")


def test_granted_evictions_count_until_seen(namespaced: Any, make_running: Any) -> None:
    pdb = namespaced("PodDisruptionBudget", "b", "policy/v1", spec={"minAvailable": 2})
    pdb["status"] = {"disruptedPods": {"p0": "1970-01-01T00:00:00Z"}}
    pods = [make_running(namespaced("Pod", f"p{i}", spec={})) for i in range(3)]
    assert disruption.status(pdb, pods, 3, 60)["disruptionsAllowed"] == 0
    assert disruption.status(pdb, pods, 3, 600)["disruptionsAllowed"] == 1, "it did not happen after all"
