"""Server-side apply and the owners of fields, through the API."""

from collections.abc import Callable
from typing import Any

import pytest

APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"


def deployment(**spec: Any) -> dict[str, Any]:
    labels = {"app": "a"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "c", "image": "one"}]}}
    return {
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"},
        "spec": {"selector": {"matchLabels": labels}, "template": template, **spec},
    }  # fmt: skip


def config_map(**data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": data}


def owners(obj: dict[str, Any]) -> dict[tuple[str, str], Any]:
    """(manager, operation or operation/subresource) -> its fields."""
    found = {}
    for entry in obj["metadata"].get("managedFields", ()):
        how = entry["operation"] + (f"/{entry['subresource']}" if "subresource" in entry else "")
        assert entry["fieldsType"] == "FieldsV1"
        assert (entry["manager"], how) not in found
        found[entry["manager"], how] = entry["fieldsV1"]
    return found


@pytest.fixture
def apply(api: Any) -> Callable[..., Any]:
    async def send(body: Any, manager: str = "me", *, force: bool = False, path: str = "", where: str = "") -> Any:
        plural = {"Deployment": "apis/apps/v1", "ConfigMap": "api/v1", "Service": "api/v1", "Pod": "api/v1"}[
            body["kind"]
        ]
        path = path or f"/{plural}/namespaces/default/{body['kind'].lower()}s/{body['metadata']['name']}"
        query = f"?fieldManager={manager}{'&force=true' if force else ''}"
        return await api("PATCH", path + where + query, body, kind=APPLY)

    return send


CMS = "/api/v1/namespaces/default/configmaps"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"


async def test_creates_and_owns_what_it_said_only(apply: Any) -> None:
    answer = await apply(deployment(replicas=2))
    assert answer.status == 201
    assert answer.body["spec"]["revisionHistoryLimit"] == 10
    assert owners(answer.body) == {("me", "Apply"): {
        "f:spec": {
            "f:replicas": {}, "f:selector": {},
            "f:template": {
                "f:metadata": {"f:labels": {"f:app": {}}},
                "f:spec": {"f:containers": {'k:{"name":"c"}': {".": {}, "f:image": {}, "f:name": {}}}},
            },
        },
    }}  # fmt: skip
    again = await apply(deployment(replicas=2))
    assert again.status == 200
    assert again.body == answer.body


async def test_a_create_owns_everything_sent_and_defaulted(api: Any) -> None:
    agent = {"User-Agent": "kubectl/v1.32.0 (linux/amd64) kubernetes/abc"}
    made = await api.ok("POST", DEPLOYMENTS, deployment(), headers=agent)
    assert owners(made) == {("kubectl", "Update"): {"f:spec": {
        "f:progressDeadlineSeconds": {}, "f:replicas": {}, "f:revisionHistoryLimit": {}, "f:selector": {},
        "f:strategy": {"f:rollingUpdate": {".": {}, "f:maxSurge": {}, "f:maxUnavailable": {}}, "f:type": {}},
        "f:template": {
            "f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {
                "f:containers": {'k:{"name":"c"}': {
                    ".": {}, "f:image": {}, "f:imagePullPolicy": {}, "f:name": {}, "f:resources": {},
                    "f:terminationMessagePath": {}, "f:terminationMessagePolicy": {},
                }},
                "f:dnsPolicy": {}, "f:restartPolicy": {}, "f:schedulerName": {}, "f:securityContext": {},
                "f:terminationGracePeriodSeconds": {},
            },
        },
    }}}  # fmt: skip


async def test_conflict_names_manager_and_field_and_writes_nothing(api: Any, apply: Any) -> None:
    await apply(config_map(k="1", mine="x"), "one")
    await api.ok("PATCH", f"{CMS}/a?fieldManager=editor", {"data": {"edited": "1"}}, kind=MERGE)
    answer = await apply(config_map(k="2"), "two")
    assert answer.status == 409
    assert answer.body["reason"] == "Conflict"
    assert answer.body["message"] == 'Apply failed with 1 conflict: conflict with "one": .data.k'
    assert answer.body["details"]["causes"] == [
        {"reason": "FieldManagerConflict", "message": 'conflict with "one"', "field": ".data.k"}
    ]
    answer = await apply(config_map(k="2", edited="2"), "two")
    assert answer.body["message"] == (
        'Apply failed with 2 conflicts: conflicts with "editor" using v1:\n- .data.edited\n'
        'conflicts with "one":\n- .data.k'
    )
    assert (await api.ok("GET", f"{CMS}/a"))["data"] == {"k": "1", "mine": "x", "edited": "1"}


async def test_force_takes_ownership(apply: Any) -> None:
    await apply(config_map(k="1", mine="x"), "one")
    taken = await apply(config_map(k="2"), "two", force=True)
    assert taken.body["data"] == {"k": "2", "mine": "x"}
    assert owners(taken.body) == {
        ("one", "Apply"): {"f:data": {"f:mine": {}}}, ("two", "Apply"): {"f:data": {"f:k": {}}}
    }  # fmt: skip


async def test_fields_no_longer_applied_go_unless_somebody_else_has_them(apply: Any) -> None:
    await apply(config_map(shared="1", alone="1"), "one")
    await apply(config_map(shared="1"), "two")
    left = await apply(config_map(other="1"), "one")
    assert left.body["data"] == {"shared": "1", "other": "1"}
    assert owners(left.body) == {
        ("one", "Apply"): {"f:data": {"f:other": {}}}, ("two", "Apply"): {"f:data": {"f:shared": {}}}
    }  # fmt: skip
    gone = await apply({**config_map(), "data": {"other": "1"}}, "two")
    assert gone.body["data"] == {"other": "1"}


async def test_a_map_that_is_empty_afterwards_goes_too(apply: Any) -> None:
    await apply(config_map(k="1"))
    empty = config_map()
    del empty["data"]
    left = await apply(empty)
    assert "data" not in left.body
    assert "managedFields" not in left.body["metadata"]


async def test_an_update_takes_ownership_from_an_applier(api: Any, apply: Any) -> None:
    await apply(config_map(k="1", j="1"), "one")
    patched = await api.ok("PATCH", f"{CMS}/a?fieldManager=editor", {"data": {"k": "2"}}, kind=MERGE)
    assert owners(patched) == {
        ("one", "Apply"): {"f:data": {"f:j": {}}}, ("editor", "Update"): {"f:data": {"f:k": {}}}
    }  # fmt: skip
    conflict = await apply(config_map(k="1", j="1"), "one")
    assert conflict.status == 409
    assert 'conflict with "editor" using v1: .data.k' in conflict.body["message"]


async def test_list_items_by_keys_with_defaults(apply: Any) -> None:
    service = {
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
        "spec": {"ports": [{"name": "web", "port": 80}], "selector": {"app": "a"}},
    }  # fmt: skip
    await apply(service, "one")
    more = {**service, "spec": {"ports": [{"name": "dns", "port": 53, "protocol": "UDP"}]}}
    both = await apply(more, "two")
    assert both.status == 200, both
    assert [port["name"] for port in both.body["spec"]["ports"]] == ["web", "dns"]
    web, dns = 'k:{"port":80,"protocol":"TCP"}', 'k:{"port":53,"protocol":"UDP"}'
    found = owners(both.body)
    assert found["one", "Apply"]["f:spec"] == {
        "f:ports": {web: {".": {}, "f:name": {}, "f:port": {}}}, "f:selector": {}
    }  # fmt: skip
    assert found["two", "Apply"]["f:spec"] == {
        "f:ports": {dns: {".": {}, "f:name": {}, "f:port": {}, "f:protocol": {}}}
    }  # fmt: skip
    without = await apply({**service, "spec": {"ports": [], "selector": {"app": "a"}}}, "one")
    assert [port["name"] for port in without.body["spec"]["ports"]] == ["dns"]


async def test_status_and_scale_have_owners_of_their_own(api: Any, apply: Any) -> None:
    await apply(deployment(replicas=1))
    status = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "a"}, "status": {"replicas": 1}}
    applied = await apply(status, "controller", where="/status")
    assert applied.status == 200, applied
    assert applied.body["status"] == {"replicas": 1}
    assert owners(applied.body)["controller", "Apply/status"] == {"f:status": {"f:replicas": {}}}
    ignored = await apply({**status, "status": {"replicas": 5}}, "other")
    assert ignored.body["status"] == {"replicas": 1}
    assert ("other", "Apply") not in owners(ignored.body)
    scale = await api.ok("PATCH", f"{DEPLOYMENTS}/a/scale?fieldManager=hpa", {"spec": {"replicas": 4}}, kind=MERGE)
    assert scale["spec"]["replicas"] == 4
    after = owners(await api.ok("GET", f"{DEPLOYMENTS}/a"))
    assert after["hpa", "Update/scale"] == {"f:spec": {"f:replicas": {}}}
    assert "f:replicas" not in after["me", "Apply"]["f:spec"]
    conflict = await apply(deployment(replicas=1))
    assert 'conflict with "hpa" with subresource "scale" using apps/v1: .spec.replicas' in conflict.body["message"]
    wanted = {"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "a"}, "spec": {"replicas": 5}}
    answer = await api("PATCH", f"{DEPLOYMENTS}/a/scale?fieldManager=x", wanted, kind=APPLY)
    assert answer.status == 409
    await api.ok("PATCH", f"{DEPLOYMENTS}/a/scale?fieldManager=x&force=true", wanted, kind=APPLY)
    after = await api.ok("GET", f"{DEPLOYMENTS}/a")
    assert after["spec"]["replicas"] == 5
    assert owners(after)["x", "Apply/scale"] == {"f:spec": {"f:replicas": {}}}
    assert ("hpa", "Update/scale") not in owners(after)


async def test_heartbeats_only_touch_their_own_entry(api: Any) -> None:
    agent = {"User-Agent": "kubelet/v1"}
    ready = {"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-11-21T00:00:00Z"}
    node = {"metadata": {"name": "n", "labels": {"a": "b"}}, "status": {"conditions": [ready]}}
    await api.ok("POST", "/api/v1/nodes", node, headers=agent)
    first = await api.ok("PATCH", "/api/v1/nodes/n/status", {"status": {"conditions": [
        {**ready, "lastHeartbeatTime": "2026-11-21T00:00:10Z"}]}}, kind=STRATEGIC, headers=agent)  # fmt: skip
    assert owners(first)["kubelet", "Update/status"] == {
        "f:status": {"f:conditions": {'k:{"type":"Ready"}': {"f:lastHeartbeatTime": {}}}}
    }  # fmt: skip
    second = await api.ok("PATCH", "/api/v1/nodes/n/status", {"status": {"conditions": [
        {**ready, "lastHeartbeatTime": "2026-11-21T00:00:20Z"}]}}, kind=STRATEGIC, headers=agent)  # fmt: skip
    assert owners(second) == owners(first)


async def test_what_changes_nothing_writes_nothing(api: Any, apply: Any) -> None:
    first = (await apply(config_map(k="1"))).body
    assert (await api.ok("PATCH", f"{CMS}/a?fieldManager=x", {"data": {"k": "1"}}, kind=MERGE)) == first
    assert (await api.ok("PUT", f"{CMS}/a?fieldManager=x", first)) == first
    without = {**first, "metadata": {k: v for k, v in first["metadata"].items() if k != "managedFields"}}
    assert (await api.ok("PUT", f"{CMS}/a?fieldManager=x", without)) == first


@pytest.mark.parametrize("reset", [[], [{}]])
async def test_owners_can_be_forgotten_and_are_then_not_kept(api: Any, apply: Any, reset: Any) -> None:
    first = (await apply(config_map(k="1"), "one")).body
    plain = await api.ok("PUT", f"{CMS}/a", {**first, "metadata": {**first["metadata"], "managedFields": reset}})
    assert "managedFields" not in plain["metadata"]
    patched = await api.ok("PATCH", f"{CMS}/a", {"data": {"j": "1"}}, kind=MERGE)
    assert "managedFields" not in patched["metadata"]
    conflict = await apply(config_map(k="2"), "two")
    assert conflict.body["message"] == (
        'Apply failed with 1 conflict: conflict with "before-first-apply" using v1: .data.k'
    )
    taken = await apply(config_map(k="2"), "two", force=True)
    assert owners(taken.body) == {
        ("two", "Apply"): {"f:data": {"f:k": {}}},
        ("before-first-apply", "Update"): {"f:data": {".": {}, "f:j": {}}},
    }


async def test_nonsense_from_clients_leaves_the_owners(api: Any, apply: Any) -> None:
    first = (await apply(config_map(k="1"), "one")).body
    for bad in (
        [{"manager": "x", "operation": "Steal", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:a": {}}}],
        [{"manager": "x", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"q:a": {}}}],
        [{"manager": "x", "operation": "Apply", "apiVersion": "v1", "fieldsV1": {"f:a": {}}}],
    ):
        sent = {**first, "metadata": {**first["metadata"], "managedFields": bad}, "data": {"k": "1", "j": "1"}}
        del sent["metadata"]["resourceVersion"]
        got = await api.ok("PUT", f"{CMS}/a?fieldManager=two", sent)
        assert owners(got)["one", "Apply"] == {"f:data": {"f:k": {}}}
        assert ("x", "Apply") not in owners(got)


async def test_apply_is_refused(api: Any, apply: Any) -> None:
    answer = await api("PATCH", f"{CMS}/a", config_map(k="1"), kind=APPLY)
    assert (answer.status, answer.body["message"]) == (
        422, 'PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch'
    )  # fmt: skip
    answer = await api("PATCH", f"{CMS}/a?force=true", {"data": {}}, kind=MERGE)
    assert (answer.status, answer.body["details"]["causes"][0]["field"]) == (422, "force")
    answer = await api("PATCH", f"{CMS}/a?fieldManager={'x' * 129}", config_map(), kind=APPLY)
    assert answer.status == 422
    answer = await apply({**config_map(), "metadata": {"name": "a", "managedFields": []}})
    assert (answer.status, answer.body["message"]) == (400, "metadata.managedFields must be nil")
    answer = await apply(deployment(replica=1))
    assert answer.status == 500
    assert answer.body["message"] == (
        "failed to create typed patch object (/a; apps/v1, Kind=Deployment): "
        ".spec.replica: field not declared in schema"
    )
    twice = deployment()
    twice["spec"]["template"]["spec"]["containers"] *= 2
    answer = await apply(twice)
    assert '.spec.template.spec.containers: duplicate entries for key [name="c"]' in answer.body["message"]
    answer = await api("PATCH", f"{CMS}/b?fieldManager=x", config_map(), kind=APPLY)
    assert answer.status == 400
    for path in (f"{CMS}/a", f"{CMS}/b", f"{DEPLOYMENTS}/a"):
        assert (await api("GET", path)).status == 404


async def test_kubectl_takes_over_what_it_applied_on_the_client_side(api: Any, apply: Any) -> None:
    note = "kubectl.kubernetes.io/last-applied-configuration"
    said = '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":{"k":"1"}}'
    body = {"metadata": {"name": "a", "annotations": {note: said}}, "data": {"k": "1"}}
    await api.ok("POST", f"{CMS}?fieldManager=kubectl-client-side-apply", body)
    answer = await apply(config_map(k="2"), "somebody")
    assert answer.status == 409
    answer = await apply(config_map(k="2"), "kubectl")
    assert answer.status == 200
    assert answer.body["data"] == {"k": "2"}
    assert '"k":"2"' in answer.body["metadata"]["annotations"][note]
    await api.ok("PATCH", f"{CMS}/a?fieldManager=editor", {"data": {"k": "3"}}, kind=MERGE)
    assert (await apply(config_map(k="4"), "kubectl")).status == 409


async def test_at_most_ten_updaters(api: Any) -> None:
    await api.ok("POST", f"{CMS}?fieldManager=first", config_map(k="0"))
    for n in range(14):
        last = await api.ok("PATCH", f"{CMS}/a?fieldManager=m{n}", {"data": {f"k{n}": "1"}}, kind=MERGE)
    found = owners(last)
    assert len(found) == 10
    assert ("ancient-changes", "Update") in found
    every = {field for fields in found.values() for field in fields["f:data"]}
    assert every == {".", "f:k", *(f"f:k{n}" for n in range(14))}


async def test_versions_of_one_kind_are_compared_in_their_own_shape(api: Any) -> None:
    path = "/apis/autoscaling/{}/namespaces/default/horizontalpodautoscalers"
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "a"}
    metric = {
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}},
    }
    body = {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"},
            "spec": {"scaleTargetRef": target, "maxReplicas": 3, "metrics": [metric]}}  # fmt: skip
    await api.ok("PATCH", path.format("v2") + "/h?fieldManager=new", body, kind=APPLY)
    changed = await api.ok(
        "PATCH", path.format("v1") + "/h?fieldManager=old", {"spec": {"targetCPUUtilizationPercentage": 60}}, kind=MERGE
    )
    found = owners(changed)
    assert found["old", "Update"] == {"f:spec": {"f:targetCPUUtilizationPercentage": {}}}
    assert found["new", "Apply"] == {
        "f:spec": {"f:maxReplicas": {}, "f:scaleTargetRef": {"f:apiVersion": {}, "f:kind": {}, "f:name": {}}}
    }


async def test_dry_run_of_an_apply_leaves_nothing(api: Any) -> None:
    made = await api("PATCH", f"{CMS}/a?fieldManager=x&dryRun=All", config_map(k="1"), kind=APPLY)
    assert made.status == 201
    assert owners(made.body)["x", "Apply"] == {"f:data": {"f:k": {}}}
    assert (await api("GET", f"{CMS}/a")).status == 404


async def test_a_json_patch_can_change_single_owners(api: Any, apply: Any) -> None:
    await apply(config_map(k="1"), "one")
    rename = [
        {"op": "test", "path": "/metadata/managedFields/0/manager", "value": "one"},
        {"op": "replace", "path": "/metadata/managedFields/0/manager", "value": "renamed"},
    ]
    got = await api.ok("PATCH", f"{CMS}/a?fieldManager=x", rename, kind="application/json-patch+json")
    assert owners(got) == {("renamed", "Apply"): {"f:data": {"f:k": {}}}}
    copied = [{"op": "copy", "from": "/metadata", "path": "/metadata"}]
    assert owners(await api.ok("PATCH", f"{CMS}/a", copied, kind="application/json-patch+json")) == owners(got)


async def test_owners_look_the_same_in_every_form(api: Any, apply: Any) -> None:
    made = (await apply(config_map(k="1"), "one")).body
    wanted = made["metadata"]["managedFields"]
    partial = {"Accept": "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"}
    assert (await api.ok("GET", f"{CMS}/a", headers=partial))["metadata"]["managedFields"] == wanted
    table = {"Accept": "application/json;as=Table;g=meta.k8s.io;v=v1"}
    rows = (await api.ok("GET", f"{CMS}/a?includeObject=Object", headers=table))["rows"]
    assert rows[0]["object"]["metadata"]["managedFields"] == wanted
    assert (await api.ok("GET", CMS))["items"][-1]["metadata"]["managedFields"] == wanted
    binary = await api.raw("GET", f"{CMS}/a", headers={"Accept": "application/vnd.kubernetes.protobuf"})
    assert b'{"f:data":{"f:k":{}}}' in binary.body
    answer = await api.raw("GET", f"{CMS}/a", headers={"Accept": "application/yaml"})
    assert b"manager: one" in answer.body


async def test_a_put_of_what_was_got_changes_no_owner(api: Any, apply: Any) -> None:
    first = (await apply(config_map(k="1"), "one")).body
    sent = {**first, "data": {**first["data"], "j": "1"}}
    got = await api.ok("PUT", f"{CMS}/a?fieldManager=two", sent)
    assert owners(got) == {("one", "Apply"): {"f:data": {"f:k": {}}}, ("two", "Update"): {"f:data": {"f:j": {}}}}
    turned = {**got, "metadata": {**got["metadata"], "managedFields": [
        dict(reversed(entry.items())) for entry in reversed(got["metadata"]["managedFields"])]}}  # fmt: skip
    assert await api.ok("PUT", f"{CMS}/a?fieldManager=three", turned) == got


async def test_a_created_object_may_bring_its_owners(api: Any) -> None:
    entry = {"manager": "old", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1",
             "time": "2020-01-01T00:00:00Z", "fieldsV1": {"f:data": {"f:k": {}, "f:gone": {}}}}  # fmt: skip
    body = {"metadata": {"name": "a", "managedFields": [entry]}, "data": {"k": "1"}}
    made = await api.ok("POST", f"{CMS}?fieldManager=backup", body)
    assert owners(made)["backup", "Update"] == {"f:data": {".": {}, "f:k": {}}}
    assert owners(made)["old", "Apply"] == {"f:data": {"f:gone": {}}}
