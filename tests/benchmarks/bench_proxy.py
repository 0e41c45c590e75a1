"""How fast the proxy programs the kernel, per number of Services (2 endpoints each). Root; in a namespace of its own.

    python tests/benchmarks/bench_proxy.py [--services 1000,5000] [--json FILE]

Each size runs in a fresh process: from the first object fed to the rules being in the kernel, one Service added, one
endpoint changed, memory and CPU. Peer figures: kube-proxy 1.36 in iptables mode on a machine of this kind.
"""

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from figures import KUBERNETES, Figure

KUBE_PROXY = {
    1000: {"start_s": 1.05, "add_s": None, "memory_mb": 73},
    5000: {"start_s": 11.5, "add_s": 0.39, "memory_mb": 126},
}


def service(i):
    ip = f"10.96.{i // 250 + 1}.{i % 250 + 1}"
    return {
        "metadata": {"namespace": "default", "name": f"s{i}"},
        "spec": {"clusterIP": ip, "clusterIPs": [ip], "type": "ClusterIP", "ports": [{"port": 80, "protocol": "TCP"}]},
    }


def endpoint_slice(i, shift=0):
    numbers = [2 * i + k + shift for k in (0, 1)]
    return {
        "metadata": {
            "namespace": "default",
            "name": f"s{i}-x",
            "labels": {"kubernetes.io/service-name": f"s{i}"},
        },
        "addressType": "IPv4",
        "ports": [{"port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [f"10.244.{n // 250 % 250}.{n % 250 + 1}"]} for n in numbers],
    }


class Run:
    """One proxy over `count` Services, started and ready."""

    def __init__(self, corner, count):
        from netproxy.iptables.apply import IptablesBackend
        from netproxy.iptables.rules import Settings
        from netproxy.proxy import Proxy

        self.backend = IptablesBackend(Settings("10.244.0.0/16"), corner.thread)
        self.proxy = Proxy(self.backend, "node-1", thread=corner.thread)
        for i in range(count):
            self.proxy.service_changed(service(i))
            self.proxy.slice_changed(endpoint_slice(i))

    async def start(self):
        self.proxy.start()
        self.task = asyncio.ensure_future(self.proxy.run())
        await self.proxy.ready.wait()

    async def stop(self):
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def median_s(self, feeds):
        """From an event to its rules, alone."""
        taken = []
        for feed in feeds:
            began = time.perf_counter()
            feed()
            while self.proxy.health.waiting:  # noqa: ASYNC110
                await asyncio.sleep(0.0005)
            taken.append(time.perf_counter() - began)
        return sorted(taken)[len(taken) // 2]

    def add(self, i):
        self.proxy.service_changed(service(i))
        self.proxy.slice_changed(endpoint_slice(i))


async def measure(count):
    from tests.linux.network_lab import Corner

    corner = Corner()
    corner.run("ip link set lo up")
    result = {"services": count}
    cpu, began = _cpu(), time.perf_counter()
    first = Run(corner, count)
    await first.start()
    result["start_s"], result["start_cpu_s"] = time.perf_counter() - began, _cpu() - cpu
    cpu = _cpu()
    result["add_s"] = await first.median_s([lambda i=count + n: first.add(i) for n in range(5)])
    result["add_cpu_s"] = (_cpu() - cpu) / 5
    change = [lambda n=n: first.proxy.slice_changed(endpoint_slice(n, 7)) for n in range(5)]
    result["endpoint_s"] = await first.median_s(change)
    began = time.perf_counter()
    assert await first.backend.intact()
    result["check_s"] = time.perf_counter() - began
    result["memory_mb"] = _rss()
    await first.stop()
    began = time.perf_counter()
    second = Run(corner, count)
    await second.start()
    result["restart_s"] = time.perf_counter() - began
    await second.stop()
    began = time.perf_counter()
    await second.backend.cleanup()
    result["cleanup_s"] = time.perf_counter() - began
    corner.close()
    return result


def _rss():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS")) / 1024


def _cpu():
    parts = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(p.ru_utime + p.ru_stime for p in parts)


def show(results):
    print(f"{'services':>9} {'start':>8} {'cpu':>7} {'restart':>8} {'add one':>8} {'cpu':>7} {'endpoint':>9} "
          f"{'check':>7} {'cleanup':>8} {'memory':>8}   kube-proxy start, add, memory")  # fmt: skip
    for r in results:
        peer = r["kube_proxy"]
        text = f"{peer['start_s']} s, {peer['add_s'] or '-'} s, {peer['memory_mb']} MB" if peer else ""
        print(f"{r['services']:>9} {r['start_s']:>7.2f}s {r['start_cpu_s']:>6.2f}s {r['restart_s']:>7.2f}s "
              f"{r['add_s'] * 1e3:>6.0f}ms {r['add_cpu_s'] * 1e3:>5.0f}ms {r['endpoint_s'] * 1e3:>7.0f}ms "
              f"{r['check_s'] * 1e3:>5.0f}ms {r['cleanup_s']:>7.2f}s {r['memory_mb']:>6.0f}MB   {text}")  # fmt: skip


def run(count):
    """measure(), in a fresh process."""
    command = [sys.executable, __file__, "--one", str(count)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return {**json.loads(done.stdout.splitlines()[-1]), "kube_proxy": KUBE_PROXY.get(count)}


def figures():
    for count in (1000, 5000):
        r, peer = run(count), KUBE_PROXY[count]
        for key, what in (("start_s", "proxy start → programmed"), ("add_s", "one Service added")):
            yield Figure(f"{what}, {count:,}", r[key], "s", peer[key], peer[key], KUBERNETES, "iptables mode")
        yield Figure(f"proxy memory, {count:,} Services", r["memory_mb"], "MB", None, peer["memory_mb"], KUBERNETES)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--services", default="10,1000,5000")
    parser.add_argument("--json", help="write the figures there")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        print(json.dumps(asyncio.run(measure(options.one))))
        return
    results = []
    for count in options.services.split(","):
        results.append(run(int(count)))
    show(results)
    if options.json:
        Path(options.json).write_text(json.dumps({"bench": "proxy", "results": results}, indent=1))


if __name__ == "__main__":
    main()
