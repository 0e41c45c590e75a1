"""Forms of answers, expiry of events."""

import gzip
import json
from typing import Any

import yaml

from controlplane.apiserver.expiry import EventExpiry

CMS = "/api/v1/namespaces/default/configmaps"


async def test_yaml_and_pretty(api: Any) -> None:
    await api.ok("POST", CMS, {"metadata": {"name": "a"}, "data": {"k": "v"}})
    response = await api.raw("GET", f"{CMS}/a", headers={"Accept": "application/yaml"})
    assert response.content_type == "application/yaml"
    assert yaml.safe_load(response.body)["data"] == {"k": "v"}
    response = await api.raw("GET", f"{CMS}/a?pretty=true")
    assert b'\n  "kind": "ConfigMap"' in response.body
    missing = await api.raw("GET", f"{CMS}/none", headers={"Accept": "application/yaml"})
    assert yaml.safe_load(missing.body)["code"] == 404


async def test_large_answers_are_compressed_for_who_asks(api: Any) -> None:
    for i in range(100):
        await api.ok("POST", CMS, {"metadata": {"name": f"c{i}"}, "data": {"k": "x" * 4000}})
    plain = await api.raw("GET", CMS)
    squeezed = await api.raw("GET", CMS, headers={"Accept-Encoding": "gzip"})
    assert squeezed.headers["Content-Encoding"] == "gzip"
    body = b"".join([piece async for piece in squeezed.stream])
    assert len(body) < len(plain.body) / 10
    assert gzip.decompress(body) == plain.body
    assert len(json.loads(plain.body)["items"]) == 100
    small = await api.raw("GET", f"{CMS}/c1", headers={"Accept-Encoding": "gzip"})
    assert small.stream is None


async def test_events_expire_unless_they_are_written_again(api: Any) -> None:
    path = "/api/v1/namespaces/default/events"
    about = {"kind": "Pod", "namespace": "default", "name": "p"}
    for name in ("kept", "old"):
        await api.ok(
            "POST", path, {"metadata": {"name": name}, "involvedObject": about, "reason": "x", "type": "Normal"}
        )
    expiry = EventExpiry(api.server.cache, 3600)
    assert await expiry.sweep(0) == 0
    await api.ok("PATCH", f"{path}/kept", {"count": 2}, kind="application/merge-patch+json")
    assert await expiry.sweep(3000) == 0
    assert await expiry.sweep(3700) == 1
    left = await api.ok("GET", path)
    assert [item["metadata"]["name"] for item in left["items"]] == ["kept"]


async def test_people_get_it_indented(api: Any) -> None:
    await api.ok("POST", CMS, {"metadata": {"name": "a"}})
    for agent in ("curl/7.88.1", "Wget/1.21", "Mozilla/5.0 (X11)"):
        assert b'\n  "kind"' in (await api.raw("GET", f"{CMS}/a", headers={"User-Agent": agent})).body
    plain = await api.raw("GET", f"{CMS}/a?pretty=false", headers={"User-Agent": "curl/7.88.1"})
    assert b"\n" not in plain.body
    asked = await api.raw("GET", f"{CMS}/a", headers={"Accept": "application/json;pretty=1"})
    assert b'\n  "kind"' in asked.body
    many = await api.raw("GET", CMS, headers={"Accept": "application/yaml", "User-Agent": "curl/7.88.1"})
    assert yaml.safe_load(many.body)["items"][0]["metadata"]["name"] == "a"


async def test_what_is_on_its_way_out_says_so(api: Any) -> None:
    text = '299 - "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"'
    for target in ("endpoints", "endpoints/kubernetes", "endpoints?watch=1"):
        response = await api.raw("GET", f"/api/v1/namespaces/default/{target}")
        assert response.headers["Warning"] == text
    assert "Warning" not in ((await api.raw("GET", CMS)).headers or {})
    told = (await api.raw("GET", "/metrics")).body.decode()
    assert 'apiserver_requested_deprecated_apis{group="",version="v1",resource="endpoints"' in told


async def test_what_is_not_wise_is_told_on_every_way_to_write_it(api: Any) -> None:
    path = "/apis/apps/v1/namespaces/default/deployments"
    template = {
        "metadata": {"labels": {"a": "b"}},
        "spec": {"nodeSelector": {"beta.kubernetes.io/os": "x"}, "containers": [{"name": "c", "image": "i"}]},
    }
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": template}  # fmt: skip
    body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": spec}
    merge, apply = "application/merge-patch+json", "application/apply-patch+yaml"
    ways = [
        await api("POST", path, body), await api("PUT", f"{path}/d", body),
        await api("PATCH", f"{path}/d", {"metadata": {"labels": {"x": "y"}}}, kind=merge),
        await api("PATCH", f"{path}/d?fieldManager=m&force=true", body, kind=apply),
    ]  # fmt: skip
    for answer in ways:
        assert answer.status in (200, 201), answer
        assert "beta.kubernetes.io/os" in answer.headers["Warning"]


async def test_the_old_way_to_watch(api: Any) -> None:
    await api.ok("POST", CMS, {"metadata": {"name": "a"}})
    for path in ("/api/v1/watch/namespaces/default/configmaps/a", "/api/v1/watch/namespaces/default/configmaps"):
        response = await api.raw("GET", path)
        async for line in response.stream:
            assert b'"type":"ADDED"' in line
            break
        await response.stream.aclose()


async def test_custom_versions_on_their_way_out(api: Any) -> None:
    schema = {"openAPIV3Schema": {"type": "object"}}
    names = {"plural": "lamps", "singular": "lamp", "kind": "Lamp", "listKind": "LampList"}
    versions = [
        {"name": "v1", "served": True, "storage": True, "schema": schema},
        {"name": "v1beta1", "served": True, "storage": False, "schema": schema, "deprecated": True},
        {"name": "v1alpha1", "served": True, "storage": False, "schema": schema, "deprecated": True,
         "deprecationWarning": "use v1, really"},
    ]  # fmt: skip
    spec = {"group": "example.com", "scope": "Cluster", "names": names, "versions": versions}
    definition = {"metadata": {"name": "lamps.example.com"}, "spec": spec}
    await api.ok("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
    told = {}
    for version in ("v1", "v1beta1", "v1alpha1"):
        answer = await api("GET", f"/apis/example.com/{version}/lamps")
        told[version] = answer.headers.get("Warning")
    assert told == {
        "v1": None,
        "v1beta1": '299 - "example.com/v1beta1 Lamp is deprecated"',
        "v1alpha1": '299 - "use v1, really"',
    }
    protobuf = "application/vnd.kubernetes.protobuf"
    assert (await api("GET", "/apis/example.com/v1/lamps", headers={"Accept": protobuf})).status == 406
    response = await api.raw("GET", "/apis/example.com/v1/lamps", headers={"Accept": f"{protobuf},application/json"})
    assert (response.status, response.content_type) == (200, "application/json")
    partial = f"{protobuf};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
    response = await api.raw("GET", "/apis/example.com/v1/lamps", headers={"Accept": partial})
    assert (response.status, response.content_type) == (200, protobuf)


async def test_warnings_fit_into_headers(api: Any) -> None:
    """Field names come from outside: neither line ends nor 10,000 of them may break the answer."""
    odd = {"metadata": {"name": "odd"}, "a\r\nSet-Cookie: x": 1, 'tab\t\x7f\x85"': 2}
    told = (await api.raw("POST", CMS, body=json.dumps(odd).encode())).headers.getall("Warning")
    assert told == [
        r'299 - "unknown field \"a\\r\\nSet-Cookie: x\""',
        r'299 - "unknown field \"tab\\t\\x7f\\u0085\\\"\""',
    ]
    many = {"metadata": {"name": "many"}, **{f"{i}{'x' * 500}": 1 for i in range(1000)}}
    told = (await api.raw("POST", CMS, body=json.dumps(many).encode())).headers.getall("Warning")
    assert len(told) == 16 and max(map(len, told)) < 270
