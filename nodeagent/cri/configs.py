"""Sandbox, container and resource configurations, ours to the CRI's and back. Pure.

What one side cannot say is listed in the README. The defaults of masked and read-only paths are sent in full,
because the CRI cannot tell "the default" from "none"; received, an empty list means none, as containerd has it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from nodeagent.cri.codec import Message
from nodeagent.cri.table import table
from nodeagent.linux.apparmor import DEFAULT_PROFILE, profiles
from nodeagent.runtime.interface import (
    ContainerConfig,
    LinuxResources,
    Mount,
    PodIdentity,
    PortMapping,
    SandboxConfig,
    SecurityContext,
    UserNamespace,
)
from nodeagent.runtime.rootfs import MASKED_PATHS, READONLY_PATHS

_PROPAGATION = {
    "private": "PROPAGATION_PRIVATE",
    "rslave": "PROPAGATION_HOST_TO_CONTAINER",
    "rshared": "PROPAGATION_BIDIRECTIONAL",
}
_PROPAGATION_BACK = {name: ours for ours, name in _PROPAGATION.items()}
_SIGNAL = "SIGNAL_"


# Ours to the CRI's.


def sandbox_to_cri(config: SandboxConfig, cgroup_root: str) -> Message:
    """A PodSandboxConfig. `cgroup_root`: where the node's cgroup is, from the top."""
    parent = "/".join(part.strip("/") for part in (cgroup_root, config.cgroup_parent) if part.strip("/"))
    return {
        "metadata": metadata_to_cri(config.identity),
        "hostname": "" if config.host_network else config.hostname,
        "log_directory": config.log_directory,
        "port_mappings": [
            {"protocol": p.protocol, "container_port": p.container_port, "host_port": p.host_port, "host_ip": p.host_ip}
            for p in config.port_mappings
        ],
        "labels": config.labels,
        "annotations": config.annotations,
        "linux": {
            "cgroup_parent": f"/{parent}" if config.cgroup_parent else "",
            "security_context": {
                "namespace_options": namespaces_to_cri(config),
                "seccomp": {"profile_type": "RuntimeDefault"},
            },
            "sysctls": config.sysctls,
            "resources": resources_to_cri(config.resources),
        },
    }


def metadata_to_cri(identity: PodIdentity) -> Message:
    return {
        "name": identity.name,
        "uid": identity.uid,
        "namespace": identity.namespace,
        "attempt": identity.attempt,
    }


def namespaces_to_cri(config: SandboxConfig) -> Message:
    return {
        "network": "NODE" if config.host_network else "POD",
        "pid": "NODE" if config.host_pid else "POD" if config.share_process_namespace else "CONTAINER",
        "ipc": "NODE" if config.host_ipc else "POD",
        **({"userns_options": _users_to_cri(config.user_namespace)} if config.user_namespace else {}),
    }


def _users_to_cri(users: UserNamespace) -> Message:
    mapping = {"host_id": users.first, "container_id": 0, "length": users.length}
    return {"mode": "POD", "uids": [mapping], "gids": [mapping]}


def container_to_cri(config: ContainerConfig, sandbox: Message) -> Message:
    """A ContainerConfig for a container of the PodSandboxConfig `sandbox`."""
    options = sandbox["linux"]["security_context"]["namespace_options"]
    target = {"pid": "TARGET", "target_id": config.target_id} if config.target_id else {}
    users = options.get("userns_options") or {}
    mapped = {"uidMappings": users["uids"], "gidMappings": users["gids"]} if users else {}
    stop = f"{_SIGNAL}{config.stop_signal}" if config.stop_signal else "SIGNAL_RUNTIME_DEFAULT"
    return {
        "metadata": {"name": config.name, "attempt": config.attempt},
        "image": {"image": config.image},
        "command": config.command,
        "args": config.args,
        "working_dir": config.working_dir,
        "envs": [{"key": name, "value": value.encode()} for name, value in config.envs],
        "mounts": [{**mount_to_cri(mount), **mapped} for mount in config.mounts],
        "labels": config.labels,
        "annotations": config.annotations,
        "log_path": config.log_path,
        "stdin": config.stdin,
        "stdin_once": config.stdin_once,
        "tty": config.tty,
        "stop_signal": stop if stop in table().enums["Signal"] else "SIGNAL_RUNTIME_DEFAULT",
        "linux": {
            "resources": resources_to_cri(config.resources),
            "security_context": {
                **security_to_cri(config.security),
                "namespace_options": {**options, **target},
            },
        },
    }


def mount_to_cri(mount: Mount) -> Message:
    return {
        "container_path": mount.container_path,
        "host_path": mount.host_path,
        "readonly": mount.readonly,
        "propagation": _PROPAGATION[mount.propagation],
        "recursive_read_only": mount.readonly and mount.recursive,
    }


def resources_to_cri(resources: LinuxResources) -> Message:
    return {
        "cpu_period": resources.cpu_period_us if resources.cpu_quota_us else 0,
        "cpu_quota": resources.cpu_quota_us,
        "cpu_shares": resources.cpu_shares,
        "memory_limit_in_bytes": resources.memory_limit_bytes,
        "oom_score_adj": resources.oom_score_adj,
        "cpuset_cpus": resources.cpuset_cpus,
        "hugepage_limits": [{"page_size": size, "limit": limit} for size, limit in resources.hugepages],
    }


def security_to_cri(security: SecurityContext) -> Message:
    return {
        "capabilities": {
            "add_capabilities": security.add_capabilities,
            "drop_capabilities": security.drop_capabilities,
        },
        "privileged": security.privileged,
        "run_as_user": _number(security.run_as_user),
        "run_as_group": _number(security.run_as_group),
        "run_as_username": security.run_as_username,
        "readonly_rootfs": security.readonly_rootfs,
        "supplemental_groups": security.supplemental_groups,
        "supplemental_groups_policy": "Strict" if security.strict_groups else "Merge",
        "no_new_privs": security.no_new_privs,
        **({"apparmor": _apparmor(security.apparmor)} if security.apparmor else {}),
        "masked_paths": MASKED_PATHS if security.masked_paths is None else security.masked_paths,
        "readonly_paths": READONLY_PATHS if security.readonly_paths is None else security.readonly_paths,
        "seccomp": _seccomp(security.seccomp),
    }


def _seccomp(profile: str) -> Message:
    kind, _, path = profile.partition(":")
    return {"profile_type": kind, "localhost_ref": path}


def _apparmor(profile: str) -> Message:
    if profile == DEFAULT_PROFILE:
        return {"profile_type": "RuntimeDefault"}
    return {"profile_type": "Localhost", "localhost_ref": profile}


def _number(value: int | None) -> Message | None:
    return None if value is None else {"value": value}


# The CRI's to ours.


def sandbox_from_cri(message: Mapping[str, Any]) -> SandboxConfig:
    """Raises ValueError, which names what is missing or not supported."""
    linux = message.get("linux") or {}
    security = linux.get("security_context") or {}
    options = security.get("namespace_options") or {}
    network, pid, ipc = (options.get(name, "POD") for name in ("network", "pid", "ipc"))
    return SandboxConfig(
        identity=identity_from_cri(message.get("metadata")),
        hostname=message.get("hostname", ""),
        log_directory=message.get("log_directory", ""),
        cgroup_parent=linux.get("cgroup_parent", "").strip("/"),
        host_network=network == "NODE",
        host_pid=pid == "NODE",
        host_ipc=ipc == "NODE",
        share_process_namespace=bool(options) and pid == "POD",
        sysctls=dict(linux.get("sysctls") or {}),
        port_mappings=tuple(_ports(message.get("port_mappings") or ())),
        labels=dict(message.get("labels") or {}),
        annotations=dict(message.get("annotations") or {}),
        resources=resources_from_cri(linux.get("resources")),
        user_namespace=_users_from_cri(options.get("userns_options") or {}),
    )


def _users_from_cri(options: Mapping[str, Any]) -> UserNamespace | None:
    """Raises ValueError for more than one range, and for users and groups that differ."""
    if options.get("mode", "NODE") != "POD":
        return None
    uids, gids = list(options.get("uids") or ()), list(options.get("gids") or ())
    if len(uids) != 1 or uids != gids or uids[0]["container_id"] != 0:
        raise ValueError("user namespaces: want one range from 0, the same for users and groups")
    return UserNamespace(uids[0]["host_id"], uids[0]["length"])


def identity_from_cri(metadata: Mapping[str, Any] | None) -> PodIdentity:
    """Raises ValueError."""
    if not metadata or not metadata["name"] or not metadata["uid"] or not metadata["namespace"]:
        raise ValueError("sandbox config must have metadata with name, namespace and uid")
    return PodIdentity(metadata["namespace"], metadata["name"], metadata["uid"], metadata["attempt"])


def _ports(mappings: Iterable[Mapping[str, Any]]) -> Iterable[PortMapping]:
    for mapping in mappings:
        if mapping["host_port"] <= 0:
            continue  # a port that is not published; kubelet sends those, too
        if not 0 < mapping["container_port"] < 65536 or mapping["host_port"] > 65535:
            raise ValueError(f"port mapping {mapping['host_port']}:{mapping['container_port']} is out of range")
        yield PortMapping(mapping["container_port"], mapping["host_port"], mapping["protocol"], mapping["host_ip"])


def container_from_cri(message: Mapping[str, Any], image: str) -> ContainerConfig:
    """`image`: the id of the image that the message means. Raises ValueError."""
    metadata = message.get("metadata")
    if not metadata or not metadata["name"]:
        raise ValueError("container config must have metadata with a name")
    if message.get("devices") or message.get("CDI_devices"):
        raise ValueError("devices of single containers are not supported")
    linux = message.get("linux") or {}
    security = linux.get("security_context") or {}
    options = security.get("namespace_options") or {}
    target = options.get("target_id", "") if options.get("pid") == "TARGET" else ""
    signal = message.get("stop_signal", "SIGNAL_RUNTIME_DEFAULT")
    return ContainerConfig(
        name=metadata["name"],
        attempt=metadata["attempt"],
        image=image,
        command=tuple(message["command"]),
        args=tuple(message["args"]),
        working_dir=message["working_dir"],
        envs=tuple((e["key"], e["value"].decode("utf-8", "surrogateescape")) for e in message["envs"]),
        mounts=tuple(mount_from_cri(mount) for mount in message["mounts"]),
        labels=dict(message["labels"]),
        annotations=dict(message["annotations"]),
        log_path=message["log_path"],
        stdin=message["stdin"],
        stdin_once=message["stdin_once"],
        tty=message["tty"],
        stop_signal="" if signal == "SIGNAL_RUNTIME_DEFAULT" else signal.removeprefix(_SIGNAL),
        target_id=target,
        resources=resources_from_cri(linux.get("resources")),
        security=security_from_cri(security),
    )


def mount_from_cri(message: Mapping[str, Any]) -> Mount:
    """Raises ValueError."""
    if not message["container_path"].startswith("/") or not message["host_path"].startswith("/"):
        raise ValueError(f"mount {message['host_path']!r} on {message['container_path']!r}: paths must be absolute")
    for name, what in (("image", "image"), ("mount_options", "option-carrying")):
        if message.get(name):
            raise ValueError(f"mount on {message['container_path']!r}: {what} mounts are not supported")
    return Mount(
        message["host_path"],
        message["container_path"],
        message["readonly"],
        _PROPAGATION_BACK.get(message["propagation"], "private"),
        bool(message.get("recursive_read_only")),
    )


def resources_from_cri(message: Mapping[str, Any] | None) -> LinuxResources:
    if not message:
        return LinuxResources()
    return LinuxResources(
        cpu_shares=message["cpu_shares"],
        cpu_quota_us=message["cpu_quota"],
        cpu_period_us=message["cpu_period"] or 100_000,
        memory_limit_bytes=message["memory_limit_in_bytes"],
        cpuset_cpus=message["cpuset_cpus"],
        oom_score_adj=message["oom_score_adj"],
        hugepages=tuple((h["page_size"], h["limit"]) for h in message.get("hugepage_limits") or ()),
    )


def security_from_cri(message: Mapping[str, Any]) -> SecurityContext:
    """Raises ValueError for a profile that there is not."""
    if not message:
        return SecurityContext()
    capabilities = message.get("capabilities") or {}
    if capabilities.get("add_ambient_capabilities"):
        raise ValueError("ambient capabilities are not supported")
    user, group = message.get("run_as_user"), message.get("run_as_group")
    if group is not None and user is None and not message["run_as_username"]:
        raise ValueError("runAsGroup is specified without a runAsUser")
    seccomp = message.get("seccomp")
    profile = seccomp["profile_type"] if seccomp else "Unconfined"
    if profile == "Localhost":
        profile = f"Localhost:{seccomp['localhost_ref']}"  # type: ignore[index]
    return SecurityContext(
        run_as_user=user["value"] if user else None,
        run_as_group=group["value"] if group else None,
        run_as_username=message["run_as_username"],
        supplemental_groups=tuple(message["supplemental_groups"]),
        privileged=message["privileged"],
        readonly_rootfs=message["readonly_rootfs"],
        strict_groups=message.get("supplemental_groups_policy") == "Strict",
        apparmor=_apparmor_from_cri(message.get("apparmor") or {}),
        no_new_privs=message["no_new_privs"],
        add_capabilities=tuple(_capability(c) for c in capabilities.get("add_capabilities") or ()),
        drop_capabilities=tuple(_capability(c) for c in capabilities.get("drop_capabilities") or ()),
        seccomp="Unconfined" if message["privileged"] else profile,
        masked_paths=tuple(message["masked_paths"]),
        readonly_paths=tuple(message["readonly_paths"]),
    )


def _apparmor_from_cri(profile: Mapping[str, Any]) -> str:
    """RuntimeDefault means none where the kernel has no AppArmor: a foreign kubelet asks for it unasked."""
    kind = profile.get("profile_type", "Unconfined")
    if kind == "Localhost":
        return str(profile["localhost_ref"])
    return DEFAULT_PROFILE if kind == "RuntimeDefault" and DEFAULT_PROFILE in profiles() else ""


def _capability(name: str) -> str:
    return name.upper().removeprefix("CAP_")
