"""Programs of system calls: built, described, linked, and executed by both executors."""

import errno
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from nodeagent.linux import executor
from nodeagent.linux.executor import Loaded
from nodeagent.linux.program import Block, Input, Program, strings
from nodeagent.linux.syscalls import KernelError, call

AT_FDCWD = -100


def test_steps_describe_themselves() -> None:
    program = Program()
    fd = program.add("openat", AT_FDCWD, "/etc/x", 0, about="/etc/x")
    program.add("dup3", fd, Input(2), 0)
    program.add("execve", "/bin/true", strings(["true"]), Block([1, b"ab"]))
    assert program.describe().splitlines() == [
        "#0 openat(-100, '/etc/x', 0)  # /etc/x",
        "#1 dup3(#0, $2, 0)",
        "#2 execve('/bin/true', ['true', None], [1, b'ab'])",
    ]


@pytest.mark.parametrize("native", [True, False])
def test_spawn_runs_rows_with_results_and_inputs(tmp_path: Path, native: bool) -> None:
    program = Program()
    target = str(tmp_path / "out")
    program.add("mkdirat", AT_FDCWD, str(tmp_path), 0o755, forgive=(errno.EEXIST,))
    fd = program.add("openat", AT_FDCWD, target, os.O_CREAT | os.O_WRONLY, 0o600)
    program.add("write", fd, b"hello ", 6)
    program.add("dup3", Input(0), 1, 0)
    program.add("execve", "/no/such", strings(["x"]), strings([]), forgive=(errno.ENOENT,))
    program.add("execve", "/bin/sh", strings(["sh", "-c", 'echo "$A $0"', "arg"]), strings(["A=env"]))
    read, write = os.pipe()
    memory = program.memfd()
    try:
        with Loaded(memory) as loaded:
            loaded.give([write])
            pid, pidfd = loaded.spawn(0, native=native)
            assert loaded.failure() is None and loaded.result(0) == -errno.EEXIST
        os.close(write)
        assert os.waitid(os.P_PIDFD, pidfd, os.WEXITED).si_pid == pid  # type: ignore[union-attr]
        os.close(pidfd)
        assert os.read(read, 100) == b"env arg\n" and Path(target).read_text() == "hello "
        assert program.results(memory, "execve")[0] == -errno.ENOENT
    finally:
        os.close(read)
        os.close(memory)


@pytest.mark.parametrize("native", [True, False])
def test_first_failure_stops_and_is_named(tmp_path: Path, native: bool) -> None:
    program = Program()
    program.add("chdir", str(tmp_path / "missing"), about="the place")
    program.add("mkdirat", AT_FDCWD, str(tmp_path / "never"), 0o755)
    memory = program.memfd()
    with Loaded(memory) as loaded:
        pid, pidfd = loaded.spawn(0, native=native)
        failure = loaded.failure()
    os.waitpid(pid, 0)
    os.close(pidfd)
    os.close(memory)
    assert failure == (0, errno.ENOENT) and not (tmp_path / "never").exists()
    error = program.error(failure)
    assert isinstance(error, KernelError) and str(error) == "chdir the place: No such file or directory"


def test_run_in_this_process(tmp_path: Path) -> None:
    program = Program()
    program.add("mkdirat", AT_FDCWD, str(tmp_path / "made"), 0o755)
    memory = program.memfd()
    with Loaded(memory) as loaded:
        assert loaded.run()
    os.close(memory)
    assert (tmp_path / "made").is_dir()


def test_rubbish_is_refused(tmp_path: Path) -> None:
    for text in (b"", b"x" * 4096):
        file = tmp_path / "rubbish"
        file.write_bytes(text)
        fd = os.open(file, os.O_RDWR)
        with pytest.raises(ValueError, match="program"):
            Loaded(fd)
        os.close(fd)


def test_unknown_system_call_is_enosys() -> None:
    with pytest.raises(KernelError) as caught:
        call("no_such_call")
    assert caught.value.errno == errno.ENOSYS
    program = Program()
    program.add("no_such_call")
    with pytest.raises(KernelError):
        program.link()


def test_machine_code_is_what_the_listing_says(tmp_path: Path) -> None:
    if not (shutil.which("as") and shutil.which("objcopy")) or os.uname().machine != "x86_64":
        pytest.skip("needs binutils on x86-64")
    listing = Path(__file__).with_name("executor_x86_64.s")
    subprocess.run(["as", "--64", "-o", tmp_path / "run.o", listing], check=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", tmp_path / "run.o", tmp_path / "run.bin"], check=True)
    assert (tmp_path / "run.bin").read_bytes() == executor._X86_64_CODE
