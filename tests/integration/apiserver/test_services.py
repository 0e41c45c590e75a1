"""Services' addresses and node ports: given once, kept, given back."""

from typing import Any

import pytest

MERGE = "application/merge-patch+json"


def service(name: str, kind: str = "ClusterIP", *ports: int, **spec: Any) -> dict[str, Any]:
    listed = [{"name": f"p{i}", "port": 80 + i, **({"nodePort": p} if p else {})} for i, p in enumerate(ports or (0,))]
    return {"metadata": {"name": name}, "spec": {"type": kind, "ports": listed, **spec}}


@pytest.fixture
def path(ns: str) -> str:
    return f"/api/v1/namespaces/{ns}/services"


def numbers(got: Any) -> tuple[str, list[int]]:
    return got["spec"].get("clusterIP", ""), [p["nodePort"] for p in got["spec"]["ports"] if "nodePort" in p]


def test_given_and_kept(admin: Any, path: str) -> None:
    made = admin.ok("POST", path, service("a", "NodePort", 0, 0))
    address, ports = numbers(made)
    assert address.startswith("10.96.") and made["spec"]["clusterIPs"] == [address] and len(set(ports)) == 2
    again = admin.ok("PUT", f"{path}/a", service("a", "NodePort", 0, 0))
    assert numbers(again) == (address, ports)
    plain = admin.ok("PATCH", f"{path}/a", {"spec": {"type": "ClusterIP"}}, kind=MERGE)
    assert numbers(plain) == (address, [])
    taken = admin.ok("POST", path, service("b", "NodePort", *ports))  # given back, so another may have them
    assert numbers(taken)[1] == ports


def test_explicit_and_refused(admin: Any, path: str) -> None:
    made = admin.ok("POST", path, service("a", "NodePort", 31999, clusterIP="10.96.77.77"))
    assert numbers(made) == ("10.96.77.77", [31999])
    for wrong, field in (
        (service("b", clusterIP="10.96.77.77"), "spec.clusterIPs"),
        (service("b", clusterIP="10.1.1.1"), "spec.clusterIPs"),
        (service("b", clusterIP="x"), "spec.clusterIPs[0]"),
        (service("b", "NodePort", 31999), "spec.ports[0].nodePort"),
        (service("b", "NodePort", 80), "spec.ports[0].nodePort"),
    ):  # fmt: skip
        answer = admin("POST", path, wrong)
        assert answer.status == 422 and answer.json["details"]["causes"][0]["field"] == field, answer.body
    assert admin("PATCH", f"{path}/a", {"spec": {"clusterIP": "10.96.77.78"}}, kind=MERGE).status == 422
    admin.ok("DELETE", f"{path}/a")
    assert numbers(admin.ok("POST", path, service("c", "NodePort", 31999, clusterIP="10.96.77.77")))[1] == [31999]


def test_nothing_leaks_from_what_failed(admin: Any, path: str) -> None:
    wanted = service("a", "NodePort", 31888, clusterIP="10.96.78.78")
    bad = {**wanted, "metadata": {"name": "Bad_Name"}}
    assert admin("POST", path, bad).status == 422
    assert admin("POST", path, {**wanted, "spec": {**wanted["spec"], "sessionAffinity": "Often"}}).status == 422
    assert admin("POST", path, service("x", "NodePort", 31888, 31888, clusterIP="10.96.78.78")).status == 422
    admin.ok("POST", f"{path}?dryRun=All", wanted)
    admin.ok("POST", path, service("other"))
    assert admin("POST", path, {**wanted, "metadata": {"name": "other"}}).status == 409
    change = {"spec": {"type": "NodePort", "ports": [{"port": 80, "nodePort": 31888}], "sessionAffinity": "Often"}}
    assert admin("PATCH", f"{path}/other", change, kind=MERGE).status == 422
    change["spec"].pop("sessionAffinity")
    admin.ok("PATCH", f"{path}/other?dryRun=All", change, kind=MERGE)
    assert numbers(admin.ok("POST", path, wanted)) == ("10.96.78.78", [31888])


def test_headless_and_external(admin: Any, path: str) -> None:
    assert admin.ok("POST", path, service("h", clusterIP="None"))["spec"]["clusterIPs"] == ["None"]
    made = admin.ok("POST", path, {
        "metadata": {"name": "e"}, "spec": {"type": "ExternalName", "externalName": "example.com"}})  # fmt: skip
    assert "clusterIP" not in made["spec"]
    now = admin.ok("PATCH", f"{path}/e", {"spec": {"type": "ClusterIP", "externalName": None, "ports": [{"port": 1}]}},
                   kind=MERGE)  # fmt: skip
    assert now["spec"]["clusterIP"].startswith("10.96.")
