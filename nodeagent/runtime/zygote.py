"""The zygote (service `wherry-runtime`): a small, warm process that forks one shim a pod, and does nothing else.

    python -I -S nodeagent/runtime/zygote.py --root DIR --state DIR --socket PATH

Forking costs by what the parent has in memory, so the agent never forks, and this process has nothing: no site, no
third-party code, a frozen heap. Killing it hurts no pod: shims and containers run on, and a new zygote serves new pods.
It also reaps what has lost its parent (it is a subreaper), and reports shims that died before they could answer.

Its own executable sits on a read-only mount that no path leads to: a container that gets hold of it through
/proc/<pid>/exe (CVE-2019-5736) cannot write to it. `wherry-runtime` under systemd needs KillMode=process, Delegate=yes.
"""

import gc
import os
import select
import signal
import socket
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from nodeagent.linux.syscalls import NUMBERS, KernelError, call, raw
from nodeagent.runtime import pause, shim, wire

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
        print(f"warning nodeagent.runtime.zygote protect error={str(error)!r}", file=sys.stderr, flush=True)


class Zygote:
    def __init__(self, path: str) -> None:
        self._listener = wire.listen(path)
        self._epoll = select.epoll()
        self._epoll.register(self._listener.fileno(), select.EPOLLIN)
        self._wake, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        self._epoll.register(self._wake, select.EPOLLIN)
        self._connections: dict[int, socket.socket] = {}
        self._asked: dict[int, tuple[socket.socket, object]] = {}  # shim's pid -> who asked, in which request

    def serve(self) -> None:
        while True:
            for fd, _ in self._epoll.poll():
                if fd == self._listener.fileno():
                    sock, _ = self._listener.accept()
                    self._connections[sock.fileno()] = sock
                    self._epoll.register(sock.fileno(), select.EPOLLIN)
                elif fd == self._wake:
                    os.read(self._wake, 512)
                    self._reap()
                elif fd in self._connections:
                    self._request(self._connections[fd])

    def _request(self, sock: socket.socket) -> None:
        try:
            received = wire.receive(sock)
        except (OSError, ValueError):
            received = None
        if received is None:
            self._epoll.unregister(sock.fileno())
            del self._connections[sock.fileno()]
            sock.close()
            return
        message, fds = received
        if message.get("op") != "sandbox" or len(fds) != 1:
            _answer(sock, {"re": message.get("n"), "pid": os.getpid()})
            for fd in fds:
                os.close(fd)
            return
        try:
            pid = os.fork()
        except OSError as error:
            _answer(sock, {"re": message.get("n"), "error": f"fork: {error.strerror}", "errno": error.errno})
        else:
            if pid == 0:
                self._become(message, fds[0], sock)
            self._asked[pid] = (sock, message.get("n"))
        os.close(fds[0])

    def _become(self, message: "dict[str, object]", program: int, sock: socket.socket) -> None:
        """The forked child's life as a shim."""
        status = 1
        try:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._epoll.close()
            self._listener.close()
            os.close(self._wake)
            for other in self._connections.values():
                if other is not sock:
                    other.close()
            shim.main(message, program, sock)
            status = 0
        finally:
            if status:
                sys.excepthook(*sys.exc_info())
            os._exit(status)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            sock, number = self._asked.pop(pid, (None, None))
            if sock is not None and status:
                code = os.waitstatus_to_exitcode(status)
                _answer(sock, {"re": number, "error": f"the shim ended with {code}", "errno": 0})


def _answer(sock: socket.socket, message: "dict[str, object]") -> None:
    try:
        wire.send(sock, message)
    except OSError:
        pass  # the agent has gone; what it asked for is on disk for the next one


def main(arguments: "list[str]") -> int:
    options = dict(zip(arguments[::2], arguments[1::2], strict=False))
    if set(options) != {"--root", "--state", "--socket"} or len(arguments) != 6:
        print("usage: zygote.py --root DIR --state DIR --socket PATH", file=sys.stderr)
        return 2
    protect()
    try:
        for directory in (options["--root"], options["--state"], os.path.dirname(options["--socket"])):
            os.makedirs(directory, mode=0o711, exist_ok=True)
        raw(NUMBERS["prctl"], _PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        os.chdir("/")
        zygote = Zygote(options["--socket"])
    except (OSError, KernelError) as error:
        print(f"error nodeagent.runtime.zygote {error}", file=sys.stderr)
        return 1
    print(f"info nodeagent.runtime.zygote serving socket={options['--socket']} pid={os.getpid()}", file=sys.stderr)
    sys.stderr.flush()
    gc.collect()
    gc.freeze()  # no collection may write to objects that forked shims share with us
    gc.disable()
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    zygote.serve()
    return 0


if __name__ == "__main__":
    assert pause  # imported here so that shims share it
    sys.exit(main(sys.argv[1:]))
