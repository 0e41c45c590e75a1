"""libvirt in a corner of its own, so that `vagrant up` really runs and nothing of it is left afterwards.

Mechanism: `unshare` gives a process its own mount, network and PID namespaces. In them this file's `main` is PID 1 (a
subreaper by nature: libvirt waits for its zombies), puts folders of the test in the place of libvirt's, and starts
virtlogd and libvirtd, which then find neither the machine's own libvirt nor its networks. `Hypervisor.command` enters
these namespaces. When PID 1 ends, the kernel ends every guest and every daemon with it, and takes the networks along;
the images lie in the test's folder.

Not a sandbox: everything runs as root with the machine's files.
"""

import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType

PROJECT = Path(__file__).resolve().parents[3]
PLACES = {  # libvirt's folders, each replaced by one in the test's folder
    "/etc/libvirt": "etc",
    "/var/lib/libvirt": "lib",
    "/var/cache/libvirt": "cache",
    "/var/log/libvirt": "log",
    "/run/libvirt": "run",
}
# No security driver: with one, libvirt repeats every probe of QEMU's capabilities. Root: the images are root's.
QEMU = 'user = "root"\ngroup = "root"\nsecurity_driver = "none"\nremember_owner = 0\nnamespaces = []\n'
SOCKET = "/run/libvirt/libvirt-sock"
START_SECONDS = 60.0
PR_SET_PDEATHSIG = 1


class Hypervisor:
    """`with Hypervisor(folder) as hypervisor:` the daemons run, and have ended afterwards, whatever happened."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __enter__(self) -> "Hypervisor":
        for place in PLACES.values():
            (self.folder / place).mkdir(parents=True, exist_ok=True)
        (self.folder / "etc/qemu.conf").write_text(QEMU)
        (self.folder / "pid").unlink(missing_ok=True)
        unshared = ["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc"]
        with (self.folder / "hypervisor.log").open("w") as log:
            self.process = subprocess.Popen(
                [*unshared, sys.executable, __file__, str(self.folder)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=die_with_parent,
            )
        try:
            self.wait()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    @classmethod
    def running(cls, folder: Path) -> "Hypervisor":
        """The one that another program keeps in `folder`; it is not ours to end."""
        found = cls(folder)
        found.init = int((folder / "pid").read_text())
        return found

    def wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while True:
            children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"libvirt did not start:\n{(self.folder / 'hypervisor.log').read_text()[-3000:]}")
            if (self.folder / "ready").exists() and (pids := children.read_text().split()):
                self.init = int(pids[0])
                (self.folder / "pid").write_text(pids[0])
                if not subprocess.run(
                    self.command("virsh", "-c", "qemu:///system", "list"), capture_output=True
                ).returncode:
                    return
            time.sleep(0.1)

    def command(self, *command: str) -> list[str]:
        """The command line that runs `command` inside, in the project's folder."""
        return ["nsenter", f"--target={self.init}", "--mount", "--net", "--pid", f"--wd={PROJECT}", *command]

    def virsh(self, *arguments: str) -> str:
        return subprocess.run(
            self.command("virsh", "-q", "-c", "qemu:///system", *arguments), check=True, capture_output=True, text=True
        ).stdout

    def processes(self) -> list[str]:
        """Command lines of everything that runs inside."""
        inside = os.readlink(f"/proc/{self.init}/ns/pid")
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(folder / "ns/pid_for_children") == inside:
                    found.append((folder / "cmdline").read_text().replace("\0", " "))
            except OSError:
                continue  # gone in between
        return found

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()  # --kill-child: PID 1 goes, and with it all in its namespace
        self.process.wait()


def die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def main(folder: Path) -> None:
    """PID 1 inside: the places, the daemons, then reaping for ever."""
    (folder / "ready").unlink(missing_ok=True)
    for target, source in PLACES.items():
        os.makedirs(target, exist_ok=True)
        subprocess.run(["mount", "--bind", str(folder / source), target], check=True)
    # libvirt sets its bridges through /sys/class/net, which shows the network namespace that mounted it. Without the
    # machine's cgroups below, libvirt does without: they are the machine's, and the guests end with this namespace.
    subprocess.run(["umount", "--recursive", "--lazy", "/sys"], check=True)
    subprocess.run(["mount", "-t", "sysfs", "sysfs", "/sys"], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    Path("/run/libvirt").chmod(0o755)
    for stale in Path("/run/libvirt").glob("*"):
        if not stale.is_dir():
            stale.unlink()
    for daemon in ("virtlogd", "libvirtd"):
        subprocess.Popen([daemon], stdin=subprocess.DEVNULL)
    while not Path(SOCKET).exists():
        time.sleep(0.05)
    (folder / "ready").touch()
    while True:
        try:
            os.wait()
        except ChildProcessError:
            time.sleep(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
