"""Static pods: files of a directory, run by the node itself and shown to the API server as mirrors."""

from __future__ import annotations

import logging

import pytest

from nodeagent.pods.static import ManifestError, static_pod
from nodeagent.runtime.interface import ContainerState

NAME = "web-node-1"
PLAIN = {"containers": [{"name": "app", "image": "busybox:1"}]}


def running(world):
    return [c for c in world.runtime.made.values() if c.status.state is ContainerState.RUNNING]


async def test_a_file_becomes_a_pod_with_a_mirror(world) -> None:
    world.manifest()
    await world.until(lambda: world.status(NAME).get("phase") == "Running")
    mirror = world.api.get("pods", NAME, "default")
    assert mirror["metadata"]["annotations"]["kubernetes.io/config.source"] == "file"
    assert mirror["metadata"]["annotations"]["kubernetes.io/config.mirror"]
    assert mirror["metadata"]["ownerReferences"][0]["name"] == "node-1"
    assert mirror["spec"]["nodeName"] == "node-1"
    assert {"operator": "Exists", "effect": "NoExecute"} in mirror["spec"]["tolerations"]
    assert len(running(world)) == 1


async def test_a_deleted_mirror_is_made_again_and_the_pod_is_not_touched(world) -> None:
    world.manifest()
    await world.until(lambda: world.status(NAME).get("phase") == "Running")
    first = world.uid(NAME)
    await world.delete(NAME, grace=0)
    await world.until(lambda: world.uid(NAME) not in ("", first) and world.status(NAME).get("phase") == "Running")
    assert len(world.runtime.made) == 1


async def test_a_mirror_that_is_asked_to_go_gracefully_is_made_again(world) -> None:
    world.manifest()
    await world.until(lambda: world.status(NAME).get("phase") == "Running")
    first = world.uid(NAME)
    await world.delete(NAME, grace=30)
    await world.until(lambda: world.uid(NAME) not in ("", first) and world.status(NAME).get("phase") == "Running")
    assert len(world.runtime.made) == 1


async def test_a_changed_file_is_another_pod(world) -> None:
    world.manifest()
    await world.until(lambda: world.status(NAME).get("phase") == "Running")
    first = world.uid(NAME)
    world.manifest(terminationGracePeriodSeconds=1)
    await world.until(lambda: world.uid(NAME) not in ("", first) and world.status(NAME).get("phase") == "Running")
    await world.until(lambda: len(running(world)) == 1)
    assert world.api.get("pods", NAME, "default")["spec"]["terminationGracePeriodSeconds"] == 1


async def test_a_removed_file_ends_pod_and_mirror(world) -> None:
    world.manifest()
    await world.until(lambda: world.status(NAME).get("phase") == "Running")
    (world.root / "manifests" / "web.yaml").unlink()
    await world.until(lambda: world.api.get("pods", NAME, "default") is None and not running(world))


async def test_a_restarted_agent_takes_over_pod_and_mirror(world) -> None:
    world.manifest()
    await world.until(lambda: world.status(NAME).get("phase") == "Running")
    uid, before = world.uid(NAME), [c.status.id for c in running(world)]
    await world.kill()
    await world.start()
    await world.until(lambda: world.manager.count == 1)
    await world.until(lambda: world.status(NAME).get("phase") == "Running")
    assert world.uid(NAME) == uid and [c.status.id for c in running(world)] == before


async def test_a_file_removed_while_the_agent_was_away(world) -> None:
    world.manifest()
    await world.until(lambda: world.status(NAME).get("phase") == "Running")
    await world.kill()
    (world.root / "manifests" / "web.yaml").unlink()
    await world.start()
    await world.until(lambda: world.api.get("pods", NAME, "default") is None and not running(world))


async def test_a_bad_file_is_told_once_and_harms_nobody(world, caplog) -> None:
    caplog.set_level(logging.ERROR)
    world.manifest("a.yaml")
    world.manifest("b.yaml", text="kind: Pod\napiVersion: v1\nspec: {containers: 5}\n")
    await world.until(lambda: world.status(NAME).get("phase") == "Running")
    world.manifest("a.yaml", text="not: [yaml")
    await world.until(lambda: "a.yaml" in caplog.text)
    told = len(caplog.records)
    assert len(running(world)) == 1
    world.manifest("c.yaml", terminationGracePeriodSeconds=3)
    await world.until(lambda: "c.yaml" in caplog.text)
    assert "a.yaml has the pod default/web-node-1 already" in caplog.text
    assert len(caplog.records) == told + 1 and len(running(world)) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "0 documents"),
        ("a: 1\n---\nb: 2", "2 documents"),
        ("kind: Deployment\napiVersion: apps/v1", "not a v1 Pod"),
        ("{kind: Pod, apiVersion: v1, metadata: {}}", "metadata.name: Required value"),
        ("{kind: Pod, apiVersion: v1, metadata: {name: x}, spec: {}}", "spec.containers"),
        ("{kind: Pod, apiVersion: v1, metadata: {name: x}, spec: {containers: [{name: a, image: b}], x: 1}}", "spec.x"),
        ("{kind: Pod, apiVersion: v1, metadata: {name: x}, spec: {serviceAccountName: s}}", "ServiceAccounts"),
        (
            "{kind: Pod, apiVersion: v1, metadata: {name: x}, "
            "spec: {volumes: [{name: v, projected: {sources: [{secret: {name: s}}]}}]}}",
            "volume v: secret",
        ),
        ("kind: Pod\napiVersion: v1\nmetadata: 5", "must be objects"),
    ],
)
def test_what_is_no_static_pod(text, message) -> None:
    with pytest.raises(ManifestError, match=message):
        static_pod(text.encode(), "node-1", "/etc/wherry/manifests/x.yaml")


def test_identity_is_of_node_file_and_content() -> None:
    data = b"{kind: Pod, apiVersion: v1, metadata: {name: x}, spec: {containers: [{name: a, image: b}]}}"
    uids = [
        static_pod(d, node, path)["metadata"]["uid"]
        for d, node, path in ((data, "n1", "/a"), (data, "n1", "/b"), (data, "n2", "/a"), (data + b" ", "n1", "/a"))
    ]
    assert len(set(uids)) == 4 and uids[0] == static_pod(data, "n1", "/a")["metadata"]["uid"]
