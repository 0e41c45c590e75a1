"""A machine with Debian's own kernel, for what the kernel at hand lacks (IPVS): QEMU, nothing to install.

Its root is this machine's own `/`, read-only over 9p, with a tmpfs laid over it: the same Python, the same project,
and nothing it does outlives it. It has no network but its own namespaces. One command runs in it; what that prints
is on the serial console, which ends with the exit status.

The kernel is Debian's package linux-image-amd64 (the `cloud` one has no 9p), fetched by apt once and kept in `cache`.
KVM is used where it works; software emulation boots in half a minute otherwise.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

_MODULES = ("virtio_pci", "9pnet_virtio", "9p", "overlay")
_INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /lower /upper /root
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
for module in {modules}; do /bin/busybox insmod /modules/$module; done
/bin/busybox mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=262144,cache=loose root /lower
/bin/busybox mount -t tmpfs -o size=75% tmpfs /upper
/bin/busybox mkdir -p /upper/data /upper/work
/bin/busybox mount -t overlay -o lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work overlay /root
for fs in proc sysfs:sys devtmpfs:dev; do
    /bin/busybox mount -t ${{fs%:*}} none /root/${{fs#*:}}
done
/bin/busybox mount -t tmpfs tmpfs /root/run
/bin/busybox mkdir -p /root/lib/modules
/bin/busybox mount -o bind /root{packages}/lib/modules /root/lib/modules
/bin/busybox mount -t cgroup2 cgroup2 /root/sys/fs/cgroup
/bin/busybox ip link set lo up
# Not chroot: the kernel calls modprobe in its own root.
exec /bin/busybox switch_root /root /bin/sh -c {command}
"""


class Failed(Exception):
    """The machine could not be made or did not come to an end; the message has what it last said."""


def missing() -> str:
    """Why there can be no such machine here, with what to do; empty if there can."""
    for program, package in (
        ("qemu-system-x86_64", "qemu-system-x86"),
        ("depmod", "kmod"),
        ("dpkg-deb", "dpkg"),
        ("busybox", "busybox-static"),
    ):
        if not shutil.which(program):
            return f"no {program}: apt-get install {package}"
    if "not a dynamic executable" not in _said(["ldd", shutil.which("busybox") or ""]):
        return "busybox needs libraries: apt-get install busybox-static"
    return ""


def fetch_kernel(cache: Path) -> Path:
    """The folder with the kernel's package unpacked, with `boot/vmlinuz-…` and `lib/modules/…`. Raises Failed."""
    packages = cache / "kernel"
    if not (packages / "complete").exists():
        shutil.rmtree(packages, ignore_errors=True)
        packages.mkdir(parents=True)
        depends = _output(["apt-cache", "depends", "linux-image-amd64"], packages)
        name = next(word for word in depends.split() if re.match(r"linux-image-\d", word))
        _output(["apt-get", "download", name], packages)
        (package,) = packages.glob("*.deb")
        _output(["dpkg-deb", "-x", str(package), "."], packages)
        package.unlink()
        (release,) = (packages / "lib/modules").iterdir()
        _output(["depmod", "-b", str(packages), release.name], packages)
        (packages / "complete").touch()
    return packages


def run(command: str, cache: Path, *, memory_mb: int = 1024, limit_s: float = 1200.0) -> tuple[int, str]:
    """Boot, run `command` (sh, as root) and return its exit status and what was printed. Raises Failed."""
    packages = fetch_kernel(cache)
    (kernel,) = packages.glob("boot/vmlinuz-*")
    initramfs = cache / f"initramfs-{os.getpid()}.cpio"
    initramfs.write_bytes(b"".join(_archive(_files(packages, command))))
    kvm = _kvm_works()
    words = [
        *("qemu-system-x86_64", "-accel", "kvm" if kvm else "tcg,tb-size=128", "-cpu", "host" if kvm else "max"),
        *("-m", str(memory_mb), "-smp", "2", "-nographic", "-no-reboot", "-nodefaults", "-net", "none"),
        *("-serial", "stdio", "-kernel", str(kernel), "-initrd", str(initramfs)),
        *("-append", "console=ttyS0 quiet panic=-1 rdinit=/init random.trust_cpu=on"),
        *("-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap"),
        *("-device", "virtio-9p-pci,fsdev=root,mount_tag=root"),
    ]
    console = cache / f"console-{os.getpid()}.log"  # may be looked at while it runs
    try:
        with console.open("wb") as output:
            done = subprocess.run(words, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
                                  timeout=limit_s, check=False)  # fmt: skip
        said = _read(console)
    except subprocess.TimeoutExpired:
        raise Failed(f"no end after {limit_s:.0f} s:\n{_read(console)[-3000:]}") from None
    finally:
        initramfs.unlink()
        console.unlink()
    before, found, status = said.rpartition("exit status ")
    if not found:
        raise Failed(f"qemu exit {done.returncode}:\n{said[-3000:]}")
    return int(status.split()[0]), before


def _read(console: Path) -> str:
    return console.read_bytes().decode(errors="replace").replace("\r\n", "\n")


def _kvm_works() -> bool:
    """A /dev/kvm alone says little: inside some clouds' machines it is there and hangs."""
    flags = Path("/proc/cpuinfo").read_text().partition("flags")[2].partition("\n")[0].split()
    return os.access("/dev/kvm", os.R_OK | os.W_OK) and bool({"vmx", "svm"} & set(flags))


def _files(packages: Path, command: str) -> Iterator[tuple[str, bytes]]:
    (release,) = (packages / "lib/modules").iterdir()
    loaded: dict[str, Path] = {}
    depends = dict(line.split(":", 1) for line in (release / "modules.dep").read_text().splitlines())
    paths = {Path(path).name.partition(".")[0].replace("-", "_"): path for path in depends}
    for module in _MODULES:
        path = paths[module.replace("-", "_")]
        for one in (*reversed(depends[path].split()), path):
            loaded[Path(one).name] = release / one
    init = _INIT.format(
        modules=" ".join(loaded),
        packages=packages,
        command=shlex.quote(f"({command}) </dev/null 2>&1; echo exit status $?; busybox poweroff -f"),
    )
    yield "init", init.encode()
    yield "bin/busybox", Path(shutil.which("busybox") or "").read_bytes()
    for name, path in loaded.items():
        yield f"modules/{name}", path.read_bytes()


def _archive(files: Iterator[tuple[str, bytes]]) -> Iterator[bytes]:
    """`files` as a cpio archive in the `newc` format that the kernel unpacks."""
    for name, mode, content in (
        *((folder, 0o40755, b"") for folder in ("bin", "modules")),
        *((name, 0o100755, content) for name, content in files),
        ("TRAILER!!!", 0, b""),
    ):
        fields = (1, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        header = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        yield header + bytes(-len(header) % 4) + content + bytes(-len(content) % 4)


def _output(words: list[str], folder: Path) -> str:
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise Failed(f"{shlex.join(words)}: {done.stderr.strip()}")
    return done.stdout


def _said(words: list[str]) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=False)
    return done.stdout + done.stderr
