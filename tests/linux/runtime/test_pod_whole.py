"""From a pod's spec to a real container: the launcher over the real runtime, with users of its own and without."""

from pathlib import Path
from typing import Any

import pytest

from controlplane.client.fake import FakeAPI
from nodeagent.pods.images import Images
from nodeagent.pods.launcher import Launcher
from nodeagent.pods.model import Desired
from nodeagent.pods.node import NodeFacts
from nodeagent.pods.objects import Objects
from nodeagent.pods.services import ServiceVariables
from nodeagent.pods.volumes.manager import Volumes

Node = Any

SCRIPT = """
id -u; id -G; cat /c/key /etc/one; cat /etc/hostname; grep -c web /etc/hosts
echo x > /e/file && echo x > /m/file && echo x > /s/file && echo written
ls -ldn /e /m /s | while read mode links uid gid rest; do echo $gid; done
echo bye > /dev/termination-log
"""


@pytest.mark.parametrize("own_users", [False, True])
async def test_volumes_identity_and_files(node: Node, tmp_path: Path, own_users: bool) -> None:
    api = FakeAPI()
    meta = {"name": "cm", "namespace": "default"}
    api.put({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"key": "value\n"}})
    mounts = [{"name": n, "mountPath": f"/{n}"} for n in ("c", "e", "m")]
    mounts += [
        {"name": "e", "mountPath": "/s", "subPath": "inner/deep"},
        {"name": "c", "mountPath": "/etc/one", "subPath": "key"},
    ]
    container = {
        "name": "app", "image": "busybox", "imagePullPolicy": "Never", "command": ["/bin/sh", "-c", SCRIPT],
        "volumeMounts": mounts,
    }  # fmt: skip
    pod = {
        "metadata": {"name": "web", "namespace": "default", "uid": f"whole-{own_users}".lower()},
        "spec": {
            "containers": [container], "hostUsers": not own_users,
            "securityContext": {"runAsUser": 1234, "runAsGroup": 55, "fsGroup": 4242},
            "volumes": [
                {"name": "c", "configMap": {"name": "cm"}}, {"name": "e", "emptyDir": {}},
                {"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
            ],
        },
    }  # fmt: skip
    facts = NodeFacts("node-1", ["10.0.0.1"], str(tmp_path / "node"), str(tmp_path / "logs"))
    objects = Objects(api.client())

    def tell(*_: object) -> None:
        return None

    images = Images(node.images, objects, tell)
    volumes = Volumes(facts, objects, images)
    services = ServiceVariables(type("None_", (), {"by_index": lambda *_: []})(), {})
    launcher = Launcher(facts, node.runtime, images, objects, volumes, services, tell)
    want = Desired.of(pod)
    try:
        sandbox = await launcher.sandbox(want, 0)
        container_id, _ = await launcher.create(want, want.main[0], 0, sandbox, 0.0)
        await launcher.start(want, want.main[0], container_id)
        status = await node.ended(container_id)
        lines = (await node.log(container_id)).splitlines()
        assert status.exit_code == 0, lines
        assert lines[0] == "1234" and set(lines[1].split()) == {"55", "4242"}
        assert lines[2:8] == ["value", "value", "web", "1", "written", "4242"], lines
        assert lines[8:] == ["4242", "4242"]
        message = status.annotations["io.kubernetes.container.terminationMessagePath"]
        assert Path(message).read_text() == "bye\n"
    finally:
        for sandbox in await node.runtime.sandboxes():
            await node.runtime.remove_sandbox(sandbox.id)
        await volumes.remove(want.uid)
