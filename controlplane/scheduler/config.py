"""The scheduler's settings, and the coroutine that serves."""

from collections.abc import Callable
from dataclasses import dataclass

from controlplane import daemon
from controlplane.client import LeaderElector, from_kubeconfig
from controlplane.client.certificates import client_rotation, kept_fresh
from controlplane.scheduler.loop import Scheduler
from pki.layout import Layout


@dataclass(frozen=True, slots=True)
class Config:
    """Wherry's scheduler: gives pods nodes."""

    kubeconfig: str = str(Layout().kubeconfig("scheduler"))
    """How to reach the API server, and as whom."""
    leader_elect: bool = True
    """Whether to schedule only while holding the Lease kube-system/kube-scheduler."""
    leader_elect_identity: str = ""
    """Holder's name in the Lease. With a name that is the same after a restart, a restarted scheduler leads again at
    once; nobody else may use it. Default: host name and a random part."""
    leader_elect_lease_duration_seconds: float = 15.0
    """How long others wait for a leader that has fallen silent."""
    leader_elect_renew_deadline_seconds: float = 10.0
    """How long a leader that cannot renew goes on."""
    leader_elect_retry_period_seconds: float = 2.0
    """Time between renewals, and between attempts to get the Lease."""
    scheduler_name: str = "default-scheduler"
    """Which pods to take care of (their spec.schedulerName)."""
    bind_concurrency: int = 32
    """Most bindings under way at a time."""
    log_level: str = "info"
    """debug, info, warning or error."""


async def serve(config: Config, ready: Callable[[], None]) -> None:
    """Schedule until cancelled. Raises LeadershipLost, after which the process should be started again."""
    client = from_kubeconfig(config.kubeconfig, user_agent="wherry-scheduler")
    daemon.on_reload(client.reload)
    elector = LeaderElector(
        client,
        "kube-scheduler",
        identity=config.leader_elect_identity,
        lease_duration=config.leader_elect_lease_duration_seconds,
        renew_deadline=config.leader_elect_renew_deadline_seconds,
        retry_period=config.leader_elect_retry_period_seconds,
        enabled=config.leader_elect,
    )
    scheduler = Scheduler(client, scheduler_name=config.scheduler_name, concurrency=config.bind_concurrency)
    try:
        async with kept_fresh(client_rotation(client, config.kubeconfig)):
            await scheduler.run(elector, ready)
    finally:
        await client.close()
