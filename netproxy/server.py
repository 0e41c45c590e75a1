"""The daemon: configuration, informers, and the proxy between them and the kernel.

`serve()` lists and watches Services, EndpointSlices and its own Node, and calls `ready()` after the first rules are
written. The API server may be away for any time: the rules stay as they are. With `cleanup` it only removes what it
once made.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from controlplane.client import Client, Informer, from_kubeconfig
from controlplane.client.certificates import client_rotation, kept_fresh
from controlplane.client.resources import ENDPOINTSLICES, NODES, SERVICES
from controlplane.daemon import ConfigError, on_reload
from controlplane.systemd import on_liveness
from netproxy import healthcheck
from netproxy.backend import Backend, BackendError
from netproxy.model import HEADLESS_LABEL, PROXY_NAME_LABEL
from netproxy.proxy import Proxy
from pki.layout import Layout

log = logging.getLogger(__name__)
MODES = ("iptables", "ipvs")


@dataclass
class Config:
    """Programs the node's kernel so that Services work."""

    node_name: str = ""
    """Name of this node's Node object. Needed unless `cleanup`."""
    kubeconfig: str = str(Layout().kubeconfig("netproxy"))
    """Path of a kubeconfig for system:kube-proxy."""
    node_ip: str = ""
    """This node's InternalIP. Needed only for load balancers whose source ranges include this node."""
    proxy_mode: str = "iptables"
    """How: iptables or ipvs (for which the kernel needs ip_vs)."""
    ipvs_scheduler: str = "rr"
    """How IPVS chooses: rr, wrr, lc, wlc, lblc, lblcr, sh, dh, sed, nq, fo, ovf or mh."""
    ipvs_strict_arp: bool = False
    """Answer ARP only for addresses of the interface that is asked (some load balancers need it)."""
    ipvs_exclude_cidrs: list[str] = field(default_factory=list)
    """CIDRs of virtual servers that are somebody else's and left alone, comma-separated."""
    ipvs_tcp_timeout_seconds: int = 0
    """How long IPVS remembers an idle TCP connection; 0: as the kernel has it (900)."""
    ipvs_tcpfin_timeout_seconds: int = 0
    """The same after a FIN; 0: as the kernel has it (120)."""
    ipvs_udp_timeout_seconds: int = 0
    """The same for UDP; 0: as the kernel has it (300)."""
    ipvs_graceful_seconds: float = 3600.0
    """So long may connections to an endpoint that was taken out of its Service stay open."""
    cluster_cidr: str = "10.244.0.0/16"
    """Addresses of all pods; traffic to a ClusterIP from elsewhere is masqueraded. Empty: nothing is known of pods."""
    nodeport_addresses: list[str] = field(default_factory=list)
    """CIDRs of this node's addresses on which NodePorts answer, comma-separated; empty: all of them."""
    localhost_nodeports: bool = True
    """Whether NodePorts answer on 127.0.0.1 too (never in ipvs mode: the kernel does not let such packets out)."""
    min_sync_period_seconds: float = 0.0
    """At least so long between two writes; the first change after a quiet time is written at once."""
    sync_period_seconds: float = 30.0
    """So often it is checked, when nothing changes, that the rules are still there."""
    masquerade_all: bool = False
    """Hide every client of a ClusterIP behind the node's address."""
    healthz_bind_address: str = "127.0.0.1:10256"
    """address:port of /healthz and /livez; empty: none. Loopback unless a load balancer must see it."""
    cleanup: bool = False
    """Remove all rules of every mode and exit."""
    log_level: str = "info"
    """debug, info, warning or error."""


def make_backend(config: Config, thread: ThreadPoolExecutor | None = None) -> Backend:
    """The backend that `config.proxy_mode` names. Raises ConfigError."""
    for setting in [config.cluster_cidr, *config.nodeport_addresses, *config.ipvs_exclude_cidrs]:
        try:
            ipaddress.ip_network(setting or "0.0.0.0/0", strict=False)
        except ValueError as error:
            raise ConfigError(f"not a CIDR: {error}") from None
    if config.proxy_mode == "iptables":
        return _iptables(config, thread)
    if config.proxy_mode == "ipvs":
        return _ipvs(config, thread)
    raise ConfigError(f"--proxy-mode: {config.proxy_mode!r} is none of {', '.join(MODES)}")


def _iptables(config: Config, thread: ThreadPoolExecutor | None) -> Backend:
    from netproxy.iptables.apply import IptablesBackend
    from netproxy.iptables.rules import Settings

    settings = Settings(
        cluster_cidr=config.cluster_cidr,
        masquerade_all=config.masquerade_all,
        node_port_addresses=tuple(config.nodeport_addresses),
        localhost_node_ports=config.localhost_nodeports,
        node_ips=(config.node_ip,) if config.node_ip else (),
    )
    return IptablesBackend(settings, thread, ipvs_exclude_cidrs=tuple(config.ipvs_exclude_cidrs))


def _ipvs(config: Config, thread: ThreadPoolExecutor | None) -> Backend:
    from netproxy.ipvs.apply import IpvsBackend, Tuning
    from netproxy.ipvs.plan import Settings
    from netproxy.ipvs.state import SCHEDULERS

    if config.ipvs_scheduler not in SCHEDULERS:
        raise ConfigError(f"--ipvs-scheduler: {config.ipvs_scheduler!r} is none of {', '.join(SCHEDULERS)}")
    settings = Settings(
        cluster_cidr=config.cluster_cidr,
        masquerade_all=config.masquerade_all,
        scheduler=config.ipvs_scheduler,
        node_ips=(config.node_ip,) if config.node_ip else (),
        node_port_addresses=tuple(config.nodeport_addresses),
        exclude_cidrs=tuple(config.ipvs_exclude_cidrs),
    )
    tuning = Tuning(
        strict_arp=config.ipvs_strict_arp,
        tcp_timeout_s=config.ipvs_tcp_timeout_seconds,
        tcp_fin_timeout_s=config.ipvs_tcpfin_timeout_seconds,
        udp_timeout_s=config.ipvs_udp_timeout_seconds,
        graceful_s=config.ipvs_graceful_seconds,
    )
    return IpvsBackend(settings, thread, tuning=tuning)


async def serve(config: Config, ready: Callable[[], None], *, thread: ThreadPoolExecutor | None = None) -> None:
    """Run until cancelled. `thread`: an executor of one thread in the node's network namespace, if that is not ours.
    Raises ConfigError, BackendError (cleanup)."""
    backend = make_backend(config, thread)
    try:
        if config.cleanup:
            await backend.cleanup()
            log.info("cleaned up")
            return
        if not config.node_name:
            raise ConfigError("missing setting: --node-name")
        try:
            await backend.check()
        except BackendError as error:
            raise ConfigError(str(error)) from error
        client = from_kubeconfig(config.kubeconfig, user_agent="wherry-netproxy")
        try:
            on_reload(client.reload)
            async with kept_fresh(client_rotation(client, config.kubeconfig)):
                await follow(config, client, backend, ready, thread=thread)
        finally:
            await client.close()
    finally:
        await backend.close()


async def follow(
    config: Config,
    client: Client,
    backend: Backend,
    ready: Callable[[], None],
    *,
    thread: ThreadPoolExecutor | None = None,
) -> None:
    """Keep `backend` equal to what `client` tells, until cancelled."""
    proxy = Proxy(
        backend,
        config.node_name,
        min_sync_period_s=config.min_sync_period_seconds,
        sync_period_s=config.sync_period_seconds,
        thread=thread,
    )
    services = Informer(client, SERVICES, label_selector=f"!{PROXY_NAME_LABEL}", transform=_slim)
    slices = Informer(client, ENDPOINTSLICES, label_selector=f"!{PROXY_NAME_LABEL},!{HEADLESS_LABEL}", transform=_slim)
    node = Informer(client, NODES, field_selector=f"metadata.name={config.node_name}", transform=_slim)
    services.add_handler(proxy.service_changed, lambda _, new: proxy.service_changed(new), proxy.service_deleted)
    slices.add_handler(proxy.slice_changed, lambda _, new: proxy.slice_changed(new), proxy.slice_deleted)
    node.add_handler(proxy.node_changed, lambda _, new: proxy.node_changed(new))
    async with contextlib.AsyncExitStack() as stack:
        if config.healthz_bind_address:
            host, _, port = config.healthz_bind_address.rpartition(":")
            server = await healthcheck.serve(host.strip("[]"), int(port), proxy.health.answer)
            stack.callback(server.close)
        async with asyncio.TaskGroup() as tasks:
            for informer in (services, slices, node):
                tasks.create_task(informer.run())
            tasks.create_task(proxy.run())
            for informer in (services, slices, node):
                await informer.synced()
            proxy.start()
            await proxy.ready.wait()
            log.info(
                "ready mode=%s node=%s services=%d slices=%d",
                config.proxy_mode,
                config.node_name,
                len(services),
                len(slices),
            )
            stack.callback(on_liveness(lambda: "" if proxy.health.healthy else "rules are not written in time"))
            ready()


def _slim(obj: dict[str, Any]) -> dict[str, Any]:
    """`obj` without what no rule depends on: it is kept for as long as it exists."""
    metadata = obj["metadata"]
    for key in ("managedFields", "annotations", "ownerReferences"):
        metadata.pop(key, None)
    for endpoint in obj.get("endpoints") or ():
        endpoint.pop("targetRef", None)
    if obj.get("kind") == "Node":
        obj["status"] = {"addresses": obj.get("status", {}).get("addresses") or []}
    return obj
