"""What IPVS mode may expect of a kernel, tried on the one that remembers and, where it can, on Linux itself."""

import ctypes
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor

import pytest

from netproxy.backend import BackendError
from netproxy.ipvs import requirements, sets
from netproxy.ipvs.fake import FakeKernel
from netproxy.ipvs.kernel import LinuxKernel, execute
from netproxy.ipvs.operations import (
    AddAddress,
    AddDestination,
    AddMember,
    AddServer,
    CreateSet,
    DestroySet,
    RemoveAddress,
    RemoveDestination,
    RemoveMember,
    RemoveServer,
    SetDestination,
    SetServer,
    difference,
)
from netproxy.ipvs.state import SCHEDULERS, Key, Options, State, Target

WEB, DNS, SCTP = Key("10.96.0.1", 80, "TCP"), Key("10.96.0.1", 53, "UDP"), Key("10.96.0.2", 3868, "SCTP")
A, B = Target("10.244.0.1", 8080), Target("10.244.0.2", 8080)


class Threaded:
    """A kernel that lives on a thread in a network namespace of its own."""

    def __init__(self):
        self._thread = ThreadPoolExecutor(1)
        self._thread.submit(self._start).result()

    def _start(self):
        if ctypes.CDLL(None, use_errno=True).unshare(0x40000000):
            raise OSError("unshare")
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)  # without any route it takes no destination
        requirements.check("rr")
        self._kernel = LinuxKernel()
        self._kernel.open()

    def __getattr__(self, name):
        method = getattr(self._kernel, name)
        return lambda *args: self._thread.submit(method, *args).result(60)

    def stop(self):
        self._thread.submit(self._kernel.close).result()
        self._thread.shutdown()


@pytest.fixture(params=["fake", "linux"])
def kernel(request):
    if request.param == "fake":
        made = FakeKernel()
        made.open()
        yield made
        return
    if os.geteuid():
        pytest.skip("needs root")
    try:
        made = Threaded()
    except BackendError as error:
        required = "ipvs" in os.environ.get("WHERRY_PROXY_MODES", "")  # a machine that was made for it
        (pytest.fail if required else pytest.skip)(str(error).partition(" (")[0])
    yield made
    made.stop()


@pytest.fixture
def full():
    """A state with something of everything."""
    state = State(
        {WEB: Options("rr", 300), DNS: Options("mh"), SCTP: Options("wlc")},
        {WEB: {A: 1, B: 0}, DNS: {}, SCTP: {A: 1}},
        {"10.96.0.1", "10.96.0.2"},
        {name: set() for name in sets.SETS},
    )
    state.members[sets.CLUSTER_IP] = {"10.96.0.1,tcp:80", "10.96.0.1,udp:53", "10.96.0.2,sctp:3868"}
    state.members[sets.LOOP_BACK] = {"10.244.0.1,tcp:8080,10.244.0.1"}
    state.members[sets.SOURCE_CIDR] = {"10.96.0.1,tcp:80,203.0.113.0/24", "10.96.0.1,tcp:80,192.0.2.7"}
    state.members[sets.SOURCE_IP] = {"10.96.0.1,tcp:80,10.96.0.1"}
    state.members[sets.HEALTH_CHECK] = {"32000", "1", "65535"}
    state.members[sets.NODE_PORT["SCTP"]] = {"10.77.0.11,sctp:30080"}
    state.members[sets.IPVS_IPS] = {"10.96.0.1", "10.96.0.2"}
    return state


def apply(kernel, desired):
    steps = difference(kernel.read(), desired)
    execute([*steps.put, *steps.remove], kernel)


def test_what_was_written_is_read_back(kernel, full):
    apply(kernel, full)
    assert kernel.read() == full
    assert kernel.servers() == {WEB, DNS, SCTP}
    assert kernel.set_sizes() == {name: len(members) for name, members in full.members.items()}
    assert kernel.addresses()[0] == full.addresses
    assert [(d.target, d.weight, d.connections) for d in sorted(kernel.destinations(WEB))] == [(A, 1, 0), (B, 0, 0)]


def test_there_is_no_difference_to_what_is_there(kernel, full):
    apply(kernel, full)
    steps = difference(kernel.read(), full)
    assert steps.put == steps.remove == []


def test_all_of_it_can_be_changed_and_taken_away(kernel, full):
    apply(kernel, full)
    execute(
        [
            SetServer(WEB, Options("wlc")),
            SetServer(DNS, Options("rr", 60)),
            SetDestination(WEB, B, 1),
            RemoveDestination(WEB, A),
            RemoveServer(SCTP),
            RemoveAddress("10.96.0.2"),
            RemoveMember(sets.HEALTH_CHECK, "1"),
        ],
        kernel,
    )
    state = kernel.read()
    assert state.servers == {WEB: Options("wlc"), DNS: Options("rr", 60)}
    assert state.destinations == {WEB: {B: 1}, DNS: {}}
    assert state.addresses == {"10.96.0.1"}
    assert state.members[sets.HEALTH_CHECK] == {"32000", "65535"}
    apply(kernel, State(members={name: set() for name in sets.SETS}))
    execute([DestroySet(name) for name in sets.SETS], kernel)
    assert kernel.read() == State()


@pytest.mark.parametrize(
    "operation",
    [
        AddServer(WEB, Options()),
        AddDestination(WEB, A),
        AddAddress("10.96.0.1"),
        AddMember(sets.HEALTH_CHECK, "32000"),
        CreateSet(sets.CLUSTER_IP),
        SetServer(Key("10.96.0.9", 80, "TCP"), Options()),
        RemoveServer(Key("10.96.0.9", 80, "TCP")),
        AddDestination(Key("10.96.0.9", 80, "TCP"), A),
        SetDestination(WEB, Target("10.244.0.9", 1), 1),
        RemoveDestination(WEB, Target("10.244.0.9", 1)),
        RemoveAddress("10.96.0.9"),
        RemoveMember(sets.HEALTH_CHECK, "2"),
        AddMember("KUBE-CLUSTER-IP", "10.96.0.1,tcp:80"),
    ],
    ids=lambda operation: operation.describe(),
)
def test_what_is_there_twice_or_not_at_all_is_refused(kernel, full, operation):
    apply(kernel, full)
    with pytest.raises(BackendError):
        execute([operation], kernel)
    assert kernel.read() == full


def test_one_refusal_does_not_stop_the_others(kernel, full):
    apply(kernel, full)
    more = [Key("10.96.0.3", number, "TCP") for number in range(1, 40)]
    operations = [AddServer(key, Options()) for key in more]
    with pytest.raises(BackendError, match=r"10\.96\.0\.1:80"):
        execute([*operations[:20], AddServer(WEB, Options()), *operations[20:]], kernel)
    assert kernel.servers() == {WEB, DNS, SCTP, *more}


def test_thousands_at_once(kernel):
    servers = {Key(f"10.97.{i // 250}.{i % 250 + 1}", 80, "TCP"): Options() for i in range(1500)}
    state = State(servers, {key: {A: 1, B: 1} for key in servers}, set(), {name: set() for name in sets.SETS})
    state.addresses = {key.address for key in servers}
    state.members[sets.CLUSTER_IP] = {f"{key.address},tcp:80" for key in servers}
    apply(kernel, state)
    assert kernel.read() == state


def test_schedulers_are_those_of_the_kernel(kernel):
    servers = {Key("10.96.0.1", number, "TCP"): Options(name) for number, name in enumerate(SCHEDULERS, 1)}
    execute([AddServer(key, options) for key, options in servers.items()], kernel)
    assert kernel.read().servers == servers


def test_an_interface_that_is_gone_is_made_again(kernel, full):
    apply(kernel, full)
    kernel.remove_interface()
    kernel.open()
    assert kernel.addresses()[0] == set()
    apply(kernel, full)
    assert kernel.read() == full


def test_timeouts(kernel):
    kernel.set_timeouts(0, 0, 0)
    kernel.set_timeouts(900, 120, 300)
    kernel.flush()
