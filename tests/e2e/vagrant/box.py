"""A Vagrant box for libvirt, Debian 12, made from Debian packages: `python box.py` prints its path.

Mechanism: mmdebstrap makes the root folder with this machine's own apt sources; mkfs.ext4 copies it into a partition
without mounting anything; extlinux makes it start; a tar of metadata, Vagrantfile and disk is a box. What Vagrant
expects of any Linux box is in it and nothing of ours: sshd, the user `vagrant` with sudo and Vagrant's well-known
insecure key, rsync, DHCP on the first interface. The result is kept under CACHE by the hash of this file, of the kernel
package's version and of the sources: a changed input makes another box, and an old one is not found again.

Not a general image builder: x86-64, BIOS, one partition.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CACHE = Path(os.environ.get("WHERRY_TEST_CACHE", "/var/cache/wherry-tests"))
RELEASE = "bookworm"
DISK_MIB = 6144
PARTITION_SECTOR = 2048
# The public debian/bookworm64 box has these too; linux-image-cloud has virtio, ip_vs, ip_set, overlay and vxlan.
PACKAGES = (
    "ca-certificates,dbus,iproute2,iputils-ping,kmod,less,linux-image-cloud-amd64,netbase,nftables,openssh-server,"
    "procps,python3,rsync,sudo,systemd,systemd-sysv"
)
HOST_PACKAGES = "mmdebstrap qemu-utils fdisk extlinux e2fsprogs vagrant"
MODULES = ("virtio_pci", "virtio_blk", "ext4")

NETWORK = "[Match]\nName=eth0\n\n[Network]\nDHCP=ipv4\n\n[DHCPv4]\nClientIdentifier=mac\n"
# Host keys at the first start, as every published box does; one kind, because software emulation makes RSA slow.
SSHD_KEYS = "[Service]\nExecStartPre=\nExecStartPre=/usr/bin/ssh-keygen -A\nExecStartPre=/usr/sbin/sshd -t\n"
SSHD = "HostKey /etc/ssh/ssh_host_ed25519_key\nUseDNS no\n"
LOADER = """DEFAULT linux
PROMPT 0
TIMEOUT 1
LABEL linux
    KERNEL vmlinuz
    INITRD initrd.img
    APPEND root=/dev/vda1 ro net.ifnames=0 console=tty0 console=ttyS0 quiet
"""
VAGRANTFILE = """Vagrant.configure("2") do |config|
  config.vm.guest = :debian # saves asking fifty times over ssh
end
"""


class BuildError(Exception):
    """A tool is missing or failed; the text says which and what to do."""


def run(*command: str, stdin: str | None = None, env: dict[str, str] | None = None) -> str:
    """The command's output; BuildError with everything it printed if it fails or is not installed."""
    try:
        done = subprocess.run(
            command,
            input=stdin,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
        )
    except FileNotFoundError as error:
        raise BuildError(f"{command[0]} is missing: apt-get install {HOST_PACKAGES}") from error
    if done.returncode:
        raise BuildError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout[-4000:]}")
    return done.stdout


def sources() -> str:
    """This machine's apt sources for RELEASE as one-line entries (on another release: Debian's own mirror)."""
    shape = "$(CREATED_BY)|$(REPO_URI)|$(SUITE)|$(COMPONENT)|$(RELEASE)"
    lines = {
        f"deb {uri} {release} {component}"
        for kind, uri, _suite, component, release in (
            line.split("|") for line in run("apt-get", "indextargets", "--format", shape).splitlines()
        )
        if kind == "Packages" and release.split("-")[0] == RELEASE and "debian" in uri
    }
    return "\n".join(sorted(lines) or [f"deb http://deb.debian.org/debian {RELEASE} main"]) + "\n"


def acquire_options() -> list[str]:
    """This machine's way to its package servers (proxies, checks), for mmdebstrap's apt."""
    return [
        f"--aptopt={line}"
        for line in run("apt-config", "dump").splitlines()
        if line.startswith("Acquire::") and ' "";' not in line
    ]


def insecure_key() -> str:
    """The public key that every Vagrant knows, from wherever its package keeps it."""
    listed = run("dpkg", "-L", "vagrant").splitlines()
    return next(Path(line) for line in listed if line.endswith("/keys/vagrant.pub")).read_text()


def key() -> str:
    """What the box is made of: this file, the sources, the kernel's version, the key that lets Vagrant in."""
    kernel = subprocess.run(["apt-cache", "show", "linux-image-cloud-amd64"], capture_output=True, text=True).stdout
    version = [line for line in kernel.splitlines() if line.startswith("Version:")][:1]
    parts = [Path(__file__).read_bytes(), sources().encode(), str(version).encode(), insecure_key().encode()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def build(work: Path) -> None:
    """Make `disk.qcow2` and `wherry-debian12.box` in the folder `work`. Needs root."""
    root, raw = work / "root", work / "disk.raw"
    # Before the kernel is configured: its first ramdisk then holds these modules alone, and unpacks in a second.
    initramfs = (
        "mkdir -p $1/etc/initramfs-tools/conf.d && cd $1/etc/initramfs-tools && "
        f" echo MODULES=list >conf.d/box && printf '%s\\n' {' '.join(MODULES)} >modules"
    )
    run(
        "mmdebstrap", "--variant=minbase", "--mode=root", f"--include={PACKAGES}", *acquire_options(),
        f"--essential-hook={initramfs}",
        RELEASE, str(root), "-", stdin=sources(), env={"DEBIAN_FRONTEND": "noninteractive"},
    )  # fmt: skip
    furnish(root)
    run("truncate", "-s", f"{DISK_MIB}M", str(raw))
    run("sfdisk", "-q", str(raw), stdin=f"label: dos\nstart={PARTITION_SECTOR}, type=83, bootable\n")
    offset = PARTITION_SECTOR * 512
    size_kib = (DISK_MIB * 1024 * 1024 - offset) // 1024
    run(
        "mkfs.ext4", "-q", "-F", "-L", "root", "-E", f"offset={offset},lazy_itable_init=0", "-d", str(root),
        str(raw), f"{size_kib}k",
    )  # fmt: skip
    with mounted(raw, offset, work / "mnt") as mountpoint:
        run("extlinux", "--install", str(mountpoint / "boot" / "extlinux"))
    with raw.open("r+b") as disk:
        disk.write(Path("/usr/lib/EXTLINUX/mbr.bin").read_bytes()[:440])
    run("qemu-img", "convert", "-f", "raw", "-O", "qcow2", str(raw), str(work / "disk.qcow2"))
    raw.unlink()
    shutil.rmtree(root)
    pack(work)


def furnish(root: Path) -> None:
    """What a Vagrant box must have beyond its packages."""

    def write(path: str, text: str, mode: int = 0o644) -> None:
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)

    write("etc/fstab", "/dev/vda1 / ext4 defaults,noatime 0 1\n")
    write("etc/hostname", "debian12\n")
    write("etc/hosts", "127.0.0.1 localhost\n127.0.1.1 debian12\n")
    write("etc/machine-id", "")
    write("etc/resolv.conf", "")
    write("etc/systemd/network/20-dhcp.network", NETWORK)
    write("etc/ssh/sshd_config.d/box.conf", SSHD)
    write("etc/systemd/system/ssh.service.d/keys.conf", SSHD_KEYS)
    write("etc/sudoers.d/vagrant", "vagrant ALL=(ALL) NOPASSWD: ALL\n", 0o440)
    write("boot/extlinux/extlinux.conf", LOADER)
    for host_key in root.glob("etc/ssh/ssh_host_*"):
        host_key.unlink()
    run("chroot", str(root), "useradd", "-m", "-s", "/bin/bash", "vagrant")
    run(
        "chroot",
        str(root),
        "systemctl",
        "enable",
        "systemd-networkd.service",
        "ssh.service",
        "serial-getty@ttyS0.service",
    )
    run("chroot", str(root), "systemctl", "mask", "apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer")
    write("home/vagrant/.ssh/authorized_keys", insecure_key(), 0o600)
    (root / "home/vagrant/.ssh").chmod(0o700)
    run("chroot", str(root), "chown", "-R", "vagrant:vagrant", "/home/vagrant")
    for kind in ("vmlinuz", "initrd.img"):  # the loader knows no version
        newest = max((root / "boot").glob(f"{kind}-*"))
        (root / kind).unlink(missing_ok=True)
        shutil.copy(newest, root / "boot" / "extlinux" / kind)


@contextmanager
def mounted(image: Path, offset: int, mountpoint: Path) -> Iterator[Path]:
    mountpoint.mkdir()
    run("mount", "-o", f"loop,offset={offset}", str(image), str(mountpoint))
    try:
        yield mountpoint
    finally:
        run("umount", str(mountpoint))


def pack(work: Path) -> None:
    (work / "metadata.json").write_text(
        json.dumps({"provider": "libvirt", "format": "qcow2", "virtual_size": DISK_MIB // 1024})
    )
    (work / "Vagrantfile").write_text(VAGRANTFILE)
    os.link(work / "disk.qcow2", work / "box.img")
    run("tar", "-C", str(work), "-cf", str(work / "wherry-debian12.box"), "metadata.json", "Vagrantfile", "box.img")
    (work / "box.img").unlink()


def ensure() -> Path:
    """The folder with `disk.qcow2` and `wherry-debian12.box`, built if missing (a minute or two)."""
    folder = CACHE / f"box-{key()}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test runs build it once
        if not folder.exists():
            with tempfile.TemporaryDirectory(prefix="building-", dir=CACHE) as work:
                build(Path(work))
                shutil.rmtree(Path(work) / "mnt", ignore_errors=True)
                finished = Path(work) / "box"
                finished.mkdir()
                for name in ("disk.qcow2", "wherry-debian12.box", "metadata.json"):
                    (Path(work) / name).rename(finished / name)
                finished.rename(folder)
            for old in CACHE.glob("box-*"):
                if old != folder:
                    shutil.rmtree(old)
    return folder


if __name__ == "__main__":
    try:
        print(ensure())
    except BuildError as error:
        sys.exit(f"box: {error}")
