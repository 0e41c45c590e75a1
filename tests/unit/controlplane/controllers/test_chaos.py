"""Whatever goes wrong on the way, what is wanted is there in the end, and nothing else."""

import asyncio
import random
from typing import Any

import pytest

from controlplane.api import status
from controlplane.client.errors import Unreachable
from controlplane.client.resources import DEPLOYMENTS, PODS

Obj = dict[str, Any]


def stumble(api: Any, dice: random.Random) -> None:
    """Something that happens to clusters."""
    kind = dice.randrange(6)
    if kind == 0:
        api.fail(
            Unreachable("connection reset"),
            times=dice.randint(1, 4),
            containing=dice.choice(["/pods", "/apps", "/api"]),
        )
    elif kind == 1:
        api.fail(
            status.internal("disk"), times=dice.randint(1, 3), method=dice.choice(["POST", "PUT", "DELETE", "PATCH"])
        )
    elif kind == 2:
        api.fail(status.conflict("replicasets.apps", "x"), times=2, method="PUT", containing="replicasets")
    elif kind == 3:
        api.break_watches()
    elif kind == 4:
        api.expire()
        api.break_watches()
    else:
        api.lag_seconds = dice.choice([0.0, 0.01, 0.03])


@pytest.mark.parametrize("seed", range(4))
async def test_it_converges(cluster: Any, deployment: Any, seed: int) -> None:
    dice = random.Random(seed)
    made = {**deployment(replicas=3), "metadata": {"name": "web", "namespace": "default"}}
    await cluster.client.create(DEPLOYMENTS, made)
    for step in range(25):
        stumble(cluster.api, dice)
        change = dice.randrange(4)
        try:
            if change == 0:
                await cluster.client.patch(DEPLOYMENTS, "web", {"spec": {"replicas": dice.randint(0, 8)}}, "default")
            elif change == 1:
                template = deployment(image=f"web:{dice.randint(1, 3)}")["spec"]["template"]
                await cluster.client.patch(DEPLOYMENTS, "web", {"spec": {"template": template}}, "default")
            elif change == 2 and cluster.pods():
                await cluster.client.delete(PODS, dice.choice(cluster.pods())["metadata"]["name"], "default")
            elif cluster.pods():
                pod = dice.choice(cluster.pods())
                cluster.api.put({**pod, "status": {**pod["status"], "phase": dice.choice(["Failed", "Running"])}})
        except (status.StatusError, Unreachable):
            pass
        await asyncio.sleep(dice.random() * 0.02)
        cluster.run_pods()
        if step % 4 == 0:
            await ends(cluster)
    cluster.api.lag_seconds = 0.0
    cluster.api._faults.clear()

    def right() -> bool:
        wanted = cluster.api.get("deployments", "web", "default", "apps")
        alive = [p for p in cluster.pods() if p["status"]["phase"] not in ("Failed", "Succeeded")]
        n, image = wanted["spec"]["replicas"], wanted["spec"]["template"]["spec"]["containers"][0]["image"]
        told = wanted.get("status") or {}
        return (
            [p["spec"]["containers"][0]["image"] for p in alive] == [image] * n
            and told.get("observedGeneration") == wanted["metadata"]["generation"]
            and told.get("availableReplicas", 0) == told.get("updatedReplicas", 0) == told.get("replicas", 0) == n
        )

    async with asyncio.timeout(20):
        while not right():
            cluster.run_pods()
            await ends(cluster)
            await asyncio.sleep(0.01)
    await cluster.settle()
    assert right(), "and it stays so"


async def ends(cluster: Any) -> None:
    try:
        await cluster.finish_deletions()
    except (status.StatusError, Unreachable):
        pass
