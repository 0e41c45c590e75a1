"""Who gets which certificate: one table.

CN is the user name and O the groups that the API server sees (Kubernetes' X.509 authentication); the RBAC bootstrap
policy (controlplane.apiserver.authz) grants rights to exactly these names.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Profile:
    """An identity. `{node}` in `common_name` is replaced by the node's name; `server` certificates carry SANs."""

    name: str
    common_name: str
    organizations: tuple[str, ...] = ()
    server: bool = False
    client: bool = True

    @property
    def usages(self) -> tuple[str, ...]:
        """In Kubernetes' words (pki.requests)."""
        return ("digital signature", *("server auth",) * self.server, *("client auth",) * self.client)


APISERVER = Profile("apiserver", "kube-apiserver", server=True, client=False)
APISERVER_KUBELET_CLIENT = Profile("apiserver-kubelet-client", "kube-apiserver-kubelet-client")
ADMIN = Profile("admin", "kubernetes-admin", ("system:masters",))
SCHEDULER = Profile("scheduler", "system:kube-scheduler")
CONTROLLERS = Profile("controllers", "system:kube-controller-manager")
NODEAGENT = Profile("nodeagent", "system:node:{node}", ("system:nodes",))
NODEAGENT_SERVER = Profile("nodeagent-server", "system:node:{node}", ("system:nodes",), server=True, client=False)
NETPROXY = Profile("netproxy", "system:kube-proxy")

CONTROL_PLANE = (APISERVER, APISERVER_KUBELET_CLIENT, ADMIN, SCHEDULER, CONTROLLERS)
NODE = (NODEAGENT, NODEAGENT_SERVER, NETPROXY)
