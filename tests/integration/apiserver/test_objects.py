"""Writes: names, preconditions, finalizers, graceful deletion, subresources, versions, Services' numbers, forms."""

import gzip
import json
from typing import Any

import pytest

MERGE = "application/merge-patch+json"
POD = {"spec": {"containers": [{"name": "c", "image": "i"}]}}


@pytest.fixture
def base(ns: str) -> str:
    return f"/api/v1/namespaces/{ns}"


def named(name: str, **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, **more}}


def test_generate_name(admin: Any, base: str) -> None:
    names = {
        admin.ok("POST", f"{base}/configmaps", {"metadata": {"generateName": "x-"}})["metadata"]["name"]
        for _ in range(5)
    }
    assert len(names) == 5 and all(name.startswith("x-") and len(name) == 7 for name in names)
    long = admin.ok("POST", f"{base}/configmaps", {"metadata": {"generateName": "y" * 200}})
    assert len(long["metadata"]["name"]) <= 253


def test_preconditions_and_conflicts(admin: Any, base: str) -> None:
    path = f"{base}/configmaps"
    made = admin.ok("POST", path, named("a"))
    admin.ok("PATCH", f"{path}/a", {"data": {"k": "1"}}, kind=MERGE)
    stale = admin("PUT", f"{path}/a", made)
    assert stale.status == 409 and "the object has been modified" in stale.json["message"]
    assert admin("PATCH", f"{path}/a", {"metadata": {"resourceVersion": "1"}}, kind=MERGE).status == 409
    assert admin("PUT", f"{path}/a", named("a", uid="other")).status == 409
    kept = admin.ok("PUT", f"{path}/a", named("a", creationTimestamp="2001-01-01T00:00:00Z", generation=7))
    assert kept["metadata"]["uid"] == made["metadata"]["uid"]
    assert kept["metadata"]["creationTimestamp"] == made["metadata"]["creationTimestamp"]
    same = admin.ok("PUT", f"{path}/a", kept)
    assert same["metadata"]["resourceVersion"] == kept["metadata"]["resourceVersion"]  # nothing changed: no write
    assert admin("POST", path, named("a")).status == 409


def test_immutable(admin: Any, ns: str, base: str) -> None:
    path = f"{base}/configmaps"
    admin.ok("POST", path, {**named("a"), "immutable": True, "data": {"k": "1"}})
    refused = admin("PATCH", f"{path}/a", {"data": {"k": "2"}}, kind=MERGE)
    assert refused.status == 422 and refused.json["details"]["causes"][0]["field"] == "data"
    admin.ok("POST", f"{base}/secrets", {**named("s"), "type": "Opaque"})
    assert admin("PATCH", f"{base}/secrets/s", {"type": "other"}, kind=MERGE).status == 422
    admin.ok("POST", f"{base}/pods", {**named("p"), **POD})
    assert admin("PATCH", f"{base}/pods/p", {"spec": {"nodeName": "n"}}, kind=MERGE).status == 422
    apps = f"/apis/apps/v1/namespaces/{ns}/deployments"
    labels = {"a": "b"}
    admin.ok("POST", apps, {**named("d"), "spec": {
        "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, **POD}}})  # fmt: skip
    answer = admin("PATCH", f"{apps}/d", {"spec": {"selector": {"matchLabels": {"c": "d"}}}}, kind=MERGE)
    assert answer.status == 422


def test_finalizers(admin: Any, base: str) -> None:
    path = f"{base}/configmaps"
    admin.ok("POST", path, named("a", finalizers=["example.com/hold"]))
    marked = admin.ok("DELETE", f"{path}/a")
    assert marked["metadata"]["deletionTimestamp"] and marked["metadata"]["finalizers"]
    again = admin.ok("DELETE", f"{path}/a")
    assert again["metadata"]["deletionTimestamp"] == marked["metadata"]["deletionTimestamp"]
    more = {"metadata": {"finalizers": ["example.com/hold", "example.com/more"]}}
    assert admin("PATCH", f"{path}/a", more, kind=MERGE).status == 422
    admin.ok("PATCH", f"{path}/a", {"metadata": {"finalizers": None}}, kind=MERGE)
    assert admin("GET", f"{path}/a").status == 404
    for policy, finalizer in (("Foreground", "foregroundDeletion"), ("Orphan", "orphan")):
        admin.ok("POST", path, named("b"))
        marked = admin.ok("DELETE", f"{path}/b", {"propagationPolicy": policy})
        assert marked["metadata"]["finalizers"] == [finalizer]
        admin.ok("PATCH", f"{path}/b", {"metadata": {"finalizers": []}}, kind=MERGE)
        assert admin("GET", f"{path}/b").status == 404


def test_graceful_deletion_of_a_pod(admin: Any, base: str) -> None:
    path = f"{base}/pods"
    admin.ok("POST", path, {**named("free"), **POD})
    admin.ok("DELETE", f"{path}/free")
    assert admin("GET", f"{path}/free").status == 404  # no node has to agree
    admin.ok("POST", path, {**named("p"), **POD})
    admin.ok("POST", f"{path}/p/binding", {"target": {"kind": "Node", "name": "n"}})
    assert admin("POST", f"{path}/p/binding", {"target": {"name": "m"}}).status == 409
    first = admin.ok("DELETE", f"{path}/p")["metadata"]
    assert first["deletionGracePeriodSeconds"] == 30
    shorter = admin.ok("DELETE", f"{path}/p?gracePeriodSeconds=5")["metadata"]
    assert shorter["deletionGracePeriodSeconds"] == 5
    longer = admin.ok("DELETE", f"{path}/p", {"gracePeriodSeconds": 60})["metadata"]
    assert longer["deletionGracePeriodSeconds"] == 5
    assert admin("DELETE", f"{path}/p", {"gracePeriodSeconds": 0, "preconditions": {"uid": "x"}}).status == 409
    admin.ok("DELETE", f"{path}/p", {"gracePeriodSeconds": 0})
    assert admin("GET", f"{path}/p").status == 404


def test_delete_collection(admin: Any, base: str) -> None:
    path = f"{base}/configmaps"
    for name, app in (("a", "x"), ("b", "x"), ("c", "y")):
        admin.ok("POST", path, named(name, labels={"app": app}))
    admin.ok("DELETE", f"{path}?labelSelector=app%3Dx&dryRun=All")
    assert len(admin.ok("GET", path)["items"]) == 3
    assert len(admin.ok("DELETE", f"{path}?labelSelector=app%3Dx")["items"]) == 2
    assert [item["metadata"]["name"] for item in admin.ok("GET", path)["items"]] == ["c"]


def test_a_subresource_changes_its_own_part_only(admin: Any, ns: str, base: str) -> None:
    modest = {"spec": {"containers": [{**POD["spec"]["containers"][0], "resources": {"requests": {"cpu": "1"}}}]}}
    pod = admin.ok("POST", f"{base}/pods", {**named("p"), **modest})
    everything = {**pod, "spec": {**pod["spec"], "nodeName": "sneaky", "hostNetwork": True},
                  "status": {"phase": "Running"}}  # fmt: skip
    everything["metadata"] = {**pod["metadata"], "labels": {"a": "b"}}
    everything["metadata"].pop("resourceVersion")
    debug = {"name": "debug", "image": "i"}
    asked = {**everything, "spec": {**everything["spec"], "ephemeralContainers": [debug]}}
    got = admin.ok("PUT", f"{base}/pods/p/ephemeralcontainers", asked)
    assert got["spec"]["ephemeralContainers"][0]["name"] == "debug"
    assert "nodeName" not in got["spec"] and not got["spec"].get("hostNetwork")
    assert got["status"]["phase"] == "Pending"
    bigger = {"spec": {"containers": [{"name": "c", "image": "other", "resources": {"requests": {"cpu": "2"}}}]}}
    got = admin.ok("PATCH", f"{base}/pods/p/resize", bigger, kind="application/strategic-merge-patch+json")
    assert got["spec"]["containers"][0]["resources"]["requests"] == {"cpu": "2"}
    assert got["spec"]["containers"][0]["image"] == "i"
    for resources, words in (
        ({"requests": {"cpu": None}}, "Pod QOS Class may not change as a result of resizing"),
        ({"requests": {"ephemeral-storage": "1Gi"}}, "only cpu and memory resources are mutable"),
    ):
        wrong = {"spec": {"containers": [{"name": "c", "resources": resources}]}}
        refused = admin("PATCH", f"{base}/pods/p/resize", wrong, kind="application/strategic-merge-patch+json")
        assert refused.status == 422 and words in refused.json["message"]
    got = admin.ok("PUT", f"{base}/pods/p/status", {**everything, "status": {"phase": "Running"}})
    assert got["status"]["phase"] == "Running" and "nodeName" not in got["spec"]
    got = admin.ok("PUT", f"{base}/pods/p", {**got, "status": {"phase": "Failed"}})
    assert got["status"]["phase"] == "Running"
    space = admin.ok("GET", f"/api/v1/namespaces/{ns}")
    space = {**space, "metadata": {**space["metadata"], "labels": {"x": "y"}}, "status": {"phase": "Terminating"}}
    got = admin.ok("PUT", f"/api/v1/namespaces/{ns}/finalize", space)
    assert got["status"]["phase"] == "Active" and got["spec"]["finalizers"] == ["kubernetes"]


def test_autoscaler_versions(admin: Any, ns: str) -> None:
    spec = {"scaleTargetRef": {"kind": "Deployment", "name": "d", "apiVersion": "apps/v1"}, "maxReplicas": 3}
    v1, v2 = (f"/apis/autoscaling/{v}/namespaces/{ns}/horizontalpodautoscalers" for v in ("v1", "v2"))
    with admin.watch(f"{v1}?watch=1&resourceVersion=0") as old, admin.watch(f"{v2}?watch=1&resourceVersion=0") as new:
        made = admin.ok("POST", v1, {**named("h"), "spec": {**spec, "targetCPUUtilizationPercentage": 55}})
        assert made["apiVersion"] == "autoscaling/v1" and made["spec"]["targetCPUUtilizationPercentage"] == 55
        assert old.next()["object"]["spec"]["targetCPUUtilizationPercentage"] == 55
        metric = new.next()["object"]["spec"]["metrics"][0]["resource"]
        assert metric == {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 55}}
    assert admin.ok("GET", v2)["items"][0]["apiVersion"] == "autoscaling/v2"
    assert admin.ok("GET", f"{v1}/h")["spec"]["targetCPUUtilizationPercentage"] == 55
    admin.ok("PATCH", f"{v2}/h", {"spec": {"maxReplicas": 9}}, kind=MERGE)
    got = admin.ok("PUT", f"{v1}/h", admin.ok("GET", f"{v1}/h"))
    assert got["spec"]["maxReplicas"] == 9


def test_event_versions(admin: Any, ns: str, base: str) -> None:
    new = f"/apis/events.k8s.io/v1/namespaces/{ns}/events"
    about = {"kind": "Pod", "namespace": ns, "name": "p"}
    admin.ok("POST", f"{base}/events", {
        **named("e"), "involvedObject": about, "reason": "Because", "message": "text", "type": "Normal"})  # fmt: skip
    got = admin.ok("GET", f"{new}/e")
    assert (got["apiVersion"], got["regarding"], got["note"]) == ("events.k8s.io/v1", about, "text")
    admin.ok("POST", new, {
        **named("f"), "regarding": about, "reason": "R", "note": "n", "type": "Normal", "action": "A",
        "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "c", "reportingInstance": "i"})  # fmt: skip
    got = admin.ok("GET", f"{base}/events?fieldSelector=involvedObject.name%3Dp,reason%3DR")["items"]
    assert [(e["metadata"]["name"], e["message"], e["involvedObject"]) for e in got] == [("f", "n", about)]


def test_forms_of_an_answer(admin: Any, base: str) -> None:
    path = f"{base}/configmaps"
    for i in range(200):
        admin.ok("POST", path, {**named(f"c{i}"), "data": {"k": "x" * 1000}})
    plain = admin("GET", path)
    packed = admin("GET", path, Accept_Encoding="gzip")
    assert "content-encoding" not in plain.headers and packed.headers["content-encoding"] == "gzip"
    assert len(packed.body) < len(plain.body) / 4 and json.loads(gzip.decompress(packed.body)) == plain.json
    assert "content-encoding" not in admin("GET", f"{path}/c1", Accept_Encoding="gzip").headers  # too small
    assert "content-encoding" not in admin("GET", path, Accept_Encoding="gzip;q=0").headers
    shown = admin("GET", f"{path}/c1", Accept="application/yaml")
    assert shown.headers["content-type"] == "application/yaml" and b"\n  name: c1\n" in shown.body
    head = admin("HEAD", f"{path}/c1")
    assert (head.status, head.body) == (200, b"") and int(head.headers["content-length"]) > 100
    assert admin("HEAD", f"{path}/none").status == 404
    head = admin("HEAD", path)
    assert (head.status, head.body) == (200, b"") and int(head.headers["content-length"]) == len(plain.body)
    assert admin("HEAD", f"{path}?watch=1").body == b""
    listed = admin("GET", path, Accept="application/yaml")
    assert listed.body.count(b"  name: c") == 200
    assert len(admin.ok("GET", f"{path}?pretty=true")["items"]) == 200
    assert admin("OPTIONS", path).status == 405
    assert admin("GET", path, Accept="application/vnd.kubernetes.protobuf, application/json").status == 200
    assert admin("GET", path, Accept="application/vnd.kubernetes.protobuf").body.startswith(b"k8s\0")
    assert admin("GET", path, Accept="application/cbor").status == 406
    assert admin("GET", "/api/v1/", Accept="*/*").status == 200
    assert admin.reconnects == 0
