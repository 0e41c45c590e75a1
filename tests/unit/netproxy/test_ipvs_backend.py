"""IPVS mode over a kernel that only remembers: what it writes, repairs, lets go of, and takes away."""

import asyncio

import pytest

from netproxy.backend import BackendError
from netproxy.ipvs import sets
from netproxy.ipvs.apply import IpvsBackend, Tuning
from netproxy.ipvs.fake import FakeKernel
from netproxy.ipvs.graceful import Leaving
from netproxy.ipvs.operations import RemoveDestination, difference
from netproxy.ipvs.plan import Settings
from netproxy.ipvs.state import Key, Options, State, Target
from netproxy.model import Endpoint, PortName, ServiceName, ServicePort
from netproxy.topology import Location, plan

VIP = "10.96.0.20"
KEY = Key(VIP, 80, "TCP")
A, B, C = (Endpoint(f"10.244.1.{i}", 8080) for i in (5, 6, 7))


def target(endpoint):
    return Target(endpoint.ip, endpoint.port)


def planned(endpoints, name="web", ip=VIP, protocol="TCP", **more):
    port = ServicePort(PortName(ServiceName("default", name), "", protocol), ip, 80, protocol, **more)
    return {port.name: plan(port, endpoints, Location("node-1"))}


class Tool:
    """iptables, as far as IPVS mode needs it. `lost`: somebody flushed it."""

    def __init__(self):
        self.written, self.lost = [], False

    def restore(self, text):
        self.written.append(text)
        self.lost = False

    def save(self, table):
        return []

    def canaries(self):
        return not self.lost


@pytest.fixture
def kernel():
    return FakeKernel()


@pytest.fixture
async def backend(kernel):
    made = IpvsBackend(Settings("10.244.0.0/16"), kernel=kernel, tool=Tool(), tuning=Tuning(graceful_s=60))
    yield made
    await made.close()


def weights(kernel, key=KEY):
    return {t.ip: weight for t, weight in kernel.state.destinations[key].items()}


async def test_everything_is_written_and_nothing_twice(backend, kernel):
    await backend.replace(planned([A, B], node_port=30080))
    assert weights(kernel) == weights(kernel, Key("10.77.0.11", 30080, "TCP")) == {A.ip: 1, B.ip: 1}
    assert kernel.state.addresses == {VIP}
    assert kernel.state.members[sets.NODE_PORT["TCP"]] == {"30080"}
    assert await backend.intact()
    kernel.log.clear()
    await backend.replace(planned([A, B], node_port=30080))
    assert kernel.log == []


async def test_members_come_before_servers_and_addresses_last(backend, kernel):
    await backend.replace(planned([A]))
    kinds = [line.split()[1] for line in kernel.log if VIP in line]
    assert kinds == [sets.CLUSTER_IP, sets.IPVS_IPS, "TCP", "TCP", VIP]


async def test_one_endpoint_more_is_one_operation(backend, kernel):
    await backend.replace(planned([A]) | planned([A], "other", "10.96.0.21"))
    kernel.log.clear()
    await backend.update(planned([A, B]))
    assert kernel.log == [f"+ {KEY} -> {target(B)} 1"]


async def test_an_endpoint_leaves_when_its_last_connection_is_closed(backend, kernel):
    await backend.replace(planned([A, B]))
    kernel.connections[KEY, target(A)] = 2
    await backend.update(planned([B]))
    assert weights(kernel) == {A.ip: 0, B.ip: 1}
    assert await backend.intact()
    kernel.connections.clear()
    assert await backend.intact()
    assert weights(kernel) == {B.ip: 1}


async def test_an_endpoint_without_connections_leaves_at_once(backend, kernel):
    await backend.replace(planned([A, B]))
    await backend.update(planned([B]))
    assert weights(kernel) == {B.ip: 1}


async def test_an_endpoint_that_comes_back_is_used_again(backend, kernel):
    await backend.replace(planned([A, B]))
    kernel.connections[KEY, target(A)] = 1
    await backend.update(planned([B]))
    await backend.update(planned([A, B]))
    kernel.connections.clear()
    assert await backend.intact()
    assert weights(kernel) == {A.ip: 1, B.ip: 1}


async def test_udp_endpoints_leave_at_once(backend, kernel):
    key = Key(VIP, 80, "UDP")
    await backend.replace(planned([A, B], protocol="UDP"))
    kernel.connections[key, target(A)] = 5
    await backend.update(planned([B], protocol="UDP"))
    assert weights(kernel, key) == {B.ip: 1}


async def test_a_new_proxy_goes_on_waiting_for_what_the_old_one_let_go(backend, kernel):
    await backend.replace(planned([A, B]))
    kernel.connections[KEY, target(A)] = 1
    await backend.update(planned([B]))
    second = IpvsBackend(Settings("10.244.0.0/16"), kernel=kernel, tool=Tool())
    await second.replace(planned([B]))
    assert weights(kernel) == {A.ip: 0, B.ip: 1}
    kernel.connections.clear()
    await second.intact()
    assert weights(kernel) == {B.ip: 1}
    await second.close()


async def test_a_deleted_service_leaves_nothing(backend, kernel):
    await backend.replace(planned([A], node_port=30080))
    kernel.connections[KEY, target(A)] = 1
    await backend.update(dict.fromkeys(planned([])))
    assert not kernel.state.servers and not kernel.state.addresses
    assert not any(kernel.state.members.values())
    assert await backend.intact()


@pytest.mark.parametrize(
    "harm",
    [
        lambda kernel: (kernel.state.servers.clear(), kernel.state.destinations.clear()),  # ipvsadm -C
        lambda kernel: kernel.state.destinations[KEY].pop(target(A)),
        lambda kernel: kernel.state.destinations[KEY].update({target(A): 0}),
        lambda kernel: kernel.state.addresses.clear(),
        lambda kernel: kernel.state.members[sets.CLUSTER_IP].clear(),
        lambda kernel: kernel.state.members.pop(sets.LOOP_BACK),
        lambda kernel: setattr(kernel, "node", ("10.77.0.11", "10.88.0.1")),  # the machine has one more address
    ],
)
async def test_what_somebody_else_did_is_noticed_and_mended(backend, kernel, harm):
    await backend.replace(planned([A, B], node_port=30080))
    harm(kernel)
    assert not await backend.intact()
    await backend.replace(planned([A, B], node_port=30080))
    assert await backend.intact()
    assert weights(kernel) == {A.ip: 1, B.ip: 1}


async def test_flushed_rules_are_noticed(kernel):
    tool = Tool()
    backend = IpvsBackend(Settings(), kernel=kernel, tool=tool)
    await backend.replace(planned([A]))
    tool.lost = True
    assert not await backend.intact()
    await backend.close()


async def test_a_change_that_the_kernel_refuses_is_an_error_and_the_next_replace_mends_it(backend, kernel):
    await backend.replace(planned([A]))
    kernel.state.servers.clear()
    kernel.state.destinations.clear()
    with pytest.raises(BackendError, match=r"10\.244\.1\.6"):
        await backend.update(planned([A, B]))
    await backend.replace(planned([A, B]))
    assert weights(kernel) == {A.ip: 1, B.ip: 1}


async def test_virtual_servers_of_others_stay_where_they_are_excluded(kernel):
    mine, theirs = Key("10.1.1.1", 80, "TCP"), Key("192.168.7.7", 80, "TCP")
    for key in (mine, theirs):
        kernel.add_server(key, Options("wlc"))
    kernel.flush()
    backend = IpvsBackend(Settings(exclude_cidrs=("192.168.0.0/16",)), kernel=kernel, tool=Tool())
    await backend.replace(planned([A]))
    assert set(kernel.state.servers) == {theirs, KEY}
    await backend.cleanup()
    assert set(kernel.state.servers) == {theirs}
    assert not kernel.state.members and not kernel.interface
    await backend.close()


async def test_timeouts_and_affinity_reach_the_kernel(kernel):
    tuning = Tuning(tcp_timeout_s=600, udp_timeout_s=30)
    backend = IpvsBackend(Settings(scheduler="wlc"), kernel=kernel, tool=Tool(), tuning=tuning)
    await backend.replace(planned([A], affinity_s=10800))
    assert kernel.timeouts == (600, 0, 30)
    assert kernel.state.servers[KEY] == Options("wlc", 10800)
    await backend.update(planned([A]))
    assert kernel.state.servers[KEY] == Options("wlc", 0)
    await backend.close()


def test_after_the_deadline_nobody_waits_for_open_connections():
    leaving = Leaving(limit_s=60)
    before = State({KEY: Options()}, {KEY: {target(A): 1, target(B): 1}})
    after = State({KEY: Options()}, {KEY: {target(B): 1}})
    leaving.written(before, after, now=100)
    kernel = FakeKernel()
    kernel.state = State({KEY: Options()}, {KEY: {target(A): 0, target(B): 1}})
    kernel.connections[KEY, target(A)] = 3
    assert leaving.due(KEY, kernel.destinations(KEY), now=159) == []
    leaving.written(kernel.state, after, now=159)  # a later write does not begin the wait anew
    assert leaving.due(KEY, kernel.destinations(KEY), now=160) == [RemoveDestination(KEY, target(A))]
    assert len(leaving) == 0


def test_operations_say_what_they_do():
    desired = State({KEY: Options("rr", 300)}, {KEY: {target(A): 1}}, {VIP}, {sets.CLUSTER_IP: {f"{VIP},tcp:80"}})
    steps = difference(State(), desired)
    assert [operation.describe() for operation in steps.put] == [
        "ipset create KUBE-CLUSTER-IP hash:ip,port",
        "ipset add KUBE-CLUSTER-IP 10.96.0.20,tcp:80",
        "ipvsadm add-service TCP 10.96.0.20:80 rr persistent 300",
        "ipvsadm add-server TCP 10.96.0.20:80 10.244.1.5:8080 weight 1",
        "ip address add 10.96.0.20 dev kube-ipvs0",
    ]
    back = difference(desired, State(members={sets.CLUSTER_IP: set()}))
    assert [operation.describe() for operation in back.remove] == [
        "ip address del 10.96.0.20 dev kube-ipvs0",
        "ipvsadm delete-service TCP 10.96.0.20:80",
        "ipset del KUBE-CLUSTER-IP 10.96.0.20,tcp:80",
    ]


async def test_calls_do_not_block_the_loop(backend):
    ticks = 0

    async def tick():
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    task = asyncio.ensure_future(tick())
    await backend.replace(planned([A]))
    task.cancel()
    assert ticks > 1
