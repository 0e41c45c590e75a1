"""The runtime's pure parts: logs, plans, identities, states."""

import os
from pathlib import Path

import pytest

from nodeagent.linux.program import Input, Program
from nodeagent.runtime import identity, plan, rootfs, state
from nodeagent.runtime.interface import (
    ContainerConfig,
    ContainerState,
    ImageConfig,
    Mount,
    PodIdentity,
    RuntimeFailure,
    SandboxConfig,
    SecurityContext,
)
from nodeagent.runtime.logs import MAX_LINE, Log, Stream, stamp
from nodeagent.runtime.state import Container, ContainerFile, Exit, Sandbox, SandboxFile, Started


def test_stamp() -> None:
    assert stamp(1_700_000_000_000_000_001) == "2023-11-14T22:13:20.000000001Z"


def test_lines_across_chunks() -> None:
    stream = Stream("stdout")
    assert stream.feed(b"one\ntw", "T") == b"T stdout F one\n"
    assert stream.feed(b"o\n\nthree\n", "U") == b"U stdout F two\nU stdout F \nU stdout F three\n"
    assert stream.feed(b"rest", "V") == b"" and stream.finish("W") == b"W stdout P rest\n"
    assert stream.finish("W") == b""


@pytest.mark.parametrize("size", [MAX_LINE - 1, MAX_LINE, MAX_LINE + 1, 3 * MAX_LINE, 5 * MAX_LINE + 7])
@pytest.mark.parametrize("chunk", [1000, 65536, 1 << 20])
def test_long_lines_are_cut_into_parts(size: int, chunk: int) -> None:
    text = bytes(65 + i % 26 for i in range(size)) + b"\nend\n"
    stream, out = Stream("stderr"), b""
    for at in range(0, len(text), chunk):
        out += stream.feed(text[at : at + chunk], "T")
    joined = b""
    for line in out.splitlines():
        _, name, tag, rest = line.split(b" ", 3)
        assert name == b"stderr" and len(rest) <= MAX_LINE
        joined += rest + (b"\n" if tag == b"F" else b"")
    assert joined == text


def test_a_log_without_space_loses_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    log = Log(str(tmp_path / "sub/log"))
    log.write(b"a\n")
    (tmp_path / "sub/log").rename(tmp_path / "sub/log.1")
    log.reopen()
    log.write(b"b\n")
    log.close()
    assert (tmp_path / "sub/log.1").read_text() == "a\n" and (tmp_path / "sub/log").read_text() == "b\n"
    full = Log("")
    full._fd = os.open("/dev/full", os.O_WRONLY)
    full.write(b"lost\n")
    assert full.lost == 5
    full.close()


def layers(tmp_path: Path) -> list[str]:
    top, bottom = tmp_path / "top", tmp_path / "bottom"
    for layer in (top, bottom):
        (layer / "etc").mkdir(parents=True)
    (bottom / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\napp:x:10:20::/home/app:/bin/sh\n")
    (bottom / "etc/group").write_text("root:x:0:\nstaff:x:50:app,x\nlogs:x:51:\n")
    return [str(top), str(bottom)]


@pytest.mark.parametrize(
    ("user", "security", "expected"),
    [
        ("", SecurityContext(), (0, 0, (0,), "/root")),
        ("app", SecurityContext(), (10, 20, (20, 50), "/home/app")),
        ("10", SecurityContext(), (10, 20, (20, 50), "/home/app")),
        ("app:logs", SecurityContext(), (10, 51, (50, 51), "/home/app")),
        ("app:7", SecurityContext(), (10, 7, (7, 50), "/home/app")),
        ("99", SecurityContext(), (99, 0, (0,), "/")),
        ("app", SecurityContext(run_as_user=5, run_as_group=6, supplemental_groups=(8,)), (5, 6, (6, 8), "/")),
        ("app", SecurityContext(run_as_user=0), (0, 0, (0,), "/root")),
    ],
)
def test_identity(tmp_path: Path, user: str, security: SecurityContext, expected: tuple[object, ...]) -> None:
    found = identity.resolve(security, ImageConfig(user=user), layers(tmp_path))
    assert (found.uid, found.gid, found.groups, found.home) == expected


def test_identity_reads_no_file_of_the_node(tmp_path: Path) -> None:
    stack = layers(tmp_path)
    secret = tmp_path / "secret"
    secret.write_text("leak:x:1:1::/:/bin/sh\n")
    (tmp_path / "top/etc/passwd").symlink_to(f"../../../../../../../..{secret}")
    with pytest.raises(RuntimeFailure, match="unable to find user leak"):
        identity.resolve(SecurityContext(), ImageConfig(user="leak"), stack)


def tree(**changes: object) -> rootfs.Tree:
    fields = {
        "layers": ["/l/1", "/l/0"], "upper": "/u", "work": "/w", "mountpoint": "/m", "mounts": (), "shm": Input(5),
        "cgroups": {}, "masked": ("/proc/keys",), "readonly_paths": ("/proc/sys",), "readonly": True,
        "privileged": False,
    }  # fmt: skip
    return rootfs.Tree(**{**fields, **changes})  # type: ignore[arg-type]


def confinement(**changes: object) -> plan.Confinement:
    fields = {
        "identity": identity.Identity(5, 6, (6, 7), "/"), "bounding": 1 << 10, "no_new_privs": True,
        "seccomp": b"x" * 8,
        "rlimits": {}, "oom_score_adj": 0, "join": ["/cg/tasks"],
    }  # fmt: skip
    return plan.Confinement(**{**fields, **changes})  # type: ignore[arg-type]


COMMAND = plan.Command(["sh"], ["PATH=/a:/b"], "/work", False)


def names(program: Program) -> list[str]:
    return [step.name for step in program.steps]


def test_order_of_a_containers_first_code() -> None:
    mounts = (Mount("/tmp", "/data/x", readonly=True),)
    text = plan.container(tree(mounts=mounts), confinement(), COMMAND).describe()
    order = [
        "'/cg/tasks'", "unshare(0x2000000)", "open_tree(-100, '/tmp'", "'/' private", "'overlay'", "pivot_root",
        "umount2", "'/dev'", "'/data/x'", "'proc'", "'/proc/sys'", "mask /proc/keys", "/ read-only", "prctl(24",
        "prctl(38", "setgroups", "setresgid", "setresuid", "capset", "seccomp", "execve('/a/sh'", "execve('/b/sh'",
    ]  # fmt: skip
    text = text.replace("# / private", "# '/' private")
    places = [text.index(piece) for piece in order]
    assert places == sorted(places)


def test_seccomp_comes_before_capabilities_go_unless_no_new_privs() -> None:
    early = names(plan.container(tree(), confinement(no_new_privs=False), COMMAND))
    late = names(plan.container(tree(), confinement(no_new_privs=True), COMMAND))
    assert early.index("seccomp") < early.index("capset") and late.index("seccomp") > late.index("capset")


@pytest.mark.parametrize("target", ["/", "/proc", "/proc/self/x", "/data/../proc/x", "//proc"])
def test_no_mount_over_proc_or_the_root(target: str) -> None:
    with pytest.raises(RuntimeFailure, match="not allowed"):
        plan.container(tree(mounts=(Mount("/tmp", target),)), confinement(), COMMAND)


def test_many_layers_fit_by_relative_paths() -> None:
    many = [f"/var/lib/wherry/images/layers/{'0' * 64}-{n}" for n in range(40)]
    base = "/var/lib/wherry/containers/c"
    program = plan.container(tree(layers=many, upper=f"{base}/u", work=f"{base}/w"), confinement(), COMMAND)
    (overlay,) = [s for s in program.steps if s.name == "mount" and s.arguments[2] == "overlay"]
    assert len(str(overlay.arguments[4])) < 4096
    with pytest.raises(RuntimeFailure, match="layers do not fit"):
        plan.container(tree(layers=many * 3), confinement(), COMMAND)


def test_what_could_end_an_overlay_option_is_refused() -> None:
    with pytest.raises(RuntimeFailure, match="overlay"):
        plan.container(tree(layers=["/l/a,upperdir=/etc"]), confinement(), COMMAND)


def test_search() -> None:
    assert plan.search(COMMAND) == ["/a/sh", "/b/sh"]
    assert plan.search(plan.Command(["./x"], [], "/", False)) == ["./x"]
    with pytest.raises(RuntimeFailure, match="no command specified"):
        plan.search(plan.Command([], [], "/", False))


def container(tmp_path: Path) -> Container:
    sandbox = Sandbox(
        SandboxFile("s", 1.0, SandboxConfig(PodIdentity("n", "p", "u"), "h", "/logs")), str(tmp_path / "s")
    )
    file = ContainerFile("c", "s", 2.0, ContainerConfig("main", 0, "img", log_path="a.log"), ImageConfig(), ["/l"])
    return Container(file, sandbox)


def test_only_legal_transitions(tmp_path: Path) -> None:
    one = container(tmp_path)
    one.run(Started(7, 3.0))
    with pytest.raises(RuntimeFailure, match="cannot become"):
        one.run(Started(8, 3.0))
    one.finish(Exit(137, 4.0, 9, 1))
    with pytest.raises(RuntimeFailure, match="cannot become"):
        one.finish(Exit(0, 5.0))
    status = one.status()
    assert (status.state, status.reason, status.oom_killed, status.pid) == (ContainerState.EXITED, "OOMKilled", True, 0)
    assert status.log_path == "/logs/a.log" and status.started_at == 3.0


def test_state_survives_on_disk(tmp_path: Path) -> None:
    one = container(tmp_path)
    (tmp_path / "s/c/c").mkdir(parents=True)
    (tmp_path / "s/c/torn").mkdir()
    state.save(f"{tmp_path}/s/config.json", one.sandbox.file)
    state.save(f"{one.directory}/config.json", one.file)
    state.save(f"{one.directory}/started.json", Started(7, 3.0))
    found = state.load(str(tmp_path / "s"))
    assert found and list(found.containers) == ["c"] and found.containers["c"].state is ContainerState.RUNNING
    again, file = found.containers["c"].file, one.file
    assert (again.id, again.config.name, again.config.log_path, again.layers) == (file.id, "main", "a.log", file.layers)
    assert again.config.resources == file.config.resources and again.config.security.seccomp == "RuntimeDefault"
    assert not (tmp_path / "s/c/torn").exists()
    state.save(f"{one.directory}/exit.json", Exit(3, 4.0))
    found = state.load(str(tmp_path / "s"))
    assert found and found.containers["c"].status().exit_code == 3
    assert state.load(str(tmp_path)) is None
