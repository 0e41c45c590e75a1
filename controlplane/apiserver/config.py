"""Settings of the API server."""

from dataclasses import dataclass

from pki.layout import DEFAULT as PATHS


@dataclass
class Config:
    """The API server: HTTPS, authentication, authorisation, admission, the registry, the store."""

    advertise_address: str
    """The address that other machines and pods reach this server at."""
    bind_address: str = "0.0.0.0"
    """The address to listen at."""
    secure_port: int = 6443
    """The port to listen at; 0 lets the kernel choose."""
    store: str = f"sqlite://{PATHS.store}"
    """`sqlite://<absolute path>`, or `memory:` for tests (nothing survives)."""
    tls_cert_file: str = str(PATHS.identity("apiserver"))
    tls_private_key_file: str = str(PATHS.identity("apiserver"))
    client_ca_file: str = str(PATHS.ca_cert)
    """Who may show client certificates: those that this CA signed."""
    rotate_certificates: bool = True
    """Renew the serving certificate, and the one shown to nodes, before they end (where one file has all of it)."""
    service_account_signing_key_file: str = str(PATHS.service_account_key)
    service_account_issuer: str = "https://kubernetes.default.svc.cluster.local"
    service_cluster_ip_range: str = "10.96.0.0/16"
    service_node_port_range: str = "30000-32767"
    kubelet_client_certificate: str = str(PATHS.identity("apiserver-kubelet-client"))
    kubelet_client_key: str = str(PATHS.identity("apiserver-kubelet-client"))
    kubelet_certificate_authority: str = str(PATHS.ca_cert)
    kubernetes_version: str = ""
    """The served version, e.g. 1.37; empty: the newest definitions installed."""
    max_request_body_bytes: int = 3 << 20
    max_requests_in_flight: int = 600
    """Seats for requests under way, shared out by API priority and fairness. Who finds neither a seat nor a place in
    its queue gets 429. Cluster administrators (system:masters) are exempt."""
    request_timeout_seconds: float = 60.0
    """How long a write may take before its client is told 504; it is finished all the same."""
    first_request_timeout_seconds: float = 30.0
    """A connection that has asked nothing after so long is closed."""
    audit_log_path: str = ""
    """Where requests are told as JSON lines; "-" for standard output, empty for no audit log."""
    audit_policy_file: str = ""
    """How much of which request is told (audit.k8s.io/v1 Policy); empty: everything, at level Metadata."""
    audit_log_maxsize: int = 100
    """Megabytes after which the audit log is rotated; 0: never."""
    audit_log_maxbackup: int = 10
    """Rotated audit logs that are kept; 0: all."""
    audit_log_maxage: int = 30
    """Days after which a rotated audit log is deleted; 0: never."""
    history_seconds: int = 86_400
    """How long the past stays readable: older revisions are compacted."""
    history_bytes: int = 4 << 30
    """When the embedded store's file is larger than this, the past is made shorter; 0: only time counts."""
    event_ttl_seconds: int = 3600
    """Events that were not written for so long are deleted."""
    log_level: str = "info"
