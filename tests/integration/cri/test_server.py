"""What crictl and a foreign kubelet see of our runtime, over Google's gRPC and protobuf."""

import asyncio
import json
import os
import stat
from pathlib import Path
from typing import Any

import grpc
import pytest

from nodeagent.runtime.interface import RuntimeFailure
from tests.integration.cri.conftest import Foreigner

NOT_FOUND, INVALID = grpc.StatusCode.NOT_FOUND, grpc.StatusCode.INVALID_ARGUMENT


async def refusal(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_about_itself(crictl: Foreigner) -> None:
    version = await crictl.call("Version", version="0.1.0")
    assert (version.runtime_name, version.runtime_version, version.runtime_api_version) == ("wherry", "1.2.3", "v1")
    status = (await crictl.call("Status", verbose=True)).status
    assert {c.type: c.status for c in status.conditions} == {"RuntimeReady": True, "NetworkReady": True}
    await crictl.call("UpdateRuntimeConfig", runtime_config={"network_config": {"pod_cidr": "10.1.0.0/24"}})
    bad = crictl.call("UpdateRuntimeConfig", runtime_config={"network_config": {"pod_cidr": "ten"}})
    assert (await refusal(bad)).code() is INVALID


async def test_socket_is_roots_alone(crictl: Foreigner) -> None:
    assert stat.S_IMODE(os.stat(crictl.socket).st_mode) == 0o600


async def test_sandbox_as_it_was_asked_for(crictl: Foreigner) -> None:
    options = {"security_context": {"namespace_options": {"network": "POD", "pid": "CONTAINER"}}}
    sandbox_id = await crictl.sandbox(
        labels={"app": "web"}, annotations={"note": "mine"}, linux={"cgroup_parent": "/kubepods/pod1", **options},
        port_mappings=[{"protocol": "UDP", "container_port": 53, "host_port": 5353}, {"container_port": 80}],
        dns_config={"servers": ["10.96.0.10"], "searches": ["svc.cluster.local"], "options": ["ndots:5"]},
    )  # fmt: skip
    config = crictl.runtime.pods[sandbox_id].config
    assert config.cgroup_parent == "kubepods/pod1"
    assert [(p.protocol, p.container_port, p.host_port) for p in config.port_mappings] == [("UDP", 53, 5353)]
    answer = await crictl.call("PodSandboxStatus", pod_sandbox_id=sandbox_id[:12], verbose=True)
    status = answer.status
    assert status.id == sandbox_id and status.state == 0 and status.network.ip.startswith("10.244.")
    assert dict(status.labels) == {"app": "web"} and dict(status.annotations) == {"note": "mine"}
    assert status.linux.namespaces.options.pid == 1 and status.created_at > 10**18
    assert json.loads(answer.info["info"])["config"]["hostname"] == "web"
    container_id = await crictl.container(sandbox_id)
    mounts = {m.container_path: m.host_path for m in crictl.runtime.made[container_id].config.mounts}
    assert (
        Path(mounts["/etc/resolv.conf"]).read_text()
        == "search svc.cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"
    )
    await crictl.call("StopPodSandbox", pod_sandbox_id=sandbox_id)
    assert (await crictl.call("PodSandboxStatus", pod_sandbox_id=sandbox_id)).status.state == 1
    await crictl.call("RemovePodSandbox", pod_sandbox_id=sandbox_id)
    assert not os.path.exists(mounts["/etc/resolv.conf"])
    await crictl.call("StopPodSandbox", pod_sandbox_id=sandbox_id)
    await crictl.call("RemovePodSandbox", pod_sandbox_id=sandbox_id)


async def test_host_network_is_told(crictl: Foreigner) -> None:
    sandbox_id = await crictl.sandbox(linux={"security_context": {"namespace_options": {"network": "NODE"}}})
    status = (await crictl.call("PodSandboxStatus", pod_sandbox_id=sandbox_id)).status
    assert crictl.runtime.pods[sandbox_id].config.host_network and status.linux.namespaces.options.network == 2


async def test_lists_and_filters(crictl: Foreigner) -> None:
    web, db = await crictl.sandbox("web", labels={"app": "web"}), await crictl.sandbox("db", labels={"app": "db"})
    app = await crictl.container(web, labels={"role": "app"})
    await crictl.call("StopPodSandbox", pod_sandbox_id=db)

    async def pods(**wanted: Any) -> set[str]:
        return {item.id for item in (await crictl.call("ListPodSandbox", filter=wanted)).items}

    assert await pods() == {web, db}
    assert await pods(state={"state": "SANDBOX_READY"}) == {web}
    assert await pods(label_selector={"app": "db"}) == {db} and await pods(label_selector={"app": "x"}) == set()
    assert await pods(id=web[:10]) == {web} and await pods(id=web, label_selector={"app": "db"}) == set()
    streamed = [item.id async for page in crictl.stream("StreamPodSandboxes") for item in page.pod_sandboxes]
    assert set(streamed) == {web, db}

    async def containers(**wanted: Any) -> list[str]:
        return [item.id for item in (await crictl.call("ListContainers", filter=wanted)).containers]

    assert await containers(pod_sandbox_id=web) == [app] and await containers(pod_sandbox_id=db) == []
    assert await containers(state={"state": "CONTAINER_RUNNING"}) == [app]
    assert await containers(state={"state": "CONTAINER_EXITED"}) == []
    assert await containers(label_selector={"role": "app"}, id=app[:8]) == [app]


async def test_container_as_it_was_asked_for(crictl: Foreigner) -> None:
    sandbox_id = await crictl.sandbox()
    container_id = await crictl.container(
        sandbox_id, "sh", args=["-c", "true"], working_dir="/tmp", envs=[{"key": "A", "value": b"b"}], tty=True,
        mounts=[{"container_path": "/data", "host_path": "/srv", "readonly": True, "propagation": 1}],
        annotations={"mine": "1"}, start=False,
        linux={
            "resources": {"memory_limit_in_bytes": 1 << 26, "cpu_quota": 50000, "cpu_period": 100000},
            "security_context": {
                "run_as_user": {"value": 0}, "run_as_group": {"value": 7}, "supplemental_groups": [1, 300],
                "no_new_privs": True, "capabilities": {"drop_capabilities": ["ALL"], "add_capabilities": ["CAP_CHOWN"]},
                "masked_paths": ["/proc/kcore"],
            },
        },
    )  # fmt: skip
    config = crictl.runtime.made[container_id].config
    assert (config.command, config.args, config.envs, config.tty) == (("sh",), ("-c", "true"), (("A", "b"),), True)
    mount = next(m for m in config.mounts if m.container_path == "/data")
    assert (mount.host_path, mount.readonly, mount.propagation) == ("/srv", True, "rslave")
    security = config.security
    assert (security.run_as_user, security.run_as_group, security.supplemental_groups) == (0, 7, (1, 300))
    assert security.add_capabilities == ("CHOWN",) and security.no_new_privs
    assert security.masked_paths == ("/proc/kcore",) and security.readonly_paths == ()
    assert (config.resources.memory_limit_bytes, config.resources.cpu_quota_us) == (1 << 26, 50000)
    answer = await crictl.call("ContainerStatus", container_id=container_id, verbose=True)
    status = answer.status
    assert status.state == 0 and status.image.image == "busybox" and status.image_id.startswith("sha256:")
    assert dict(status.annotations) == {"mine": "1"} and [m.container_path for m in status.mounts] == ["/data"]
    assert (status.user.linux.uid, status.user.linux.gid) == (0, 7)
    assert status.resources.linux.memory_limit_in_bytes == 1 << 26
    assert json.loads(answer.info["info"])["config"]["args"] == ["-c", "true"]
    linux = {"memory_limit_in_bytes": 1 << 27}
    await crictl.call("UpdateContainerResources", container_id=container_id, linux=linux)
    updated = (await crictl.call("ContainerStatus", container_id=container_id)).status.resources.linux
    assert (updated.memory_limit_in_bytes, updated.cpu_quota) == (1 << 27, 50000)


async def test_life_and_exit_of_a_container(crictl: Foreigner) -> None:
    sandbox_id = await crictl.sandbox()
    container_id = await crictl.container(sandbox_id, "sh", args=["-c", "exit 3"])
    status = (await crictl.call("ContainerStatus", container_id=container_id)).status
    assert (status.state, status.exit_code, status.reason) == (2, 3, "Error")
    assert (
        status.started_at > 10**18 and status.finished_at >= status.started_at and status.log_path.endswith("app/0.log")
    )
    again = await refusal(crictl.call("StartContainer", container_id=container_id))
    assert again.code() is grpc.StatusCode.FAILED_PRECONDITION
    await crictl.call("RemoveContainer", container_id=container_id)
    await crictl.call("RemoveContainer", container_id=container_id)
    await crictl.call("StopContainer", container_id=container_id, timeout=3)
    assert (await refusal(crictl.call("ContainerStatus", container_id=container_id))).code() is NOT_FOUND


async def test_exec_sync(crictl: Foreigner) -> None:
    container_id = await crictl.container(await crictl.sandbox(), "run")
    answer = await crictl.call("ExecSync", container_id=container_id, cmd=["echo", "hello"])
    assert (answer.stdout, answer.stderr, answer.exit_code) == (b"hello\n", b"", 0)
    failed = await crictl.call("ExecSync", container_id=container_id, cmd=["sh", "-c", "exit 7"])
    assert failed.exit_code == 7
    late = await refusal(crictl.call("ExecSync", container_id=container_id, cmd=["run"], timeout=0.2))
    assert late.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_events(crictl: Foreigner) -> None:
    stream = crictl.stream("GetContainerEvents")
    await stream.initial_metadata()
    container_id = await crictl.container(await crictl.sandbox(), "true")
    seen: list[tuple[int, str]] = []
    async with asyncio.timeout(10):
        async for event in stream:
            assert event.pod_sandbox_status.metadata.uid == "uid-web"
            if event.container_id == container_id:
                seen.append((event.container_event_type, event.containers_statuses[0].id))
            if len(seen) == 3:
                break
    assert seen == [(kind, container_id) for kind in (0, 1, 2)]
    stream.cancel()


async def test_stats(crictl: Foreigner) -> None:
    sandbox_id = await crictl.sandbox(labels={"app": "web"})
    container_id = await crictl.container(sandbox_id, "run")
    one = (await crictl.call("ContainerStats", container_id=container_id)).stats
    assert one.attributes.metadata.name == "app" and one.cpu.timestamp > 0 and one.writable_layer.fs_id.mountpoint
    listed = (await crictl.call("ListContainerStats", filter={"pod_sandbox_id": sandbox_id})).stats
    assert [s.attributes.id for s in listed] == [container_id]
    pod = (await crictl.call("PodSandboxStats", pod_sandbox_id=sandbox_id)).stats
    assert pod.attributes.metadata.name == "web" and [c.attributes.id for c in pod.linux.containers] == [container_id]
    await crictl.call("StopContainer", container_id=container_id, timeout=0)
    code = (await refusal(crictl.call("ContainerStats", container_id=container_id))).code()
    assert code is grpc.StatusCode.FAILED_PRECONDITION


async def test_images(crictl: Foreigner) -> None:
    crictl.runtime.images.add("docker.io/library/nginx:1", remote_only=True)
    assert not (await crictl.call("ImageStatus", image={"image": "docker.io/library/nginx:1"})).HasField("image")
    pulled = await crictl.call("PullImage", image={"image": "docker.io/library/nginx:1"}, auth={"username": "u"})
    found = (await crictl.call("ImageStatus", image={"image": pulled.image_ref}, verbose=True)).image
    assert found.repo_tags == ["docker.io/library/nginx:1"] and found.uid.value == 0
    await crictl.call("RemoveImage", image={"image": pulled.image_ref})
    await crictl.call("RemoveImage", image={"image": pulled.image_ref})
    assert pulled.image_ref not in [i.id for i in (await crictl.call("ListImages")).images]
    missing = await refusal(crictl.call("PullImage", image={"image": "docker.io/library/none:1"}))
    assert missing.code() is NOT_FOUND
    usage = await crictl.call("ImageFsInfo")
    assert usage.image_filesystems[0].fs_id.mountpoint.endswith("/images")
    await crictl.container(await crictl.sandbox(), "run")
    used = await refusal(crictl.call("RemoveImage", image={"image": "busybox"}))
    assert used.code() is grpc.StatusCode.FAILED_PRECONDITION


@pytest.mark.parametrize(
    ("method", "request_", "code"),
    [
        ("RunPodSandbox", {}, INVALID),
        ("RunPodSandbox", {"config": {"hostname": "x"}}, INVALID),
        ("RunPodSandbox", {"config": {"metadata": {"name": "a", "uid": "b", "namespace": "c"}},
                           "runtime_handler": "kata"}, INVALID),
        ("PodSandboxStatus", {"pod_sandbox_id": "none"}, NOT_FOUND),
        ("PodSandboxStatus", {}, NOT_FOUND),
        ("CreateContainer", {"pod_sandbox_id": "none"}, INVALID),
        ("CreateContainer", {"pod_sandbox_id": "none", "config": {"metadata": {"name": "a"},
                             "image": {"image": "busybox"}}}, NOT_FOUND),
        ("CreateContainer", {"pod_sandbox_id": "none", "config": {"metadata": {"name": "a"},
                             "image": {"image": "none"}}}, NOT_FOUND),
        ("CreateContainer", {"pod_sandbox_id": "none", "config": {"metadata": {"name": "a"},
                             "image": {"image": "busybox"}, "devices": [{"host_path": "/dev/null"}]}}, INVALID),
        ("StartContainer", {"container_id": "none"}, NOT_FOUND),
        ("ContainerStatus", {"container_id": "none"}, NOT_FOUND),
        ("UpdateContainerResources", {"container_id": "none"}, NOT_FOUND),
        ("ExecSync", {"container_id": "none"}, INVALID),
        ("ExecSync", {"container_id": "none", "cmd": ["x"]}, NOT_FOUND),
        ("Exec", {"container_id": "none", "cmd": ["x"]}, INVALID),
        ("Exec", {"container_id": "none", "cmd": ["x"], "tty": True, "stdout": True, "stderr": True}, INVALID),
        ("Exec", {"container_id": "none", "cmd": ["x"], "stdout": True}, NOT_FOUND),
        ("PortForward", {"pod_sandbox_id": "none", "port": [80]}, NOT_FOUND),
        ("ContainerStats", {"container_id": "none"}, NOT_FOUND),
        ("PodSandboxStats", {"pod_sandbox_id": "none"}, NOT_FOUND),
        ("PullImage", {}, INVALID),
        ("CheckpointContainer", {"container_id": "none"}, grpc.StatusCode.UNIMPLEMENTED),
    ],
)  # fmt: skip
async def test_refusals(crictl: Foreigner, method: str, request_: dict[str, Any], code: grpc.StatusCode) -> None:
    assert (await refusal(crictl.call(method, **request_))).code() is code


async def test_failures_of_the_runtime_have_its_words(crictl: Foreigner) -> None:
    crictl.runtime.fail_next("run_sandbox", RuntimeFailure("no cgroup today: 100% full"))
    error = await refusal(crictl.sandbox())
    assert error.code() is grpc.StatusCode.UNKNOWN and error.details() == "no cgroup today: 100% full"
    await crictl.sandbox()
    assert (await refusal(crictl.sandbox())).code() is grpc.StatusCode.ALREADY_EXISTS


async def test_bytes_that_are_no_message(crictl: Foreigner) -> None:
    stub = crictl.channel.unary_unary("/runtime.v1.RuntimeService/Version")
    assert (await refusal(stub(b"\xff\xff"))).code() is grpc.StatusCode.INTERNAL
    unknown = crictl.channel.unary_unary("/runtime.v1.RuntimeService/None")
    assert (await refusal(unknown(b""))).code() is grpc.StatusCode.UNIMPLEMENTED
    assert (await crictl.call("Version")).runtime_name == "wherry"
