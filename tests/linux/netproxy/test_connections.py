"""Connections that stay open, SCTP, and what else a Service's address does or does not do, in every mode."""

import contextlib
import socket
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.linux.network_lab import PATIENCE, until

pytestmark = pytest.mark.root

VIP, NODE_PORT, PORT = "10.96.0.20", 30080, 9000
SCTP = getattr(socket, "IPPROTO_SCTP", 132)


@contextlib.contextmanager
def echo(corner, protocol=0):
    """A server that sends back what it gets, for as long as its client likes. Yields the list of its connections."""
    connections = []
    over = threading.Event()

    def patiently(call):
        """`call()`, again and again until it gives something; SCTP wakes nobody who waits when a socket is shut."""
        while not over.is_set():
            with contextlib.suppress(TimeoutError):
                return call()
        return None

    def serve(connection):
        connection.settimeout(0.1)
        with connection, contextlib.suppress(OSError):
            while data := patiently(lambda: connection.recv(100)):
                connection.sendall(data)

    def accept():
        while accepted := patiently(server.accept):
            connections.append(accepted[0])
            threads.submit(serve, accepted[0])

    with corner.socket(socket.SOCK_STREAM, protocol) as server, ThreadPoolExecutor(16) as threads:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("0.0.0.0", PORT))
        server.listen(10)
        server.settimeout(0.1)
        threads.submit(accept)
        try:
            yield connections
        finally:
            over.set()


@contextlib.contextmanager
def conversation(corner, address, port, protocol=0):
    """A client of `echo`: yields a function that says something and returns the answer."""
    with corner.socket(socket.SOCK_STREAM, protocol) as client:
        client.settimeout(3 * PATIENCE)
        client.connect((address, port))

        def say(text):
            client.sendall(text.encode())
            return client.recv(100).decode()

        yield say


def echoing(objects, pods, protocol="TCP", **spec):
    entries = [(pod.ip, pod.node, {"ready": True}) for pod in pods]
    return objects.service(protocol=protocol, **spec), objects.endpoint_slice(entries, port=PORT, protocol=protocol)


async def test_open_connections_outlive_their_endpoint_in_the_service(cluster, objects):
    one, two = cluster.nodes
    old, new, client = [await cluster.pod(n, m) for n, m in ((one, "old"), (two, "new"), (one, "client"))]
    with echo(old) as at_old, echo(new) as at_new:
        await cluster.apply(*echoing(objects, [old], node_port=NODE_PORT))
        with (
            conversation(client, VIP, 80) as inside,
            conversation(cluster.wire.corner, one.ip, NODE_PORT) as outside,
        ):
            assert inside("one") == outside("one") == "one"
            await cluster.apply(*echoing(objects, [new], node_port=NODE_PORT))
            assert inside("two") == outside("two") == "two"
            for _ in range(5):
                with conversation(client, VIP, 80) as another:
                    assert another("three") == "three"
            assert (len(at_old), len(at_new)) == (2, 5)
            await cluster.apply(*echoing(objects, [], node_port=NODE_PORT))
            assert inside("four") == outside("four") == "four"


async def test_sctp(cluster, objects):
    one, two = cluster.nodes
    pod, client = await cluster.pod(two, "a"), await cluster.pod(one, "client")
    try:
        server = echo(pod, SCTP)
        server.__enter__()
    except OSError as error:
        pytest.skip(f"SCTP: {error}")
    try:
        await cluster.apply(*echoing(objects, [pod], "SCTP", node_port=NODE_PORT))
        for corner, address, port in (
            (client, VIP, 80),
            (one.corner, VIP, 80),
            (cluster.wire.corner, one.ip, NODE_PORT),
        ):
            with conversation(corner, address, port, SCTP) as say:
                assert say("hello") == "hello"
    finally:
        server.__exit__(None, None, None)


async def test_only_the_services_port_answers_at_its_address(cluster, objects):
    one = cluster.nodes[0]
    pod, client = await cluster.pod(one, "a"), await cluster.pod(one, "client")
    await cluster.serve(objects.service(), pod)
    cluster.wire.listen(one.corner, 10250, "the node's own")
    cluster.wire.corner.run(f"ip route add {VIP}/32 via {one.ip}")
    assert client.connect(one.ip, 10250).startswith("the node's own")
    for corner in (client, one.corner, cluster.wire.corner):
        with pytest.raises(OSError):
            corner.connect(VIP, 10250, timeout=0.5)
        assert corner.connect(VIP, 80).startswith("a ")


async def test_switching_modes_keeps_services_working_and_leaves_nothing_behind(cluster, objects, other_mode):
    """From this mode to the other and back, with an open connection and new ones in between."""
    one, two = cluster.nodes
    pod, client = await cluster.pod(two, "a"), await cluster.pod(one, "client")
    here = cluster.mode
    with echo(pod) as _:
        await cluster.apply(*echoing(objects, [pod], node_port=NODE_PORT))
        for mode in (other_mode, here):
            for node in cluster.nodes:
                await cluster.kill_proxy(node)
            with conversation(client, VIP, 80) as say:
                assert say("before") == "before"
            cluster.use(mode)
            for node in cluster.nodes:
                await cluster.start_proxy(node)
            for corner, address, port in ((client, VIP, 80), (cluster.wire.corner, one.ip, NODE_PORT)):
                with conversation(corner, address, port) as say:
                    assert say("after") == "after"
            chains, links = one.corner.run("iptables-save"), one.corner.run("ip link")
            if mode == "iptables":
                assert "KUBE-SVC-" in chains and "KUBE-IPVS-FILTER" not in chains and "KUBE-LOAD-BALANCER" not in chains
                assert "kube-ipvs0" not in links and "KUBE-" not in one.corner.run("ipset list -n")
                assert "TCP" not in one.corner.run("cat /proc/net/ip_vs", check=False)
            else:
                assert "KUBE-SVC-" not in chains and "KUBE-NODEPORTS" not in chains and "KUBE-SEP-" not in chains
                assert "kube-ipvs0" in links


async def test_what_somebody_else_takes_away_comes_back(cluster, objects):
    """As `ipvsadm -C`, `ip addr flush`, `ipset flush` and `iptables -F` do."""
    one = cluster.nodes[0]
    if cluster.mode != "ipvs":
        pytest.skip("iptables mode's is in test_behaviour.py")
    pod, client = await cluster.pod(one, "a"), await cluster.pod(one, "client")
    await cluster.serve(objects.service(node_port=NODE_PORT), pod)

    def answers():
        try:
            inside = client.connect(VIP, 80, timeout=0.3 * PATIENCE)
            return inside.startswith("a ") and cluster.wire.corner.connect(one.ip, NODE_PORT, timeout=0.3 * PATIENCE)
        except OSError:
            return False

    for harm in (
        lambda: one.corner.call(clear_virtual_servers),
        lambda: one.corner.run("ip addr flush dev kube-ipvs0"),
        lambda: one.corner.run("ip link del kube-ipvs0"),
        lambda: one.corner.run("ipset flush"),
        lambda: one.corner.run("iptables -t nat -F"),
    ):
        harm()
        await until(lambda: not one.proxy.health.waiting and answers(), 20)


def clear_virtual_servers():
    from netproxy.ipvs.kernel import LinuxKernel, execute
    from netproxy.ipvs.operations import RemoveServer

    kernel = LinuxKernel()
    kernel.open()
    execute([RemoveServer(key) for key in kernel.servers()], kernel)
    kernel.close()
