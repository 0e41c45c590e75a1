"""Batches of netlink requests, with a kernel interface that every machine has: addresses on lo."""

import errno

import pytest

from netproxy.ipvs import wire
from netproxy.netlink import CREATE, EXCL, NetlinkSocket
from tests.linux.network_lab import Corner

pytestmark = pytest.mark.root
LO = 1


@pytest.fixture
def corner():
    made = Corner()
    made.run("ip link set lo up")
    yield made
    made.close()


@pytest.fixture
def route(corner):
    made = corner.call(NetlinkSocket, 0)
    yield made
    made.close()


def add(ip):
    return (wire.NEW_ADDRESS, CREATE | EXCL, wire.address(ip, LO))


def addresses(route):
    return [wire.read_address(payload) for payload in route.dump(wire.GET_ADDRESS, wire.address_list())]


def test_thousands_of_requests_are_done_in_order_and_failures_are_named(route):
    ips = [f"10.{i // 250 // 250}.{i // 250 % 250}.{i % 250 + 1}" for i in range(3000)]
    requests = [add(ip) for ip in ips]
    requests.insert(0, (wire.DEL_ADDRESS, 0, wire.address("10.9.9.9", LO)))
    requests.insert(1500, add(ips[7]))
    requests.append((wire.DEL_ADDRESS, 0, wire.address(ips[0], LO)))
    assert route.execute(requests) == [(0, errno.EADDRNOTAVAIL), (1500, errno.EEXIST)]
    assert {ip for _, ip in addresses(route)} == {"127.0.0.1", *ips[1:]}


def test_if_every_request_fails_every_failure_arrives(route):
    requests = [(wire.DEL_ADDRESS, 0, wire.address(f"10.1.{i // 250}.{i % 250}", LO)) for i in range(2500)]
    assert route.execute(requests) == [(i, errno.EADDRNOTAVAIL) for i in range(2500)]
    assert addresses(route) == [(LO, "127.0.0.1")]
    assert route.execute([]) == []


def test_a_refused_list_is_an_error(corner):
    control = corner.call(NetlinkSocket, 16)
    with pytest.raises(FileNotFoundError):
        list(control.dump(wire.CONTROL, wire.find_family("no such"), all_of_them=False))
    (answer,) = control.dump(wire.CONTROL, wire.find_family("nlctrl"), all_of_them=False)
    assert wire.read_family(answer) == wire.CONTROL
    control.close()
