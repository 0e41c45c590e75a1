"""Machines for network tests, made of network namespaces that nothing can leave behind.

A `Corner` is a namespace held by a file descriptor of the test process: it has no name, no mount and no process, so it
is gone when the test process is, however that ends. Code runs inside one on the corner's own thread; sockets opened
there stay there, wherever they are used.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

CLONE_NEWNET = 0x40000000
# How much longer than usual to wait for what must come: more on emulated machines.
PATIENCE = float(os.environ.get("WHERRY_TEST_PATIENCE", "1"))
libc = ctypes.CDLL(None, use_errno=True)


def _enter(fd: int) -> None:
    if libc.setns(fd, CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "setns")


def _new_namespace() -> int:
    if libc.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


class Corner:
    """One network namespace with lo up."""

    def __init__(self) -> None:
        with ThreadPoolExecutor(1) as maker:
            self.fd = maker.submit(_new_namespace).result()
        self.thread = ThreadPoolExecutor(1, initializer=_enter, initargs=(self.fd,))
        self.path = f"/proc/{os.getpid()}/fd/{self.fd}"

    def close(self) -> None:
        self.thread.shutdown()
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def call(self, work: Callable, *args: object):
        return self.thread.submit(work, *args).result(60)

    def run(self, command: str, text: str | None = None, check: bool = True) -> str:
        """The command's standard output; the command is split at spaces, or run by sh if it has several lines."""
        words = ["sh", "-ec", command] if "\n" in command else command.split()
        done = self.call(lambda: subprocess.run(words, input=text, capture_output=True, text=True, timeout=60))
        if check and done.returncode:
            raise AssertionError(f"{command}: {done.stderr}")
        return done.stdout

    def sysctl(self, name: str, value: str) -> None:
        def write() -> None:
            with open("/proc/sys/" + name.replace(".", "/"), "w") as file:
                file.write(value)

        self.call(write)

    def socket(self, kind: int = socket.SOCK_STREAM, protocol: int = 0) -> socket.socket:
        return self.call(socket.socket, socket.AF_INET, kind, protocol)

    def listen(self, port: int, answer: str, address: str = "0.0.0.0") -> Listener:
        return Listener(self, port, answer, address)

    def connect(
        self, address: str, port: int, timeout: float = 3.0 * PATIENCE, source: tuple[str, int] | None = None
    ) -> str:
        """Connect by TCP and return what the server says: its name and the client's address as it sees it."""
        with self.socket() as client:
            client.settimeout(timeout)
            if source:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                client.bind(source)
            client.connect((address, port))
            return client.recv(200).decode()

    def ask(self, address: str, port: int, timeout: float = 3.0 * PATIENCE, client: socket.socket | None = None) -> str:
        """The same by UDP."""
        with contextlib.ExitStack() as stack:
            if client is None:
                client = stack.enter_context(self.socket(socket.SOCK_DGRAM))
            client.settimeout(timeout)
            client.sendto(b"?", (address, port))
            return client.recv(200).decode()


class Listener:
    """A TCP and UDP server in a corner, on a thread, that answers `<name> <client address>`."""

    def __init__(self, corner: Corner, port: int, name: str, address: str) -> None:
        self.name = name
        self._tcp, self._udp = corner.socket(), corner.socket(socket.SOCK_DGRAM)
        for one in (self._tcp, self._udp):
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind((address, port))
        self._tcp.listen(100)
        self._threads = ThreadPoolExecutor(2)
        self._threads.submit(self._serve_tcp)
        self._threads.submit(self._serve_udp)

    def _serve_tcp(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, peer = self._tcp.accept()
                with connection:
                    connection.sendall(f"{self.name} {peer[0]}".encode())

    def _serve_udp(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                data, peer = self._udp.recvfrom(100)
                if not data:
                    return
                self._udp.sendto(f"{self.name} {peer[0]}".encode(), peer)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._tcp.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            self._udp.shutdown(socket.SHUT_RDWR)  # ENOTCONN, but it wakes recvfrom
        self._threads.shutdown()
        self._tcp.close()
        self._udp.close()


class Wire:
    """A link with the address 10.77.0.1/24 that machines are plugged into; it is also the outside world."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self.stack = stack
        self.corner = self.new_corner()
        self.corner.run(
            "ip link set lo up\nip link add br0 type bridge\nip link set br0 up\nip addr add 10.77.0.1/24 dev br0\n"
            "ip addr add 203.0.113.1/32 dev lo"
        )

    def new_corner(self) -> Corner:
        corner = Corner()
        self.stack.callback(corner.close)
        return corner

    def listen(self, corner: Corner, port: int, answer: str, address: str = "0.0.0.0") -> Listener:
        listener = corner.listen(port, answer, address)
        self.stack.callback(listener.close)
        return listener

    def machine(self, address: str, via: Corner | None = None, gateway: str = "10.77.0.1") -> Corner:
        """A new machine with eth0 = `address`, plugged into this wire's bridge."""
        corner = self.new_corner()
        port = "p" + address.replace(".", "")
        host = via or self.corner
        host.run(f"ip link add {port} type veth peer name eth0 netns {corner.path}")
        host.run(f"ip link set {port} up master br0")
        corner.run(
            f"ip link set lo up\nip link set eth0 up\nip addr add {address}/24 dev eth0\n"
            f"ip route add default via {gateway}"
        )
        return corner


@contextlib.contextmanager
def wire() -> Iterator[Wire]:
    with contextlib.ExitStack() as stack:
        yield Wire(stack)


async def until(condition: Callable[[], bool], deadline_s: float = 10.0) -> None:
    """Wait until `condition()` holds. Raises TimeoutError."""
    async with asyncio.timeout(deadline_s * PATIENCE):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.01)
