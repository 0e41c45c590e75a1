"""`wherry reset`: take this machine out of its cluster, and leave nothing of what made it a node.

The steps are values (what, and how); a failed one is told and the others still run, so that the second attempt has
less to do. Order matters: first those that would put things back, then containers, then the kernel's rules and links,
files last. The cluster keeps its Node object: deleting that is an administrator's word, not a machine's.

A control plane stays as it is unless that is asked for: with it go the cluster's data and the key of its authority.
"""

import asyncio
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from controlplane.cli.machine.trouble import Trouble
from pki.layout import DEFAULT, Layout

NODE_UNITS = ("wherry-nodeagent", "wherry-netproxy")
LATE_UNITS = ("wherry-runtime", "wherry-pods")
CONTROL_PLANE_UNITS = ("wherry-scheduler", "wherry-controllers", "wherry-apiserver")
_CONTAINERS_S = 120.0
_POD_LOGS = Path("/var/log/pods")


@dataclass(frozen=True, slots=True)
class Step:
    """`do` returns what was done, empty if there was nothing to do. It may raise anything."""

    what: str
    do: Callable[[], Awaitable[str]]


async def reset(steps: Sequence[Step], say: Callable[[str], None]) -> None:
    """Run `steps`. Raises Trouble at the end if some failed."""
    failed = []
    for step in steps:
        try:
            if done := await step.do():
                say(f"{step.what}: {done}")
        except Exception as error:
            failed.append(f"{step.what}: {error or type(error).__name__}")
    if failed:
        raise Trouble("not everything went: " + "; ".join(failed), "run it again; after a reboot, what is left can go")


def plan(layout: Layout, control_plane: bool) -> list[Step]:
    """What there is to do on this machine."""
    more = CONTROL_PLANE_UNITS if control_plane else ()
    steps = [
        Step("stop", lambda: _stop((*NODE_UNITS, *more))),
        Step("containers", lambda: _containers(layout)),
        Step("stop", lambda: _stop(LATE_UNITS)),
        Step("Services' rules", _services),
        Step("pod network", lambda: _pod_network(layout)),
    ]
    if layout != DEFAULT:
        steps = []  # files of another root: nothing of them runs here
    return [*steps, *(Step("files", _remover(path)) for path in files(layout, control_plane))]


def files(layout: Layout, control_plane: bool) -> Iterator[Path]:
    """What is deleted."""
    for name in ("nodeagent", "netproxy"):
        yield layout.config(name)
        yield layout.kubeconfig(name)
        yield layout.identities / name
    yield layout.static_pods
    yield layout.agent_root
    yield layout.run
    if layout == DEFAULT:
        yield _POD_LOGS
    if control_plane:
        for name in ("apiserver", "scheduler", "controllers", "admin"):
            yield layout.config(name)
            yield layout.kubeconfig(name)
            yield layout.identities / name
        yield layout.store.parent
    if control_plane or not layout.ca_key.exists():
        yield layout.pki


async def _stop(units: Sequence[str]) -> str:
    """Stop the systemd units that run here."""
    if not Path("/run/systemd/system").is_dir():
        return ""
    running = [unit for unit in units if (await _systemctl("is-active", "--quiet", unit))[0] == 0]
    if running:
        code, said = await _systemctl("stop", *running)
        if code:
            raise OSError(said.strip())
    await _systemctl("reset-failed", *units)
    return ", ".join(running)


async def _systemctl(*arguments: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        "systemctl", *arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode(errors="replace")


class _NoNetwork:
    """Sandboxes are removed one by one, their network all at once afterwards."""

    async def attach(self, sandbox_id: str, netns_path: str, ports: Sequence[object] = ()) -> Sequence[str]:
        raise NotImplementedError

    async def detach(self, sandbox_id: str, netns_path: str = "") -> None:
        pass


async def _containers(layout: Layout) -> str:
    """Stop and remove every sandbox, by the runtime that made them."""
    if not layout.runtime_socket.exists():
        return ""
    from nodeagent.images.service import LocalImages
    from nodeagent.runtime.interface import RuntimeFailure
    from nodeagent.runtime.service import LinuxRuntime

    _, group = await _systemctl("show", "wherry-pods", "-p", "ControlGroup", "--value") if _has_systemd() else (0, "")
    images = LocalImages(layout.agent_root / "images")
    runtime = LinuxRuntime(
        str(layout.agent_root), str(layout.runtime_state), str(layout.runtime_socket), images, _NoNetwork(),
        cgroup_root=group.strip(),
    )  # fmt: skip
    try:
        await runtime.start()
        found = await runtime.sandboxes()
        async with asyncio.timeout(_CONTAINERS_S):
            await asyncio.gather(*(runtime.remove_sandbox(each.id) for each in found))
        return f"{len(found)} sandboxes removed" if found else ""
    except RuntimeFailure as failure:
        if _has_systemd():
            return ""  # the runtime is not there; stopping wherry-pods kills what is left
        raise OSError(str(failure)) from failure
    finally:
        await runtime.close()
        await images.close()


def _has_systemd() -> bool:
    return Path("/run/systemd/system").is_dir() and shutil.which("systemctl") is not None


async def _services() -> str:
    from netproxy.server import Config, serve

    await serve(Config(cleanup=True), lambda: None)
    return "removed"


async def _pod_network(layout: Layout) -> str:
    from controlplane.daemon import load_config
    from nodeagent.config import Config
    from nodeagent.network.network import LinuxPodNetwork, NetworkConfig

    path = layout.config("nodeagent")
    config = load_config(Config, ["--config", str(path)] if path.exists() else [], {})
    network = LinuxPodNetwork(NetworkConfig(str(layout.agent_root / "network"), config.cluster_cidr))
    try:
        await network.cleanup()
    finally:
        await network.close()
    return "bridge, tunnel, routes and rules removed"


def _remover(path: Path) -> Callable[[], Awaitable[str]]:
    async def remove() -> str:
        if path.is_symlink() or path.is_file():
            path.unlink()
        elif path.is_dir():
            from nodeagent.pods.volumes.places import remove_tree

            await asyncio.to_thread(remove_tree, str(path))  # detaches mounts first: never into foreign data
            if path.exists():
                raise OSError(f"{path} is still there")
        else:
            return ""
        return f"{path} deleted"

    return remove
