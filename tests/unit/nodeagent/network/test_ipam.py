import ipaddress

import pytest

from nodeagent.network.ipam import AddressPool, PoolExhausted


def pool(path, cidr="10.244.1.0/29"):
    return AddressPool(str(path), ipaddress.ip_network(cidr))


def test_leases_are_distinct_stable_and_inside(tmp_path):
    addresses = pool(tmp_path)
    given = [addresses.lease(f"s{i}") for i in range(5)]
    assert given == ["10.244.1.2", "10.244.1.3", "10.244.1.4", "10.244.1.5", "10.244.1.6"]
    assert str(addresses.gateway) == "10.244.1.1"
    assert addresses.lease("s3") == "10.244.1.5"
    with pytest.raises(PoolExhausted):
        addresses.lease("s5")


def test_a_freed_address_is_reused_last_and_longest_free_first(tmp_path):
    addresses = pool(tmp_path)
    for i in range(3):
        addresses.lease(f"s{i}")
    addresses.release("s1")
    addresses.release("s0")
    assert addresses.release("s0") is None
    rest = [addresses.lease(f"t{i}") for i in range(4)]
    assert rest == ["10.244.1.5", "10.244.1.6", "10.244.1.3", "10.244.1.2"]


def test_a_new_life_knows_leases_and_the_order_of_freed_ones(tmp_path):
    first = pool(tmp_path)
    for i in range(4):
        first.lease(f"s{i}")
    first.release("s2")
    first.release("s1")
    second = pool(tmp_path)
    assert second.leases() == {"s0": "10.244.1.2", "s3": "10.244.1.5"}
    # Those freed within one tick of the kernel's coarse clock (4 ms) have no order between them after a restart.
    assert second.lease("t0") == "10.244.1.6"
    assert {second.lease("t1"), second.lease("t2")} == {"10.244.1.3", "10.244.1.4"}


def test_two_processes_on_one_directory_never_share_an_address(tmp_path):
    one, two = pool(tmp_path), pool(tmp_path)
    given = [p.lease(f"{name}{i}") for i in range(2) for name, p in (("a", one), ("b", two))]
    assert len(set(given)) == 4


def test_retain_releases_the_rest(tmp_path):
    addresses = pool(tmp_path)
    for i in range(3):
        addresses.lease(f"s{i}")
    assert sorted(addresses.retain(["s1"])) == ["s0", "s2"]
    assert pool(tmp_path).leases() == {"s1": "10.244.1.3"}


def test_ipv6_and_other_cidrs_are_separate(tmp_path):
    assert pool(tmp_path, "fd00:1::/64").lease("s") == "fd00:1::2"
    assert pool(tmp_path, "10.244.2.0/24").lease("s") == "10.244.2.2"
    assert pool(tmp_path).leases() == {}
