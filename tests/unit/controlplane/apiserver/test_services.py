"""Addresses and node ports: unique, and given back whatever becomes of the write that took them."""

import asyncio
from typing import Any

PATH = "/api/v1/namespaces/default/services"


def service(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], **spec}}


def used(api: Any) -> tuple[int, int]:
    strategy = api.server.registry.strategy(api.server.table.find("", "v1", "services"))
    return len(strategy.addresses._used), len(strategy.ports._used)


async def test_defaults(api: Any) -> None:
    spec = (await api.ok("POST", PATH, service("a")))["spec"]
    assert spec["clusterIP"].startswith("10.96.")
    assert spec["clusterIPs"] == [spec["clusterIP"]]
    assert spec["type"] == "ClusterIP"
    assert spec["ipFamilies"] == ["IPv4"]
    assert spec["ipFamilyPolicy"] == "SingleStack"
    assert spec["internalTrafficPolicy"] == "Cluster"
    assert spec["sessionAffinity"] == "None"
    assert spec["ports"] == [{"port": 80, "protocol": "TCP", "targetPort": 80}]


async def test_families_that_the_cluster_has_not(api: Any) -> None:
    before = used(api)
    for asked, complaint in (
        ({"ipFamilies": ["IPv6"]}, 'spec.ipFamilies[0]: Invalid value: "IPv6": not configured on this cluster'),
        (
            {"ipFamilyPolicy": "RequireDualStack", "selector": {"a": "b"}, "clusterIP": "None"},
            'spec.ipFamilyPolicy: Invalid value: "RequireDualStack": this cluster is not configured for dual-stack '
            "services",
        ),
    ):
        answer = await api("POST", PATH, service("a", **asked))
        assert answer.status == 422 and complaint in answer.body["message"]
        assert used(api) == before
    await api.ok("POST", PATH, service("prefers", ipFamilyPolicy="PreferDualStack", ipFamilies=["IPv4"]))
    # No selector and no address: its endpoints are somebody else's.
    await api.ok("POST", PATH, service("foreign", clusterIP="None", ipFamilies=["IPv6"]))


async def test_what_a_service_has_is_free_again_when_it_is_gone(api: Any) -> None:
    before = used(api)
    made = await api.ok("POST", PATH, service("a", type="NodePort"))
    port, address = made["spec"]["ports"][0]["nodePort"], made["spec"]["clusterIP"]
    assert 30000 <= port <= 32767
    taken = await api("POST", PATH, service("b", type="NodePort", ports=[{"port": 80, "nodePort": port}]))
    assert taken.status == 422
    assert "provided port is already allocated" in taken.body["message"]
    assert (await api("POST", PATH, service("b", clusterIP=address))).status == 422
    await api.ok("DELETE", f"{PATH}/a")
    assert used(api) == before
    await api.ok("POST", PATH, service("b", type="NodePort", clusterIP=address, ports=[{"port": 80, "nodePort": port}]))


async def test_nothing_leaks_from_writes_that_fail_or_only_try(api: Any) -> None:
    before = used(api)
    await api.ok("POST", f"{PATH}?dryRun=All", service("a", type="NodePort"))
    assert used(api) == before
    assert (await api("POST", PATH, service("Bad_Name", type="NodePort"))).status == 422
    assert (await api("POST", PATH, service("a", type="NodePort", ports=[{"port": 0}]))).status == 422
    assert used(api) == before
    await api.ok("POST", PATH, service("a"))
    assert (await api("POST", PATH, service("a", type="NodePort"))).status == 409
    addresses, ports = used(api)
    assert (addresses, ports) == (before[0] + 1, before[1])
    wanted = {"spec": {"type": "NodePort"}}
    await api.ok("PATCH", f"{PATH}/a?dryRun=All", wanted, kind="application/merge-patch+json")
    assert used(api) == (addresses, ports)
    broken = {"spec": {"type": "NodePort", "sessionAffinity": "Nobody"}}
    assert (await api("PATCH", f"{PATH}/a", broken, kind="application/merge-patch+json")).status == 422
    assert used(api) == (addresses, ports)


async def test_a_change_of_type_takes_and_gives_back_ports(api: Any) -> None:
    before = used(api)
    made = await api.ok("POST", PATH, service("a"))
    merge = "application/merge-patch+json"
    opened = await api.ok("PATCH", f"{PATH}/a", {"spec": {"type": "NodePort"}}, kind=merge)
    assert opened["spec"]["clusterIP"] == made["spec"]["clusterIP"]
    port = opened["spec"]["ports"][0]["nodePort"]
    again = await api.ok("PATCH", f"{PATH}/a", {"metadata": {"labels": {"x": "y"}}}, kind=merge)
    assert again["spec"]["ports"][0]["nodePort"] == port
    closed = await api.ok("PATCH", f"{PATH}/a", {"spec": {"type": "ClusterIP"}}, kind=merge)
    assert "nodePort" not in closed["spec"]["ports"][0]
    assert used(api) == (before[0] + 1, before[1])
    external = await api.ok(
        "PATCH", f"{PATH}/a", {"spec": {"type": "ExternalName", "externalName": "example.org"}}, kind=merge
    )
    assert "clusterIP" not in external["spec"]
    assert used(api) == before


async def test_headless_and_foreign_addresses(api: Any) -> None:
    assert (await api.ok("POST", PATH, service("a", clusterIP="None")))["spec"]["clusterIPs"] == ["None"]
    for address in ("192.0.2.7", "not-an-address"):
        answer = await api("POST", PATH, service("b", clusterIP=address))
        assert answer.status == 422, answer.body
        assert answer.body["details"]["causes"]


async def test_a_client_that_leaves_does_not_free_what_its_service_has(api: Any) -> None:
    """Cancelled at every point of the way: a Service is there with its numbers, or neither is."""
    for turns in range(12):
        write = asyncio.ensure_future(api.ok("POST", PATH, service(f"s{turns}", type="NodePort")))
        for _ in range(turns):
            await asyncio.sleep(0)
        write.cancel()
        await asyncio.gather(write, return_exceptions=True)
    for _ in range(100):  # what was begun ends
        await asyncio.sleep(0)
    items = (await api.ok("GET", "/api/v1/services"))["items"]
    stored = {item["spec"]["clusterIP"] for item in items}
    ports = {port["nodePort"] for item in items for port in item["spec"]["ports"] if "nodePort" in port}
    assert used(api) == (len(stored), len(ports))


async def test_concurrent_creates_get_different_numbers(api: Any) -> None:
    made = await asyncio.gather(*(api.ok("POST", PATH, service(f"s{i}", type="NodePort")) for i in range(50)))
    assert len({m["spec"]["clusterIP"] for m in made}) == 50
    assert len({m["spec"]["ports"][0]["nodePort"] for m in made}) == 50
