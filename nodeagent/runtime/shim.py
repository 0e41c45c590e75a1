"""The shim: one small process a pod, which outlives the agent: parent of its containers, keeper of its namespaces.

It was forked from the zygote, and is itself in the pod's network, IPC and UTS namespaces, so that its children are,
too. It starts processes by executing programs that the agent has compiled (linux/executor.py), copies their output to
log files (process.py), and writes how they ended to files, first of all; then it tells whoever is connected. It decides
nothing.

One thread, one epoll loop, a listening socket. Every connection may send requests; one that sent `exec` owns the
process it started, which dies with the connection. If the shim dies, its containers get SIGKILL (PR_SET_PDEATHSIG).

Lean: forked memory stays shared only while nobody touches it, so this imports what the zygote has and no more.
"""

import _socket
import errno
import os
import select
import struct
import time

from nodeagent.linux.executor import Loaded
from nodeagent.linux.layout import BASE, HEADER_SIZE, MAGIC
from nodeagent.linux.syscalls import NUMBERS, KernelError, numbers_only
from nodeagent.runtime import wire
from nodeagent.runtime.logs import Log, Stream
from nodeagent.runtime.process import SIGKILL, Process, Viewer, oom_kills
from nodeagent.runtime.wire import Connection

CLONE_NEWPID = 0x20000000
USUAL = 0x4000000 | 0x8000000 | 0x40000000  # CLONE_NEWUTS, NEWIPC, NEWNET: of every pod that asks for nothing else
PR_SET_DUMPABLE = 4
STDIO = 4  # inputs 0 to 3 of a program: standard streams and the socket that wants the terminal


class Shim:
    def __init__(self, directory: str, listener: wire.Socket, agent: wire.Socket) -> None:
        self.directory = directory
        self.processes: dict[str, Process] = {}
        self.inputs: list[int] = []  # descriptors that belong to the pod, e.g. its /dev/shm
        self.pause: Process | None = None
        self._own_pidns = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        self._null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        self._epoll = select.epoll()
        self._handlers: dict[int, tuple[object, ...]] = {}
        self._running = True
        self._listener = listener
        listener.listen(16)
        listener.setblocking(False)
        self._on(listener.fileno(), self._accept)
        agent.setblocking(False)
        first = Connection(agent)
        first.watching = True
        self._on(agent.fileno(), self._request, first)

    # The loop.

    def _on(self, fd: int, handler: object, *arguments: object, events: int = select.EPOLLIN) -> None:
        self._handlers[fd] = (handler, *arguments)
        self._epoll.register(fd, events)

    def _off(self, fd: int) -> None:
        if self._handlers.pop(fd, None):
            self._epoll.unregister(fd)

    def serve(self) -> None:
        while self._running:
            try:
                ready = self._epoll.poll()
            except InterruptedError:
                continue
            for fd, _ in ready:
                entry = self._handlers.get(fd)
                if entry is not None:
                    entry[0](*entry[1:])  # type: ignore[operator]

    def _accept(self) -> None:
        try:
            sock = wire.accept(self._listener)
        except OSError:
            return
        self._on(sock.fileno(), self._request, Connection(sock))

    def _request(self, connection: Connection) -> None:
        try:
            received = wire.receive(connection.sock)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            received = None
        if received is None:
            self._hang_up(connection)
            return
        message, fds = received
        try:
            handler = getattr(self, "do_" + str(message.get("op")), None)
            if handler is None:
                raise ValueError(f"unknown request {message.get('op')!r}")
            reply = handler(connection, message, fds)
        except OSError as error:
            reply = {"error": str(error), "errno": error.errno or errno.EIO}
        except (LookupError, ValueError, TypeError) as error:
            reply = {"error": f"{type(error).__name__}: {error}", "errno": errno.EINVAL}
        finally:
            for fd in fds:
                if fd >= 0:
                    os.close(fd)
        if reply is not None:
            passed = reply.pop("fds", None)
            connection.send({"re": message.get("n"), **reply}, passed)

    def _hang_up(self, connection: Connection) -> None:
        self._off(connection.sock.fileno())
        connection.sock.close()
        for process in list(self.processes.values()):
            if process.owner is connection:
                process.signal(SIGKILL)
            for viewer in [v for v in process.viewers if v.owner is connection]:
                process.detach(viewer)

    # Requests.

    def do_watch(self, connection: Connection, message: "dict[str, object]", fds: "list[int]") -> "dict[str, object]":
        """Tell this connection of every container's end from now on."""
        connection.watching = True
        return {"running": [p.key for p in self.processes.values() if p.owner is None]}

    def do_start(self, connection: Connection, message: "dict[str, object]", fds: "list[int]") -> "dict[str, object]":
        """Start container `id` by the program in the first descriptor."""
        key = str(message["id"])
        if key in self.processes:
            raise ValueError("already started")
        log = Log(str(message["log"]))
        mine: list[int] = []
        theirs: list[int] = []
        receiver = None
        try:
            if message["tty"]:
                receiver, sender = wire.pair()
                theirs = [self._null, self._null, self._null, sender.detach()]
            else:
                stdin, feed = os.pipe2(os.O_CLOEXEC) if message["stdin"] else (self._null, -1)
                out, into = os.pipe2(os.O_CLOEXEC)
                err, errinto = os.pipe2(os.O_CLOEXEC)
                mine, theirs = [feed, out, err], [stdin, into, errinto, self._null]
            target = self.processes[str(message["target"])].pidfd if message.get("target") else -1
            process = self._spawn(key, message, fds[0], theirs, str(message["dir"]), None, target)
            if isinstance(process, dict):
                log.close()
                return process
            process.log = log
            if receiver is not None:
                process.terminal = _receive_descriptor(receiver)
                mine = [os.dup(process.terminal) if message["stdin"] else -1, process.terminal]
            process.stdin, process.stdin_once = mine[0], bool(message.get("stdin_once"))
            for fd, name in zip(mine[1:], ("stdout", "stderr"), strict=False):
                os.set_blocking(fd, False)
                process.outputs[fd] = Stream(name)
                self._on(fd, self._output, process, fd)
            mine = []
        finally:
            for fd in {*mine, *theirs} - {-1, self._null}:
                os.close(fd)
            if receiver is not None:
                receiver.close()
        started: dict[str, object] = {"pid": process.pid, "at": _now()}
        try:
            wire.write_file(process.directory + "/started.json", started)
        except OSError:  # a full disk: nobody would find it again
            process.signal(SIGKILL)
            raise
        return started

    def do_exec(
        self, connection: Connection, message: "dict[str, object]", fds: "list[int]"
    ) -> "dict[str, object] | None":
        """Start a process in container `id`: descriptors are the program and what inputs 0 to 3 shall be."""
        container = self.processes[str(message["id"])]
        process = self._spawn(f"exec-{id(connection)}", message, fds[0], fds[1:], "", connection, container.pidfd)
        return process if isinstance(process, dict) else {"pid": process.pid}

    def do_signal(self, connection: Connection, message: "dict[str, object]", fds: "list[int]") -> "dict[str, object]":
        process = self.processes.get(str(message["id"]))
        return {"sent": process is not None and process.signal(int(str(message["signal"])))}

    def do_reopen(self, connection: Connection, message: "dict[str, object]", fds: "list[int]") -> "dict[str, object]":
        log = self.processes[str(message["id"])].log
        if log is not None:
            log.reopen()
        return {}

    def do_attach(self, connection: Connection, message: "dict[str, object]", fds: "list[int]") -> "dict[str, object]":
        """Copy the container's output to the two pipes given; hand over its standard input or terminal."""
        process = self.processes[str(message["id"])]
        for fd in fds:
            os.set_blocking(fd, False)
        process.viewers.append(Viewer(connection, fds[:]))
        fds.clear()  # ours now
        passed = [fd for fd in (process.stdin, process.terminal) if fd >= 0]
        return {"stdin": process.stdin >= 0, "terminal": process.terminal >= 0, "fds": passed}

    def do_eof(self, connection: Connection, message: "dict[str, object]", fds: "list[int]") -> "dict[str, object]":
        """An attached client has closed its standard input; with stdin_once that is the container's end of file."""
        process = self.processes[str(message["id"])]
        if process.stdin_once:
            process.close_stdin()
        return {}

    def do_stop(self, connection: Connection, message: "dict[str, object]", fds: "list[int]") -> "dict[str, object]":
        """Kill everything, write down how it ended, and end. The reply comes when all is dead."""
        for process in list(self.processes.values()):
            process.signal(SIGKILL)
        # A namespace's first process cannot end before everything else in it has been waited for, and that is our
        # work, too: execs first, then containers, then what they share.
        for process in sorted(self.processes.values(), key=lambda p: p.owner is None):
            self._ended(process)
        if self.pause is not None:
            self.pause.signal(SIGKILL)
            os.waitid(os.P_PID, self.pause.pid, os.WEXITED)
        self._running = False
        os.unlink(self.directory + "/shim.sock")
        return {}

    def do_pause(self, connection: Connection, message: "dict[str, object]", fds: "list[int]") -> "dict[str, object]":
        """Make the PID namespace that the pod's containers share; its first process only reaps."""
        from nodeagent.runtime.pause import start

        pid = start()
        self.pause = Process("pause", pid, os.pidfd_open(pid))
        return {"pid": pid}

    # Processes.

    def _spawn(
        self, key: str, message: "dict[str, object]", program: int, inputs: "list[int]", directory: str,
        owner: "Connection | None" = None, join: int = -1,
    ) -> "Process | dict[str, object]":  # fmt: skip
        """The new process, or the reply that says which step of its program failed."""
        cgroup = -1
        if self.pause is not None and join < 0:
            join = self.pause.pidfd
        if message.get("cgroup"):
            cgroup = os.open(str(message["cgroup"]), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with Loaded(program) as loaded:
                loaded.give([*inputs, *[-1] * (STDIO - len(inputs)), join, *self.inputs])
                if join >= 0:  # only our children's PID namespace changes, and only for this one
                    _setns(join, CLONE_NEWPID)
                try:
                    native = bool(message.get("native", True))
                    pid, pidfd = loaded.spawn(int(str(message["flags"])), cgroup, native=native)
                finally:
                    if join >= 0:
                        _setns(self._own_pidns, 0)
                failure = loaded.failure()
        finally:
            if cgroup >= 0:
                os.close(cgroup)
        if failure is not None:
            os.waitid(os.P_PID, pid, os.WEXITED)
            os.close(pidfd)
            return {"failed": list(failure)}
        process = Process(key, pid, pidfd, directory, owner)
        process.oom_file, process.kill_file = str(message.get("oom", "")), str(message.get("kill", ""))
        self.processes[key] = process
        self._on(pidfd, self._ended, process)
        return process

    def _ended(self, process: Process) -> None:
        info = os.waitid(os.P_PID, process.pid, os.WEXITED)
        if info is None:
            return
        killed = info.si_code != os.CLD_EXITED
        code = 128 + info.si_status if killed else info.si_status
        self._off(process.pidfd)
        os.close(process.pidfd)
        del self.processes[process.key]
        report: dict[str, object] = {"code": code, "signal": info.si_status if killed else 0, "at": _now()}
        if process.owner is not None:
            process.owner.send({"exit": code})
            return
        process.kill_rest()
        for fd in list(process.outputs):
            self._output(process, fd, last=True)
        process.close()
        report["oom"] = oom_kills(process.oom_file)
        try:
            wire.write_file(process.directory + "/exit.json", report)
        except OSError:  # a full disk: who listens hears of it all the same
            pass
        for entry in list(self._handlers.values()):
            connection = entry[-1]
            if isinstance(connection, Connection) and connection.watching:
                connection.send({"ended": process.key, **report})

    def _output(self, process: Process, fd: int, last: bool = False) -> None:
        """A container has written something, or its end of `fd` is closed."""
        if process.copy(fd, last):
            self._off(fd)
            os.close(fd)


def main(message: "dict[str, object]", fds: "list[int]") -> None:
    """Become the shim of the sandbox in directory `dir`: run its program in this process, then serve until stopped.
    The descriptors: the program, a bound socket to listen on, a connection to the agent, which is told how it went.
    `exports` are the steps whose results containers will want as inputs."""
    program, listener = fds[0], wire.Socket(_socket.AF_UNIX, wire.SEQPACKET, 0, fds[1])
    agent = wire.Socket(_socket.AF_UNIX, wire.SEQPACKET, 0, fds[2])
    try:
        users = -1
        if message["unshare"]:
            unshare(message["unshare"])  # type: ignore[arg-type]
        if message.get("users"):
            from nodeagent.runtime.userns import enter

            users = enter(*message["users"])  # type: ignore[misc]
        with Loaded(program) as loaded:
            if not loaded.run():
                wire.send(agent, {"failed": list(loaded.failure() or ())})
                return
            exports = [loaded.result(step) for step in message["exports"]]  # type: ignore[attr-defined]
        os.close(program)
        shim = Shim(str(message["dir"]), listener, agent)
        shim.inputs = [*(exports or [-1]), users]
    except (OSError, ValueError) as error:
        wire.send(agent, {"error": str(error)})
        return
    # Nobody but root may look into us, nor into a child before its execve (it borrows our memory).
    numbers_only(NUMBERS["prctl"], PR_SET_DUMPABLE)
    wire.send(agent, {"ready": os.getpid()})
    shim.serve()


def wait_for_work(sock: wire.Socket) -> None:
    """Be a shim for whoever comes: have the usual namespaces, and have touched what the first pod will touch, before
    there is a pod that would have to wait for it. Then do as the zygote says, or end when it has ended."""
    try:
        unshare(USUAL)
        rehearse()
        received = wire.receive(sock)
    except OSError:
        return
    if received is not None:
        sock.close()
        received[0]["unshare"] = 0
        main(*received)


def rehearse() -> None:
    """Go through the motions of a container's life without one."""
    fd = os.memfd_create("rehearsal", os.MFD_CLOEXEC)
    header = bytearray(HEADER_SIZE)
    struct.pack_into("<3Q", header, 0, MAGIC, BASE + HEADER_SIZE, BASE + HEADER_SIZE)
    os.write(fd, header)
    with Loaded(fd) as loaded:
        loaded.give([0, 0, 0, 0, -1])
        pid, pidfd = loaded.spawn(0)
        loaded.failure()
    os.waitid(os.P_PID, pid, os.WEXITED)
    for number in (fd, pidfd, *os.pipe2(os.O_CLOEXEC)):
        os.close(number)
    one, other = wire.pair()
    wire.send(one, {"re": 1, "pid": pid, "at": _now(), "running": [], "oom": oom_kills("/proc/self/status")}, [0])
    received = wire.receive(other)
    if received is not None:
        os.close(received[1][0])
    one.close()
    other.close()


def unshare(flags: int) -> None:
    result = numbers_only(NUMBERS["unshare"], flags)
    if result < 0:
        raise KernelError(-result, "unshare", "the pod's namespaces")


def _now() -> float:
    # Not controlplane.clock: importing it costs more memory than a whole shim may have.
    return time.clock_gettime(time.CLOCK_REALTIME)


def _setns(fd: int, kind: int) -> None:
    result = numbers_only(NUMBERS["setns"], fd, kind)
    if result < 0:
        raise KernelError(-result, "setns")


def _receive_descriptor(sock: wire.Socket) -> int:
    """The terminal that the container's first code made in its own /dev/pts and sent before execve."""
    sock.setblocking(False)
    _, ancillary, _, _ = sock.recvmsg(1, 64, wire.MSG_CMSG_CLOEXEC)
    return int(struct.unpack("i", ancillary[0][2][:4])[0])
