"""What writes do beside what they say: versions, generations, deletion, preconditions, creation by PUT, dry runs."""

from datetime import datetime
from typing import Any

import pytest

from controlplane.apiserver.http import User

CMS = "/api/v1/namespaces/default/configmaps"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"


def pod(name: str, **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}], **spec}}


def job() -> dict[str, Any]:
    template = {"spec": {"containers": [{"name": "c", "image": "i"}], "restartPolicy": "Never"}}
    return {"metadata": {"name": "j"}, "spec": {"template": template}}


async def everything(api: Any) -> dict[str, int]:
    return {key: cached.revision for key, cached in api.server.registry.cache._by_key.items()}


# --- deletion


@pytest.mark.parametrize(
    ("policy", "finalizers"),
    [("", ["orphan"]), ("Orphan", ["orphan"]), ("Foreground", ["foregroundDeletion"]), ("Background", None)],
)
async def test_jobs_leave_their_pods_unless_told_otherwise(api: Any, policy: str, finalizers: Any) -> None:
    path = "/apis/batch/v1/namespaces/default/jobs"
    await api.ok("POST", path, job())
    left = await api.ok("DELETE", f"{path}/j", {"propagationPolicy": policy} if policy else None)
    assert left["metadata"].get("finalizers") == finalizers if finalizers else left["kind"] == "Status"
    assert (await api("GET", f"{path}/j")).status == (200 if finalizers else 404)


async def test_most_kinds_go_without_a_trace_and_ask_nobody(api: Any) -> None:
    await api.ok("POST", CMS, {"metadata": {"name": "a"}})
    gone = await api.ok("DELETE", f"{CMS}/a")
    assert gone["kind"] == "Status"
    assert gone["details"]["kind"] == "configmaps"


async def test_the_policy_of_the_finalizers_stays_unless_another_is_named(api: Any) -> None:
    await api.ok("POST", CMS, {"metadata": {"name": "a", "finalizers": ["orphan", "x/y"]}})
    marked = await api.ok("DELETE", f"{CMS}/a")
    assert sorted(marked["metadata"]["finalizers"]) == ["orphan", "x/y"]
    again = await api.ok("DELETE", f"{CMS}/a", {"propagationPolicy": "Foreground"})
    assert again == marked


async def test_options_that_contradict_each_other(api: Any) -> None:
    await api.ok("POST", CMS, {"metadata": {"name": "a"}})
    answer = await api("DELETE", f"{CMS}/a", {"propagationPolicy": "Orphan", "orphanDependents": True})
    assert (answer.status, answer.body["reason"]) == (422, "Invalid")
    assert "cannot be both set" in answer.body["message"]
    answer = await api("DELETE", f"{CMS}/a", {"propagationPolicy": "Sideways"})
    assert (answer.status, answer.body["details"]["causes"][0]["reason"]) == (422, "FieldValueNotSupported")
    marked = await api.ok("DELETE", f"{CMS}/a?orphanDependents=true")
    assert marked["metadata"]["finalizers"] == ["orphan"]


async def bound_pod(api: Any, name: str, **spec: Any) -> str:
    path = f"/api/v1/namespaces/default/pods/{name}"
    if (await api("GET", "/api/v1/namespaces/default/serviceaccounts/default")).status == 404:
        await api.ok("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
    await api.ok("POST", "/api/v1/namespaces/default/pods", pod(name, **spec))
    await api.ok("POST", f"{path}/binding", {"target": {"kind": "Node", "name": "n"}})
    return path


async def test_grace_periods_only_shrink(api: Any) -> None:
    path = await bound_pod(api, "p", terminationGracePeriodSeconds=60)
    first = (await api.ok("DELETE", path))["metadata"]
    assert first["deletionGracePeriodSeconds"] == 60
    began = datetime.fromisoformat(first["deletionTimestamp"]).timestamp() - 60
    assert (await api.ok("DELETE", path))["metadata"] == first
    assert (await api.ok("DELETE", path, {"gracePeriodSeconds": 90}))["metadata"] == first
    sooner = (await api.ok("DELETE", path, {"gracePeriodSeconds": 10}))["metadata"]
    assert sooner["deletionGracePeriodSeconds"] == 10
    assert datetime.fromisoformat(sooner["deletionTimestamp"]).timestamp() == began + 10
    await api.ok("DELETE", path, {"gracePeriodSeconds": 0})
    assert (await api("GET", path)).status == 404


async def test_a_negative_grace_period_is_one_second(api: Any) -> None:
    path = await bound_pod(api, "p")
    assert (await api.ok("DELETE", path, {"gracePeriodSeconds": -5}))["metadata"]["deletionGracePeriodSeconds"] == 1


async def test_pods_without_a_node_go_at_once(api: Any) -> None:
    await api.ok("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "default"}})
    await api.ok("POST", "/api/v1/namespaces/default/pods", pod("p"))
    await api.ok("DELETE", "/api/v1/namespaces/default/pods/p")
    assert (await api("GET", "/api/v1/namespaces/default/pods/p")).status == 404


async def test_nothing_new_may_hold_what_is_going(api: Any) -> None:
    await api.ok("POST", CMS, {"metadata": {"name": "a", "finalizers": ["x/y"]}})
    await api.ok("DELETE", f"{CMS}/a")
    answer = await api("PATCH", f"{CMS}/a", {"metadata": {"finalizers": ["x/y", "x/z"]}}, kind=MERGE)
    assert answer.status == 422
    assert "no new finalizers can be added if the object is being deleted" in answer.body["message"]
    await api.ok("PATCH", f"{CMS}/a", {"metadata": {"finalizers": None}}, kind=MERGE)
    assert (await api("GET", f"{CMS}/a")).status == 404


async def test_preconditions_of_a_delete(api: Any) -> None:
    made = (await api.ok("POST", CMS, {"metadata": {"name": "a"}}))["metadata"]
    answer = await api("DELETE", f"{CMS}/a", {"preconditions": {"uid": "other"}})
    assert answer.status == 409
    assert answer.body["message"] == (
        'Operation cannot be fulfilled on configmaps "a": '
        f"Precondition failed: UID in precondition: other, UID in object meta: {made['uid']}"
    )
    answer = await api("DELETE", f"{CMS}/a", {"preconditions": {"resourceVersion": "1"}})
    assert answer.status == 409
    wanted = {"preconditions": {"uid": made["uid"], "resourceVersion": made["resourceVersion"]}}
    await api.ok("DELETE", f"{CMS}/a", wanted)


# --- generation


async def test_generation_counts_changes_of_the_desired_state(api: Any) -> None:
    path = "/apis/batch/v1/namespaces/default/jobs"
    assert (await api.ok("POST", path, job()))["metadata"]["generation"] == 1

    async def generation(change: Any, where: str = "") -> int:
        got = await api.ok("PATCH", f"{path}/j{where}", change, kind=MERGE)
        return int(got["metadata"]["generation"])

    assert await generation({"metadata": {"labels": {"a": "b"}, "generation": 7}}) == 1
    assert await generation({"status": {"active": 1}}) == 1
    assert await generation({"status": {"active": 1}, "spec": {"parallelism": 9}}, "/status") == 1
    assert await generation({"spec": {"parallelism": 2}}) == 2
    assert await generation({"spec": {"parallelism": 2}}) == 2
    got = await api.ok("GET", f"{path}/j")
    assert (got["status"]["active"], got["spec"]["parallelism"]) == (1, 2)
    marked = await api.ok("DELETE", f"{path}/j", {"propagationPolicy": "Foreground"})
    assert marked["metadata"]["generation"] == 3
    scaler = {
        "metadata": {"name": "h"},
        "spec": {"maxReplicas": 2, "scaleTargetRef": {"kind": "Deployment", "name": "a"}},
    }
    made = await api.ok("POST", "/apis/autoscaling/v2/namespaces/default/horizontalpodautoscalers", scaler)
    assert "generation" not in made["metadata"]


# --- PUT


async def test_a_put_makes_some_kinds_only(api: Any) -> None:
    role = {"metadata": {"name": "r"}, "rules": []}
    path = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles/r"
    made = await api("PUT", path, role)
    assert made.status == 201
    assert (await api("PUT", path, role)).status == 200
    answer = await api("PUT", f"{CMS}/a", {"metadata": {"name": "a"}})
    assert (answer.status, answer.body["reason"]) == (404, "NotFound")
    answer = await api("PUT", path[:-1] + "s", role)
    assert answer.status == 400


async def test_who_may_only_change_makes_nothing(api: Any) -> None:
    where = "/apis/rbac.authorization.k8s.io/v1/namespaces/default"
    rules = [{"apiGroups": ["*"], "resources": ["configmaps", "limitranges"], "verbs": ["update", "patch", "get"]}]
    await api.ok("POST", f"{where}/roles", {"metadata": {"name": "changer"}, "rules": rules})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "changer"}
    who = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "bob"}
    await api.ok("POST", f"{where}/rolebindings", {"metadata": {"name": "b"}, "roleRef": reference, "subjects": [who]})
    bob = User("bob", ("system:authenticated",))
    limits = {"metadata": {"name": "l"}, "spec": {"limits": []}}
    answer = await api("PUT", "/api/v1/namespaces/default/limitranges/l", limits, user=bob)
    assert answer.status == 403
    assert 'cannot create resource "limitranges"' in answer.body["message"]
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}
    applied = {"kind": "application/apply-patch+yaml", "user": bob}
    answer = await api("PATCH", f"{CMS}/a?fieldManager=bob", body, **applied)
    assert answer.status == 403
    await api.ok("POST", CMS, body)
    await api.ok("PATCH", f"{CMS}/a?fieldManager=bob", body, **applied)


async def test_some_kinds_want_to_know_what_a_put_was_made_from(api: Any) -> None:
    path = "/apis/coordination.k8s.io/v1/namespaces/default/leases/l"
    lease = {"metadata": {"name": "l"}, "spec": {"holderIdentity": "a"}}
    made = await api("PUT", path, lease)
    assert made.status == 201
    answer = await api("PUT", path, lease)
    assert answer.status == 422
    assert answer.body["details"]["causes"] == [{
        "reason": "FieldValueInvalid", "field": "metadata.resourceVersion",
        "message": "Invalid value: 0x0: must be specified for an update",
    }]  # fmt: skip
    changed = {**made.body, "spec": {"holderIdentity": "b"}}
    assert (await api("PUT", path, changed)).status == 200
    answer = await api("PUT", path, changed)
    assert (answer.status, answer.body["reason"]) == (409, "Conflict")


async def test_a_put_names_its_object(api: Any) -> None:
    await api.ok("POST", CMS, {"metadata": {"name": "a"}})
    answer = await api("PUT", f"{CMS}/a", {"data": {}})
    assert (answer.status, answer.body["message"]) == (
        400, "the name of the object (a based on URL) was undeterminable: name must be provided"
    )  # fmt: skip
    answer = await api("PUT", f"{CMS}/a", {"metadata": {"name": "a", "namespace": "other"}})
    assert (answer.status, answer.body["message"]) == (
        400, "the namespace of the provided object does not match the namespace sent on the request"
    )  # fmt: skip
    answer = await api("PUT", f"{CMS}/a", {"metadata": {"name": "a", "uid": "other"}})
    assert answer.status == 409


async def test_generated_names_differ(api: Any) -> None:
    names = {(await api.ok("POST", CMS, {"metadata": {"generateName": "x-"}}))["metadata"]["name"] for _ in range(5)}
    assert len(names) == 5
    long = (await api.ok("POST", CMS, {"metadata": {"generateName": "y" * 70}}))["metadata"]["name"]
    assert len(long) == 63


# --- patches that leave no object


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({"immutable": "yes"}, MERGE),
        ({"immutable": "yes"}, STRATEGIC),
        ([{"op": "add", "path": "/immutable", "value": "yes"}], JSON_PATCH),
    ],
)
async def test_a_patch_that_does_not_fit_is_at_fault(api: Any, body: Any, kind: str) -> None:
    await api.ok("POST", CMS, {"metadata": {"name": "a"}})
    answer = await api("PATCH", f"{CMS}/a", body, kind=kind)
    assert (answer.status, answer.body["reason"]) == (422, "Invalid")
    assert answer.body["details"]["causes"][0]["field"] == "patch"
    assert "cannot unmarshal string into Go struct field" in answer.body["message"]
    strict = await api("PATCH", f"{CMS}/a?fieldValidation=Strict", {"dada": {}}, kind=MERGE)
    assert strict.status == 422
    assert 'unknown field "dada"' in strict.body["message"]


# --- dry runs


async def test_dry_runs_leave_nothing(api: Any) -> None:
    path = await bound_pod(api, "p")
    await api.ok("POST", "/api/v1/namespaces/default/pods", pod("q"))
    await api.ok("POST", CMS, {"metadata": {"name": "a"}})
    before = await everything(api)
    dry = "?dryRun=All"
    service = {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}], "clusterIP": "10.96.0.77"}}
    for _ in range(2):  # an address that stays taken would be missed the second time
        await api.ok("POST", f"/api/v1/namespaces/default/services{dry}", service)
    await api.ok("PUT", f"/api/v1/namespaces/default/services/s{dry}", service)
    await api.ok("POST", f"{CMS}{dry}", {"metadata": {"generateName": "x-"}})
    await api.ok("PUT", f"{CMS}/a{dry}", {"metadata": {"name": "a"}, "data": {"k": "v"}})
    await api.ok("PATCH", f"{CMS}/a{dry}", {"data": {"k": "v"}}, kind=MERGE)
    await api.ok("PATCH", f"{path}/status{dry}", {"status": {"phase": "Running"}}, kind=MERGE)
    await api.ok("POST", f"/api/v1/namespaces/default/pods/q/binding{dry}", {"target": {"kind": "Node", "name": "n"}})
    await api.ok("POST", f"{path}/eviction{dry}", {"metadata": {"name": "p"}})
    await api.ok("DELETE", f"{path}{dry}", {"gracePeriodSeconds": 0})
    await api.ok("DELETE", f"{CMS}{dry}")
    await api.ok("DELETE", f"{CMS}/a", {"dryRun": ["All"]})
    assert await everything(api) == before
    assert (await api("POST", f"{CMS}?dryRun=Some", {"metadata": {"name": "b"}})).status in (400, 422)
