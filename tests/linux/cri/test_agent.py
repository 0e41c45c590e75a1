"""The whole agent with containerd in place of our runtime: a pod's way from the API server's word to its end."""

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from controlplane.client.fake import FakeAPI
from controlplane.client.resources import PODS
from nodeagent.agent import Agent
from nodeagent.config import Config
from nodeagent.cri.client import Client
from nodeagent.cri.foreign import Parts, connect
from nodeagent.cri.grpc.client import Channel
from nodeagent.cri.podgroups import PodGroups
from nodeagent.cri.runtime import CriRuntime
from nodeagent.pods.volumes import places
from tests.linux import containerd
from tests.linux.cri.conftest import GROUP, SUBNET

pytestmark = pytest.mark.root
KUBECONFIG = """
apiVersion: v1
kind: Config
clusters: [{name: a, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: a, user: {}}]
contexts: [{name: a, context: {cluster: a, user: a}}]
current-context: a
"""


@dataclass
class Node:
    api: FakeAPI
    agent: Agent
    parts: Parts

    def pod(self, name: str, container: dict[str, Any], **spec: Any) -> None:
        base = {"name": "app", "image": "busybox", "imagePullPolicy": "IfNotPresent"}
        self.api.put(
            {
                "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
                "spec": {
                    "nodeName": "node-cri", "terminationGracePeriodSeconds": 1, "containers": [{**base, **container}],
                    **spec,
                },
            }
        )  # fmt: skip

    def status(self, name: str) -> dict[str, Any]:
        return (self.api.get("pods", name, "default") or {}).get("status") or {}

    def container(self, name: str) -> dict[str, Any]:
        return (self.status(name).get("containerStatuses") or [{}])[0]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.fixture
async def node(daemon: containerd.Containerd, tmp_path: Path) -> AsyncIterator[Node]:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(KUBECONFIG)
    root = tmp_path / "node"
    config = Config(
        kubeconfig=str(kubeconfig), node_name="node-cri", node_ip="127.0.0.1", root_dir=str(root), address="127.0.0.1",
        port=0, log_dir=str(tmp_path / "logs"), tls_cert_file="", tls_private_key_file="", image_preload_dir="",
        static_pod_path="", cgroup_root=GROUP, rotate_certificates=False,
    )  # fmt: skip
    (daemon.cni / "05-theirs.conflist").write_text(next(daemon.cni.glob("10-*")).read_text())
    parts = connect(
        f"unix://{daemon.socket}", cgroup_root=GROUP, root_dir=str(root), cluster_cidr="10.213.0.0/16",
        cni_conf_dir=str(daemon.cni),
    )  # fmt: skip
    api, ready = FakeAPI(), asyncio.Event()
    agent = Agent(config, api.client(), parts.runtime, parts.images, parts.network)
    task = asyncio.create_task(agent.run(ready.set))
    try:
        async with asyncio.timeout(20):
            await ready.wait()
        await until(lambda: api.get("nodes", "node-cri"))
        api.put({**(api.get("nodes", "node-cri") or {}), "spec": {"podCIDR": SUBNET}})
        yield Node(api, agent, parts)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        left = CriRuntime(Client(Channel(str(daemon.socket))))  # the agent, had it lived, would make them again
        for sandbox in await left.sandboxes():
            await left.remove_sandbox(sandbox.id)
        await left.close()
        (daemon.cni / "05-theirs.conflist").unlink()
        places.unmount(str(root / "memory"))
        PodGroups("").remove(GROUP)


async def test_a_pods_life(node: Node, tmp_path: Path) -> None:
    seen = node.api.get("nodes", "node-cri")
    assert seen is not None and seen["status"]["nodeInfo"]["containerRuntimeVersion"].startswith("containerd://1.")
    node.pod(
        "web",
        {
            "command": ["sh", "-c", "echo $GREETING; cat /etc/hosts; exec sleep 1000"],
            "env": [{"name": "GREETING", "value": "hello"}],
            "readinessProbe": {"exec": {"command": ["true"]}, "periodSeconds": 1},
            "volumeMounts": [{"name": "data", "mountPath": "/data"}],
            "resources": {"limits": {"memory": "32Mi"}},
        },
        volumes=[{"name": "data", "emptyDir": {}}],
    )
    await until(lambda: node.container("web").get("ready"))
    status = node.status("web")
    assert status["phase"] == "Running" and ipaddress.ip_address(status["podIP"]) in ipaddress.ip_network(SUBNET)
    [container] = await node.parts.runtime.containers()
    assert node.container("web")["containerID"].endswith(container.id)
    log = Path(container.log_path)
    await until(lambda: log.exists() and status["podIP"] in log.read_text())
    assert " stdout F hello\n" in log.read_text()
    await node.api.client().delete(PODS, "web", "default")
    async with asyncio.timeout(20):
        while await node.parts.runtime.sandboxes():  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    await until(lambda: not list((tmp_path / "node" / "pods").glob("*/volumes/*")))


async def test_ends_and_failures_are_told(node: Node) -> None:
    node.pod("done", {"command": ["sh", "-c", "echo last words > /dev/termination-log; exit 3"]}, restartPolicy="Never")
    node.pod("broken", {"command": ["/bin/missing"]})
    node.pod("unnamed", {"image": "127.0.0.1:1/none:1"})
    await until(lambda: node.status("done").get("phase") == "Failed")
    ended = node.container("done")["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"], ended["message"]) == (3, "Error", "last words\n")
    await until(lambda: "no such file" in str(node.container("broken")))
    await until(lambda: "refused" in str(node.container("unnamed").get("state")))
    assert node.container("unnamed")["state"]["waiting"]["reason"] in ("ErrImagePull", "ImagePullBackOff")
