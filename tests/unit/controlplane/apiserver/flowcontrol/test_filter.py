"""Fairness in a running server: nobody takes it away from the others."""

from __future__ import annotations

import asyncio
from typing import Any

from controlplane.apiserver.http import User

NODE = User("system:node:n1", ("system:nodes", "system:authenticated"))
GREEDY = User("greedy", ("system:authenticated",))
MODEST = User("modest", ("system:authenticated",))
FLOW = "/apis/flowcontrol.apiserver.k8s.io/v1"


async def allow(api: Any, *users: str) -> None:
    """These users may do everything, without being system:masters (who are exempt)."""
    subjects = [{"kind": "User", "name": name, "apiGroup": "rbac.authorization.k8s.io"} for name in users]
    role = {"kind": "ClusterRole", "name": "cluster-admin", "apiGroup": "rbac.authorization.k8s.io"}
    body = {"metadata": {"name": "all"}, "subjects": subjects, "roleRef": role}
    await api.ok("POST", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", body)


async def test_the_objects_are_there_and_can_be_changed(api: Any) -> None:
    names = {o["metadata"]["name"] for o in (await api.ok("GET", f"{FLOW}/flowschemas"))["items"]}
    assert {"exempt", "catch-all", "system-nodes", "global-default"} <= names
    level = await api.ok("GET", f"{FLOW}/prioritylevelconfigurations/node-high")
    assert level["spec"]["limited"]["nominalConcurrencyShares"] == 40
    level["spec"]["limited"]["nominalConcurrencyShares"] = 400
    await api.ok("PUT", f"{FLOW}/prioritylevelconfigurations/node-high", level)
    await api("GET", "/version")
    text = (await api("GET", "/metrics")).body.decode()
    metric = 'apiserver_flowcontrol_nominal_limit_seats{priority_level="node-high"}'
    assert float(next(x for x in text.splitlines() if x.startswith(metric)).split()[-1]) > 300


async def test_the_answer_names_its_schema_to_who_asks(api: Any) -> None:
    await allow(api, "modest")
    schema = await api.ok("GET", f"{FLOW}/flowschemas/global-default")
    answer = await api("GET", "/api/v1/pods", user=MODEST, headers={"X-Kubernetes-PF-Debug": "1"})
    assert answer.headers["X-Kubernetes-PF-FlowSchema-UID"] == schema["metadata"]["uid"]


async def test_a_level_that_is_full_refuses_its_own_and_nobody_else(api: Any) -> None:
    await allow(api, "greedy", "modest")
    await api.namespace("team")
    level = {"metadata": {"name": "tiny"}, "spec": {"type": "Limited", "limited": {
        "nominalConcurrencyShares": 1, "borrowingLimitPercent": 0, "limitResponse": {"type": "Reject"},
    }}}  # fmt: skip
    await api.ok("POST", f"{FLOW}/prioritylevelconfigurations", level)
    schema = {"metadata": {"name": "tiny"}, "spec": {
        "priorityLevelConfiguration": {"name": "tiny"}, "matchingPrecedence": 10,
        "rules": [{"subjects": [{"kind": "User", "user": {"name": "greedy"}}], "resourceRules": [
            {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": True},
        ]}],
    }}  # fmt: skip
    await api.ok("POST", f"{FLOW}/flowschemas", schema)

    def write(user: User, number: int) -> Any:
        body = {"metadata": {"name": f"{user.name}-{number}"}}
        return api("POST", "/api/v1/namespaces/team/configmaps", body, user=user)

    greedy = [asyncio.create_task(write(GREEDY, n)) for n in range(20)]
    others = [asyncio.create_task(write(MODEST, n)) for n in range(20)]
    codes = [t.status for t in await asyncio.gather(*greedy)]
    refused = next(t.result() for t in greedy if t.result().status == 429)
    assert refused.body["reason"] == "TooManyRequests" and refused.headers["Retry-After"] == "1"
    assert 1 <= codes.count(201) < 20 and codes.count(429) == 20 - codes.count(201)
    assert [t.status for t in await asyncio.gather(*others)] == [201] * 20
    text = (await api("GET", "/metrics")).body.decode()
    assert 'apiserver_flowcontrol_rejected_requests_total{priority_level="tiny",reason="concurrency-limit"}' in text


async def test_a_heartbeat_passes_a_crowd_of_expensive_lists(api: Any) -> None:
    await allow(api, "greedy")
    await api.namespace("team")
    await api.ok("POST", "/api/v1/nodes", {"metadata": {"name": "n1"}}, user=NODE)
    base = "/api/v1/namespaces/team/configmaps"
    await asyncio.gather(*(api.ok("POST", base, {"metadata": {"name": f"c{n}"}}) for n in range(600)))
    done: list[str] = []

    async def listing() -> None:
        assert (await api("GET", "/api/v1/configmaps", user=GREEDY)).status == 200
        done.append("list")

    async def heartbeat() -> None:
        assert (await api("GET", "/api/v1/nodes/n1", user=NODE)).status == 200
        done.append("heartbeat")

    crowd = [asyncio.create_task(listing()) for _ in range(50)]
    await asyncio.sleep(0)
    await asyncio.gather(*crowd, heartbeat())
    assert done.index("heartbeat") < 5
