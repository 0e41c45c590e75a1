"""Cgroups without a kernel: what is written where, on ordinary directories, and how layouts are recognised."""

from pathlib import Path

import pytest

from nodeagent.linux.cgroups import Cgroups, Layout, Limits
from nodeagent.linux.cgroups.detect import parse
from nodeagent.linux.cgroups.v1 import devices
from nodeagent.linux.cgroups.v2 import cpu, memory
from nodeagent.linux.cgroups.v2.devices import assemble
from nodeagent.linux.syscalls import KernelError

LIMITS = Limits(cpu_shares=512, cpu_quota_us=50_000, memory_limit_bytes=1 << 20, pids_limit=10)

HYBRID = """\
30 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
32 30 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory
33 30 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd
34 30 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw
"""
OWN = "4:cpu,cpuacct:/\n3:memory:/box/7\n2:name=systemd:/\n0::/\n"


def test_layout_follows_mounts_and_own_cgroup() -> None:
    layout = parse(HYBRID, OWN)
    assert layout.v1 == {
        "cpu": "/sys/fs/cgroup/cpu,cpuacct",
        "cpuacct": "/sys/fs/cgroup/cpu,cpuacct",
        "memory": "/sys/fs/cgroup/memory/box/7",
    }
    assert layout.v2 == "/sys/fs/cgroup/unified" and not layout.unified


def test_layout_seen_from_a_mount_that_starts_deeper() -> None:
    mounts = "32 30 0:28 /box /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    assert parse(mounts, "3:memory:/box/7\n").v1 == {"memory": "/sys/fs/cgroup/memory/7"}
    assert parse(mounts, "3:memory:/box\n").v1 == {"memory": "/sys/fs/cgroup/memory"}


def test_layout_with_a_root_of_the_nodes_own() -> None:
    layout = parse(HYBRID, OWN, "/wherry/node-1")
    assert layout.v1["memory"] == "/sys/fs/cgroup/memory/wherry/node-1"
    assert layout.v2 == "/sys/fs/cgroup/unified/wherry/node-1"


def test_pure_v2() -> None:
    layout = parse("30 25 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n", "0::/system.slice/x.service\n")
    assert layout.unified and layout.v2 == "/sys/fs/cgroup"


@pytest.fixture
def v1(tmp_path: Path) -> Cgroups:
    class Made(Cgroups):
        def _make_v1(self, controller: str, path: str) -> str:
            directory = super()._make_v1(controller, path)
            for name in ("memory.limit_in_bytes", "cpu.shares", "cpu.cfs_period_us", "cpu.cfs_quota_us", "pids.max"):
                (Path(directory) / name).touch()
            return directory

    for name in ("memory", "cpu", "pids"):
        (tmp_path / name).mkdir()
    return Made(Layout({c: str(tmp_path / c) for c in ("memory", "cpu", "pids")}, "", frozenset()))


def test_v1_limits_are_written(v1: Cgroups, tmp_path: Path) -> None:
    v1.create("kubepods/pod1/c1", LIMITS)
    directory = "kubepods/pod1/c1"
    assert (tmp_path / "memory" / directory / "memory.limit_in_bytes").read_text() == str(1 << 20)
    assert (tmp_path / "cpu" / directory / "cpu.shares").read_text() == "512"
    assert (tmp_path / "cpu" / directory / "cpu.cfs_quota_us").read_text() == "50000"
    assert (tmp_path / "pids" / directory / "pids.max").read_text() == "10"
    assert v1.join_files("x", LIMITS, confine_devices=True) == [
        f"{tmp_path}/{c}/x/tasks" for c in ("memory", "cpu", "pids")
    ]


def test_v2_files() -> None:
    assert cpu.settings(LIMITS) == [("cpu.weight", "20"), ("cpu.max", "50000 100000")]
    assert memory.settings(LIMITS) == [("memory.max", str(1 << 20)), ("memory.oom.group", "1")]
    assert [cpu.weight(s) for s in (2, 1024, 262144)] == [1, 39, 10000]


def test_v2_hands_controllers_down_level_by_level(tmp_path: Path) -> None:
    class Made(Cgroups):
        def _handed_down(self, directory: str) -> bool:
            return False

    (tmp_path / "cgroup.subtree_control").touch()
    (tmp_path / "kubepods").mkdir()
    (tmp_path / "kubepods/cgroup.subtree_control").touch()
    Made(Layout({}, str(tmp_path), frozenset({"memory", "pids", "io"}), str(tmp_path)))._make_v2("kubepods/c")
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+memory +pids"
    assert (tmp_path / "kubepods/cgroup.subtree_control").read_text() == "+memory +pids"


def test_the_whole_node_cannot_be_removed_or_killed(v1: Cgroups) -> None:
    for path in ("", "/"):
        with pytest.raises(ValueError, match="whole node"):
            v1.remove(path)


def test_a_file_that_is_not_there_is_named(v1: Cgroups, tmp_path: Path) -> None:
    (tmp_path / "memory/x").mkdir()
    with pytest.raises(KernelError, match=r"memory\.limit_in_bytes"):
        v1.update("x", LIMITS)


class Device:
    """A tiny BPF interpreter, enough to run the device program."""

    def __init__(self, program: bytes) -> None:
        self.code = [program[i : i + 8] for i in range(0, len(program), 8)]

    def allows(self, kind: int, major: int, minor: int, access: int) -> bool:
        registers = dict.fromkeys(range(11), 0)
        context = {0: access << 16 | kind, 4: major, 8: minor}
        at = 0
        while True:
            raw = self.code[at]
            code, dst, src = raw[0], raw[1] & 15, raw[1] >> 4
            offset = int.from_bytes(raw[2:4], "little", signed=True)
            value = int.from_bytes(raw[4:8], "little", signed=True)
            at += 1
            if code == 0x61:
                registers[dst] = context[offset]
            elif code == 0x57:
                registers[dst] &= value
            elif code == 0x77:
                registers[dst] >>= value
            elif code == 0xBF:
                registers[dst] = registers[src]
            elif code == 0xB7:
                registers[dst] = value
            elif code == 0x55:
                at += offset if registers[dst] != value else 0
            elif code == 0x95:
                return bool(registers[0])
            else:
                raise AssertionError(hex(code))


@pytest.mark.parametrize(
    ("kind", "major", "minor", "access", "allowed"),
    [
        (2, 1, 3, 2 | 4, True),  # null
        (2, 136, 7, 2 | 4, True),  # a terminal
        (1, 8, 0, 1, True),  # making a disk's node
        (1, 8, 0, 2, False),  # reading it
        (2, 1, 11, 2, False),  # kmsg
        (2, 1, 1, 4, False),  # mem
        (1, 1, 3, 2, False),  # a block device with null's number
    ],
)
def test_device_rules_on_v2(kind: int, major: int, minor: int, access: int, allowed: bool) -> None:
    assert Device(assemble(devices.DEFAULT_RULES)).allows(kind, major, minor, access) is allowed


def test_device_rules_on_v1() -> None:
    assert devices.settings(["c 1:3 rwm"]) == [("devices.deny", "a"), ("devices.allow", "c 1:3 rwm")]


def _files(top: Path, **files: str) -> None:
    for name, text in files.items():
        path = top / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_usage_on_v2(tmp_path: Path) -> None:
    _files(
        tmp_path / "pod1",
        cpu_DOT_stat="usage_usec 1500\nuser_usec 1000\nsystem_usec 500\n",
        memory_DOT_current="9000\n",
        memory_DOT_max="max\n",
        memory_DOT_stat="anon 4000\ninactive_file 2000\npgfault 7\npgmajfault 2\n",
        pids_DOT_current="3\n",
        cpu_DOT_pressure="some avg10=1.50 avg60=0.25 avg300=0.00 total=777\n",
    )
    cgroups = Cgroups(Layout({}, str(tmp_path), frozenset({"memory", "cpu", "pids"})))
    used = cgroups.usage("pod1")
    assert used is not None
    assert (used.cpu_ns, used.memory_bytes, used.working_set_bytes, used.rss_bytes) == (1_500_000, 9000, 7000, 4000)
    assert (used.page_faults, used.major_page_faults, used.pids, used.limit_bytes) == (7, 2, 3, 0)
    assert (used.psi["cpu", "some"].avg10, used.psi["cpu", "some"].total_us) == (1.5, 777)
    assert cgroups.usage("gone") is None


def test_usage_on_v1(tmp_path: Path) -> None:
    _files(
        tmp_path,
        memory__pod1__memory_DOT_usage_in_bytes="9000\n",
        memory__pod1__memory_DOT_limit_in_bytes="9223372036854771712\n",
        memory__pod1__memory_DOT_stat="rss 1\ntotal_rss 4000\ntotal_inactive_file 2000\ntotal_pgfault 7\n",
        cpu__pod1__cpuacct_DOT_usage="1500000\n",
        pids__pod1__pids_DOT_current="3\n",
    )
    v1 = {"memory": f"{tmp_path}/memory", "cpuacct": f"{tmp_path}/cpu", "pids": f"{tmp_path}/pids"}
    cgroups = Cgroups(Layout(v1, "", frozenset()))
    used = cgroups.usage("pod1")
    assert used is not None
    assert (used.cpu_ns, used.memory_bytes, used.working_set_bytes, used.rss_bytes) == (1_500_000, 9000, 7000, 4000)
    assert (used.limit_bytes, used.pids) == (0, 3)
    assert cgroups.usage("gone") is None
