"""Versions of custom objects that only a webhook can convert: `hostPort: "a:1"` is `host: a, port: 1` in v2."""

import time
from collections.abc import Callable
from typing import Any

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


def until(condition: Callable[[], Any], seconds: float = 10) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "condition never came true"
        time.sleep(0.02)
    return found


def convert(request: Any) -> Any:
    made = []
    for obj in request["objects"]:
        spec = dict(obj.get("spec") or {})
        if request["desiredAPIVersion"].endswith("/v2") and "hostPort" in spec:
            host, _, port = spec.pop("hostPort").partition(":")
            spec |= {"host": host, "port": port}
        elif request["desiredAPIVersion"].endswith("/v1") and "host" in spec:
            spec["hostPort"] = f"{spec.pop('host')}:{spec.pop('port')}"
        made.append({**obj, "apiVersion": request["desiredAPIVersion"], "spec": spec})
    return {"result": {"status": "Success"}, "convertedObjects": made}


def definition(group: str, client: Any) -> Any:
    def version(name: str, *fields: str, storage: bool = False) -> Any:
        spec = {"type": "object", "properties": {field: {"type": "string"} for field in fields}}
        schema = {"type": "object", "properties": {"spec": spec}}
        return {"name": name, "served": True, "storage": storage, "schema": {"openAPIV3Schema": schema}}

    conversion = {"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"], "clientConfig": client}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": f"hosts.{group}"},
        "spec": {"group": group, "scope": "Namespaced", "names": {"plural": "hosts", "kind": "Host"},
                 "conversion": conversion,
                 "versions": [version("v1", "hostPort", storage=True), version("v2", "host", "port")]},
    }  # fmt: skip


def test_a_webhook_converts(admin: Any, hook: Any, ns: str) -> None:
    hook.answer = convert
    group = "convert.example.com"
    admin.ok("POST", CRDS, definition(group, hook.client))
    v1, v2 = (f"/apis/{group}/{version}/namespaces/{ns}/hosts" for version in ("v1", "v2"))
    one = {"apiVersion": f"{group}/v1", "kind": "Host", "metadata": {"name": "one"}, "spec": {"hostPort": "a:1"}}
    assert admin.ok("POST", v1, one)["spec"] == {"hostPort": "a:1"}
    assert admin.ok("GET", f"{v2}/one")["spec"] == {"host": "a", "port": "1"}
    asked = len(hook.seen)
    assert admin.ok("GET", v2)["items"][0]["spec"] == {"host": "a", "port": "1"}
    assert len(hook.seen) == asked  # it is known by now
    with admin.watch(f"{v2}?watch=1") as watch:
        assert watch.next()["object"]["spec"] == {"host": "a", "port": "1"}
        two = {
            "apiVersion": f"{group}/v2",
            "kind": "Host",
            "metadata": {"name": "two"},
            "spec": {"host": "b", "port": "2"},
        }
        made = admin.ok("POST", v2, two)
        assert (made["spec"], made["apiVersion"]) == (two["spec"], f"{group}/v2")
        seen = watch.next()
        assert (seen["type"], seen["object"]["spec"]) == ("ADDED", {"host": "b", "port": "2"})
        assert seen["object"]["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"]
        admin.ok("PATCH", f"{v1}/two", {"spec": {"hostPort": "c:3"}}, kind="application/merge-patch+json")
        assert watch.next()["object"]["spec"] == {"host": "c", "port": "3"}
        admin.ok("DELETE", f"{v2}/two")
        gone = watch.next()
        assert (gone["type"], gone["object"]["spec"]) == ("DELETED", {"host": "c", "port": "3"})
    patched = admin.ok("PATCH", f"{v2}/one", {"spec": {"port": "9"}}, kind="application/merge-patch+json")
    assert patched["spec"] == {"host": "a", "port": "9"}
    assert admin.ok("GET", f"{v1}/one")["spec"] == {"hostPort": "a:9"}
    assert admin.ok("PATCH", f"{v2}/one?dryRun=All", {"spec": {"port": "8"}}, kind="application/merge-patch+json")[
        "spec"] == {"host": "a", "port": "8"}  # fmt: skip


def test_a_webhook_that_fails(admin: Any, hook: Any, ns: str) -> None:
    hook.answer = lambda request: {"result": {"status": "Failed", "message": "no way"}, "convertedObjects": []}
    group = "fails.example.com"
    admin.ok("POST", CRDS, definition(group, hook.client))
    v1, v2 = (f"/apis/{group}/{version}/namespaces/{ns}/hosts" for version in ("v1", "v2"))
    one = {"apiVersion": f"{group}/v1", "kind": "Host", "metadata": {"name": "one"}, "spec": {"hostPort": "a:1"}}
    admin.ok("POST", v1, one)
    failed = admin("GET", f"{v2}/one")
    assert (failed.status, failed.json["message"]) == (
        500, f"Internal error occurred: conversion webhook for {group}/v2, Kind=Host failed: no way"
    )  # fmt: skip
    with admin.watch(f"{v2}?watch=1") as watch:
        assert watch.next()["type"] == "ERROR"
    hook.answer = convert
    assert admin.ok("GET", f"{v2}/one")["spec"] == {"host": "a", "port": "1"}


def test_conversions_after_a_restart(fresh_server: Callable[..., Any], hook: Any) -> None:
    hook.answer = convert
    group = "restart.example.com"
    server = fresh_server()
    admin = server.connect()
    admin.ok("POST", CRDS, definition(group, hook.client))
    v1, v2 = (f"/apis/{group}/{version}/namespaces/default/hosts" for version in ("v1", "v2"))
    for name in ("one", "two", "three"):
        admin.ok("POST", v1, {"apiVersion": f"{group}/v1", "kind": "Host", "metadata": {"name": name},
                              "spec": {"hostPort": f"{name}:1"}})  # fmt: skip
    revision = admin.ok("GET", v1)["metadata"]["resourceVersion"]
    server.kill()
    server.start()
    admin = server.connect()
    hook.seen.clear()
    assert [each["spec"]["host"] for each in admin.ok("GET", v2)["items"]] == ["one", "three", "two"]
    assert len(hook.seen) == 1  # all of them in one request
    with admin.watch(f"{v2}?watch=1&resourceVersion={int(revision) - 2}") as watch:
        assert [watch.next()["object"]["spec"]["host"] for _ in range(2)] == ["two", "three"]
