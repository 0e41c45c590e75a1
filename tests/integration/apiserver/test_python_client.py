"""The official Python client: typed reads, and watches with its own reconnecting."""

import json
import warnings
from typing import Any

import pytest


@pytest.fixture
def core(server: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own deprecations
        client = pytest.importorskip("kubernetes.client")
        from kubernetes import config
    with config.new_client_from_config(str(server.kubeconfig)) as api:
        yield client.CoreV1Api(api)


def test_watch_and_resume(core: Any, admin: Any, ns: str) -> None:
    from kubernetes import watch

    cms = f"/api/v1/namespaces/{ns}/configmaps"
    admin.ok("POST", cms, {"metadata": {"name": "a"}})
    listed = core.list_namespaced_config_map(ns)
    assert [item.metadata.name for item in listed.items] == ["a"]
    for name in ("b", "c"):
        admin.ok("POST", cms, {"metadata": {"name": name}})
    watcher = watch.Watch()
    seen = []
    version = listed.metadata.resource_version
    for event in watcher.stream(core.list_namespaced_config_map, ns, resource_version=version, timeout_seconds=5):
        seen.append((event["type"], event["object"].metadata.name))
        if len(seen) == 2:
            watcher.stop()
    assert seen == [("ADDED", "b"), ("ADDED", "c")]


def test_errors_are_statuses(core: Any, ns: str) -> None:
    from kubernetes.client import ApiException, V1ConfigMap, V1ObjectMeta

    with pytest.raises(ApiException) as missing:
        core.read_namespaced_config_map("none", ns)
    assert missing.value.status == 404 and json.loads(missing.value.body)["reason"] == "NotFound"
    core.create_namespaced_config_map(ns, V1ConfigMap(metadata=V1ObjectMeta(name="x"), data={"a": "b"}))
    core.patch_namespaced_config_map("x", ns, {"data": {"c": "d"}})
    assert core.read_namespaced_config_map("x", ns).data == {"a": "b", "c": "d"}
    core.delete_namespaced_config_map("x", ns)
