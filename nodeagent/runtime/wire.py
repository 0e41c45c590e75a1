"""Messages between agent, zygote and shims: one JSON object a SOCK_SEQPACKET datagram, descriptors beside it.

Whatever is large (a program, a container's output) travels as a descriptor, so that a message stays far below a
socket's buffer. Sockets are addressed through a descriptor of their directory, because `sun_path` holds only 108 bytes.
Lean: the zygote imports it.
"""

import array
import json
import os
import socket

LIMIT = 65536  # bytes of a message
MAX_FDS = 8


def encode(message: "dict[str, object]") -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


def send(sock: socket.socket, message: "dict[str, object]", fds: "list[int] | None" = None) -> None:
    """Send one message. Raises OSError (BlockingIOError when a non-blocking socket is full)."""
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    sock.sendmsg([encode(message)], ancillary, socket.MSG_NOSIGNAL)


def receive(sock: socket.socket) -> "tuple[dict[str, object], list[int]] | None":
    """The next message and its descriptors (close-on-exec, the receiver's to close); None when the peer is gone."""
    size = socket.CMSG_SPACE(MAX_FDS * 4)
    data, ancillary, _, _ = sock.recvmsg(LIMIT, size, socket.MSG_CMSG_CLOEXEC)
    fds: list[int] = []
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers = array.array("i")
            numbers.frombytes(payload[: len(payload) - len(payload) % 4])
            fds += numbers
    if not data:
        for fd in fds:
            os.close(fd)
        return None
    return json.loads(data), fds


def listen(path: str) -> socket.socket:
    """A listening socket at `path`, which only root can reach; a leftover of a dead process is replaced."""
    directory, name = os.path.split(path)
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        short = f"/proc/self/fd/{fd}/{name}"
        try:
            os.unlink(short)
        except FileNotFoundError:
            pass
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        mask = os.umask(0o177)
        try:
            sock.bind(short)
        finally:
            os.umask(mask)
        sock.listen(64)
        return sock
    finally:
        os.close(fd)


def connect(path: str) -> socket.socket:
    """A blocking connection to the socket at `path`. Raises OSError when nobody listens there."""
    directory, name = os.path.split(path)
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            sock.connect(f"/proc/self/fd/{fd}/{name}")
        except BaseException:
            sock.close()
            raise
        return sock
    finally:
        os.close(fd)


def write_file(path: str, message: "dict[str, object]") -> None:
    """Replace the file `path` by `message` in one step: a reader sees the old one or the new one, whole."""
    temporary = path + ".new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, encode(message))
    finally:
        os.close(fd)
    os.rename(temporary, path)
