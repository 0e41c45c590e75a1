"""From a container's configuration to what plan.py wants: users, limits, environment, paths, descriptors."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
from collections.abc import Mapping, Sequence

from nodeagent.linux import capabilities, seccomp
from nodeagent.linux.cgroups import Cgroups, Limits
from nodeagent.linux.executor import Loaded
from nodeagent.linux.program import Input, Program
from nodeagent.runtime import identity, plan, rootfs
from nodeagent.runtime.interface import LinuxResources, RuntimeFailure
from nodeagent.runtime.link import Message
from nodeagent.runtime.state import Container, Sandbox

log = logging.getLogger(__name__)

_SYS_RESOURCE = 1 << capabilities.NAMES.index("SYS_RESOURCE")


class Compiler:
    """Knows the node (its directories, cgroups, kernel); asked about one container at a time."""

    def __init__(self, root_dir: str, cgroups: Cgroups, rlimits: Mapping[str, tuple[int, int]]) -> None:
        self._root = root_dir
        self._cgroups = cgroups
        self._rlimits = rlimits
        self._own = capabilities.own()
        self._oom_floor_logged = False
        self.shm_detached = False

    def prepare(self) -> None:
        """Make what all containers share. Raises RuntimeFailure if this kernel cannot run containers."""
        os.makedirs(f"{self._root}/mountpoint", mode=0o755, exist_ok=True)
        self.shm_detached = _detached_mounts_can_be_cloned()
        if not self._own >> capabilities.NAMES.index("SYS_ADMIN") & 1:
            raise RuntimeFailure("containers need root: this process has no CAP_SYS_ADMIN")

    # Sandboxes.

    def sandbox(self, sandbox: Sandbox) -> tuple[Program, list[int]]:
        """The shim's program, and the steps whose results containers get as inputs."""
        return plan.sandbox(sandbox.file.config, "" if self.shm_detached else f"{sandbox.directory}/shm")

    # Containers.

    def check(self, container: Container) -> None:
        """Whether the container can be compiled at all. Raises RuntimeFailure or ValueError."""
        self._resolve(container)

    def make_layers(self, container: Container) -> None:
        top = self._layers(container)
        os.mkdir(top, 0o711)
        os.mkdir(f"{top}/upper", 0o755)
        os.mkdir(f"{top}/work", 0o700)
        users = container.sandbox.file.config.user_namespace
        if users is not None:
            os.chown(f"{top}/upper", users.first, users.first)
            os.chown(f"{top}/work", users.first, users.first)

    def written(self, container: Container) -> str:
        """The directory of what the container has written to its own layer."""
        return f"{self._layers(container)}/upper"

    def remove_layers(self, container: Container) -> None:
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self._layers(container))

    def container(self, container: Container) -> Program:
        """The container's program. Raises RuntimeFailure."""
        config, sandbox = container.file.config, container.sandbox
        security, privileged = config.security, config.security.privileged
        top = self._layers(container)
        default = security.masked_paths is None and not privileged
        masked = rootfs.MASKED_PATHS if default else security.masked_paths or ()
        readonly_paths = (
            rootfs.READONLY_PATHS
            if security.readonly_paths is None and not privileged
            else security.readonly_paths or ()
        )
        if sandbox.file.config.host_ipc:
            shm: Input | str = "/dev/shm"
        else:
            shm = plan.SHM if self.shm_detached else f"{sandbox.directory}/shm"
        tree = rootfs.Tree(
            layers=container.file.layers, upper=f"{top}/upper", work=f"{top}/work",
            mountpoint=f"{self._root}/mountpoint", mounts=config.mounts, shm=shm, cgroups=self._shown(),
            masked=masked, readonly_paths=readonly_paths, readonly=security.readonly_rootfs, privileged=privileged,
            users=sandbox.file.config.user_namespace,
        )  # fmt: skip
        command, confinement = self._resolve(container)
        return plan.container(tree, confinement, command)

    def start_request(self, container: Container, *, native: bool) -> Message:
        config = container.file.config
        shares = self.shares_pids(container)
        flags = plan.CLONE_NEWNS | (0 if shares else plan.CLONE_NEWPID)
        return {
            "op": "start", "id": container.file.id, "dir": container.directory, "log": container.log_path,
            "tty": config.tty, "stdin": config.stdin, "stdin_once": config.stdin_once, "flags": flags,
            "native": native, "cgroup": self._cgroups.clone_into(container.cgroup), "target": config.target_id,
            "oom": self._cgroups.oom_file(container.cgroup),
            "kill": self._cgroups.kill_file(container.cgroup) if shares else "",
        }  # fmt: skip

    def execution(self, container: Container, argv: Sequence[str], *, tty: bool) -> Program:
        namespaces = plan.CLONE_NEWNS | plan.CLONE_NEWCGROUP
        default, confinement = self._resolve(container)
        env = [*default.env, *(["TERM=xterm"] if tty and not any(e.startswith("TERM=") for e in default.env) else [])]
        command = plan.Command(list(argv), env, default.cwd, tty)
        return plan.execution(namespaces, confinement, command)

    def exec_request(self, container: Container, *, native: bool) -> Message:
        return {
            "op": "exec", "id": container.file.id, "flags": 0, "native": native,
            "cgroup": self._cgroups.clone_into(container.cgroup),
        }  # fmt: skip

    def confines_devices(self, container: Container) -> bool:
        """Whether the container gets only the usual devices: all but privileged ones of the node's own users."""
        config = container.sandbox.file.config
        return not container.file.config.security.privileged or config.user_namespace is not None

    def shares_pids(self, container: Container) -> bool:
        """Whether the container's processes can outlive its first one."""
        config = container.sandbox.file.config
        return config.host_pid or config.share_process_namespace or bool(container.file.config.target_id)

    def stop_signal(self, container: Container) -> int:
        name = (container.file.config.stop_signal or container.file.image.stop_signal or "SIGTERM").upper()
        if name.isdigit():
            return int(name)
        name = name if name.startswith("SIG") else "SIG" + name
        if name.startswith("SIGRTMIN+"):
            return int(signal.SIGRTMIN) + int(name[9:])
        return int(getattr(signal, name, signal.SIGTERM))

    def command(self, container: Container) -> plan.Command:
        """argv, environment and working directory: the pod's words over the image's, as Kubernetes combines them."""
        return self._resolve(container)[0]

    def _resolve(self, container: Container) -> tuple[plan.Command, plan.Confinement]:
        """What the configuration means on this node; looked up once a container."""
        if container.resolved is None:
            who = identity.resolve(container.file.config.security, container.file.image, container.file.layers)
            container.resolved = (self._command(container, who), self._confinement(container, who))
        resolved: tuple[plan.Command, plan.Confinement] = container.resolved
        return resolved

    @staticmethod
    def _command(container: Container, who: identity.Identity) -> plan.Command:
        config, image = container.file.config, container.file.image
        argv = [*(config.command or image.entrypoint), *(config.args or (() if config.command else image.cmd))]
        env: dict[str, str] = {"PATH": plan.DEFAULT_PATH}
        if config.tty:
            env["TERM"] = "xterm"
        env["HOSTNAME"] = container.sandbox.file.config.hostname
        env.update(entry.partition("=")[::2] for entry in image.env)
        env.update(config.envs)
        if "HOME" not in env:
            env["HOME"] = who.home
        command = plan.Command(
            argv, [f"{k}={v}" for k, v in env.items()], config.working_dir or image.working_dir, config.tty
        )
        plan.search(command)
        return command

    @staticmethod
    def limits(resources: LinuxResources) -> Limits:
        return Limits(
            resources.cpu_shares, resources.cpu_quota_us, resources.cpu_period_us, resources.memory_limit_bytes,
            resources.pids_limit, resources.cpuset_cpus, resources.hugepages,
        )  # fmt: skip

    # Inside.

    def _layers(self, container: Container) -> str:
        return f"{self._root}/containers/{container.file.id}"

    def _confinement(self, container: Container, who: identity.Identity) -> plan.Confinement:
        config = container.file.config
        security = config.security
        if security.privileged:
            bounding = self._own
        else:
            default = capabilities.mask(capabilities.DEFAULT)
            bounding = capabilities.resolve(security.add_capabilities, security.drop_capabilities, default) & self._own
        profile = "Unconfined" if security.privileged else security.seccomp
        return plan.Confinement(
            identity=who, bounding=bounding, no_new_privs=security.no_new_privs,
            seccomp=seccomp.program(profile, bounding), rlimits=self._rlimits,
            oom_score_adj=self._oom_score_adj(config.resources.oom_score_adj), apparmor=security.apparmor,
            users=container.sandbox.file.config.user_namespace,
            join=self._cgroups.join_files(
                container.cgroup, self.limits(config.resources), confine_devices=self.confines_devices(container)
            ),
        )  # fmt: skip

    def _oom_score_adj(self, wanted: int) -> int:
        """Without CAP_SYS_RESOURCE no process's score goes below what its parent's was: clamp, and say so once."""
        if wanted >= 0 or self._own & _SYS_RESOURCE:
            return wanted
        if not self._oom_floor_logged:
            log.warning("oom_score_adj clamped wanted=%d to=0 reason='no CAP_SYS_RESOURCE'", wanted)
            self._oom_floor_logged = True
        return 0

    def _shown(self) -> dict[str, tuple[str, str]]:
        """The cgroup hierarchies that a container finds under /sys/fs/cgroup."""
        layout = self._cgroups.layout
        if layout.unified:
            return {"": ("cgroup2", "")}
        return {c: ("cgroup", c) for c in ("memory", "cpu", "cpuacct", "pids") if c in layout.v1}


def _detached_mounts_can_be_cloned() -> bool:
    """Since Linux 6.15. Before, a pod's /dev/shm must be mounted where the node can see it."""
    program = Program()
    fs = program.add("fsopen", "tmpfs", 1)
    program.add("fsconfig", fs, 6, None, None, 0)
    tree = program.add("fsmount", fs, 1, 0)
    clone = program.add("open_tree", tree, "", 1 | 0o2000000 | 0x1000)
    for fd in (clone, tree, fs):
        program.add("close", fd)
    image = program.memfd()
    try:
        with Loaded(image) as loaded:
            done = loaded.run()
            if not done:
                for fd in (tree, fs):
                    if loaded.result(fd.step) > 0:
                        os.close(loaded.result(fd.step))
            return done
    finally:
        os.close(image)
