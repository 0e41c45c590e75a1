"""The BPF program that confines devices on cgroup v2, on a real cgroup (also where v2 only stands beside v1)."""

import os
import subprocess
from pathlib import Path

import pytest

from nodeagent.linux.cgroups import detect
from nodeagent.linux.cgroups.v2 import devices


def test_only_harmless_devices_can_be_opened(tmp_path: Path) -> None:
    layout = detect()
    if os.geteuid() != 0 or not layout.v2:
        pytest.skip("needs root and a cgroup2 mount")
    directory = Path(layout.v2) / f"wherry-test-{os.getpid()}"
    directory.mkdir()
    try:
        devices.attach(str(directory))
        os.mknod(tmp_path / "kmsg", 0o020600, os.makedev(1, 11))
        script = f"echo $$ > {directory}/cgroup.procs; head -c 4 /dev/zero | wc -c; head -c 1 {tmp_path}/kmsg"
        done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, timeout=10, check=False)
        assert done.stdout == "4\n" and "Operation not permitted" in done.stderr
    finally:
        directory.rmdir()
