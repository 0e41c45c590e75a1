"""What IPVS mode keeps in the kernel, as values: virtual servers, their destinations, addresses, members of sets. Pure.

The same `State` describes what should be and what is; `operations.py` makes one into the other.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

# What `ipvsadm -h` calls them; the module is ip_vs_<name>. kube-proxy's list, in the kernel's own order.
SCHEDULERS = ("rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "fo", "ovf", "mh")
_HASHED = ("sh", "mh")  # flag SCHED1 means: if the chosen destination takes nobody new, take another
PERSISTENT, SCHED1 = 0x1, 0x8
PROTOCOLS = {"TCP": 6, "UDP": 17, "SCTP": 132}


class Key(NamedTuple):
    """Names a virtual server."""

    address: str
    port: int
    protocol: str

    def __str__(self) -> str:
        return f"{self.protocol} {self.address}:{self.port}"


class Target(NamedTuple):
    """Names a destination within its virtual server."""

    ip: str
    port: int

    def __str__(self) -> str:
        return f"{self.ip}:{self.port}"


class Options(NamedTuple):
    """What else there is to a virtual server. `persistence_s`: a client stays with its destination for so long."""

    scheduler: str = "rr"
    persistence_s: int = 0

    @property
    def flags(self) -> int:
        return (PERSISTENT if self.persistence_s else 0) | (SCHED1 if self.scheduler in _HASHED else 0)

    def __str__(self) -> str:
        return f"{self.scheduler} persistent {self.persistence_s}" if self.persistence_s else self.scheduler


@dataclass(slots=True)
class State:
    """`destinations`: of each virtual server, with their weights. `members`: of each set, as `ipset list` prints them;
    a set that does not exist has no entry."""

    servers: dict[Key, Options] = field(default_factory=dict)
    destinations: dict[Key, dict[Target, int]] = field(default_factory=dict)
    addresses: set[str] = field(default_factory=set)
    members: dict[str, set[str]] = field(default_factory=dict)
