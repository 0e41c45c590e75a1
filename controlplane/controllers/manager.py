"""The controller manager: all controllers in one process, on one set of shared informers, while it holds the lease.

`serve()` is the daemon: take the lease, then run every enabled controller until cancelled or the lease is lost (the
process then ends and its supervisor starts it again). The table below is the list of what there is.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable

from controlplane.client.certificates import client_rotation, kept_fresh
from controlplane.client.leases import LeaderElector
from controlplane.client.rest import Client, from_kubeconfig
from controlplane.controllers.bootstrapsigner import BootstrapSigner
from controlplane.controllers.clusterroleaggregation import ClusterRoleAggregation
from controlplane.controllers.config import Config
from controlplane.controllers.cronjob import CronJobController
from controlplane.controllers.csrapproving import CertificateApprover
from controlplane.controllers.csrcleaner import CertificateRequestCleaner
from controlplane.controllers.csrsigning import CertificateSigner
from controlplane.controllers.daemonset import DaemonSetController
from controlplane.controllers.deployment import DeploymentController
from controlplane.controllers.disruption import DisruptionController
from controlplane.controllers.endpoints import EndpointsController
from controlplane.controllers.endpointslice import EndpointSliceController
from controlplane.controllers.garbagecollector import GarbageCollector
from controlplane.controllers.job import JobController
from controlplane.controllers.namespace import NamespaceController
from controlplane.controllers.nodeipam import NodeIpamController
from controlplane.controllers.nodelifecycle import NodeLifecycleController
from controlplane.controllers.podgc import PodGarbageCollector
from controlplane.controllers.reconcile import Context, Controller
from controlplane.controllers.replicaset import ReplicaSetController, ReplicationControllerController
from controlplane.controllers.resourcequota import ResourceQuotaController
from controlplane.controllers.rootca import RootCaPublisher
from controlplane.controllers.serviceaccount import ServiceAccountController
from controlplane.controllers.statefulset import StatefulSetController
from controlplane.controllers.tainteviction import TaintEvictionController
from controlplane.controllers.tokencleaner import TokenCleaner
from controlplane.daemon import on_reload

log = logging.getLogger(__name__)

LEASE = "kube-controller-manager"
CONTROLLERS: tuple[type[Controller], ...] = (
    # what new namespaces and nodes wait for comes first
    ServiceAccountController,
    RootCaPublisher,
    BootstrapSigner,
    CertificateApprover,
    CertificateSigner,
    NodeIpamController,
    NodeLifecycleController,
    TaintEvictionController,
    DeploymentController,
    ReplicaSetController,
    ReplicationControllerController,
    DaemonSetController,
    StatefulSetController,
    JobController,
    CronJobController,
    EndpointSliceController,
    EndpointsController,
    DisruptionController,
    ResourceQuotaController,
    NamespaceController,
    ClusterRoleAggregation,
    PodGarbageCollector,
    TokenCleaner,
    CertificateRequestCleaner,
    GarbageCollector,
)


def enabled(choice: Iterable[str], available: Iterable[type[Controller]] = CONTROLLERS) -> list[type[Controller]]:
    """The controllers that `choice` (the --controllers option) names. Raises ValueError for an unknown name."""
    wanted = list(choice)
    known = {c.name: c for c in available}
    for entry in wanted:
        if entry != "*" and entry.removeprefix("-") not in known:
            raise ValueError(f"unknown controller {entry!r}; there are: {', '.join(known)}")
    everything = "*" in wanted
    return [c for n, c in known.items() if "-" + n not in wanted and (everything or n in wanted)]


async def run(
    client: Client, config: Config, started: Callable[[list[Controller]], None] = lambda controllers: None
) -> None:
    """Run the enabled controllers over `client` until cancelled; `started(them)` once all views are complete."""
    context = Context(client, config)
    chosen = enabled(config.controllers)
    if not config.allocate_node_cidrs:
        chosen = [c for c in chosen if c is not NodeIpamController]
    controllers = [each(context) for each in chosen]
    for controller in controllers:
        if isinstance(controller, RootCaPublisher | BootstrapSigner):
            on_reload(controller.reload)
    async with asyncio.TaskGroup() as group:
        for work in context.background():
            group.create_task(work())
        for controller in controllers:
            group.create_task(controller.run(), name=controller.name)
        needed = {resource for controller in controllers for resource in controller.needs}
        await asyncio.gather(*(context.informers[resource].synced() for resource in needed))
        log.info("controllers=%d informers=%d synced=true", len(controllers), len(context.informers))
        started(controllers)


async def lead(client: Client, config: Config) -> None:
    """Wait for the lease, then run the controllers. Raises LeadershipLost when it is lost."""
    elector = LeaderElector(
        client,
        LEASE,
        identity=config.leader_elect_identity,
        lease_duration=config.leader_elect_lease_duration_seconds,
        renew_deadline=config.leader_elect_renew_deadline_seconds,
        retry_period=config.leader_elect_retry_period_seconds,
        enabled=config.leader_elect,
    )
    await elector.run(lambda: run(client, config))


async def serve(config: Config, ready: Callable[[], None]) -> None:
    """The daemon. `ready()` is called when this process serves: as leader, or waiting to become it."""
    enabled(config.controllers)  # a mistyped name is told at once, not by whoever becomes leader
    client = from_kubeconfig(config.kubeconfig, user_agent="wherry-controllers")
    on_reload(client.reload)
    ready()
    try:
        async with kept_fresh(client_rotation(client, config.kubeconfig)):
            await lead(client, config)
    finally:
        await client.close()
