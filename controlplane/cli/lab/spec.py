"""What a lab is: its nodes, addresses and directories. Pure data; nothing here touches the machine.

host 10.77.0.1 ── bridge wherry0 ──┬── node-1 10.77.0.11  control plane and worker
                                   ├── node-2 10.77.0.12  worker
                                   └── node-3 10.77.0.13  worker
"""

import ipaddress
import json
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

from pki.layout import Layout

MAX_NODES = 100


@dataclass(frozen=True, slots=True)
class Node:
    """One corner. `root` is its directory on the host, mounted inside at the places where a real node has them."""

    name: str
    address: str
    control_plane: bool
    root: Path

    @property
    def layout(self) -> Layout:
        """The node's own files as the host sees them."""
        return Layout(self.root / "etc", self.root / "data", self.root / "run")


@dataclass(frozen=True, slots=True)
class Lab:
    """A lab of `size` nodes. `subnet` holds the nodes, `cluster_cidr` their pods, `service_cidr` the Services.
    Several labs, each with its own `name`, can run beside each other; the nameless one is the usual one."""

    size: int = 3
    name: str = ""
    subnet: str = ""
    cluster_cidr: str = "10.244.0.0/16"
    service_cidr: str = "10.96.0.0/16"

    def __post_init__(self) -> None:
        if not 1 <= self.size <= MAX_NODES:
            raise ValueError(f"a lab has 1 to {MAX_NODES} nodes, not {self.size}")
        if not re.fullmatch(r"[a-z0-9]{0,8}", self.name):
            raise ValueError(f"a lab's name has up to 8 lower-case letters and digits, not {self.name!r}")
        if not self.subnet:
            third = zlib.crc32(self.name.encode()) % 255 + 1 if self.name else 0
            object.__setattr__(self, "subnet", f"10.77.{third}.0/24")
        if ipaddress.ip_network(self.subnet).version != 4:
            raise ValueError(f"the nodes' network is IPv4, not {self.subnet}")
        if ipaddress.ip_network(self.subnet).num_addresses < self.size + 13:
            raise ValueError(f"subnet {self.subnet} is too small for {self.size} nodes")

    @property
    def bridge(self) -> str:
        return f"wh-{self.name}" if self.name else "wherry0"

    @property
    def cgroup(self) -> str:
        """Below the top of every hierarchy."""
        return self._named("wherry-lab")

    @property
    def root(self) -> Path:
        """Where the lab's data is on the host."""
        return Path("/var/lib/wherry", self._named("lab"))

    @property
    def run(self) -> Path:
        return Path("/run", self._named("wherry-lab"))

    @property
    def chain(self) -> str:
        """The lab's iptables chain."""
        return self._named("wherry-lab").upper()

    def port(self, node: Node) -> str:
        """The host's end of a node's cable."""
        return f"{self.bridge}-{node.name.removeprefix('node-')}"

    def _named(self, what: str) -> str:
        return f"{what}-{self.name}" if self.name else what

    def _address(self, offset: int) -> str:
        return str(ipaddress.ip_network(self.subnet)[offset])

    @property
    def gateway(self) -> str:
        """The host's address on the bridge."""
        return self._address(1)

    @property
    def prefix_length(self) -> int:
        return ipaddress.ip_network(self.subnet).prefixlen

    @property
    def nodes(self) -> tuple[Node, ...]:
        return tuple(
            Node(f"node-{i}", self._address(10 + i), i == 1, self.root / f"node-{i}") for i in range(1, self.size + 1)
        )

    def node(self, name: str) -> Node:
        """Raises KeyError for a name that is not in the lab."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)

    @property
    def api_url(self) -> str:
        return f"https://{self.nodes[0].address}:6443"

    @property
    def api_service_address(self) -> str:
        return str(ipaddress.ip_network(self.service_cidr)[1])

    @property
    def kubeconfig(self) -> Path:
        return self.nodes[0].layout.kubeconfig("admin")

    @property
    def images(self) -> Path:
        """Image archives that every node of every lab loads when it starts."""
        return Path("/var/lib/wherry/lab/images")

    @property
    def control_socket(self) -> Path:
        return self.run / "control.sock"

    def dump(self) -> bytes:
        return json.dumps({"size": self.size, "name": self.name, "subnet": self.subnet}).encode()

    @classmethod
    def saved(cls, name: str = "") -> "Lab | None":
        """The lab of that name as it was last started on this machine."""
        path = cls(name=name).root / "lab.json"
        try:
            return cls(**json.loads(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path} is damaged ({error}); remove it") from error
