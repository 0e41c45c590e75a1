"""Which daemons a node of the lab runs, with which settings: the lab's counterpart of the systemd units.

Settings are those of a real node, at the default paths of pki.layout, because inside a corner they are the same. Only
what a lab decides differently is said here: addresses, the API's name, images to load.
"""

import asyncio
import contextlib
import gc
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from controlplane import clock, daemon
from controlplane.api.status import StatusError
from controlplane.cli.lab.init import Service
from controlplane.cli.lab.spec import Lab, Node
from controlplane.client import resources
from controlplane.client.errors import Unreachable
from controlplane.client.rest import Client
from pki import profiles
from pki.layout import DEFAULT as PATHS

LOG_DIRECTORY = Path("/var/log/wherry")
C = TypeVar("C")


def preload() -> None:
    """Import every daemon, so that each is a fork away and all share the memory of what they import."""
    import nodeagent.images.service
    import nodeagent.network.network
    import nodeagent.runtime.service
    import nodeagent.serve  # noqa: F401


def of(lab: Lab, node: Node) -> list[Service]:
    """The services of `node`, in the order of starting."""
    services = []
    if node.control_plane:
        services += [
            Service("apiserver", run=_apiserver(lab, node)),
            Service("controllers", run=_controllers(lab), after=["apiserver"]),
            Service("scheduler", run=_scheduler(lab), after=["apiserver"]),
        ]
    after = ["apiserver"] if node.control_plane else []
    services += [
        Service("runtime", command=_runtime()),
        Service("nodeagent", run=_nodeagent(lab, node), after=after),
        Service("netproxy", run=_netproxy(lab, node), after=after),
    ]
    return services


def _config(cls: type[C], **settings: object) -> C:
    """`settings` as the lab wants them, everything else from WHERRY_* variables of `wherry up`, else the defaults."""
    flags = [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    return daemon.load_config(cls, flags)


def _daemon(serve: daemon.Serve[C], config: C) -> Callable[[Callable[[], None]], None]:
    def run(ready: Callable[[], None]) -> None:
        gc.enable()
        daemon.setup_logging(getattr(config, "log_level", "info"))
        daemon.run(serve, config, ready)

    return run


def _apiserver(lab: Lab, node: Node) -> Callable[[Callable[[], None]], None]:
    from controlplane.apiserver.server import Config, serve

    kubelet = profiles.APISERVER_KUBELET_CLIENT.name
    config = _config(
        Config,
        advertise_address=node.address,
        bind_address="0.0.0.0",
        secure_port=6443,
        store=f"sqlite://{PATHS.store}",
        tls_cert_file=str(PATHS.identity("apiserver")),
        tls_private_key_file=str(PATHS.identity("apiserver")),
        client_ca_file=str(PATHS.ca_cert),
        service_account_signing_key_file=str(PATHS.service_account_key),
        service_cluster_ip_range=lab.service_cidr,
        kubelet_client_certificate=str(PATHS.identity(kubelet)),
        kubelet_client_key=str(PATHS.identity(kubelet)),
        kubelet_certificate_authority=str(PATHS.ca_cert),
    )
    return _daemon(serve, config)


def _controllers(lab: Lab) -> Callable[[Callable[[], None]], None]:
    from controlplane.controllers.config import Config
    from controlplane.controllers.manager import serve

    config = _config(
        Config,
        cluster_cidr=lab.cluster_cidr,
        leader_elect_identity=lab.nodes[0].name,
        cluster_signing_key_file=str(PATHS.ca_key),
    )
    return _daemon(serve, config)


def _scheduler(lab: Lab) -> Callable[[Callable[[], None]], None]:
    from controlplane.scheduler.config import Config, serve

    return _daemon(serve, _config(Config, leader_elect_identity=lab.nodes[0].name))


def _runtime() -> list[str]:
    from nodeagent.runtime import zygote

    directories = ["--root", str(PATHS.agent_root), "--state", str(PATHS.runtime_state)]
    return [sys.executable, "-I", "-S", zygote.__file__, *directories, "--socket", str(PATHS.runtime_socket)]


def _nodeagent(lab: Lab, node: Node) -> Callable[[Callable[[], None]], None]:
    from nodeagent.config import Config
    from nodeagent.serve import serve

    config = _config(
        Config, node_name=node.name, node_ip=node.address, cluster_cidr=lab.cluster_cidr,
        eviction_hard="memory.available<100Mi",  # the disk is the host's, and how full it is not the lab's business
    )  # fmt: skip
    return _daemon(serve, config)


def _netproxy(lab: Lab, node: Node) -> Callable[[Callable[[], None]], None]:
    from netproxy.server import Config, serve

    config = _config(Config, node_name=node.name, node_ip=node.address, cluster_cidr=lab.cluster_cidr)
    return _daemon(serve, config)


async def wait_for_nodes(client: Client, names: set[str], since: float) -> None:
    """Return once every node of `names` is Ready and has said so after `since` (seconds since the epoch): what a node
    was before the last `down` is stored too."""
    waiting = set(names)
    while waiting:
        with contextlib.suppress(Unreachable, StatusError):
            listing = await client.list(resources.NODES)
            for node in listing["items"]:
                _check(node, waiting, since)
            version = listing["metadata"]["resourceVersion"]
            if waiting:
                async for kind, node in client.watch(resources.NODES, resource_version=version):
                    if kind in ("ADDED", "MODIFIED"):
                        _check(node, waiting, since)
                    if not waiting:
                        return
        if waiting:
            await asyncio.sleep(0.05)


def _check(node: dict[str, Any], waiting: set[str], since: float) -> None:
    for condition in node.get("status", {}).get("conditions", ()):
        if condition["type"] == "Ready" and condition["status"] == "True":
            heard = clock.parse_rfc3339(condition.get("lastHeartbeatTime") or "1970-01-01T00:00:00Z")
            if heard >= int(since):  # timestamps have whole seconds
                waiting.discard(node["metadata"]["name"])


async def forget_beyond(client: Client, size: int) -> None:
    """Delete the nodes that a larger lab had: `node-N` with N above `size`."""
    for node in (await client.list(resources.NODES))["items"]:
        name = node["metadata"]["name"]
        number = name.removeprefix("node-")
        if number.isdecimal() and int(number) > size:
            with contextlib.suppress(StatusError):  # gone already
                await client.delete(resources.NODES, name)
