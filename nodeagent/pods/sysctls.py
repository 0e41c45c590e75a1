"""Which kernel parameters a pod may set, and whether this node takes a pod that asks for others. Pure.

Safe ones belong to one pod's namespaces and harm nobody else; every other must be allowed by name or prefix
(`--allowed-unsafe-sysctls`), and must still belong to a namespace that the pod has for itself. The list and the words:
kubelet's pkg/kubelet/sysctl.
"""

from __future__ import annotations

from collections.abc import Sequence

from nodeagent.pods.memory import Verdict
from nodeagent.pods.model import Object

SAFE = frozenset({
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start", "net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
})  # fmt: skip

_IPC = ("kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue.")


def normalize(name: str) -> str:
    """`net/ipv4/conf/eth0.1/x` is a way to write a name with dots in its parts; the first separator decides."""
    at = next((i for i, c in enumerate(name) if c in "./"), -1)
    if at < 0 or name[at] == ".":
        return name
    return name.translate(str.maketrans("./", "/."))


def refuse(pod: Object, allowed_unsafe: Sequence[str]) -> Verdict | None:
    """Why the node refuses the pod for its sysctls; None if it takes it. `allowed_unsafe`: names, or prefixes that end
    in `*`."""
    spec = pod["spec"]
    for sysctl in (spec.get("securityContext") or {}).get("sysctls") or ():
        why = _forbidden(normalize(sysctl["name"]), spec, allowed_unsafe)
        if why:
            message = f'Pod was rejected: forbidden sysctl: "{sysctl["name"]}" {why}'
            return Verdict("Failed", "SysctlForbidden", message, 0)
    return None


def namespace(name: str) -> str:
    """The kind of namespace that a parameter belongs to: ipc, net, or empty for the whole machine's."""
    if name.startswith("net."):
        return "net"
    return "ipc" if name.startswith(_IPC) else ""


def _forbidden(name: str, spec: Object, allowed_unsafe: Sequence[str]) -> str:
    unsafe = any(name.startswith(p[:-1]) if p.endswith("*") else name == p for p in allowed_unsafe)
    if name not in SAFE and not unsafe:
        return "not allowlisted"
    kind = namespace(name)
    if kind == "ipc" and spec.get("hostIPC"):
        return "not allowed with host ipc enabled"
    if kind == "net" and spec.get("hostNetwork"):
        return "not allowed with host net enabled"
    return "" if kind else "not allowlisted"
