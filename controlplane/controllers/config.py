"""The settings of the controller manager. A docstring a field; names follow kube-controller-manager's flags."""

from dataclasses import dataclass, field

from pki import layout


@dataclass
class Config:
    """Wherry's controllers: one process, one informer a resource, one identity (system:kube-controller-manager)."""

    kubeconfig: str = field(default_factory=lambda: str(layout.DEFAULT.kubeconfig("controllers")))
    """How to reach the API server."""
    controllers: list[str] = field(default_factory=lambda: ["*"])
    """Which controllers run: `*` is all that are on by default, `name` adds one, `-name` leaves one out."""
    log_level: str = "info"
    """debug, info, warning or error."""

    leader_elect: bool = True
    """Run only while holding the lease kube-system/kube-controller-manager; losing it ends the process."""
    leader_elect_identity: str = ""
    """The name in the lease. One that survives a restart gets the lease back at once; "" makes a new one each time."""
    leader_elect_lease_duration_seconds: float = 15.0
    """How long others wait before they take an unrenewed lease."""
    leader_elect_renew_deadline_seconds: float = 10.0
    """How long the leader tries to renew before it gives up."""
    leader_elect_retry_period_seconds: float = 2.0
    """The pause between attempts."""

    allocate_node_cidrs: bool = True
    """Give each node a pod network out of cluster_cidr."""
    cluster_cidr: str = "10.244.0.0/16"
    """The pods' addresses; two comma-separated ranges for dual stack."""
    node_cidr_mask_size: int = 24
    """Prefix length of a node's IPv4 share of cluster_cidr."""
    node_cidr_mask_size_ipv6: int = 64
    """Prefix length of a node's IPv6 share."""

    node_monitor_period_seconds: float = 5.0
    """How often postponed evictions (several nodes lost at once) are looked at again."""
    node_monitor_grace_period_seconds: float = 50.0
    """How long a node may be silent before it is marked Unknown."""
    node_startup_grace_period_seconds: float = 60.0
    """The same for a node that has never spoken."""
    node_eviction_rate: float = 0.1
    """Nodes a second that get a NoExecute taint, while most nodes of a zone are well."""
    secondary_node_eviction_rate: float = 0.01
    """The same when many are not (unhealthy_zone_threshold) and the zone is large; a small zone waits."""
    large_cluster_size_threshold: int = 50
    """Nodes above which a zone is large."""
    unhealthy_zone_threshold: float = 0.55
    """Share of nodes not ready above which a zone counts as partially disrupted."""

    terminated_pod_gc_threshold: int = 12500
    """Finished pods kept before the oldest are deleted; 0 keeps all."""
    pod_gc_period_seconds: float = 20.0
    """How often the pod garbage collector looks."""
    pod_gc_quarantine_seconds: float = 40.0
    """How long a node must be missing before its pods are removed."""

    root_ca_file: str = field(default_factory=lambda: str(layout.DEFAULT.ca_cert))
    """The CA certificate published as kube-root-ca.crt in every namespace; "" publishes none."""
    cluster_signing_cert_file: str = field(default_factory=lambda: str(layout.DEFAULT.ca_cert))
    """CA certificate that signs certificate requests."""
    cluster_signing_key_file: str = ""
    """Its key; "" signs none. No other process reads this file."""
    cluster_signing_duration_seconds: float = 365 * 86_400.0
    """How long certificates live, unless a shorter life is asked for."""
    cluster_info_server: str = ""
    """The API's URL in the public ConfigMap kube-public/cluster-info; "" takes that of our own kubeconfig."""
    expired_token_retention_seconds: float = 3600.0
    """How long expired bootstrap tokens are kept, so that who still shows one is told so."""
