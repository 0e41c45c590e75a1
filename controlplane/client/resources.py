"""Which resource a request is about: the few fields that make its URL, and constants for the usual ones.

It is not the served resource table (`controlplane.api.resources`), which knows verbs, names and schemas: a client
needs none of that, and loading the definitions costs memory that a daemon can do without.
"""

from dataclasses import dataclass
from urllib.parse import quote

_SAFE = "-._~:"


@dataclass(frozen=True, slots=True)
class ApiResource:
    """A resource as its URL names it. `group` is empty for the core group."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """`v1` or `apps/v1`, as in an object's `apiVersion`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def group_resource(self) -> str:
        """`pods` or `deployments.apps`, as messages name it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The URL path, percent-encoded. An empty namespace of a namespaced resource means all namespaces."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        if namespace and self.namespaced:
            root += "/namespaces/" + quote(namespace, _SAFE)
        root += "/" + self.plural
        if name:
            root += "/" + quote(name, _SAFE)
        return root + "/" + subresource if subresource else root


PODS = ApiResource("", "v1", "pods", "Pod")
NODES = ApiResource("", "v1", "nodes", "Node", namespaced=False)
NAMESPACES = ApiResource("", "v1", "namespaces", "Namespace", namespaced=False)
SERVICES = ApiResource("", "v1", "services", "Service")
ENDPOINTS = ApiResource("", "v1", "endpoints", "Endpoints")
SECRETS = ApiResource("", "v1", "secrets", "Secret")
CONFIGMAPS = ApiResource("", "v1", "configmaps", "ConfigMap")
SERVICEACCOUNTS = ApiResource("", "v1", "serviceaccounts", "ServiceAccount")
EVENTS = ApiResource("", "v1", "events", "Event")
LIMITRANGES = ApiResource("", "v1", "limitranges", "LimitRange")
RESOURCEQUOTAS = ApiResource("", "v1", "resourcequotas", "ResourceQuota")
REPLICATIONCONTROLLERS = ApiResource("", "v1", "replicationcontrollers", "ReplicationController")
PERSISTENTVOLUMES = ApiResource("", "v1", "persistentvolumes", "PersistentVolume", namespaced=False)
PERSISTENTVOLUMECLAIMS = ApiResource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
DEPLOYMENTS = ApiResource("apps", "v1", "deployments", "Deployment")
REPLICASETS = ApiResource("apps", "v1", "replicasets", "ReplicaSet")
STATEFULSETS = ApiResource("apps", "v1", "statefulsets", "StatefulSet")
DAEMONSETS = ApiResource("apps", "v1", "daemonsets", "DaemonSet")
CONTROLLERREVISIONS = ApiResource("apps", "v1", "controllerrevisions", "ControllerRevision")
JOBS = ApiResource("batch", "v1", "jobs", "Job")
CRONJOBS = ApiResource("batch", "v1", "cronjobs", "CronJob")
HORIZONTALPODAUTOSCALERS = ApiResource("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
PODDISRUPTIONBUDGETS = ApiResource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")
ENDPOINTSLICES = ApiResource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
LEASES = ApiResource("coordination.k8s.io", "v1", "leases", "Lease")
INGRESSES = ApiResource("networking.k8s.io", "v1", "ingresses", "Ingress")
NETWORKPOLICIES = ApiResource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy")
STORAGECLASSES = ApiResource("storage.k8s.io", "v1", "storageclasses", "StorageClass", namespaced=False)
PRIORITYCLASSES = ApiResource("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", namespaced=False)
RUNTIMECLASSES = ApiResource("node.k8s.io", "v1", "runtimeclasses", "RuntimeClass", namespaced=False)
ROLES = ApiResource("rbac.authorization.k8s.io", "v1", "roles", "Role")
ROLEBINDINGS = ApiResource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding")
CLUSTERROLES = ApiResource("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", namespaced=False)
CLUSTERROLEBINDINGS = ApiResource(
    "rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False
)
CERTIFICATESIGNINGREQUESTS = ApiResource(
    "certificates.k8s.io", "v1", "certificatesigningrequests", "CertificateSigningRequest", namespaced=False
)
CUSTOMRESOURCEDEFINITIONS = ApiResource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False
)
