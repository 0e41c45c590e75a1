"""Connecting to a pod's own localhost, from outside: what port forwarding stands on.

A socket belongs for ever to the network namespace that its maker's thread was in. So a thread of its own, which lives
no longer than this, enters the namespace and makes the socket; connecting is the event loop's work again. If leaving
the namespace went wrong, no other work could end up in it.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading

from nodeagent.linux.syscalls import call
from nodeagent.runtime.interface import RuntimeFailure

_CLONE_NEWNET = 0x40000000
_ADDRESSES = ((socket.AF_INET, "127.0.0.1", "IPv4", "tcp4"), (socket.AF_INET6, "::1", "IPv6", "tcp6"))


async def dial(netns_path: str, port: int) -> socket.socket:
    """A non-blocking connection to `port` of localhost, IPv4 before IPv6, in the network namespace at `netns_path`;
    empty: this process's own. Raises RuntimeFailure, in containerd's words, which users find in kubectl's output."""
    loop = asyncio.get_running_loop()
    errors = ""
    for family, host, name, kind in _ADDRESSES:
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            sock = await _socket(loop, netns_path, family)
            try:
                await loop.sock_connect(sock, (host, port))
            except BaseException:
                sock.close()
                raise
            return sock
        except OSError as error:
            reason = os.strerror(error.errno).lower() if error.errno else str(error)
            errors += f"{', ' if not errors else ' '}{name}: dial {kind} {address}: connect: {reason}"
    where = f" inside namespace {netns_path!r}" if netns_path else ""
    raise RuntimeFailure(f"failed to connect to localhost:{port}{where}{errors}")


async def _socket(loop: asyncio.AbstractEventLoop, netns_path: str, family: int) -> socket.socket:
    if not netns_path:
        return _make(family)
    done: asyncio.Future[socket.socket] = loop.create_future()

    def settle(sock: socket.socket | None, error: BaseException | None) -> None:
        if done.cancelled():
            if sock is not None:
                sock.close()
        elif error is not None:
            done.set_exception(error)
        elif sock is not None:
            done.set_result(sock)

    def work() -> None:
        sock, failure = None, None
        try:
            fd = os.open(netns_path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                call("setns", fd, _CLONE_NEWNET)
            finally:
                os.close(fd)
            sock = _make(family)
        except OSError as error:
            failure = error
        loop.call_soon_threadsafe(settle, sock, failure)

    threading.Thread(target=work, name="dial", daemon=True).start()
    return await done


def _make(family: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    sock.setblocking(False)
    return sock
