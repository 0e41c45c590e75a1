"""The zygote (service `wherry-runtime`): a small, warm process that forks one shim a pod, and does nothing else.

    python -I -S nodeagent/runtime/zygote.py --root DIR --state DIR --socket PATH [--cgroup PATH]

Forking costs by what the parent has in memory, so the agent never forks, and this process has nothing: no site, no
third-party code, a frozen heap. Some shims are forked in advance: namespaces and first touches of memory take time.
Killing it hurts no pod: shims and containers run on, and a new zygote serves new pods. It also reaps what has lost its
parent (it is a subreaper). With --cgroup its children live there (relative to the tops of the cgroup mounts), so that a
service manager that ends everything in this process's own cgroup does not end them.

Its own executable sits on a read-only mount that no path leads to: a container that gets hold of it through
/proc/<pid>/exe (CVE-2019-5736) cannot write to it. To systemd it says READY=1 and, from its loop, WATCHDOG=1.
"""

import _signal  # type: ignore[import-not-found]
import _socket
import gc
import os
import select
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from nodeagent.linux.syscalls import NUMBERS, KernelError, call, raw
from nodeagent.runtime import pause, shim, wire

POOL = 3  # shims kept ready: they make the first pods of a burst faster, and cost a megabyte each
REFILL_DELAY_S = 0.003  # of quiet before a new one is made

_PR_SET_CHILD_SUBREAPER = 36
_OPEN_TREE_CLONE, _AT_EMPTY_PATH, _ATTR_RDONLY, _AT_FDCWD = 1, 0x1000, 1, -100
_MARK = "WHERRY_ZYGOTE_PROTECTED"


def protect() -> None:
    """Execute ourselves again from a read-only, detached mount of our interpreter; returns in the new process.
    Where the kernel cannot (before 5.12), say so and go on."""
    if os.environ.pop(_MARK, None):
        return
    executable = os.path.realpath("/proc/self/exe")
    try:
        tree = call("open_tree", _AT_FDCWD, executable.encode() + b"\0", _OPEN_TREE_CLONE, path=executable)
        attributes = _ATTR_RDONLY.to_bytes(8, "little") + bytes(24)
        call("mount_setattr", tree, b"\0", _AT_EMPTY_PATH, attributes, len(attributes), path=executable)
        arguments = [sys.executable or executable, "-I", "-S", os.path.abspath(__file__), *sys.argv[1:]]
        os.execve(tree, arguments, {**os.environ, _MARK: "1"})
    except OSError as error:
        log("warning", f"protect error={str(error)!r}")


def log(level: str, text: str) -> None:
    """One line on standard error, as the journal wants it if that is where it goes (see controlplane.systemd)."""
    status = os.fstat(2)
    if os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}":
        prefix = {"error": "<3>", "warning": "<4>"}.get(level, "<6>")
    else:
        prefix = level + " "
    print(f"{prefix}nodeagent.runtime.zygote {text}", file=sys.stderr, flush=True)


class Systemd:
    """What this process says to systemd; nothing without it. As controlplane.systemd, without its imports."""

    def __init__(self) -> None:
        address = os.environ.pop("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        # Not WATCHDOG_PID: it is ours from before we executed ourselves again, and that keeps the pid.
        period_us = int(os.environ.pop("WATCHDOG_USEC", "0")) // 2
        self.period_s = period_us / 1_000_000 if self._address else 0.0
        self._next = 0.0

    def say(self, message: str) -> None:
        if not self._address:
            return
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
        try:
            sock.sendto(message.encode(), self._address)
        except OSError:
            pass  # systemd being executed anew, say; the next one will tell
        finally:
            sock.close()

    def alive(self) -> "float | None":
        """Called from the loop: feed the watchdog if it is time to. Returns after how many seconds to come again."""
        if not self.period_s:
            return None
        now = time.monotonic()
        if now >= self._next:
            self.say("WATCHDOG=1")
            self._next = now + self.period_s
        return self._next - now


def join_files(cgroup: str) -> "list[str]":
    """The files to which a child writes `0` to be in `cgroup`/shims of every hierarchy; makes the directories. A
    hierarchy whose `cgroup` nobody has made is left out: on v1, systemd makes it only for controllers that it uses."""
    files = []
    with open("/proc/self/mountinfo", encoding="utf-8") as mounts:
        for line in mounts:
            left, _, right = line.partition(" - ")
            kind = right.split()[0]
            top = left.split()[4] + "/" + cgroup.strip("/")
            if kind not in ("cgroup", "cgroup2") or not os.path.isdir(top):
                continue
            directory = top + "/shims"
            try:
                os.makedirs(directory, mode=0o755, exist_ok=True)
            except OSError as error:  # e.g. mounted read-only
                log("warning", f"cgroup={directory} error={str(error)!r}")
                continue
            files.append(directory + ("/cgroup.procs" if kind == "cgroup2" else "/tasks"))
    return files


class Zygote:
    def __init__(self, path: str, systemd: Systemd, cgroup_files: "list[str]") -> None:
        self._systemd = systemd
        self._cgroup_files = cgroup_files
        self._listener = wire.bind(path)
        self._listener.listen(64)
        self._epoll = select.epoll()
        self._epoll.register(self._listener.fileno(), select.EPOLLIN)
        self._wake, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        _signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        _signal.signal(_signal.SIGCHLD, lambda *_: None)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._connections: dict[int, wire.Socket] = {}
        self._idle: list[wire.Socket] = []  # connections to shims that wait for work

    def serve(self) -> None:
        while True:
            rest = self._systemd.alive()
            ready = self._epoll.poll(REFILL_DELAY_S if len(self._idle) < POOL else rest)
            for fd, _ in ready:
                if fd == self._listener.fileno():
                    sock = wire.accept(self._listener)
                    self._connections[sock.fileno()] = sock
                    self._epoll.register(sock.fileno(), select.EPOLLIN)
                elif fd == self._wake:
                    os.read(self._wake, 512)
                    self._reap()
                elif fd in self._connections:
                    self._request(self._connections[fd])
            if not ready and len(self._idle) < POOL:
                self._prepare()

    def _request(self, sock: wire.Socket) -> None:
        try:
            received = wire.receive(sock)
        except BlockingIOError:
            return
        except (OSError, ValueError):
            received = None
        if received is None:
            self._epoll.unregister(sock.fileno())
            del self._connections[sock.fileno()]
            sock.close()
            return
        message, fds = received
        if message.get("op") == "ping":
            try:
                wire.send(sock, {"re": message.get("n")})
            except OSError:
                pass  # whoever asked has gone
        if message.get("op") == "sandbox" and len(fds) == 3 and not self._hand_over(message, fds):
            try:
                pid = os.fork()
            except OSError as error:
                _tell(fds[2], f"fork: {error.strerror}")
            else:
                if pid == 0:
                    self._become(fds, shim.main, message, fds)
        for fd in fds:
            os.close(fd)

    def _prepare(self) -> None:
        """One more idle shim, now that nobody waits for us."""
        ours, theirs = wire.pair()
        try:
            pid = os.fork()
        except OSError:
            pid = -1
        if pid == 0:
            self._become([theirs.fileno()], shim.wait_for_work, theirs)
        theirs.close()
        if pid > 0:
            self._idle.append(ours)

    def _hand_over(self, message: "dict[str, object]", fds: "list[int]") -> bool:
        """Give the work to an idle shim, if it is of the usual kind and one is there."""
        while self._idle and message.get("unshare") == shim.USUAL:
            sock = self._idle.pop()
            try:
                wire.send(sock, message, fds)
                return True
            except OSError:  # that one has died
                pass
            finally:
                sock.close()
        return False

    def _become(self, fds: "list[int]", life: "object", *arguments: object) -> None:
        """The forked child's life as a shim, with the descriptors `fds` and no others. They are closed by number: what
        Python believes to have open does not matter to a process that never returns from here."""
        status = 1
        try:
            _signal.set_wakeup_fd(-1)
            _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
            _signal.signal(_signal.SIGTERM, _signal.SIG_DFL)
            os.setsid()
            self._leave_cgroup()
            low = 3
            for fd in sorted(fds):
                os.closerange(low, fd)
                low = fd + 1
            os.closerange(low, low + 65536)
            life(*arguments)  # type: ignore[operator]
            status = 0
        finally:
            if status:
                sys.excepthook(*sys.exc_info())
            os._exit(status)

    def _leave_cgroup(self) -> None:
        """In a child: out of the service's own cgroup. Raw descriptors, for the parent's memory is shared."""
        for path in self._cgroup_files:
            try:
                fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
                try:
                    os.write(fd, b"0")
                finally:
                    os.close(fd)
            except OSError as error:  # it works here as well; KillMode=process spares it
                log("warning", f"cgroup={path} error={str(error)!r}")

    def _reap(self) -> None:
        """Shims that have ended, and what they left behind. Who waits for a shim sees its connection end."""
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass


def _tell(fd: int, error: str) -> None:
    """Say on the agent's connection why there will be no shim at its other end."""
    try:
        os.write(fd, wire.encode({"error": error}))
    except OSError:
        pass  # the agent has gone; what it asked for is on disk for the next one


def main(arguments: "list[str]") -> int:
    options = dict(zip(arguments[::2], arguments[1::2], strict=False))
    wanted = {"--root", "--state", "--socket"}
    if set(options) - {"--cgroup"} != wanted or len(arguments) != 2 * len(options):
        print("usage: zygote.py --root DIR --state DIR --socket PATH [--cgroup PATH]", file=sys.stderr)
        return 2
    protect()
    systemd = Systemd()
    try:
        for directory in (options["--root"], options["--state"], os.path.dirname(options["--socket"])):
            os.makedirs(directory, mode=0o711, exist_ok=True)
        raw(NUMBERS["prctl"], _PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        os.chdir("/")
        files = join_files(options["--cgroup"]) if options.get("--cgroup") else []
        zygote = Zygote(options["--socket"], systemd, files)
    except (OSError, KernelError) as error:
        log("error", str(error))
        return 1
    log("info", f"serving socket={options['--socket']} pid={os.getpid()} cgroups={len(files)}")
    gc.collect()
    gc.freeze()  # no collection may write to objects that forked shims share with us
    gc.disable()
    _signal.signal(_signal.SIGTERM, lambda *_: os._exit(0))
    systemd.say("READY=1")
    zygote.serve()
    return 0


if __name__ == "__main__":
    assert pause  # imported here so that shims share it
    sys.exit(main(sys.argv[1:]))
