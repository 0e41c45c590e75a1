"""A containerd of the tests' own: its directories, its socket, its images, and nothing of it left afterwards."""

import contextlib
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PAUSE, BUSYBOX = "localhost/wherry/pause:1", "docker.io/library/busybox:latest"
APPLETS = ("sh", "true", "false", "sleep", "echo", "cat", "id", "nc", "tail", "ip", "ls", "stty", "seq", "dd")
_CONFIG = """
version = 2
root = "{here}/root"
state = "{here}/state"
disabled_plugins = [
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs", "io.containerd.snapshotter.v1.zfs",
  "io.containerd.snapshotter.v1.devmapper",
]
[grpc]
address = "{here}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
stream_server_address = "127.0.0.1"
stream_server_port = "0"
stats_collect_period = 1
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{here}/cni"
[plugins."io.containerd.internal.v1.opt"]
path = "{here}/opt"
"""


@dataclass(frozen=True)
class Containerd:
    directory: Path

    @property
    def socket(self) -> Path:
        return self.directory / "containerd.sock"

    @property
    def cni(self) -> Path:
        return self.directory / "cni"

    def ctr(self, *arguments: str) -> str:
        command = ["ctr", "-a", str(self.socket), "-n", "k8s.io", *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout


@contextlib.contextmanager
def running(directory: Path) -> Iterator[Containerd]:
    """Skips the test without containerd, runc, the CNI plugins, busybox or root."""
    for tool in ("containerd", "runc", "ctr", "busybox"):
        if shutil.which(tool) is None:
            pytest.skip(f"needs {tool} (Debian's containerd, runc, busybox-static)")
    if os.geteuid() != 0 or not os.path.exists("/usr/lib/cni/bridge"):
        pytest.skip("needs root and Debian's containernetworking-plugins")
    daemon = Containerd(directory)
    daemon.cni.mkdir(parents=True)
    config = directory / "config.toml"
    config.write_text(_CONFIG.format(here=directory, pause=PAUSE))
    with open(directory / "log", "wb") as log:
        process = subprocess.Popen(["containerd", "-c", str(config)], stdout=log, stderr=log)
    try:
        _until_served(daemon, process)
        for name, command in ((PAUSE, ["/bin/sleep", "2000000000"]), (BUSYBOX, ["/bin/sh"])):
            archive = directory / "image.tar"
            write_image(archive, name, command)
            daemon.ctr("images", "import", str(archive))
        yield daemon
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        _clean(daemon)


def _clean(daemon: Containerd) -> None:
    """End what an unlucky test left: shims that name our socket and what they run; mounts below our directory."""
    for entry in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            if entry.isdigit() and f"-address\0{daemon.socket}".encode() in Path(f"/proc/{entry}/cmdline").read_bytes():
                children = Path(f"/proc/{entry}/task/{entry}/children").read_text().split()
                for pid in (*children, entry):
                    os.kill(int(pid), signal.SIGKILL)
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        points = [line.split(" ")[4] for line in file]
    for point in reversed(points):
        if point.startswith(f"{daemon.directory}/"):
            subprocess.run(["umount", "-l", point], check=False, capture_output=True)


def _until_served(daemon: Containerd, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            daemon.ctr("version")
            return
        except subprocess.SubprocessError:
            if process.poll() is not None or time.monotonic() > deadline:
                pytest.fail("containerd does not start:\n" + (daemon.directory / "log").read_text()[-2000:])


def write_image(archive: Path, name: str, command: list[str], env: tuple[str, ...] = ("PATH=/bin",)) -> None:
    """An OCI image of busybox and its applets, as a tar of an image layout."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for directory in ("bin", "tmp", "proc", "sys", "dev", "etc"):
            entry = tarfile.TarInfo(directory)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        tar.add(os.path.realpath("/bin/busybox"), "bin/busybox")
        for applet in APPLETS:
            entry = tarfile.TarInfo(f"bin/{applet}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(entry)
    blobs: dict[str, bytes] = {}

    def blob(data: bytes, kind: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(data)}

    content = blob(layer.getvalue(), "layer.v1.tar")
    config = blob(
        json.dumps(
            {
                "architecture": "amd64",
                "os": "linux",
                "config": {"Cmd": command, "Env": list(env)},
                "rootfs": {"type": "layers", "diff_ids": [content["digest"]]},
            }
        ).encode(),
        "config.v1+json",
    )
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json"}
    described = blob(json.dumps({**manifest, "config": config, "layers": [content]}).encode(), "manifest.v1+json")
    described["annotations"] = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name}
    files = {
        "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
        "index.json": json.dumps({"schemaVersion": 2, "manifests": [described]}).encode(),
        **{f"blobs/sha256/{digest}": data for digest, data in blobs.items()},
    }
    with tarfile.open(archive, "w") as tar:
        for path, data in files.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
