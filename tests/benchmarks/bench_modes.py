"""What a mode of the proxy thinks before the kernel is asked: IPVS beside iptables, per number of Services. No root.

    python tests/benchmarks/bench_modes.py [--services 1000,10000]

Each Service has 2 endpoints. `full sync`: from plans to what would be sent (iptables-restore's text; netlink requests).
`endpoint changed`: the same for one Service whose endpoint moved. The kernel's own part is measured by bench_proxy.py
(iptables) and, on a kernel that has ip_vs, by `--kernel` here.
"""

import argparse
import gc
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from figures import Figure, table

from netproxy.iptables import rules, transaction
from netproxy.ipvs.kernel import LinuxKernel, execute
from netproxy.ipvs.operations import difference
from netproxy.ipvs.plan import Desired, Node, Settings, port_state
from netproxy.ipvs.sets import SETS
from netproxy.ipvs.state import State
from netproxy.model import Endpoint, PortName, ServiceName, ServicePort
from netproxy.topology import Location, plan

CIDR, NODE = "10.244.0.0/16", Node(("10.77.0.11",), ("10.77.0.11",))


def plans(count, shift=0, first=0):
    made = {}
    for i in range(first, first + count):
        name = PortName(ServiceName("default", f"s{i}"), "http", "TCP")
        port = ServicePort(name, f"10.{96 + i // 62500}.{i // 250 % 250 + 1}.{i % 250 + 1}", 80, "TCP")
        numbers = [2 * i + k + shift for k in (0, 1)]
        ends = [Endpoint(f"10.244.{n // 250 % 250}.{n % 250 + 1}", 8080) for n in numbers]
        made[name] = plan(port, ends, Location("node-1"))
    return made


class Queue(LinuxKernel):
    """Makes the requests and keeps them."""

    def __init__(self):
        self._generic = self._netfilter = self._route = None
        self._family = self._index = 1
        self._queue = []

    def create_set(self, name):
        pass

    def flush(self):
        self._queue.clear()


class Iptables:
    def full(self, wanted):
        settings = rules.Settings(CIDR, comments=len(wanted) <= 1000)
        self.written = {name: rules.port_rules(p, settings) for name, p in wanted.items()}
        self.settings = settings
        return transaction.full(self.written.values(), settings, ())

    def change(self, wanted):
        before = {name: self.written[name] for name in wanted}
        after = {name: rules.port_rules(p, self.settings) for name, p in wanted.items()}
        self.written.update(after)
        return transaction.difference(before, after)


class Ipvs:
    def __init__(self, kernel=None):
        self.kernel = kernel or Queue()

    def full(self, wanted):
        self.desired, settings = Desired(), Settings(CIDR)
        self.settings = settings
        self.desired.change({name: port_state(p, settings, NODE) for name, p in wanted.items()})
        steps = difference(State(members={name: set() for name in SETS}), self.desired.state())
        execute([*steps.put, *steps.remove], self.kernel)

    def change(self, wanted):
        before, after = self.desired.change({n: port_state(p, self.settings, NODE) for n, p in wanted.items()})
        steps = difference(before, after)
        execute([*steps.put, *steps.remove], self.kernel)


def seconds(work, times, clock=time.process_time):
    """Median. Of thinking the processor's time: what else this machine does is no matter."""
    taken = []
    for i in range(times):
        gc.collect()
        began = clock()
        work(i)
        taken.append(clock() - began)
    return sorted(taken)[times // 2]


def measure(mode, count):
    """(full sync, one endpoint changed), seconds, medians."""
    wanted = plans(count)
    full = seconds(lambda _: mode.full(wanted), 3)
    changes = [plans(1, 7, first=i) for i in range(51)]
    return full, seconds(lambda i: mode.change(changes[i]), 51)


def figures(counts=(1000, 10000)):
    for count in counts:
        theirs, ours = measure(Iptables(), count), measure(Ipvs(), count)
        for what, a, b in zip(("full sync", "endpoint changed"), theirs, ours, strict=True):
            scale, unit = (1, "s") if what == "full sync" else (1e3, "ms")
            aim = 1.0  # a second for all, a millisecond for one; the ratio is to iptables mode's text
            yield Figure(f"ipvs plan, {what}, {count:,}", b * scale, unit, aim, a * scale, "iptables mode, here")


def real(count):
    """The kernel's part, in a network namespace of its own: seconds for writing all, reading all back, one change."""
    import ctypes

    from netproxy import leftovers
    from netproxy.ipvs import requirements
    from netproxy.ipvs.operations import CreateSet

    if ctypes.CDLL(None, use_errno=True).unshare(0x40000000):
        raise OSError("unshare: root?")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)  # without any route IPVS takes no destination
    requirements.check("rr")
    kernel = LinuxKernel()
    kernel.open()
    execute([CreateSet(name) for name in SETS], kernel)
    mode, wanted = Ipvs(kernel), plans(count)
    began = time.perf_counter()
    mode.full(wanted)
    full = time.perf_counter() - began
    began = time.perf_counter()
    assert len(kernel.read().servers) == count
    read = time.perf_counter() - began
    changes = [plans(1, 7, first=i) for i in range(51)]
    change = seconds(lambda i: mode.change(changes[i]), 51, time.perf_counter)
    leftovers.of_ipvs(kernel, ())
    kernel.close()
    return full, read, change


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--services", default="1000,10000")
    parser.add_argument("--kernel", action="store_true", help="write to this kernel too (root, ip_vs)")
    options = parser.parse_args()
    counts = [int(count) for count in options.services.split(",")]
    print(table(figures(counts)))
    for count in counts if options.kernel else ():
        full, read, change = real(count)
        print(f"kernel, {count:,}: all written {full:.2f} s, read back {read:.2f} s, endpoint {change * 1e3:.2f} ms")


if __name__ == "__main__":
    main()
