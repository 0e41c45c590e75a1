"""Quotas at the door: who comes when all is used is refused, however many come at once."""

import asyncio
from typing import Any

NS = "/api/v1/namespaces/team"


async def quota(api: Any, hard: dict[str, str], name: str = "q", **spec: Any) -> None:
    """A quota that the controller has counted: nothing is used yet."""
    await api.ok("POST", f"{NS}/resourcequotas", {"metadata": {"name": name}, "spec": {"hard": hard, **spec}})
    status = {"hard": hard, "used": dict.fromkeys(hard, "0")}
    kind = "application/merge-patch+json"
    await api.ok("PATCH", f"{NS}/resourcequotas/{name}/status", {"status": status}, kind=kind)


async def used(api: Any, name: str = "q") -> Any:
    return (await api.ok("GET", f"{NS}/resourcequotas/{name}"))["status"]["used"]


def pod(name: str, **resources: Any) -> Any:
    return {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "x", "resources": resources}]}}


async def test_what_is_created_is_charged_and_too_much_refused(api: Any) -> None:
    await api.namespace("team")
    await quota(api, {"pods": "2", "requests.cpu": "1"})
    await api.ok("POST", f"{NS}/pods", pod("a", requests={"cpu": "600m"}))
    assert await used(api) == {"pods": "1", "requests.cpu": "600m"}
    refused = await api("POST", f"{NS}/pods", pod("b", requests={"cpu": "600m"}))
    assert refused.status == 403 and refused.body["reason"] == "Forbidden"
    assert refused.body["message"] == (
        'pods "b" is forbidden: exceeded quota: q, requested: requests.cpu=600m, used: requests.cpu=600m, '
        "limited: requests.cpu=1"
    )
    silent = await api("POST", f"{NS}/pods", pod("c"))
    assert "failed quota: q: must specify requests.cpu for: c" in silent.body["message"]
    await api.ok("POST", f"{NS}/pods?dryRun=All", pod("d", requests={"cpu": "100m"}))
    assert await used(api) == {"pods": "1", "requests.cpu": "600m"}


async def test_two_at_once_cannot_share_the_last_place(api: Any) -> None:
    await api.namespace("team")
    await quota(api, {"configmaps": "5"})
    made = [api("POST", f"{NS}/configmaps", {"metadata": {"name": f"c{n}"}}) for n in range(20)]
    codes = [answer.status for answer in await asyncio.gather(*made)]
    assert codes.count(201) == 5 and codes.count(403) == 15
    assert await used(api) == {"configmaps": "5"}


async def test_scopes_choose_whom_a_quota_is_about(api: Any) -> None:
    await api.namespace("team")
    await quota(api, {"pods": "0"}, scopes=["BestEffort"])
    assert (await api("POST", f"{NS}/pods", pod("a"))).status == 403
    assert (await api("POST", f"{NS}/pods", pod("b", requests={"cpu": "1"}))).status == 201


async def test_a_service_that_grows_is_charged_for_the_difference(api: Any) -> None:
    await api.namespace("team")
    await quota(api, {"services.nodeports": "1"})
    service = await api.ok("POST", f"{NS}/services", {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}})
    service["spec"]["type"] = "NodePort"
    service = await api.ok("PUT", f"{NS}/services/s", service)
    assert await used(api) == {"services.nodeports": "1"}
    service["spec"]["ports"] = [*service["spec"]["ports"], {"name": "b", "port": 81}]
    service["spec"]["ports"][0]["name"] = "a"
    assert "exceeded quota" in (await api("PUT", f"{NS}/services/s", service)).body["message"]


async def test_nobody_is_let_in_before_somebody_has_counted(api: Any) -> None:
    await api.namespace("team")
    await api.ok("POST", f"{NS}/resourcequotas", {"metadata": {"name": "q"}, "spec": {"hard": {"secrets": "5"}}})
    refused = await api("POST", f"{NS}/secrets", {"metadata": {"name": "s"}})
    assert "status unknown for quota: q, resources: secrets" in refused.body["message"]
