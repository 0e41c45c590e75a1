"""What each controller's service account may do: `system:controller:<name>`, bound to kube-system/<name>.

Our own controllers run under one identity, `system:kube-controller-manager`; these roles are for clients that come as
one controller's account, and for administrators who look for or bind the names they know. Roles of controllers that we
do not run are here for the same reason.
"""

from typing import Any

from controlplane.apiserver.authz.policy.rules import EVENTS, can

Object = dict[str, Any]

_READ = "get list watch"
_ALL_BUT_BULK = "get list watch create update patch delete"
_CERTIFICATES = "certificates.k8s.io"
_WORKLOADS = "apps extensions"  # the old group's name is in the shipped roles still
_PODS_OF_OWNER = can("list watch create delete patch", "core", "pods")


def _owner(group: str, resource: str, verbs: str = "get list watch update") -> list[Object]:
    """What it takes to run a kind that makes pods: itself, its status, finalizers (to own with block), its pods."""
    return [
        can(verbs, group, resource),
        can("update", group, f"{resource}/status"),
        can("update", group, f"{resource}/finalizers"),
        EVENTS,
    ]


_WORKLOAD: dict[str, list[Object]] = {
    "cronjob-controller": [
        *_owner("batch", "cronjobs"),
        can(_ALL_BUT_BULK, "batch", "jobs"),
        can("list delete", "core", "pods"),
    ],
    "daemon-set-controller": [
        *_owner(_WORKLOADS, "daemonsets", _READ),
        can("list watch", "core", "nodes"),
        _PODS_OF_OWNER,
        can("create", "core", "pods/binding"),
        can(_ALL_BUT_BULK, "apps", "controllerrevisions"),
    ],
    "deployment-controller": [
        *_owner(_WORKLOADS, "deployments"),
        can(_ALL_BUT_BULK, _WORKLOADS, "replicasets"),
        can("get list watch update", "core", "pods"),
    ],
    "job-controller": [*_owner("batch", "jobs", "get list watch update patch"), _PODS_OF_OWNER],
    "replicaset-controller": [*_owner(_WORKLOADS, "replicasets"), _PODS_OF_OWNER],
    "replication-controller": [*_owner("core", "replicationcontrollers"), _PODS_OF_OWNER],
    "statefulset-controller": [
        *_owner("apps", "statefulsets", _READ),
        can(_ALL_BUT_BULK, "core", "pods"),
        can(_ALL_BUT_BULK, "apps", "controllerrevisions"),
        can("get create update delete", "core", "persistentvolumeclaims"),
    ],
    "disruption-controller": [
        can(_READ, _WORKLOADS, "deployments replicasets"),
        can(_READ, "apps", "statefulsets"),
        can(_READ, "core", "replicationcontrollers"),
        can(_READ, "policy", "poddisruptionbudgets"),
        can("update", "policy", "poddisruptionbudgets/status"),
        can("patch update", "core", "pods/status"),
        can("get", "*", "*/scale"),
        EVENTS,
    ],
    "horizontal-pod-autoscaler": [
        can(_READ, "autoscaling", "horizontalpodautoscalers"),
        can("update", "autoscaling", "horizontalpodautoscalers/status"),
        can("get update", "*", "*/scale"),
        can("list", "core", "pods"),
        can("list", "metrics.k8s.io", "pods"),
        can("get list", "custom.metrics.k8s.io external.metrics.k8s.io", "*"),
        EVENTS,
    ],
    "ttl-after-finished-controller": [can("get list watch delete", "batch", "jobs"), EVENTS],
    "resource-claim-controller": [
        can(_READ, "core", "pods"),
        can("update", "core", "pods/finalizers"),
        can("patch update", "core", "pods/status"),
        can(_ALL_BUT_BULK, "resource.k8s.io", "resourceclaims"),
        can("patch update", "resource.k8s.io", "resourceclaims/status"),
        EVENTS,
    ],
}

_NETWORK: dict[str, list[Object]] = {
    "endpoint-controller": [
        can(_READ, "core", "services pods"),
        can("get list create update delete", "core", "endpoints"),
        can("create", "core", "endpoints/restricted"),
        EVENTS,
    ],
    "endpointslice-controller": [
        can(_READ, "core", "services pods nodes"),
        can("update", "core", "services/finalizers"),
        can("get list create update delete", "discovery.k8s.io", "endpointslices"),
        EVENTS,
    ],
    "endpointslicemirroring-controller": [
        can(_READ, "core", "services endpoints"),
        can("update", "core", "services/finalizers endpoints/finalizers"),
        can("get list create update delete", "discovery.k8s.io", "endpointslices"),
        EVENTS,
    ],
    "route-controller": [can("list watch", "core", "nodes"), can("patch", "core", "nodes/status"), EVENTS],
    "service-controller": [
        can(_READ, "core", "services"),
        can("patch update", "core", "services/status"),
        can("list watch", "core", "nodes"),
        EVENTS,
    ],
    "service-cidrs-controller": [
        can("get list watch patch update", "networking.k8s.io", "servicecidrs"),
        can("patch update", "networking.k8s.io", "servicecidrs/finalizers servicecidrs/status"),
        can(_READ, "networking.k8s.io", "ipaddresses"),
        EVENTS,
    ],
}

_STORAGE: dict[str, list[Object]] = {
    "attachdetach-controller": [
        can("list watch", "core", "persistentvolumes persistentvolumeclaims pods"),
        can(_READ, "core", "nodes"),
        can("patch update", "core", "nodes/status"),
        can("get list watch create delete", "storage.k8s.io", "volumeattachments"),
        can(_READ, "storage.k8s.io", "csidrivers csinodes"),
        EVENTS,
    ],
    "ephemeral-volume-controller": [
        can(_READ, "core", "pods"),
        can("update", "core", "pods/finalizers"),
        can("get list watch create", "core", "persistentvolumeclaims"),
        EVENTS,
    ],
    "expand-controller": [
        can("get list watch update patch", "core", "persistentvolumes"),
        can(_READ, "core", "persistentvolumeclaims"),
        can("patch update", "core", "persistentvolumeclaims/status"),
        can(_READ, "storage.k8s.io", "storageclasses"),
        can("get", "core", "services endpoints secrets"),
        EVENTS,
    ],
    "persistent-volume-binder": [
        can("get list watch create update delete", "core", "persistentvolumes"),
        can("get list watch update", "core", "persistentvolumeclaims"),
        can("update", "core", "persistentvolumes/status persistentvolumeclaims/status"),
        can("get list watch create delete", "core", "pods"),
        can(_READ, "storage.k8s.io", "storageclasses"),
        can("get create update delete", "core", "endpoints"),
        can("get create delete", "core", "services"),
        can("get", "core", "secrets"),
        can("get list", "core", "nodes"),
        can("watch", "core", "events"),
        EVENTS,
    ],
    "pv-protection-controller": [can("get list watch update", "core", "persistentvolumes"), EVENTS],
    "pvc-protection-controller": [
        can("get list watch update", "core", "persistentvolumeclaims"),
        can(_READ, "core", "pods"),
        EVENTS,
    ],
    "volumeattributesclass-protection-controller": [
        can(_READ, "core", "persistentvolumeclaims persistentvolumes"),
        can("get list watch update", "storage.k8s.io", "volumeattributesclasses"),
        EVENTS,
    ],
}

_CLUSTER: dict[str, list[Object]] = {
    "certificate-controller": [
        can("get list watch delete", _CERTIFICATES, "certificatesigningrequests"),
        can("update", _CERTIFICATES, "certificatesigningrequests/approval certificatesigningrequests/status"),
        can("approve", _CERTIFICATES, "signers", "kubernetes.io/kube-apiserver-client-kubelet"),
        can("sign", _CERTIFICATES, "signers", "kubernetes.io/kube-apiserver-client", "kubernetes.io/kubelet-serving",
            "kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/legacy-unknown"),
        can("create", "authorization.k8s.io", "subjectaccessreviews"),
        EVENTS,
    ],
    # It writes rules that it does not hold itself, hence `escalate`.
    "clusterrole-aggregation-controller": [
        can("escalate get list watch patch update", "rbac.authorization.k8s.io", "clusterroles"),
    ],
    "generic-garbage-collector": [can("get list watch patch update delete", "*", "*"), EVENTS],
    "legacy-service-account-token-cleaner": [
        can("get", "core", "configmaps", "kube-apiserver-legacy-service-account-token-tracking"),
        can("patch delete", "core", "secrets"),
    ],
    "namespace-controller": [
        can("get list watch delete", "core", "namespaces"),
        can("update", "core", "namespaces/finalize namespaces/status"),
        can("get list delete deletecollection", "*", "*"),
    ],
    "node-controller": [
        can("get list update delete patch", "core", "nodes"),
        can("patch update", "core", "nodes/status pods/status"),
        can("get list delete", "core", "pods"),
        EVENTS,
    ],
    "pod-garbage-collector": [
        can("list watch delete", "core", "pods"),
        can("get list", "core", "nodes"),
        can("patch", "core", "pods/status"),
    ],
    "resourcequota-controller": [
        can("list watch", "*", "*"),  # any resource may be counted
        can("update", "core", "resourcequotas/status"),
        EVENTS,
    ],
    "root-ca-cert-publisher": [can("create update", "core", "configmaps"), EVENTS],
    "service-account-controller": [can("create", "core", "serviceaccounts"), EVENTS],
    "ttl-controller": [can("list watch patch update", "core", "nodes"), EVENTS],
    "validatingadmissionpolicy-status-controller": [
        can(_READ, "admissionregistration.k8s.io", "validatingadmissionpolicies"),
        can("get patch update", "admissionregistration.k8s.io", "validatingadmissionpolicies/status"),
        EVENTS,
    ],
}  # fmt: skip

CONTROLLERS: dict[str, list[Object]] = {**_WORKLOAD, **_NETWORK, **_STORAGE, **_CLUSTER}
"""Name of the service account -> its rules."""
