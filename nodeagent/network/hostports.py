"""hostPort: a port of the node that leads to one pod, by iptables DNAT.

    nat  PREROUTING, OUTPUT (to a local address) ─> WHERRY-HOSTPORTS   DNAT to the pod
         POSTROUTING                             ─> WHERRY-HOSTPORT-MASQ   a pod that calls itself, or localhost

Each sandbox's mappings are a small file, so that a restarted agent knows them; both chains are rewritten as a whole
from all files' contents, which makes every change idempotent.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence

from nodeagent.network.iptables import Chain, Iptables, Jump
from nodeagent.runtime.interface import PortMapping

HOSTPORTS = "WHERRY-HOSTPORTS"
HOSTPORT_MASQ = "WHERRY-HOSTPORT-MASQ"
_ANYWHERE = ("", "0.0.0.0", "::")
_COMMENT = ("-m", "comment", "--comment", "wherry host ports")
_LOCAL = ("-m", "addrtype", "--dst-type", "LOCAL", "-j", HOSTPORTS)

JUMPS = (
    Jump("nat", "PREROUTING", (*_COMMENT, *_LOCAL)),
    Jump("nat", "OUTPUT", (*_COMMENT, *_LOCAL)),
    Jump("nat", "POSTROUTING", (*_COMMENT, "-j", HOSTPORT_MASQ)),
)


class PortTaken(Exception):
    """Two pods of this node want the same hostPort."""


class HostPorts:
    """The published ports of all sandboxes of this node."""

    def __init__(self, directory: str, iptables: Iptables) -> None:
        """Reads what an earlier life left in `directory`. Raises OSError."""
        self._directory = directory
        self._iptables = iptables
        os.makedirs(directory, mode=0o700, exist_ok=True)
        self._pods: dict[str, tuple[str, tuple[PortMapping, ...]]] = {}
        for name in os.listdir(directory):
            if name.endswith(".new"):  # its writer was killed
                os.unlink(os.path.join(directory, name))
            elif name.endswith(".json"):
                with open(os.path.join(directory, name), encoding="utf-8") as file:
                    document = json.load(file)
                self._pods[name[:-5]] = (document["ip"], tuple(PortMapping(**p) for p in document["ports"]))

    def sandboxes(self) -> list[str]:
        return list(self._pods)

    def publish(self, sandbox_id: str, ip: str, ports: Sequence[PortMapping]) -> None:
        """Lead `ports` to `ip`. Repeating it is harmless. Raises PortTaken, IptablesError, OSError."""
        wanted = (ip, tuple(port for port in ports if port.host_port))
        if not wanted[1]:
            return self.withdraw(sandbox_id)
        for other, (_, theirs) in self._pods.items():
            for port in wanted[1]:
                if other != sandbox_id and any(_collide(port, t) for t in theirs):
                    raise PortTaken(f"host port {port.host_port}/{port.protocol} belongs to sandbox {other[:12]}")
        path = os.path.join(self._directory, f"{sandbox_id}.json")
        fields = ("container_port", "host_port", "protocol", "host_ip")
        document = {"ip": ip, "ports": [{f: getattr(p, f) for f in fields} for p in wanted[1]]}
        with open(path + ".new", "w", encoding="utf-8") as file:
            json.dump(document, file)
        os.replace(path + ".new", path)
        self._pods[sandbox_id] = wanted
        self.sync()
        return None

    def withdraw(self, sandbox_id: str) -> None:
        """Take the sandbox's ports away. No error if it has none. Raises IptablesError, OSError."""
        held = self._pods.pop(sandbox_id, None)
        if held is None:
            return
        try:  # rules first: as long as the file is there, the next agent knows that there may be some
            self.sync()
            os.unlink(os.path.join(self._directory, f"{sandbox_id}.json"))
        except BaseException:
            self._pods[sandbox_id] = held
            raise

    def sync(self) -> None:
        """Write both chains and their jumps. Raises IptablesError."""
        self._iptables.replace(self.chains())
        if self._pods:
            for jump in JUMPS:
                self._iptables.ensure(jump)

    def chains(self) -> list[Chain]:
        dnat, masquerade = [], ["-s 127.0.0.0/8 ! -d 127.0.0.0/8 -m conntrack --ctstate DNAT -j MASQUERADE"]
        for sandbox_id, (ip, ports) in sorted(self._pods.items()):
            for port in ports:
                where = "" if port.host_ip in _ANYWHERE else f"-d {port.host_ip}/32 "
                protocol = port.protocol.lower()
                dnat.append(
                    f"{where}-p {protocol} -m {protocol} --dport {port.host_port} -m comment --comment "
                    f"{sandbox_id[:12]} -j DNAT --to-destination {ip}:{port.container_port}"
                )
            masquerade.append(f"-s {ip}/32 -d {ip}/32 -m conntrack --ctstate DNAT -j MASQUERADE")
        return [Chain("nat", HOSTPORTS, dnat), Chain("nat", HOSTPORT_MASQ, masquerade if self._pods else [])]


def _collide(a: PortMapping, b: PortMapping) -> bool:
    everywhere = a.host_ip in _ANYWHERE or b.host_ip in _ANYWHERE
    return a.host_port == b.host_port and a.protocol == b.protocol and (everywhere or a.host_ip == b.host_ip)
