"""A crowd at the door: connections that ask nothing, and clients that ask without end, while nodes go on."""

import resource
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

ROLE = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
MOST_S = 2.0  # a heartbeat's patience; the usual answer takes a millisecond, and the machine may be busy


@pytest.fixture
def many_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def slowest(node: Any, times: int) -> float:
    took = []
    for _ in range(times):
        begun = time.monotonic()
        assert node("GET", "/api/v1/nodes/n1").status == 200
        took.append(time.monotonic() - begun)
    return max(took)


def test_silent_connections_are_closed_and_nodes_go_on(fresh_server: Any, many_files: None) -> None:
    server = fresh_server(first_request_timeout_seconds="1")
    node = server.node("n1")
    assert node("POST", "/api/v1/nodes", {"metadata": {"name": "n1"}}).status == 201
    silent = []
    try:
        for _ in range(1500):  # more than the usual soft limit of open files
            silent.append(socket.create_connection(("127.0.0.1", server.port)))
        assert slowest(node, 20) < MOST_S
        context = ssl.create_default_context(cafile=str(server.layout.ca_cert))
        plain = socket.create_connection(("127.0.0.1", server.port))
        with context.wrap_socket(plain, server_hostname="127.0.0.1") as quiet:
            quiet.settimeout(15)
            assert quiet.recv(1) == b""  # closed by the server, which waited for a request in vain
        assert server.connect()("GET", "/readyz").status == 200  # and there is room for others
    finally:
        for each in silent:
            each.close()


def test_clients_without_end_do_not_starve_a_heartbeat(fresh_server: Any) -> None:
    server = fresh_server()
    admin, node = server.connect(), server.node("n1")
    assert node("POST", "/api/v1/nodes", {"metadata": {"name": "n1"}}).status == 201
    subject = {"kind": "User", "name": "system:kube-scheduler", "apiGroup": "rbac.authorization.k8s.io"}
    role = {"kind": "ClusterRole", "name": "cluster-admin", "apiGroup": "rbac.authorization.k8s.io"}
    admin.ok("POST", ROLE, {"metadata": {"name": "greedy"}, "subjects": [subject], "roleRef": role})
    for n in range(600):
        admin.ok("POST", "/api/v1/namespaces/default/configmaps", {"metadata": {"name": f"c{n}"}})
    over = threading.Event()

    def greedy() -> None:
        mine = server.connect("scheduler")
        while not over.is_set():
            assert mine("GET", "/api/v1/configmaps").status in (200, 429)

    crowd = [threading.Thread(target=greedy) for _ in range(30)]
    for each in crowd:
        each.start()
    try:
        assert slowest(node, 20) < MOST_S
    finally:
        over.set()
        for each in crowd:
            each.join()
