"""LimitRanges: what a pod gets when it says nothing, and what it may not say."""

from typing import Any

import pytest

NS = "/api/v1/namespaces/team"


@pytest.fixture
async def limited(api: Any) -> None:
    await api.namespace("team")
    container = {
        "type": "Container",
        "default": {"cpu": "500m", "memory": "128Mi"},
        "defaultRequest": {"cpu": "250m"},
        "max": {"cpu": "1"},
        "min": {"cpu": "100m"},
    }
    spec = {"limits": [container, {"type": "Pod", "max": {"cpu": "1500m"}}]}
    await api.ok("POST", f"{NS}/limitranges", {"metadata": {"name": "l"}, "spec": spec})


def pod(*resources: Any) -> Any:
    containers = [{"name": f"c{i}", "image": "x", "resources": each} for i, each in enumerate(resources)]
    return {"metadata": {"name": "p"}, "spec": {"containers": containers}}


async def test_defaults(api: Any, limited: None) -> None:
    made = await api.ok("POST", f"{NS}/pods", pod({}))
    assert made["spec"]["containers"][0]["resources"] == {
        "limits": {"cpu": "500m", "memory": "128Mi"},
        "requests": {"cpu": "250m", "memory": "128Mi"},
    }
    assert made["status"]["qosClass"] == "Burstable"


@pytest.mark.parametrize(
    ("resources", "says"),
    [
        ([{"limits": {"cpu": "2"}}], "maximum cpu usage per Container is 1, but limit is 2"),
        ([{"requests": {"cpu": "10m"}}], "minimum cpu usage per Container is 100m, but request is 10m"),
        ([{"limits": {"cpu": "900m"}}] * 2, "maximum cpu usage per Pod is 1500m, but limit is 1800m"),
    ],
)
async def test_bounds(api: Any, limited: None, resources: Any, says: str) -> None:
    answer = await api("POST", f"{NS}/pods", pod(*resources))
    assert answer.status == 403
    assert says in answer.body["message"]
