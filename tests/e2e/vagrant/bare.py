"""Bare machines of the test box, without Vagrant and libvirt: `python bare.py [N]` boots N and prints how to enter.

For what needs only a real kernel (IPVS, pure cgroup v2, reboots). Mechanism: plain QEMU on a throw-away overlay of the
box's disk; eth0 is QEMU's user network with ssh forwarded to a free port of 127.0.0.1, eth1 a segment that the machines
share (10.88.0.1, 10.88.0.2 …). They end with the program that started them, whatever ends it.
"""

import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # also a program
import box

BOOT_SECONDS = 120.0  # 16 s on an idle machine of two cores in software emulation
PR_SET_PDEATHSIG = 1


def accelerator() -> list[str]:
    """KVM where the processor lends it (/dev/kvm alone is no proof), else software emulation, its cache bounded."""
    lent = {"vmx", "svm"} & set(Path("/proc/cpuinfo").read_text().split()) and os.access("/dev/kvm", os.W_OK)
    return ["-accel", "kvm", "-cpu", "host"] if lent else ["-accel", "tcg,tb-size=256", "-cpu", "qemu64"]


def die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class Machine:
    """One booted machine. `run` is a command as root over ssh; its output, or AssertionError with everything."""

    def __init__(self, name: str, folder: Path, segment: int, memory_mib: int = 384) -> None:
        self.name, self.folder = name, folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        number = int(name.rpartition("-")[2])
        self.address = f"10.88.0.{number}"
        disk = folder / f"{name}.qcow2"
        image = box.ensure() / "disk.qcow2"
        box.run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", str(image), str(disk))
        self.process = subprocess.Popen(
            [
                "nice", "-n", "5", "qemu-system-x86_64", *accelerator(), "-nodefaults", "-display", "none",
                "-m", str(memory_mib), "-serial", f"file:{folder}/{name}.log", "-device", "virtio-rng-pci",
                "-drive", f"file={disk},if=virtio,cache=unsafe",
                "-netdev", f"user,id=n0,hostfwd=tcp:127.0.0.1:{self.port}-:22",
                "-device", f"virtio-net-pci,netdev=n0,mac=52:54:00:88:00:{number:02x}",
                "-netdev", f"socket,id=n1,mcast=230.0.0.88:{segment},localaddr=127.0.0.1",
                "-device", f"virtio-net-pci,netdev=n1,mac=52:54:00:88:01:{number:02x}",
            ],
            preexec_fn=die_with_parent, stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def ssh(self, *command: str) -> list[str]:
        control = ["ControlMaster=auto", f"ControlPath={self.folder}/{self.name}.ssh", "ControlPersist=yes"]
        options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "ConnectTimeout=10"]
        flags = [part for option in options + control for part in ("-o", option)]
        return ["ssh", "-i", str(self.folder / "key"), "-p", str(self.port), *flags, "vagrant@127.0.0.1", *command]

    def run(self, command: str, timeout: float = 60.0, stdin: str | None = None, check: bool = True) -> str:
        """`command` in a root shell. stdout; with `check`, AssertionError unless it exits with 0."""
        quoted = "sudo bash -c '" + command.replace("'", "'\\''") + "'"
        done = subprocess.run(self.ssh(quoted), input=stdin, text=True, capture_output=True, timeout=timeout)
        assert not check or done.returncode == 0, (
            f"{self.name}: {command}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        )
        return done.stdout

    def copy(self, source: Path, target: str) -> None:
        """A file or a folder to the path `target` there."""
        origin = f"{source}/" if source.is_dir() else str(source)
        shell = " ".join(self.ssh()[:-1])
        box.run(
            "rsync", "-a", "--mkpath", "--rsync-path=sudo rsync", "-e", shell, origin, f"vagrant@127.0.0.1:{target}"
        )

    def wait(self) -> None:
        """Until it answers over ssh; then give eth1 its address."""
        deadline = time.monotonic() + BOOT_SECONDS
        while True:
            done = subprocess.run(self.ssh("true"), capture_output=True, text=True)
            if done.returncode == 0:
                break
            if time.monotonic() > deadline or self.process.poll() is not None:
                console = (self.folder / f"{self.name}.log").read_text(errors="replace")[-2000:]
                raise AssertionError(f"{self.name} did not boot: {done.stderr}\n{console}")
            time.sleep(0.5)
        self.run(
            f"hostnamectl set-hostname {self.name}; ip address add {self.address}/24 dev eth1 && ip link set eth1 up"
        )

    def stop(self) -> None:
        subprocess.run([*self.ssh()[:-1], "-O", "exit", "vagrant@127.0.0.1"], capture_output=True)
        self.process.kill()
        self.process.wait()


class Machines:
    """`with Machines(2) as (one, two):` booted together, gone at the end."""

    def __init__(self, count: int = 1, **options: Any) -> None:
        self.count, self.options = count, options
        self.machines: list[Machine] = []

    def __enter__(self) -> list[Machine]:
        self.folder = Path(tempfile.mkdtemp(prefix="wherry-bare-"))
        (self.folder / "key").touch(mode=0o600)
        listed = box.run("dpkg", "-L", "vagrant").splitlines()
        private = next(Path(line) for line in listed if line.endswith("/keys/vagrant"))
        (self.folder / "key").write_text(private.read_text())
        segment = 20000 + os.getpid() % 20000
        try:
            for n in range(1, self.count + 1):
                self.machines.append(Machine(f"bare-{n}", self.folder, segment, **self.options))
            for machine in self.machines:
                machine.wait()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self.machines

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for machine in self.machines:
            machine.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with Machines(int(sys.argv[1]) if len(sys.argv) > 1 else 1) as booted:
        for machine in booted:
            print(f"{machine.name} {machine.address}: {' '.join(machine.ssh())}", flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            pass
