"""What the benches share: an API server of its own, a lab of its own, and what processes have used.

Both are made new in a temporary place, are always stopped, and disturb no other lab on the machine.
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from pki import provision  # noqa: E402
from pki.layout import Layout  # noqa: E402

LAB = os.environ.get("WHERRY_LAB") or "bench"


def cpu_s(pid: int) -> float:
    """CPU seconds of all threads of a process, living and ended, to the nanosecond (the process's own kernel clock)."""
    return time.clock_gettime(~pid << 3 | 2)


def machine_cpu_s() -> float:
    """CPU seconds of the whole machine so far, kernel threads and whoever else runs included."""
    with open("/proc/stat", encoding="ascii") as file:
        user, nice, system, _, _, irq, softirq, *_ = map(int, file.readline().split()[1:])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int) -> dict[str, float]:
    """Rss, Pss (shared pages divided among their users) and others of a process."""
    fields = {}
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        for line in file:
            if line.endswith("kB\n"):
                name, value, _ = line.split()
                fields[name.rstrip(":")] = int(value) / 1024
    return fields


class ApiServer:
    """`python -m controlplane.apiserver` with SQLite in an empty directory, HTTPS and RBAC, as an admin sees it."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="bench-apiserver-", dir="/var/tmp")
        directory = Path(self._directory.name)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.layout, now = Layout.under(directory), datetime.now(UTC)
        ca = provision.authority(self.layout, now)
        provision.control_plane(self.layout, ca, f"https://127.0.0.1:{self.port}", ("127.0.0.1",), now)
        self.tls = ssl.create_default_context(cafile=str(self.layout.ca_cert))
        certificate = directory / "admin.pem"
        certificate.write_bytes(self._admin())
        self.tls.load_cert_chain(certificate)
        self._log = open(directory / "log", "wb")  # noqa: SIM115
        self.store_file = directory / "wherry.db"
        self._command = [
            sys.executable, "-m", "controlplane.apiserver",
            "--advertise-address", "127.0.0.1", "--bind-address", "127.0.0.1", "--secure-port", str(self.port),
            "--store", f"sqlite://{self.store_file}",
            "--tls-cert-file", str(self.layout.identity("apiserver")),
            "--tls-private-key-file", str(self.layout.identity("apiserver")),
            "--client-ca-file", str(self.layout.ca_cert),
            "--service-account-signing-key-file", str(self.layout.service_account_key),
            "--kubelet-client-certificate", str(self.layout.identity("apiserver-kubelet-client")),
            "--kubelet-client-key", str(self.layout.identity("apiserver-kubelet-client")),
            "--kubelet-certificate-authority", str(self.layout.ca_cert), "--log-level", "warning",
        ]  # fmt: skip

    def _admin(self) -> bytes:
        """Certificate and key of the admin's kubeconfig."""
        user = yaml.safe_load(self.layout.kubeconfig("admin").read_text())["users"][0]["user"]
        return b"\n".join(base64.b64decode(user[f"client-{part}-data"]) for part in ("certificate", "key"))

    def __enter__(self) -> ApiServer:
        self.start()
        return self

    def start(self) -> None:
        """Start the process; `ready_s` is how long it took to say that it is ready."""
        begun = time.perf_counter()
        self.popen = subprocess.Popen(self._command, cwd=ROOT, stdout=self._log, stderr=self._log)
        while not self._ready():
            if self.popen.poll() is not None or time.perf_counter() - begun > 20:
                raise RuntimeError("no API server: " + Path(self._log.name).read_text()[-2000:])
            time.sleep(0.002)
        self.ready_s = time.perf_counter() - begun

    def stop(self) -> None:
        """End the process; the store stays until the end of the `with`."""
        self.popen.terminate()
        self.popen.wait(30)

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._log.close()
        self._directory.cleanup()

    @property
    def pid(self) -> int:
        return self.popen.pid

    def cpu_s(self) -> float:
        return cpu_s(self.pid)

    def _ready(self) -> bool:
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=self.tls, timeout=5)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()


class Lab:
    """A three-node cluster, started by the command that a user types."""

    def __enter__(self) -> Lab:
        self.wherry("down", "--purge")
        self.up_s = self.up()
        return self

    def __exit__(self, *_: object) -> None:
        self.wherry("down", "--purge")

    def up(self) -> float:
        """`wherry up`, in seconds from Enter to prompt."""
        begun = time.perf_counter()
        self.wherry("up", "--nodes", "3")
        return time.perf_counter() - begun

    def status(self) -> Any:
        return json.loads(self.wherry("status", "-o", "json"))

    def pids(self) -> dict[int, str]:
        """Every process of the lab's, with shims and what else descends from its supervisor: pid -> what it is."""
        known = {p["pid"]: p["component"] for p in self.status()["processes"] if p["pid"]}
        parents: dict[int, int] = {}
        for entry in os.scandir("/proc"):
            if entry.name.isdigit():
                try:
                    stat = Path(entry.path, "stat").read_text()
                except OSError:
                    continue
                parents[int(entry.name)] = int(stat.rsplit(")", 1)[1].split()[1])
        found = dict(known)
        while more := {p: "child of " + found[q].removeprefix("child of ")
                       for p, q in parents.items() if q in found and p not in found}:  # fmt: skip
            found |= more
        return found

    def wherry(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "controlplane.cli.main", "--lab", LAB, *arguments]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
        if done.returncode:
            raise RuntimeError(f"wherry {' '.join(arguments)}: {done.stdout[-500:]}{done.stderr[-1500:]}")
        return done.stdout
