"""Slices hold what they should, and change as little as they can."""

from typing import Any

import pytest

from controlplane.controllers import endpoint, endpoints, endpointslice
from controlplane.controllers.actions import Action, Create, Delete, Update

Obj = dict[str, Any]


@pytest.fixture
def service(namespaced: Any) -> Obj:
    ports = [{"name": "http", "port": 80, "targetPort": "web"}]
    spec = {"selector": {"app": "web"}, "ports": ports, "ipFamilies": ["IPv4"], "clusterIP": "10.96.0.9"}
    return namespaced("Service", "web", spec=spec)  # type: ignore[no-any-return]


@pytest.fixture
def make_pod(namespaced: Any, make_running: Any) -> Any:
    def make(n: int, port: int = 8080, **metadata: Any) -> Obj:
        containers = [{"name": "c", "ports": [{"name": "web", "containerPort": port}]}]
        made = namespaced(
            "Pod", f"p{n}", metadata={"labels": {"app": "web"}, **metadata}, spec={"containers": containers}
        )
        return make_running(made, ip=f"10.244.{n // 250}.{n % 250}")  # type: ignore[no-any-return]

    return make


def apply(slices: list[Obj], writes: list[Action]) -> list[Obj]:
    there = {s["metadata"]["name"]: s for s in slices}
    for i, write in enumerate(writes):
        obj = write.obj  # type: ignore[attr-defined]
        if isinstance(write, Create):
            name = f"web-{len(there)}-{i}"
            there[name] = {**obj, "metadata": {**obj["metadata"], "name": name}}
        elif isinstance(write, Update):
            there[obj["metadata"]["name"]] = obj
        elif isinstance(write, Delete):
            del there[obj["metadata"]["name"]]
    return list(there.values())


def held(slices: list[Obj]) -> list[str]:
    return sorted(e["targetRef"]["name"] for s in slices for e in s["endpoints"])


def test_conditions_and_topology(service: Obj, make_pod: Any) -> None:
    good = make_pod(1)
    unready = make_pod(2)
    unready["status"]["conditions"][0]["status"] = "False"
    leaving = make_pod(3, deletionTimestamp="2026-01-01T00:00:00Z")
    finished = make_pod(4)
    finished["status"]["phase"] = "Succeeded"
    (write,) = endpointslice.plan(service, [good, unready, leaving, finished], [], {"node-1": "zone-a"})
    made = write.obj  # type: ignore[attr-defined]
    conditions = {e["targetRef"]["name"]: tuple(e["conditions"].values()) for e in made["endpoints"]}
    assert conditions == {"p1": (True, True, False), "p2": (False, False, False), "p3": (False, True, True)}
    assert made["endpoints"][0]["nodeName"] == "node-1"
    assert made["endpoints"][0]["zone"] == "zone-a"
    assert made["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
    assert made["metadata"]["labels"] == {
        "kubernetes.io/service-name": "web",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
    }
    published = {**service, "spec": {**service["spec"], "publishNotReadyAddresses": True}}
    (write,) = endpointslice.plan(published, [unready], [], {})
    assert write.obj["endpoints"][0]["conditions"]["ready"]  # type: ignore[attr-defined]


def test_no_slice_holds_more_than_a_hundred(service: Obj, make_pod: Any) -> None:
    pods = [make_pod(n) for n in range(250)]
    slices = apply([], endpointslice.plan(service, pods, [], {}))
    assert sorted(len(s["endpoints"]) for s in slices) == [50, 100, 100]
    assert endpointslice.plan(service, pods, slices, {}) == [], "nothing to do is done with nothing"


def test_one_changed_pod_is_one_write(service: Obj, make_pod: Any) -> None:
    pods = [make_pod(n) for n in range(150)]
    slices = apply([], endpointslice.plan(service, pods, [], {}))
    pods[3] = {**pods[3], "status": {**pods[3]["status"], "conditions": [{"type": "Ready", "status": "False"}]}}
    writes = endpointslice.plan(service, pods, slices, {})
    assert [type(w) for w in writes] == [Update]
    pods.append(make_pod(900))
    writes = endpointslice.plan(service, pods, apply(slices, writes), {})
    assert [type(w) for w in writes] == [Update], "a new one goes where there is room"
    slices = apply(slices, writes)
    writes = endpointslice.plan(service, pods[:-1], slices, {})
    assert len(writes) <= 2
    assert "p900" not in held(apply(slices, writes))


def test_pods_with_other_ports_have_their_own_slice(service: Obj, make_pod: Any) -> None:
    slices = apply([], endpointslice.plan(service, [make_pod(1), make_pod(2, port=9090)], [], {}))
    assert sorted(s["ports"][0]["port"] for s in slices) == [8080, 9090]


def test_without_endpoints_one_empty_slice_stays(service: Obj, make_pod: Any) -> None:
    slices = apply([], endpointslice.plan(service, [make_pod(n) for n in range(150)], [], {}))
    slices = apply(slices, endpointslice.plan(service, [], slices, {}))
    assert [s["endpoints"] for s in slices] == [[]]
    assert endpointslice.plan(service, [], slices, {}) == []
    slices = apply(slices, endpointslice.plan(service, [make_pod(1, port=9090)], slices, {}))
    assert held(slices) == ["p1"]
    assert len(slices) == 1


def test_both_families(service: Obj, make_pod: Any) -> None:
    pod = make_pod(1)
    pod["status"]["podIPs"] = [{"ip": "10.244.0.1"}, {"ip": "fd00::1"}]
    dual = {**service, "spec": {**service["spec"], "ipFamilies": ["IPv4", "IPv6"]}}
    slices = apply([], endpointslice.plan(dual, [pod], [], {}))
    assert {s["addressType"]: s["endpoints"][0]["addresses"] for s in slices} == {
        "IPv4": ["10.244.0.1"],
        "IPv6": ["fd00::1"],
    }


def test_ports_are_found_by_name_and_protocol(make_pod: Any) -> None:
    pod = make_pod(1)
    pod["spec"]["containers"][0]["ports"].append({"name": "dns", "containerPort": 53, "protocol": "UDP"})
    ports = [
        {"name": "a", "port": 1, "targetPort": "dns"},  # TCP: the pod offers UDP only
        {"name": "b", "port": 2, "targetPort": "dns", "protocol": "UDP"},
        {"name": "c", "port": 3},
        {"name": "d", "port": 4, "targetPort": 44, "appProtocol": "kubernetes.io/h2c"},
    ]
    assert endpoint.ports({"spec": {"ports": ports}}, pod) == (
        ("b", 53, "UDP", ""),
        ("c", 3, "TCP", ""),
        ("d", 44, "TCP", "kubernetes.io/h2c"),
    )


def test_hostnames_of_headless_services(service: Obj, make_pod: Any) -> None:
    pod = make_pod(1)
    pod["spec"] |= {"hostname": "db-0", "subdomain": "web"}
    assert endpoint.endpoint(pod, service, "10.244.0.1", "")["hostname"] == "db-0"
    assert "hostname" not in endpoint.endpoint(make_pod(2), service, "10.244.0.2", "")


def test_legacy_endpoints(service: Obj, make_pod: Any) -> None:
    unready = make_pod(2)
    unready["status"]["conditions"][0]["status"] = "False"
    ((subset,), truncated) = endpoints.subsets(service, [make_pod(1), unready, make_pod(3, deletionTimestamp="x")])
    assert not truncated
    assert [a["ip"] for a in subset["addresses"]] == ["10.244.0.1"]
    assert [a["ip"] for a in subset["notReadyAddresses"]] == ["10.244.0.2"]
    assert subset["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
    many, truncated = endpoints.subsets(service, [make_pod(n) for n in range(1100)])
    assert truncated
    assert len(many[0]["addresses"]) == 1000
