"""The lab's one process on the host: makes the corners, keeps them alive, answers `wherry`, cleans up.

It imports every daemon once; all of them are forks of it. Commands come as JSON lines over a unix socket that only
root can open; an answer is any number of `{"step": …, "seconds": …}` lines and then `{"done": …}` or `{"error": …}`.
A corner that dies unasked is started again, as a machine with power would. If the supervisor itself is killed, the
kernel takes the corners down with it, and the next `wherry up` starts from the stored state.
"""

import asyncio
import contextlib
import gc
import json
import logging
import os
import shutil
import signal
import socket
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import setproctitle

from controlplane import clock
from controlplane.cli.lab import cgroups, corner, network, processes, services
from controlplane.cli.lab.init import Init, dead_children
from controlplane.cli.lab.spec import Lab, Node
from controlplane.client.rest import from_kubeconfig
from controlplane.daemon import setup_logging
from pki import provision
from pki.layout import DEFAULT

log = logging.getLogger(__name__)
Say = Callable[[dict[str, Any]], None]

_API_READY_S, _NODES_READY_S, _STOP_S = 30.0, 60.0, 10.0


class LabFailure(Exception):
    """A step failed; the message says which and where to look."""


class Supervisor:
    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self._corners: dict[str, int] = {}  # node name -> pid of its init
        self._wanted: set[str] = set()
        self._api_ready = asyncio.Event()
        self._finished = asyncio.Event()
        self._buried = asyncio.Event()
        self._lock = asyncio.Lock()  # one command that changes something at a time
        self._restarts: set[asyncio.TimerHandle] = set()
        self._commands: dict[str, Callable[..., Awaitable[Any]]] = {
            "up": self.up, "stop": self.stop_nodes, "down": self.down,
        }  # fmt: skip

    # --- commands -------------------------------------------------------------------------------------------------

    async def up(self, say: Say, size: int | None = None, nodes: list[str] | None = None) -> dict[str, Any]:
        """Start what is not running (all nodes, or those named) and wait until every wanted node is Ready."""
        step = _Steps(say)
        if size is not None and size != self.lab.size:
            await self._resize(size)
        wanted = [self.lab.node(name) for name in nodes] if nodes else list(self.lab.nodes)
        started = [node for node in wanted if node.name not in self._corners]
        since = clock.wall_time()
        network.create(self.lab)
        step("network")
        self._identities()  # 50 ms; a thread would still be there when the corners are forked
        step("certificates")
        self._wanted |= {node.name for node in wanted}
        for node in wanted:
            if node.control_plane:
                self._start(node)
        async with _deadline(
            _API_READY_S, f"the API server is not ready: see {self.lab.root}/node-1/log/apiserver.log"
        ):
            await self._api_ready.wait()
        step("API server")
        for node in wanted:
            self._start(node)
        step("corners")
        async with _deadline(_NODES_READY_S, f"not every node is Ready: see {self.lab.root}/*/log/nodeagent.log"):
            await self._nodes_ready({node.name for node in started}, since)
        if size is not None:
            await self._forget_beyond(size)  # a larger lab may have been stored
        step("nodes Ready")
        return self.status()

    async def stop_nodes(self, say: Say, nodes: list[str]) -> dict[str, Any]:
        """Cut the power of some nodes. Their pods die with them; the cluster finds out by missing heartbeats."""
        for name in nodes:
            self.lab.node(name)
            self._wanted.discard(name)
            await self._kill(name)
            say({"step": f"{name} is off"})
        return self.status()

    async def down(self, say: Say, purge: bool = False) -> dict[str, Any]:
        """Stop every node politely, then remove whatever the lab made on this machine, except (unless `purge`) data."""
        step = _Steps(say)
        self._wanted.clear()
        for pid in self._corners.values():
            _signal(pid, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_S):
                await self._gone(set(self._corners))
        for name in list(self._corners):
            await self._kill(name)
        step("nodes stopped")
        clean(self.lab, purge=purge)
        step("cleaned up")
        self._finished.set()
        return {"processes": []}

    def status(self) -> dict[str, Any]:
        """API URL, kubeconfig path, nodes, and every process of the lab's with its pid on the host."""
        return {
            "api": self.lab.api_url,
            "kubeconfig": str(self.lab.kubeconfig),
            "nodes": [
                {"name": n.name, "address": n.address, "state": "up" if n.name in self._corners else "off"}
                for n in self.lab.nodes
            ],
            "processes": processes.table(self.lab, os.getpid(), self._corners),
        }

    # --- corners --------------------------------------------------------------------------------------------------

    def _identities(self) -> None:
        lab, now = self.lab, datetime.fromtimestamp(clock.wall_time(), UTC)
        lab.root.mkdir(mode=0o755, parents=True, exist_ok=True)
        (lab.root / "lab.json").write_bytes(lab.dump())
        first = lab.nodes[0]
        ca = provision.authority(first.layout, now)
        names = (first.name, first.address, lab.gateway, lab.api_service_address)
        provision.control_plane(first.layout, ca, lab.api_url, names, now, DEFAULT)
        for node in lab.nodes:
            provision.node(node.layout, ca, lab.api_url, node.name, (node.address,), now, DEFAULT)
            for archive in lab.images.glob("*.tar"):
                target = node.layout.image_preload / archive.name
                if not target.exists():
                    os.link(archive, target)

    def _start(self, node: Node) -> None:
        if node.name in self._corners:
            return
        report = processes.report(self.lab, node.name)
        report.unlink(missing_ok=True)
        # Not every fork needs to know of readiness: only the API server's opens the next step here.
        reading, writing = os.pipe() if node.control_plane else (-1, -1)

        def first() -> None:
            def on_ready(service: str) -> None:
                if writing >= 0 and service == "apiserver":
                    os.write(writing, b"r")

            init = Init(services.of(self.lab, node), report, services.LOG_DIRECTORY, on_ready)
            signal.set_wakeup_fd(-1)
            asyncio.run(init.main())

        pid = corner.start(self.lab, node, first)
        self._corners[node.name] = pid
        log.info("started node=%s pid=%d", node.name, pid)
        if writing >= 0:
            os.close(writing)
            asyncio.get_running_loop().add_reader(reading, self._api_is_ready, reading)

    def _api_is_ready(self, reading: int) -> None:
        if os.read(reading, 1):
            self._api_ready.set()
        asyncio.get_running_loop().remove_reader(reading)
        os.close(reading)

    def bury(self) -> None:
        """SIGCHLD: take exit statuses; a wanted corner that died comes back after a second."""
        for pid, status in dead_children():
            for name, init in list(self._corners.items()):
                if init == pid:
                    del self._corners[name]
                    self._buried.set()
                    log.warning("ended node=%s pid=%d status=%d", name, pid, status)
                    if name in self._wanted:
                        node = self.lab.node(name)
                        self._restarts.add(asyncio.get_running_loop().call_later(1.0, self._restart, node))

    def _restart(self, node: Node) -> None:
        if node.name in self._wanted:
            self._start(node)

    async def _kill(self, name: str) -> None:
        pid = self._corners.get(name)
        if pid is None:
            return
        _signal(pid, signal.SIGKILL)
        async with _deadline(_STOP_S, f"{name} does not die (pid {pid})"):
            await self._gone({name})

    async def _gone(self, names: set[str]) -> None:
        while names & self._corners.keys():
            self._buried.clear()
            await self._buried.wait()

    async def _resize(self, size: int) -> None:
        """Grow, or switch the last nodes off."""
        gone = [node for node in self.lab.nodes if int(node.name.removeprefix("node-")) > size]
        for node in gone:
            self._wanted.discard(node.name)
            await self._kill(node.name)
        self.lab = replace(self.lab, size=size)

    async def _forget_beyond(self, size: int) -> None:
        client = from_kubeconfig(str(self.lab.kubeconfig), user_agent="wherry-lab")
        try:
            await services.forget_beyond(client, size)
        finally:
            await client.close()

    async def _nodes_ready(self, names: set[str], since: float) -> None:
        client = from_kubeconfig(str(self.lab.kubeconfig), user_agent="wherry-lab")
        try:
            await services.wait_for_nodes(client, names, since)
        finally:
            await client.close()

    # --- the socket -----------------------------------------------------------------------------------------------

    async def serve(self, first: Callable[[Say], Awaitable[Any]] | None, say: Say) -> None:
        """Answer commands until `down`. `first`, if given, runs at once and reports to `say`."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self.bury)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, lambda: asyncio.ensure_future(self.down(lambda _: None)))
        server = await asyncio.start_unix_server(self._connection, self.lab.control_socket)
        os.chmod(self.lab.control_socket, 0o600)
        async with server:
            if first is not None:
                async with self._lock:
                    await _answer(first, say)
            await self._finished.wait()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        def say(message: dict[str, Any]) -> None:
            writer.write(json.dumps(message).encode() + b"\n")

        try:
            request = json.loads(await reader.readline())
            action = request.pop("do")
            if action == "status":
                say({"done": self.status()})
            else:
                command = self._commands[action]
                async with self._lock:
                    await _answer(lambda s: command(s, **request), say)
            await writer.drain()
        except (ConnectionError, ValueError, KeyError) as error:
            log.warning("command failed error=%r", error)
        finally:
            writer.close()


async def _answer(command: Callable[[Say], Awaitable[Any]], say: Say) -> None:
    try:
        say({"done": await command(say)})
    except Exception as error:
        log.exception("command failed")
        say({"error": f"{type(error).__name__}: {error}" if not isinstance(error, LabFailure) else str(error)})


class _Steps:
    """Says each step with the time since the last one."""

    def __init__(self, say: Say) -> None:
        self._say, self._last = say, asyncio.get_running_loop().time()

    def __call__(self, name: str) -> None:
        now = asyncio.get_running_loop().time()
        self._say({"step": name, "seconds": round(now - self._last, 3)})
        self._last = now


@contextlib.asynccontextmanager
async def _deadline(seconds: float, message: str) -> Any:
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise LabFailure(message) from None


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def clean(lab: Lab, *, purge: bool) -> None:
    """Remove what a lab leaves on the machine: processes, interfaces, rules, cgroups, sockets; with `purge` its data.
    Only for a lab whose supervisor is dead or is the caller: the corners' processes are killed if any are left."""
    cgroups.kill(lab.cgroup)
    network.clean(lab)
    left = cgroups.remove(lab.cgroup)
    if left:
        log.warning("cgroups still in use first=%s count=%d", left[0], len(left))
    if purge and lab.root.exists():
        for path in lab.root.iterdir():
            if path != lab.images:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        with contextlib.suppress(OSError):
            lab.root.rmdir()  # the nameless lab's holds the images of all labs
    shutil.rmtree(lab.run, ignore_errors=True)
    if not list(lab.run.parent.glob("wherry-lab*")):
        # Removing a directory unmounts what is mounted on it in other namespaces: not while another lab runs.
        for directory in corner.MADE:
            with contextlib.suppress(OSError):
                directory.rmdir()


def launch(lab: Lab, size: int | None) -> socket.socket:
    """Fork the supervisor into the background. Returns a stream of its messages about the first `up`."""
    lab.root.mkdir(mode=0o755, parents=True, exist_ok=True)
    lab.run.mkdir(mode=0o700, parents=True, exist_ok=True)
    ours, theirs = socket.socketpair()
    if os.fork():
        theirs.close()
        return ours
    try:
        ours.close()
        os.setsid()
        if os.fork():
            os._exit(0)
        _background(lab, size, theirs)
    finally:
        os._exit(1)


def _background(lab: Lab, size: int | None, talk: socket.socket) -> None:
    out = os.open(lab.root / "lab.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o640)
    null = os.open("/dev/null", os.O_RDONLY)
    os.dup2(null, 0)
    for target in (1, 2):
        os.dup2(out, target)
    setup_logging()
    corner.become_subreaper()
    services.preload()
    setproctitle.setproctitle("wherry-lab")
    gc.collect()
    gc.freeze()  # what is imported now is shared by every fork: the collector must not write to it

    def say(message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # whoever started us need not stay
            talk.sendall(json.dumps(message).encode() + b"\n")

    async def main() -> None:
        supervisor = Supervisor(lab)

        async def first(tell: Say) -> Any:
            try:
                return await supervisor.up(tell, size)
            finally:
                asyncio.get_running_loop().call_soon(talk.close)

        await supervisor.serve(first, say)

    asyncio.run(main())
    os._exit(0)
