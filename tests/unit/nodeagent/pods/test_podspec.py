"""What single fields of a pod's spec do: environment files, groups, sysctls, AppArmor, names, ports."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from nodeagent.pods import admission, apparmor, env, envfile, hosts, security, sysctls
from nodeagent.runtime.interface import Image, ImageConfig

Obj = dict[str, Any]


def pod(spec: Obj | None = None, **meta: Any) -> Obj:
    return {
        "metadata": {"name": "web", "namespace": "ns", "uid": "u1", **meta},
        "spec": {"containers": [{"name": "app", "image": "i"}], **(spec or {})},
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)", "1"), ("$$(A)", "$(A)"), ("$$$(A)", "$1"), ("$$$$(A)", "$$(A)"), ("$(A", "$(A"), ("$()", "$()"),
        ("$A $", "$A $"), ("$(NO)-$(A)", "$(NO)-1"), ("$($(A))", "$($(A))"), ("$(A(B)", "odd"), ("100$", "100$"),
        ("$(A)$(A)", "11"), ("$(B.c)", "dotted"),
    ],
)  # fmt: skip
def test_expansion_is_kubernetes_own(text: str, expected: str) -> None:
    assert env.expand(text, {"A": "1", "A(B": "odd", "B.c": "dotted"}) == expected


def test_environment_files() -> None:
    text = "# comment\n\n  A='1'\nB='two $words # and = '  # why\nC='one\ntwo'\nA='again'"
    assert envfile.parse(text) == {"A": "again", "B": "two $words # and = ", "C": "one\ntwo"}
    for bad in ("A=1", 'A="1"', "A = '1'", "A='1", "A='1'x", "='1'", "A"):
        with pytest.raises(envfile.BadEnvFile, match="line 1"):
            envfile.parse(bad)


def test_an_environment_file_is_read_inside_its_volume_only(tmp_path: Path) -> None:
    volume = tmp_path / "v"
    volume.mkdir()
    (tmp_path / "outside").write_text("A='secret'")
    (volume / "link").symlink_to("../outside")
    (volume / "big").write_text("#" * (envfile.MOST_BYTES + 1))
    os.mkfifo(volume / "pipe")
    assert envfile.read(str(volume), "link") is None
    with pytest.raises(envfile.BadEnvFile, match="limit"):
        envfile.read(str(volume), "big")
    with pytest.raises(envfile.BadEnvFile, match="not a regular file"):
        envfile.read(str(volume), "pipe")


async def test_a_container_gets_variables_from_a_file_that_an_init_container_wrote(world) -> None:
    ref = {"volumeName": "v", "path": "sub/app.env", "key": "COLOR"}
    container = {
        "name": "app", "image": "busybox:1",
        "env": [
            {"name": "COLOR", "valueFrom": {"fileKeyRef": ref}},
            {"name": "NONE", "valueFrom": {"fileKeyRef": {**ref, "key": "X", "optional": True}}},
        ],
    }  # fmt: skip
    world.pod(containers=[container], volumes=[{"name": "v", "emptyDir": {}}])
    await world.until(lambda: (world.container().get("state") or {}).get("waiting", {}).get("reason"))
    await world.until(lambda: world.container()["state"]["waiting"]["reason"] == "CreateContainerConfigError")
    file = world.root / "node/pods" / world.uid() / "volumes/kubernetes.io~empty-dir/v/sub/app.env"
    file.parent.mkdir()
    file.write_text("COLOR='blue'\n")
    await world.until(lambda: world.container().get("ready"))
    variables = dict(world.find().config.envs)
    assert variables["COLOR"] == "blue" and "NONE" not in variables


def test_resource_fields_of_a_pod_with_limits_of_its_own() -> None:
    whole = pod({"resources": {"limits": {"cpu": "3"}}})
    sources = env.Sources(whole, allocatable={"cpu": "8", "memory": "1Gi"})
    container: Obj = {"name": "app", "resources": {"limits": {"memory": "64Mi"}}}

    def value(resource: str, divisor: str = "1") -> str:
        return env.resource_value({"resource": resource, "divisor": divisor}, container, sources)

    assert value("limits.cpu") == "3" and value("limits.cpu", "1m") == "3000"
    assert value("requests.memory", "1Mi") == "64" and value("requests.cpu") == "0"
    assert value("limits.hugepages-2Mi") == "0"


def test_group_policy_and_profiles_reach_the_runtime() -> None:
    image = Image("sha256:1", (), ImageConfig())
    wanted = pod({"securityContext": {"supplementalGroupsPolicy": "Strict", "supplementalGroups": [7]}})
    found = security.security_context(wanted, wanted["spec"]["containers"][0], image, "/p")
    assert found.strict_groups and tuple(found.supplemental_groups) == (7,) and found.apparmor == ""


@pytest.mark.parametrize(
    ("name", "spec", "why"),
    [
        ("net.ipv4.tcp_syncookies", {}, ""),
        ("net/ipv4/tcp_syncookies", {}, ""),
        ("net.ipv4.tcp_syncookies", {"hostNetwork": True}, "not allowed with host net enabled"),
        ("kernel.shm_rmid_forced", {"hostIPC": True}, "not allowed with host ipc enabled"),
        ("kernel.msgmax", {}, ""),
        ("net.core.somaxconn", {}, "not allowlisted"),
        ("kernel.panic", {}, "not allowlisted"),
    ],
)
def test_sysctls(name: str, spec: Obj, why: str) -> None:
    asking = pod({**spec, "securityContext": {"sysctls": [{"name": name, "value": "1"}]}})
    verdict = sysctls.refuse(asking, ["kernel.msg*", "kernel.panic"])
    assert (verdict.message if verdict else "") == (
        f'Pod was rejected: forbidden sysctl: "{name}" {why}' if why else ""
    )
    assert verdict is None or verdict.reason == "SysctlForbidden"


def test_sysctl_names_with_slashes() -> None:
    assert sysctls.normalize("net/ipv4/conf/eth0.1/arp") == "net.ipv4.conf.eth0/1.arp"
    assert sysctls.normalize("net.ipv4.conf.eth0/1.arp") == "net.ipv4.conf.eth0/1.arp"


async def test_a_pod_with_a_forbidden_sysctl_fails(world) -> None:
    world.pod(securityContext={"sysctls": [{"name": "kernel.msgmax", "value": "1"}]})
    await world.until(lambda: world.status().get("reason") == "SysctlForbidden")
    assert world.status()["phase"] == "Failed" and not world.runtime.pods


def test_a_profile_is_promised_only_where_it_can_be_kept() -> None:
    asking = pod({"securityContext": {"appArmorProfile": {"type": "Localhost", "localhostProfile": "mine"}}})
    verdict = apparmor.refuse(asking, lambda: False)
    assert verdict is not None and verdict.reason == "AppArmor"
    assert verdict.message == "Pod was rejected: Cannot enforce AppArmor: AppArmor is not enabled on the host"
    missing = apparmor.refuse(asking, lambda: True, lambda: {"other"})
    assert missing is not None and missing.message.endswith('profile "mine" is not loaded')
    assert apparmor.refuse(asking, lambda: True, lambda: {"mine"}) is None
    free = pod({"securityContext": {"appArmorProfile": {"type": "Unconfined"}}})
    assert apparmor.refuse(free, lambda: False) is None and apparmor.refuse(pod(), lambda: False) is None
    old = pod(annotations={"container.apparmor.security.beta.kubernetes.io/app": "localhost/mine"})
    assert apparmor.profile(old, old["spec"]["containers"][0]) == "mine"


def test_ports_and_systems_that_cannot_be() -> None:
    def with_port(**port: Any) -> Obj:
        return pod({"containers": [{"name": "app", "ports": [{"containerPort": 1, "hostPort": 80, **port}]}]})

    taken = admission.unfit(with_port(), [with_port(hostIP="10.0.0.1")])
    assert taken is not None and taken.reason == "NodePorts"
    assert admission.unfit(with_port(protocol="UDP"), [with_port()]) is None
    assert admission.unfit(with_port(hostIP="10.0.0.2"), [with_port(hostIP="10.0.0.1")]) is None
    windows = admission.unfit(pod({"os": {"name": "windows"}}), [])
    assert windows is not None and windows.reason == "PodOSNotSupported"


def test_resolvers_limits() -> None:
    settings = hosts.DnsSettings()
    servers, searches = [f"10.0.0.{i}" for i in range(5)], [f"{'x' * 60}{i}.example" for i in range(40)]
    asking = pod({"dnsPolicy": "None", "dnsConfig": {"nameservers": servers, "searches": searches}})
    text, problems = hosts.limited_resolv_conf(asking, settings)
    lines = text.splitlines()
    assert [line for line in lines if line.startswith("nameserver")] == [f"nameserver {s}" for s in servers[:3]]
    assert len(lines[0]) <= len("search ") + 2048 and lines[0].split()[1:] == searches[: len(lines[0].split()) - 1]
    assert problems[0].endswith("the applied nameserver line is: 10.0.0.0 10.0.0.1 10.0.0.2") and len(problems) == 2


async def test_a_name_that_the_kernel_has_no_room_for(world) -> None:
    world.pod(hostname="h" * 60, subdomain="sub", setHostnameAsFQDN=True)
    await world.until(lambda: any(r == "FailedCreatePodSandBox" for _, r, _ in world.events))
    assert "is too long (64 characters is the max" in next(
        m for _, r, m in world.events if r == "FailedCreatePodSandBox"
    )


async def test_runtime_classes(world) -> None:
    kind = {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "fast"}, "handler": "wherry"}
    world.api.put(kind)
    world.pod("good", runtimeClassName="fast")
    world.pod("bad", runtimeClassName="none")
    await world.until(lambda: world.status("good").get("phase") == "Running")
    assert [p.config.runtime_handler for p in world.runtime.pods.values()] == ["wherry"]
    message = 'Failed to create pod sandbox: RuntimeClass.node.k8s.io "none" not found'
    await world.until(lambda: ("bad", "FailedCreatePodSandBox", message) in world.events)


async def test_what_was_made_of_mounts_shows_in_the_status(world) -> None:
    mounts = [
        {"name": "v", "mountPath": "/a"}, {"name": "v", "mountPath": "/b", "readOnly": True},
        {"name": "v", "mountPath": "/c", "readOnly": True, "recursiveReadOnly": "IfPossible"},
    ]  # fmt: skip
    container = {"name": "app", "image": "busybox:1", "volumeMounts": mounts, "lifecycle": {"stopSignal": "SIGUSR1"}}
    world.pod(containers=[container], volumes=[{"name": "v", "emptyDir": {}}])
    await world.until(lambda: world.container().get("ready"))
    assert world.container()["volumeMounts"] == [
        {"name": "v", "mountPath": "/a"},
        {"name": "v", "mountPath": "/b", "readOnly": True, "recursiveReadOnly": "Disabled"},
        {"name": "v", "mountPath": "/c", "readOnly": True, "recursiveReadOnly": "Enabled"},
    ]
    assert world.container()["stopSignal"] == "SIGUSR1"
    by_path = {m.container_path: m for m in world.find().config.mounts}
    assert by_path["/c"].recursive and by_path["/c"].readonly and not by_path["/b"].recursive


async def test_pods_with_their_own_users_share_no_id(world) -> None:
    for name in ("a", "b"):
        world.pod(name, hostUsers=False)
    world.pod("c")
    for name in ("a", "b", "c"):
        await world.until(lambda n=name: world.status(n).get("phase") == "Running")

    def ranges() -> dict[str, int | None]:
        configs = [p.config for p in world.runtime.pods.values()]
        return {c.identity.name: c.user_namespace and c.user_namespace.first for c in configs}

    first = ranges()
    assert first["c"] is None and {first["a"], first["b"]} == {65536, 131072}
    await world.kill()
    await world.start()
    world.pod("d", hostUsers=False)
    await world.until(lambda: world.status("d").get("phase") == "Running")
    assert ranges()["d"] == 196608  # a restarted agent knows what is taken
    await world.delete("a", grace=1)
    await world.until(lambda: world.api.get("pods", "a", "default") is None)
    world.pod("e", hostUsers=False)
    await world.until(lambda: world.status("e").get("phase") == "Running")
    assert ranges()["e"] == first["a"]


async def test_an_ephemeral_container_joins_its_target(world) -> None:
    world.pod()
    await world.until(lambda: world.container().get("ready"))
    debugger = {"name": "debug", "image": "busybox:1", "targetContainerName": "app"}
    stored = world.api.get("pods", "web", "default")
    world.api.put({**stored, "spec": {**stored["spec"], "ephemeralContainers": [debugger]}})
    await world.until(lambda: world.status().get("ephemeralContainerStatuses"))
    await world.until(lambda: "running" in world.status()["ephemeralContainerStatuses"][0]["state"])
    assert world.find("debug").config.target_id == world.find("app").status.id


async def test_the_last_messages_of_many_containers_share_their_room(world) -> None:
    names = [f"c{i}" for i in range(6)]
    world.pod(containers=[{"name": n, "image": "busybox:1"} for n in names], restartPolicy="Never")
    await world.until(lambda: world.status().get("phase") == "Running")
    for name in names:
        container = world.find(name)
        path = next(m.host_path for m in container.config.mounts if m.container_path == "/dev/termination-log")
        Path(path).write_text("\u00e9" * 2048)
    for name in names:
        world.runtime.finish(world.find(name).status.id, 1)
    await world.until(lambda: world.status().get("phase") == "Failed")
    messages = [c["state"]["terminated"]["message"] for c in world.status()["containerStatuses"]]
    assert {len(m.encode()) for m in messages} == {2048}
