"""The lab's network on the host: a bridge, a cable to each node, a way out.

Made with `ip -batch`, so that a whole step is one process. Everything carries the lab's names: `clean()` finds and
removes it by them, also after a killed run. Inside a node the cable's end is `eth0`, as on a machine.
"""

import subprocess
from pathlib import Path

from controlplane.cli.lab.spec import Lab, Node

_CHAINS = (("nat", "POSTROUTING"), ("filter", "FORWARD"))
_FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


class NetworkFailure(Exception):
    """A command failed; the message holds it and what it said."""


def run(*command: str, text: str = "", check: bool = True) -> str:
    """Standard output of `command`. Raises NetworkFailure if it fails, unless not `check`."""
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    if check and done.returncode:
        raise NetworkFailure(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def batch(*lines: str) -> None:
    run("ip", "-batch", "-", text="\n".join(lines) + "\n")


def create(lab: Lab) -> None:
    """The bridge with the host's address, forwarding, and masquerade for what leaves the lab. Idempotent."""
    if not Path(f"/sys/class/net/{lab.bridge}").exists():
        batch(
            f"link add {lab.bridge} type bridge",
            f"address add {lab.gateway}/{lab.prefix_length} dev {lab.bridge}",
            f"link set {lab.bridge} up",
        )
    if _FORWARD.read_text().strip() != "1":
        _FORWARD.write_text("1")
    ours = lab.chain
    rules = [
        "*nat", f":{ours} - [0:0]",
        f"-A {ours} -s {lab.subnet} ! -d {lab.subnet} ! -o {lab.bridge} -j MASQUERADE", "COMMIT",
        "*filter", f":{ours} - [0:0]",
        # Addresses that only mean something inside the lab never leave it.
        f"-A {ours} -i {lab.bridge} ! -o {lab.bridge} -d {lab.cluster_cidr},{lab.service_cidr} -j REJECT",
        f"-A {ours} -i {lab.bridge} -j ACCEPT", f"-A {ours} -o {lab.bridge} -j ACCEPT", "COMMIT",
    ]  # fmt: skip
    run("iptables-restore", "--noflush", "--wait", text="\n".join(rules) + "\n")
    for table, chain in _CHAINS:
        if f"-j {ours}" not in run("iptables", "-w", "-t", table, "-S", chain):
            run("iptables", "-w", "-t", table, "-I", chain, "-j", ours)


def plug(lab: Lab, node: Node, pid: int) -> None:
    """A cable from the bridge into the network namespace of process `pid`."""
    port = lab.port(node)
    if Path(f"/sys/class/net/{port}").exists():  # its namespace is still dying: the name must be free
        batch(f"link delete {port}")
    batch(
        f"link add {port} mtu 1500 type veth peer name eth0 address {_mac(node)} netns {pid}",
        f"link set {port} master {lab.bridge} up",
    )


def _mac(node: Node) -> str:
    """A node keeps its hardware address when it is started again, as a machine does: neighbours remember it."""
    return "0a:77:" + ":".join(f"{int(part):02x}" for part in node.address.split("."))


def inside(lab: Lab, node: Node) -> None:
    """The other end, run in the node's namespace: lo, eth0, the default route."""
    batch(
        "link set lo up",
        f"address add {node.address}/{lab.prefix_length} dev eth0",
        "link set eth0 up",
        f"route add default via {lab.gateway}",
    )


def clean(lab: Lab) -> None:
    """Remove every interface and rule of the lab's. Idempotent."""
    ours = lab.chain
    for table, chain in _CHAINS:
        listing = run("iptables", "-w", "-t", table, "-S", check=False).splitlines()
        if f"-A {chain} -j {ours}" in listing:
            run("iptables", "-w", "-t", table, "-D", chain, "-j", ours)
        if f"-N {ours}" in listing:
            run("iptables", "-w", "-t", table, "-F", ours)
            run("iptables", "-w", "-t", table, "-X", ours)
    names = [
        p.name for p in Path("/sys/class/net").iterdir() if p.name.startswith(f"{lab.bridge}-") or p.name == lab.bridge
    ]
    for name in names:
        run("ip", "link", "delete", name, check=False)
