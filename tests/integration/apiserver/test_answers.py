"""Answers as bytes: the usual ones that are written in one piece, and those that are not usual."""

import re
import socket
import ssl
from email.utils import parsedate_to_datetime
from typing import Any

GET = b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n"
HEAD = re.compile(rb"HTTP/1\.1 (\d+) [A-Za-z ]+\r\n(.*?)\r\n\r\n", re.DOTALL)


def exchange(server: Any, sent: bytes, until: int = 0) -> bytes:
    """What the server says to these bytes, until it closes, or has answered so many times."""
    context = ssl.create_default_context(cafile=str(server.layout.ca_cert))
    said = b""
    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=10) as raw,
        context.wrap_socket(raw, server_hostname="127.0.0.1") as tls,
    ):
        tls.sendall(sent)
        while piece := tls.recv(65536):
            said += piece
            if until and len(split(said)) == until:
                break
    return said


def split(said: bytes) -> list[tuple[int, dict[str, str], bytes]]:
    """The whole answers in some bytes: status, headers, body."""
    found = []
    while match := HEAD.match(said):
        lines = [line.split(": ", 1) for line in match[2].decode().split("\r\n")]
        headers = {name.lower(): value for name, value in lines}
        assert len(headers) == len(lines), lines
        end = match.end() + int(headers["content-length"])
        if len(said) < end:
            break
        found.append((int(match[1]), headers, said[match.end() : end]))
        said = said[end:]
    return found


def test_several_requests_at_once_are_answered_in_their_order(server: Any) -> None:
    missing = b"GET /api/v1/namespaces/default/configmaps/none HTTP/1.1\r\nHost: x\r\n\r\n"
    answers = split(exchange(server, GET + missing + GET, until=3))
    assert [status for status, _, _ in answers] == [200, 403, 200]
    for _, headers, body in answers:
        assert headers["content-type"] == "application/json" and body.startswith(b"{")
        assert parsedate_to_datetime(headers["date"]).tzinfo is not None
    assert answers[0][2] == answers[2][2]


def test_a_connection_ends_when_its_client_says_so(server: Any) -> None:
    said = exchange(server, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    [(status, headers, _)] = split(said)
    assert (status, headers["connection"]) == (200, "close")


def test_http_1_0(server: Any) -> None:
    said = exchange(server, GET.replace(b"HTTP/1.1", b"HTTP/1.0"))
    head, _, body = said.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 200 OK") and b'"gitVersion"' in body


def test_a_head_has_no_body(server: Any) -> None:
    said = exchange(server, GET.replace(b"GET", b"HEAD").replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert said.endswith(b"\r\n\r\n") and re.search(rb"Content-Length: [1-9]", said)
