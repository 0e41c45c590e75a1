"""The node agent's settings. Flags, WHERRY_* variables and a file agree (controlplane.daemon)."""

from __future__ import annotations

from dataclasses import dataclass, field

from nodeagent.pods.eviction.thresholds import DEFAULT_HARD
from pki.layout import DEFAULT


@dataclass(slots=True)
class Config:
    """The node agent of Wherry (what kubelet is to Kubernetes)."""

    kubeconfig: str = str(DEFAULT.kubeconfig("nodeagent"))
    """How to reach the API server, and as whom (system:node:<name>)."""
    node_name: str = ""
    """Name of the Node; empty: this machine's hostname in lower case."""
    node_ip: str = ""
    """InternalIP of the Node; empty: the address that this machine reaches the API server from."""
    node_labels: list[str] = field(default_factory=list)
    """Labels to register with, as key=value."""
    register_with_taints: list[str] = field(default_factory=list)
    """Taints to register with, as key=value:Effect."""
    root_dir: str = str(DEFAULT.agent_root)
    """Pods' directories and volumes, images, address leases."""
    state_dir: str = str(DEFAULT.runtime_state)
    """The runtime's state that must not survive a reboot."""
    runtime_socket: str = str(DEFAULT.runtime_socket)
    """Where the runtime's zygote listens."""
    container_runtime_endpoint: str = ""
    """Another container runtime to use, by its CRI socket, as unix:///run/containerd/containerd.sock; empty: ours."""
    cni_conf_dir: str = "/etc/cni/net.d"
    """Where that runtime looks for its network; a configuration for the node's pods is put there if there is none."""
    cri_socket: str = ""
    """Where our own runtime is served by CRI, for crictl, e.g. /run/wherry/cri.sock; for root only; empty: nowhere."""
    cgroup_root: str = ""
    """The node's cgroup, relative to the top of the cgroup mounts; empty: this process's own."""
    static_pod_path: str = str(DEFAULT.static_pods)
    """Directory of manifests of pods that this node runs on its own account; empty: none."""
    file_check_frequency_seconds: float = 1.0
    """How often that directory is looked at."""
    log_dir: str = "/var/log/pods"
    """Container logs, <namespace>_<pod>_<uid>/<container>/<n>.log."""
    address: str = "0.0.0.0"
    """Address that the agent's own server listens on."""
    port: int = 10250
    """Port of the agent's own server."""
    tls_cert_file: str = str(DEFAULT.identity("nodeagent-server"))
    """Serving certificate."""
    tls_private_key_file: str = str(DEFAULT.identity("nodeagent-server"))
    """Its key."""
    client_ca_file: str = str(DEFAULT.ca_cert)
    """Who may connect: clients with a certificate of this CA."""
    rotate_certificates: bool = True
    """Renew the certificates, the agent's own and the serving one, before they end (where one file has all of it)."""
    cluster_dns: list[str] = field(default_factory=list)
    """Addresses of the cluster's DNS, for pods' resolv.conf; empty: pods use the node's own."""
    cluster_domain: str = "cluster.local"
    """Domain of the cluster's names."""
    cluster_cidr: str = "10.244.0.0/16"
    """All pod addresses of the cluster: never masqueraded."""
    kubernetes_service_host: str = "10.96.0.1"
    """KUBERNETES_SERVICE_HOST until Service default/kubernetes has been seen."""
    kubernetes_service_port: str = "443"
    """KUBERNETES_SERVICE_PORT until then."""
    kubernetes_version: str = "v1.37.0+wherry"
    """What the Node says as kubeletVersion."""
    node_status_update_frequency_seconds: float = 10.0
    """How often the node looks at itself; a change is reported at once."""
    node_status_report_frequency_seconds: float = 300.0
    """How often the Node's status is sent though nothing has changed."""
    node_lease_duration_seconds: int = 40
    """Life of the node's Lease; renewed every quarter of it."""
    max_pods: int = 110
    """Most pods on this node."""
    pod_pids_limit: int = 0
    """Most processes in a pod; 0: no limit."""
    allowed_unsafe_sysctls: list[str] = field(default_factory=list)
    """Kernel parameters that pods may set beside the safe ones: names, or prefixes as kernel.msg*."""
    cpu_manager_policy: str = "none"
    """static: containers that ask for whole CPUs in Guaranteed pods have them to themselves; none: nobody has."""
    reserved_cpus: str = ""
    """CPUs that are never given away, as 0-1,4; empty: as many as kube_reserved and system_reserved come to."""
    enforce_node_allocatable: list[str] = field(default_factory=lambda: ["pods"])
    """pods: all pods together may not use more memory and process ids than the node does not keep for itself."""
    kube_reserved: list[str] = field(default_factory=list)
    """What the node keeps for its own daemons, as cpu=100m,memory=200Mi,ephemeral-storage=1Gi,pid=1000:
    not for pods. Without pid, a tenth of all process ids, at most 1024."""
    system_reserved: list[str] = field(default_factory=list)
    """The same for the rest of the system."""
    eviction_hard: list[str] = field(default_factory=lambda: list(DEFAULT_HARD))
    """When pods are evicted at once, as signal<quantity or signal<percentage; signals: memory.available,
    nodefs.available, nodefs.inodesFree, imagefs.available, imagefs.inodesFree, pid.available."""
    eviction_soft: list[str] = field(default_factory=list)
    """The same after a grace period, and gracefully."""
    eviction_soft_grace_period: list[str] = field(default_factory=list)
    """How long a soft threshold must have been met, as signal=1m30s."""
    eviction_minimum_reclaim: list[str] = field(default_factory=list)
    """How much more than its threshold an eviction gives back, as signal=quantity."""
    eviction_max_pod_grace_period_seconds: float = 0.0
    """The most grace that a pod has when a soft threshold evicts it."""
    eviction_pressure_transition_period_seconds: float = 300.0
    """How long the Node's condition stays after the pressure has gone."""
    eviction_monitoring_period_seconds: float = 2.0
    """How often the node looks what is left."""
    image_preload_dir: str = str(DEFAULT.image_preload)
    """Image archives and layouts that are loaded at start."""
    images_socket: str = str(DEFAULT.images_socket)
    """Where `wherry image` is answered, for root only; empty: nowhere."""
    registry_mirrors: list[str] = field(default_factory=list)
    """registry=URL: ask URL first for images of that registry."""
    insecure_registries: list[str] = field(default_factory=list)
    """Registries (host[:port]) that may be asked over plain HTTP."""
    registry_config_dir: str = str(DEFAULT.registry_config)
    """Settings of single registries (mirrors, CAs, client certificates): <registry>/hosts.toml, as with containerd."""
    serialize_image_pulls: bool = False
    """Pull one image after the other."""
    max_parallel_image_pulls: int = 3
    """Most images pulled at the same time; 0: no limit."""
    image_gc_high_threshold_percent: int = 85
    """Unused images are removed when the disk is fuller than this."""
    image_gc_low_threshold_percent: int = 80
    """… until it is no fuller than this."""
    image_minimum_gc_age_seconds: float = 120.0
    """Images that came less than this ago are not removed."""
    image_maximum_gc_age_seconds: float = 0.0
    """Images that nobody has used for this long are removed whatever the disk says; 0: never."""
    container_log_max_bytes: int = 10 * 1024 * 1024
    """A container's log is rotated when it is larger."""
    container_log_max_files: int = 5
    """Files of one container's log that are kept, the current one among them."""
    log_level: str = "info"
    """debug, info, warning or error."""
