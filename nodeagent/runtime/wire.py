"""Messages between agent, zygote and shims: one JSON object a SOCK_SEQPACKET datagram, descriptors beside it.

Whatever is large (a program, a container's output) travels as a descriptor, so that a message stays far below a
socket's buffer. Sockets are addressed through a descriptor of their directory, because `sun_path` holds only 108 bytes.

Lean: the shim imports it, and every page of memory that its first message makes it touch is copied, at 2 µs a page.
Hence `_socket` and the C halves of json without the Python around them: a third of the pages, the same bytes.
"""

import _socket
import os
import struct
from _json import encode_basestring_ascii, make_encoder, make_scanner

LIMIT = 65536  # bytes of a message
MAX_FDS = 8
SOL_SOCKET, SCM_RIGHTS, MSG_NOSIGNAL, MSG_CMSG_CLOEXEC = 1, 1, 0x4000, 0x40000000
SEQPACKET = _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC

Socket = _socket.socket


class _Plain:
    """What json.decoder.JSONDecoder() would tell its C half. Importing that package would bring re and enum along,
    whose megabyte every shim would carry, scattered among what it uses."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_float, parse_int, parse_constant = float, int, float


_scan = make_scanner(_Plain)  # type: ignore[arg-type]
_space = _socket.CMSG_SPACE(MAX_FDS * 4)


def _refuse(value: object) -> object:
    raise TypeError(f"not for a message: {value!r}")


_pieces = make_encoder(None, _refuse, encode_basestring_ascii, None, ":", ",", False, False, True)


def encode(message: "dict[str, object]") -> bytes:
    return "".join(_pieces(message, 0)).encode()


def send(sock: Socket, message: "dict[str, object]", fds: "list[int] | None" = None) -> None:
    """Send one message. Raises OSError (BlockingIOError when a non-blocking socket is full)."""
    ancillary = [(SOL_SOCKET, SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))] if fds else []
    sock.sendmsg([encode(message)], ancillary, MSG_NOSIGNAL)


def receive(sock: Socket) -> "tuple[dict[str, object], list[int]] | None":
    """The next message and its descriptors (close-on-exec, the receiver's to close); None when the peer is gone.
    Raises OSError, or ValueError for what is no message."""
    data, ancillary, _, _ = sock.recvmsg(LIMIT, _space, MSG_CMSG_CLOEXEC)
    fds: list[int] = []
    for _, _, payload in ancillary:
        fds += struct.unpack(f"{len(payload) // 4}i", payload)
    if not data:
        for fd in fds:
            os.close(fd)
        return None
    try:
        message: dict[str, object] = _scan(data.decode(), 0)[0]
    except StopIteration:
        raise ValueError(f"not a message: {data[:80]!r}") from None
    return message, fds


def bind(path: str) -> Socket:
    """A socket bound to `path`, which only root can reach; a leftover of a dead process is replaced."""
    directory, name = os.path.split(path)
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        short = f"/proc/self/fd/{fd}/{name}"
        try:
            os.unlink(short)
        except FileNotFoundError:
            pass
        sock = Socket(_socket.AF_UNIX, SEQPACKET)
        mask = os.umask(0o177)
        try:
            sock.bind(short)
        finally:
            os.umask(mask)
        return sock
    finally:
        os.close(fd)


def connect(path: str) -> Socket:
    """A blocking connection to the socket at `path`. Raises OSError when nobody listens there."""
    directory, name = os.path.split(path)
    fd = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        sock = Socket(_socket.AF_UNIX, SEQPACKET)
        try:
            sock.connect(f"/proc/self/fd/{fd}/{name}")
        except BaseException:
            sock.close()
            raise
        return sock
    finally:
        os.close(fd)


def accept(listener: Socket) -> Socket:
    """The next connection, non-blocking. Raises OSError."""
    fd, _ = listener._accept()  # type: ignore[attr-defined]
    sock = Socket(_socket.AF_UNIX, SEQPACKET, 0, fd)
    sock.setblocking(False)
    return sock


def pair() -> "tuple[Socket, Socket]":
    """Two connected ends. Raises OSError."""
    one, other = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    return one, other


def write_file(path: str, message: "dict[str, object]") -> None:
    """Replace the file `path` by `message` in one step: a reader sees the old one or the new one, whole."""
    temporary = path + ".new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, encode(message))
    finally:
        os.close(fd)
    os.rename(temporary, path)


class Connection:
    """Somebody who talks to a shim: the agent, one of its sessions. `watching`: wants to hear of every end."""

    def __init__(self, sock: Socket) -> None:
        self.sock = sock
        self.watching = False

    def send(self, message: "dict[str, object]", fds: "list[int] | None" = None) -> None:
        """Best effort: a peer that does not read loses messages, never blocks the pod (files hold the truth)."""
        try:
            send(self.sock, message, fds)
        except OSError:
            pass
