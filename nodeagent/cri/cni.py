"""A CNI configuration for runtimes that have none: bridge and host-local, the plugins that every distribution has.

With a foreign runtime, the runtime attaches pods to the network, through CNI. An administrator who has installed a
network has put a configuration into the directory, and it stays. Otherwise ours is written: the pods' addresses out of
the node's CIDR, on the bridge that the agent's own network has made (network/): so routes to other nodes, masquerading
and everything else stay as they are with our own runtime.
Source: the CNI specification 0.4.0, and the plugins' own documents (bridge, host-local, portmap, loopback).
"""

from __future__ import annotations

import ipaddress
import json
import logging
import os

log = logging.getLogger(__name__)

NAME = "10-wherry.conflist"
_ENDINGS = (".conf", ".conflist", ".json")


def conflist(pod_cidr: str, bridge: str, mtu: int, state_directory: str) -> str:
    """The text of the configuration. `mtu` 0 means the bridge's own."""
    network = ipaddress.ip_network(pod_cidr)
    gateway = str(network.network_address + 1)
    ipam = {
        "type": "host-local",
        "ranges": [[{"subnet": pod_cidr, "gateway": gateway}]],
        "routes": [{"dst": "0.0.0.0/0" if network.version == 4 else "::/0"}],
        "dataDir": state_directory,
    }
    wire = {"type": "bridge", "bridge": bridge, "isGateway": True, "ipMasq": False, "hairpinMode": True, "ipam": ipam}
    if mtu:
        wire["mtu"] = mtu
    plugins = [wire, {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}]
    return json.dumps({"cniVersion": "0.4.0", "name": "wherry", "plugins": plugins}, indent=2) + "\n"


def others(directory: str) -> str:
    """The name of a configuration that is not ours; empty if there is none."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return ""
    return next((name for name in sorted(names) if name.endswith(_ENDINGS) and name != NAME), "")


def ensure(directory: str, text: str) -> None:
    """Write our configuration. Raises OSError."""
    os.makedirs(directory, mode=0o755, exist_ok=True)
    path = os.path.join(directory, NAME)
    try:
        with open(path, encoding="utf-8") as file:
            if file.read() == text:
                return
    except OSError:
        pass
    draft = f"{path}.new"  # runtimes do not read this ending, and never see half a file
    with open(draft, "w", encoding="utf-8") as file:
        file.write(text)
    os.rename(draft, path)
    log.info("cni_configuration written=%s", path)
