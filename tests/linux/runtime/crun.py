"""crun on the same root file system as ours: a bundle made from the same `ContainerConfig`, for comparison only."""

import asyncio
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from nodeagent.linux import capabilities
from nodeagent.linux.seccomp import default, numbers
from nodeagent.linux.syscalls import call
from nodeagent.runtime.interface import ContainerConfig, SandboxConfig
from nodeagent.runtime.rootfs import MASKED_PATHS, READONLY_PATHS

# crun refuses a machine whose cgroup2 has a controller beside v1; in a mount namespace of its own it sees none.
WRAP = """
mount --make-rprivate /
f=/sys/fs/cgroup/unified/cgroup.controllers
[ -e $f ] && [ -n "$(cat $f)" ] && mount --bind /dev/null $f
exec "$@"
"""


async def _call(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    await process.wait()


class Crun:
    def __init__(self, base: Path, layer: str, rlimits: dict[str, tuple[int, int]] | None = None) -> None:
        self._base, self._layer, self._rlimits = base, layer, rlimits or {}
        self._count = 0

    async def run(self, pod: SandboxConfig, container: ContainerConfig, *, kill: int = 0) -> tuple[int, str]:
        """Exit code and output. With `kill`, this signal is sent once the container has said `ready`."""
        self._count += 1
        name = f"wherry-differential-{os.getpid()}-{self._count}"
        directory = self._base / name
        for part in ("upper", "work", "rootfs"):
            (directory / part).mkdir(parents=True)
        (directory / "config.json").write_text(json.dumps(self._spec(name, pod, container)))
        overlay = f"lowerdir={self._layer},upperdir={directory}/upper,workdir={directory}/work,volatile"
        root = bytes(directory / "rootfs") + b"\0"
        call("mount", b"overlay\0", root, b"overlay\0", 0, overlay.encode() + b"\0", path=overlay)
        arguments = ["crun", "--cgroup-manager=cgroupfs", "run", "--bundle", str(directory), name]
        try:
            process = await asyncio.create_subprocess_exec(
                "unshare", "-m", "sh", "-c", WRAP, "sh", *arguments,
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
            assert process.stdout is not None
            output = b""
            if kill:
                while b"ready" not in output:
                    line = await asyncio.wait_for(process.stdout.readline(), 10)
                    assert line, output
                    output += line
                await _call("crun", "kill", name, str(kill))
            output += await asyncio.wait_for(process.stdout.read(), 20)
            return await process.wait(), output.decode("utf-8", "replace")
        finally:
            await _call("crun", "delete", "--force", name)
            call("umount2", root, 2, path=str(directory))
            shutil.rmtree(directory)

    def _spec(self, name: str, pod: SandboxConfig, container: ContainerConfig) -> dict[str, Any]:
        security = container.security
        bits = capabilities.resolve(
            security.add_capabilities, security.drop_capabilities, capabilities.mask(capabilities.DEFAULT)
        )
        caps = [f"CAP_{c}" for c in capabilities.names(bits)]
        rules = default.rules(numbers.X86_64, bits)
        names = [n for n, number in numbers.X86_64.items() if number in rules and n != "clone3"]
        mounts = [
            ("/proc", "proc", "proc", ["nosuid", "noexec", "nodev"]),
            ("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
            ("/dev/pts", "devpts", "devpts", [
                "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5",
            ]),
            ("/dev/shm", "tmpfs", "shm", ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            ("/dev/mqueue", "mqueue", "mqueue", ["nosuid", "noexec", "nodev"]),
            ("/sys", "sysfs", "sysfs", ["nosuid", "noexec", "nodev", "ro"]),
            ("/sys/fs/cgroup", "cgroup", "cgroup", ["nosuid", "noexec", "nodev", "relatime", "ro"]),
            *(
                (m.container_path, "bind", m.host_path, ["rbind", m.propagation if m.propagation != "private" else
                  "rprivate", *(["rro"] if m.recursive else ["ro"] if m.readonly else ["rw"])])
                for m in container.mounts
            ),
        ]  # fmt: skip
        spaces = [{"type": t} for t in ("pid", "network", "ipc", "uts", "mount", "cgroup")]
        linux: dict[str, Any] = {
            "cgroupsPath": f"/{name}", "resources": {"pids": {"limit": 1000}}, "namespaces": spaces,
            "maskedPaths": list(MASKED_PATHS), "readonlyPaths": list(READONLY_PATHS), "sysctl": dict(pod.sysctls),
            "seccomp": {
                "defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"],
                "syscalls": [
                    {"names": names, "action": "SCMP_ACT_ALLOW"},
                    {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
                ],
            },
        }  # fmt: skip
        if pod.user_namespace is not None:
            mapping = {"containerID": 0, "hostID": pod.user_namespace.first, "size": pod.user_namespace.length}
            spaces.append({"type": "user"})
            linux |= {"uidMappings": [mapping], "gidMappings": [mapping]}
        groups = sorted({security.run_as_group or 0, *security.supplemental_groups})
        return {
            "ociVersion": "1.0.2",
            "process": {
                "user": {
                    "uid": security.run_as_user or 0, "gid": security.run_as_group or 0, "additionalGids": groups,
                    "umask": 0o022,
                },
                "args": [*container.command, *container.args], "env": [f"{k}={v}" for k, v in container.envs],
                "cwd": container.working_dir or "/", "noNewPrivileges": security.no_new_privs,
                "capabilities": dict.fromkeys(("bounding", "effective", "permitted"), caps),
                "rlimits": [
                    {"type": f"RLIMIT_{n.upper()}", "soft": s, "hard": h} for n, (s, h) in self._rlimits.items()
                ],
            },
            "root": {"path": "rootfs", "readonly": security.readonly_rootfs}, "hostname": pod.hostname,
            "mounts": [{"destination": d, "type": t, "source": s, "options": o} for d, t, s, o in mounts],
            "linux": linux,
        }  # fmt: skip
