"""What the server says of itself: checks, version, metrics that Prometheus' own client reads, the issuer's keys."""

import json
from typing import Any

import jwt
import pytest
from prometheus_client.parser import text_string_to_metric_families

from controlplane import clock

CMS = "/api/v1/namespaces/default/configmaps"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


async def text(api: Any, path: str, status: int = 200) -> str:
    response = await api.raw("GET", path)
    assert response.status == status
    assert response.content_type.startswith("text/plain")
    return str(response.body.decode())


async def metrics(api: Any, path: str = "/metrics") -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for family in text_string_to_metric_families(await text(api, path)):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample)
    return found


async def test_all_is_well(api: Any) -> None:
    for endpoint in ("healthz", "livez", "readyz"):
        assert await text(api, f"/{endpoint}") == "ok"
        lines = (await text(api, f"/{endpoint}?verbose")).splitlines()
        assert lines[:3] == ["[+]ping ok", "[+]log ok", "[+]etcd ok"]
        assert lines[-1] == f"{endpoint} check passed"
        assert ("[+]shutdown ok" in lines) is (endpoint == "readyz")
        assert await text(api, f"/{endpoint}/etcd") == "ok"
    assert await text(api, "/livez/poststarthook/rbac/bootstrap-roles") == "ok"
    assert await text(api, "/livez/none", 404) == "404 page not found\n"


async def test_something_is_wrong(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.server.cache, "_failure", "disk on fire")
    told = await text(api, "/livez", 500)
    assert "[-]etcd failed: reason withheld\n" in told
    assert told.endswith("livez check failed\n")
    assert await text(api, "/livez?exclude=etcd") == "ok"
    verbose = await text(api, "/livez?exclude=etcd&exclude=none&verbose")
    assert "[+]etcd excluded: ok" in verbose
    assert 'warn: some health checks cannot be excluded: no matches for "none"' in verbose
    assert await text(api, "/livez/etcd", 500) == "internal server error: disk on fire\n"
    indicators = await metrics(api, "/metrics/slis")
    now = {(s.labels["name"], s.labels["type"]): s.value for s in indicators["kubernetes_healthcheck"]}
    assert now["etcd", "livez"] == 0
    assert now["ping", "readyz"] == 1
    counted = {tuple(s.labels.values()): s.value for s in indicators["kubernetes_healthchecks_total"]}
    assert counted["etcd", "livez", "error"] == 2


async def test_readiness_ends_with_the_server(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api.server, "_stopping", True)
    assert "[-]shutdown failed" in await text(api, "/readyz", 500)
    assert await text(api, "/livez") == "ok"


async def test_requests_are_counted_as_kubernetes_does(api: Any) -> None:
    await api.ok("POST", CMS, {"metadata": {"name": "a"}})
    await api.ok("POST", f"{CMS}?dryRun=All", {"metadata": {"name": "b"}})
    await api.ok("GET", CMS)
    await api.ok("GET", f"{CMS}/a")
    await api.ok("GET", "/api/v1/configmaps")
    apply = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}}
    await api.ok("PATCH", f"{CMS}/a?fieldManager=m", apply, kind="application/apply-patch+yaml")
    for i in range(3):
        await api("GET", f"/apis/made.up/v1/strange{i}")
        await api("GET", f"/strange{i}")
    await text(api, "/livez")
    found = await metrics(api)
    counted = {
        (s.labels["verb"], s.labels["scope"], s.labels["dry_run"], s.labels["code"]): s.value
        for s in found["apiserver_request_total"]
        if s.labels["resource"] == "configmaps"
    }
    assert counted == {
        ("POST", "resource", "", "201"): 1,
        ("POST", "resource", "All", "201"): 1,
        ("LIST", "namespace", "", "200"): 1,
        ("GET", "resource", "", "200"): 1,
        ("LIST", "cluster", "", "200"): 1,
        ("APPLY", "resource", "", "200"): 1,
    }
    assert "strange" not in str(found)
    paths = {s.labels["subresource"] for s in found["apiserver_request_total"] if s.labels["verb"] == "GET"}
    assert "/livez" in paths
    durations = {s.labels["verb"]: s.value for s in found["apiserver_request_duration_seconds_count"]
                 if s.labels["resource"] == "configmaps"}  # fmt: skip
    assert durations["APPLY"] == 1
    buckets = [s for s in found["apiserver_request_duration_seconds_bucket"] if s.labels["verb"] == "APPLY"]
    assert [s.labels["le"] for s in buckets][-1] == "+Inf"
    assert found["apiserver_response_sizes_sum"]


async def test_what_is_stored_and_watched(api: Any) -> None:
    for name in ("a", "b"):
        await api.ok("POST", CMS, {"metadata": {"name": name}})
    response = await api.raw("GET", f"{CMS}?watch=1")
    stream = aiter(response.stream)
    lines = (await anext(stream)).splitlines()
    await api.ok("DELETE", f"{CMS}/a")
    assert json.loads(await anext(stream))["type"] == "DELETED"
    found = await metrics(api)
    stored = {s.labels["resource"]: s.value for s in found["apiserver_storage_objects"]}
    assert stored["configmaps"] == len(lines) - 1
    assert stored["events"] == 0 and "events.events.k8s.io" not in stored
    assert stored["clusterroles.rbac.authorization.k8s.io"] > 20
    [watching] = found["apiserver_longrunning_requests"]
    assert (watching.labels["verb"], watching.labels["resource"], watching.value) == ("WATCH", "configmaps", 1)
    [events] = found["apiserver_watch_events_total"]
    assert (events.labels["version"], events.value) == ("v1", len(lines) + 1)
    await response.stream.aclose()
    for name in ("cpu_seconds_total", "resident_memory_bytes", "open_fds", "start_time_seconds"):
        assert found[f"process_{name}"][0].value > 0
    assert found["kubernetes_build_info"][0].labels["git_version"].startswith("v1.")
    assert {s.labels["request_kind"] for s in found["apiserver_current_inflight_requests"]} == {"mutating", "readOnly"}


async def test_the_issuer_can_be_verified_by_others(api: Any) -> None:
    about = await api.ok("GET", "/.well-known/openid-configuration")
    assert about["jwks_uri"].endswith("/openid/v1/jwks")
    response = await api.raw("GET", "/openid/v1/jwks")
    assert response.content_type == "application/jwk-set+json"
    await api.ok("POST", "/api/v1/namespaces/default/serviceaccounts", {"metadata": {"name": "robot"}})
    token = (await api.ok("POST", "/api/v1/namespaces/default/serviceaccounts/robot/token", {"spec": {}}))["status"]
    keys = {key.key_id: key for key in jwt.PyJWKSet.from_json(response.body.decode()).keys}
    kid = jwt.get_unverified_header(token["token"])["kid"]
    claims = jwt.decode(token["token"], keys[kid].key, ["ES256"], audience=about["issuer"], issuer=about["issuer"])
    assert claims["sub"] == "system:serviceaccount:default:robot"


async def test_the_root_lists_paths(api: Any) -> None:
    paths = (await api.ok("GET", "/"))["paths"]
    assert {"/api/v1", "/apis/apps/v1", "/livez/etcd", "/readyz/shutdown", "/openid/v1/jwks"} <= set(paths)


async def test_components(api: Any) -> None:
    now = clock.rfc3339().removesuffix("Z") + ".000000Z"
    lease = {"holderIdentity": "me", "renewTime": now, "leaseDurationSeconds": 60}
    leases = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"
    await api.ok("POST", leases, {"metadata": {"name": "kube-scheduler"}, "spec": lease})
    old = {**lease, "renewTime": "2020-01-01T00:00:00.000000Z"}
    await api.ok("POST", leases, {"metadata": {"name": "kube-controller-manager"}, "spec": old})
    found = (await api.ok("GET", "/api/v1/componentstatuses"))["items"]
    states = {each["metadata"]["name"]: each["conditions"][0]["status"] for each in found}
    assert states == {"controller-manager": "False", "etcd-0": "True", "scheduler": "True"}
    one = await api.ok("GET", "/api/v1/componentstatuses/etcd-0")
    assert one["conditions"] == [{"type": "Healthy", "status": "True", "message": "ok"}]
    assert (await api("GET", "/api/v1/componentstatuses/none")).status == 404
    table = await api.ok("GET", "/api/v1/componentstatuses", headers={"Accept": TABLE})
    assert [row["cells"] for row in table["rows"]][1:] == [["etcd-0", "Healthy", "ok", ""],
                                                           ["scheduler", "Healthy", "ok", ""]]  # fmt: skip
