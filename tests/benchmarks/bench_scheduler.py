"""How fast pods get nodes: real API server, real scheduler, HTTPS and RBAC between them, nodes that exist on paper.

    python tests/benchmarks/bench_scheduler.py [--nodes 100] [--pods 2000] [--json FILE]

Backlog: all pods are there before the scheduler starts. Trickle: one pod at a time, from the end of its POST to the
binding seen by a watch. CPU is the processes' own (user and system). Peer figures: kube-scheduler 1.36, limits lifted.
"""

import argparse
import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from figures import KUBERNETES, Figure  # noqa: E402

from controlplane.client import Unreachable, from_kubeconfig  # noqa: E402
from controlplane.client.resources import EVENTS, NAMESPACES, NODES, PODS, SERVICEACCOUNTS  # noqa: E402
from pki import provision  # noqa: E402
from pki.layout import Layout  # noqa: E402

PEER = {"pods_s": 338, "scheduler_ms": 1.85, "apiserver_ms": 2.95, "memory_mb": 63}


def node(i):
    capacity = {"cpu": "32", "memory": "64Gi", "pods": "110"}
    labels = {"kubernetes.io/hostname": f"node-{i}"}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": f"node-{i}", "labels": labels},
        "status": {"capacity": capacity, "allocatable": capacity},
    }


def pod(name):
    resources = {"requests": {"cpu": "100m", "memory": "64Mi"}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "bench", "labels": {"app": "bench"}},
        "spec": {"containers": [{"name": "c", "image": "example", "resources": resources}]},
    }


class Process:
    """A daemon of ours, and what it has used so far."""

    def __init__(self, module, directory, *flags):
        log = open(directory / f"{module}.log", "wb")  # noqa: SIM115
        self.popen = subprocess.Popen([sys.executable, "-m", module, *flags], cwd=ROOT, stderr=log, stdout=log)

    def cpu(self):
        fields = Path(f"/proc/{self.popen.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mb(self):
        lines = Path(f"/proc/{self.popen.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024

    def stop(self):
        self.popen.terminate()
        self.popen.wait(10)


async def measure(nodes, pods, directory):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    layout, now = Layout.under(directory), datetime.now(UTC)
    ca = provision.authority(layout, now)
    provision.control_plane(layout, ca, f"https://127.0.0.1:{port}", ("127.0.0.1",), now)
    server = Process(
        "controlplane.apiserver", directory,
        "--advertise-address", "127.0.0.1", "--bind-address", "127.0.0.1", "--secure-port", str(port),
        "--store", f"sqlite://{directory}/wherry.db",
        "--tls-cert-file", str(layout.identity("apiserver")),
        "--tls-private-key-file", str(layout.identity("apiserver")),
        "--client-ca-file", str(layout.ca_cert),
        "--service-account-signing-key-file", str(layout.service_account_key),
        "--kubelet-client-certificate", str(layout.identity("apiserver-kubelet-client")),
        "--kubelet-client-key", str(layout.identity("apiserver-kubelet-client")),
        "--kubelet-certificate-authority", str(layout.ca_cert), "--log-level", "warning",
    )  # fmt: skip
    client = from_kubeconfig(str(layout.kubeconfig("admin")))
    scheduler = None
    try:
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(Unreachable):
                await client.raw("GET", "/readyz")
                break
            assert server.popen.poll() is None and time.monotonic() < deadline, f"see {directory}"
            await asyncio.sleep(0.02)
        await client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "bench"}})
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": "bench"}}
        await client.create(SERVICEACCOUNTS, account)
        await asyncio.gather(*(client.create(NODES, node(i)) for i in range(nodes)))
        await asyncio.gather(*(client.create(PODS, pod(f"p{i}")) for i in range(pods)))
        listed = await client.list(PODS, "bench", limit=1)
        bound = asyncio.Queue()

        async def follow(version):
            async for _, obj in client.watch(PODS, "bench", resource_version=version):
                if obj.get("spec", {}).get("nodeName"):
                    bound.put_nowait((time.perf_counter(), obj["metadata"]["name"], obj["spec"]["nodeName"]))

        watching = asyncio.create_task(follow(listed["metadata"]["resourceVersion"]))
        before = server.cpu()
        started = time.perf_counter()
        scheduler = Process(
            "controlplane.scheduler", directory, "--kubeconfig", str(layout.kubeconfig("scheduler")),
            "--log-level", "warning",
        )  # fmt: skip
        times, seen = [], {}
        while len(seen) < pods:
            at, name, where = await asyncio.wait_for(bound.get(), 60)
            if name not in seen:
                seen[name] = where
                times.append(at)
        used = -1.0
        while used != server.cpu() + scheduler.cpu():  # until the events are written, too
            used = server.cpu() + scheduler.cpu()
            await asyncio.sleep(0.3)
        span = times[-1] - times[0]
        result = {
            "nodes": nodes,
            "pods": pods,
            "first_s": times[0] - started,
            "pods_s": (pods - 1) / max(span, 1e-9),
            "scheduler_ms": scheduler.cpu() / pods * 1e3,
            "apiserver_ms": (server.cpu() - before) / pods * 1e3,
            "most_on_a_node": max(list(seen.values()).count(n) for n in set(seen.values())),
            "least_on_a_node": min(list(seen.values()).count(n) for n in set(seen.values())),
            "memory_mb": scheduler.memory_mb(),
            "events": len((await client.list(EVENTS, "bench"))["items"]),
        }
        waits = []
        for i in range(100):
            await client.create(PODS, pod(f"single-{i}"))
            begun = time.perf_counter()
            while (await asyncio.wait_for(bound.get(), 10))[1] != f"single-{i}":
                pass
            waits.append((time.perf_counter() - begun) * 1e3)
            await asyncio.sleep(0.005)
        waits.sort()
        result |= {"single_ms_p50": waits[50], "single_ms_p95": waits[95]}
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        return result
    finally:
        await client.close()
        for process in (scheduler, server):
            if process:
                process.stop()


def figures():
    with tempfile.TemporaryDirectory(prefix="bench-scheduler-") as directory:
        r = asyncio.run(measure(100, 2000, Path(directory)))
    note = "100 nodes, 2,000 pods in the backlog"
    yield Figure("pods bound", r["pods_s"], "/s", PEER["pods_s"], PEER["pods_s"], KUBERNETES, note, more=True)
    for name, what in (("scheduler_ms", "in the scheduler"), ("apiserver_ms", "in the API server")):
        yield Figure(f"CPU per pod {what}", r[name], "ms", PEER[name], PEER[name], KUBERNETES)
    note = f"p95 {r['single_ms_p95']:.1f} ms"
    yield Figure("pod POST answered → bound, alone", r["single_ms_p50"], "ms", note=note)
    yield Figure("scheduler after that, RSS", r["memory_mb"], "MB", PEER["memory_mb"], PEER["memory_mb"], KUBERNETES)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", type=int, default=100)
    parser.add_argument("--pods", type=int, default=2000)
    parser.add_argument("--json", help="write the figures there")
    parser.add_argument("--keep", help="directory for data and logs, kept")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        directory = Path(options.keep or stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-scheduler-")))
        directory.mkdir(parents=True, exist_ok=True)
        result = asyncio.run(measure(options.nodes, options.pods, directory))
    for name, value in result.items():
        peer = f"   kube-scheduler: {PEER[name]}" if name in PEER else ""
        print(f"{name:>16} {value:>10.2f}{peer}" if isinstance(value, float) else f"{name:>16} {value:>10}{peer}")
    if options.json:
        results = [{**result, "peer": PEER}]
        Path(options.json).write_text(json.dumps({"bench": "scheduler", "results": results}, indent=1))


if __name__ == "__main__":
    main()
