"""ClusterRoles for people, nodes and the other components, and who holds them from the start."""

from typing import Any

from controlplane.apiserver.authz.policy.rules import EVENTS, READ, WRITE, can, paths, rule

Object = dict[str, Any]

_LEASES = rule([*READ, "create", "update", "patch"], "coordination.k8s.io", "leases")
_SIGNERS = "kubernetes.io/"
_EDITED = [
    rule(WRITE, "core", "pods pods/attach pods/exec pods/portforward pods/proxy"),
    rule(["create"], "core", "pods/eviction"),
    rule(WRITE, "core", "configmaps events persistentvolumeclaims replicationcontrollers replicationcontrollers/scale "
         "secrets serviceaccounts services services/proxy"),
    rule(["create"], "core", "serviceaccounts/token"),
    rule(["impersonate"], "core", "serviceaccounts"),
    rule(WRITE, "apps", "daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale "
         "statefulsets statefulsets/scale"),
    rule(WRITE, "autoscaling", "horizontalpodautoscalers"),
    rule(WRITE, "batch", "cronjobs jobs"),
    rule(WRITE, "networking.k8s.io", "ingresses networkpolicies"),
    rule(WRITE, "policy", "poddisruptionbudgets"),
    rule([*READ, *WRITE], "coordination.k8s.io", "leases"),
]  # fmt: skip
_SECRETIVE = [
    rule(READ, "core", "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy"),
]
_VIEWED = [
    rule(READ, "core", "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods "
         "replicationcontrollers replicationcontrollers/scale serviceaccounts services services/status"),
    rule(READ, "core", "bindings events limitranges namespaces/status pods/log pods/status "
         "replicationcontrollers/status resourcequotas resourcequotas/status namespaces"),
    rule(READ, "discovery.k8s.io", "endpointslices"),
    rule(READ, "apps", "controllerrevisions daemonsets daemonsets/status deployments deployments/scale "
         "deployments/status replicasets replicasets/scale replicasets/status statefulsets statefulsets/scale "
         "statefulsets/status"),
    rule(READ, "autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
    rule(READ, "batch", "cronjobs cronjobs/status jobs jobs/status"),
    rule(READ, "networking.k8s.io", "ingresses ingresses/status networkpolicies"),
    rule(READ, "policy", "poddisruptionbudgets poddisruptionbudgets/status"),
]  # fmt: skip
_ADMIN = [
    rule([*READ, *WRITE], "rbac.authorization.k8s.io", "rolebindings roles"),
    rule(["create"], "authorization.k8s.io", "localsubjectaccessreviews"),
]

CLUSTER_ROLES: dict[str, list[Object]] = {
    "cluster-admin": [rule(["*"], "*", "*"), {"verbs": ["*"], "nonResourceURLs": ["*"]}],
    "system:aggregate-to-admin": _ADMIN,
    "system:aggregate-to-edit": _EDITED + _SECRETIVE,
    "system:aggregate-to-view": _VIEWED,
    "system:basic-user": [
        rule(["create"], "authorization.k8s.io", "selfsubjectaccessreviews selfsubjectrulesreviews"),
        rule(["create"], "authentication.k8s.io", "selfsubjectreviews"),
    ],
    "system:discovery": [
        paths("/api", "/api/*", "/apis", "/apis/*", "/healthz", "/livez", "/openapi", "/openapi/*", "/readyz",
              "/version", "/version/"),
    ],
    "system:public-info-viewer": [paths("/healthz", "/livez", "/readyz", "/version", "/version/")],
    "system:monitoring": [
        paths("/healthz", "/healthz/*", "/livez", "/livez/*", "/metrics", "/metrics/slis", "/readyz", "/readyz/*"),
    ],
    "system:node": [
        rule(["create"], "authentication.k8s.io", "tokenreviews"),
        rule(["create"], "authorization.k8s.io", "localsubjectaccessreviews subjectaccessreviews"),
        rule(READ, "core", "services"),
        rule([*READ, "create"], "core", "nodes"),
        rule(["patch", "update"], "core", "nodes nodes/status"),
        rule(["create", "patch", "update"], "core", "events"),
        # Reading pods is the node authorizer's to allow: only its own.
        rule(["create", "delete"], "core", "pods"),
        rule(["patch", "update"], "core", "pods/status"),
        rule(["create"], "core", "pods/eviction"),
        rule(["get"], "core", "persistentvolumes"),
        rule([*READ, "create"], "certificates.k8s.io", "certificatesigningrequests"),
        rule(READ, "node.k8s.io", "runtimeclasses"),
        rule(READ, "storage.k8s.io", "csidrivers"),
        rule(READ, "discovery.k8s.io", "endpointslices"),
    ],
    "system:node-proxier": [
        rule(["list", "watch"], "core", "services endpoints"),
        rule(READ, "core", "nodes"),
        rule(["list", "watch"], "discovery.k8s.io", "endpointslices"),
        rule(["list", "watch"], "networking.k8s.io", "servicecidrs"),
        EVENTS,
    ],
    "system:node-bootstrapper": [rule([*READ, "create"], "certificates.k8s.io", "certificatesigningrequests")],
    "system:auth-delegator": [
        rule(["create"], "authentication.k8s.io", "tokenreviews"),
        rule(["create"], "authorization.k8s.io", "subjectaccessreviews"),
    ],
    "system:kubelet-api-admin": [
        rule(READ, "core", "nodes"),
        rule(["proxy"], "core", "nodes"),
        rule(["*"], "core", "nodes/log nodes/metrics nodes/proxy nodes/stats nodes/healthz nodes/configz nodes/pods"),
    ],
    "system:kube-scheduler": [
        EVENTS,
        _LEASES,
        rule(READ, "core", "nodes namespaces persistentvolumeclaims persistentvolumes services"),
        rule(READ, "core", "replicationcontrollers"),
        rule([*READ, "delete"], "core", "pods"),
        rule(["create"], "core", "bindings pods/binding"),
        rule(["patch", "update"], "core", "pods/status"),
        rule(READ, "apps", "replicasets statefulsets"),
        rule(READ, "policy", "poddisruptionbudgets"),
        rule(READ, "storage.k8s.io", "csidrivers csinodes csistoragecapacities storageclasses volumeattachments"),
        rule(READ, "scheduling.k8s.io", "priorityclasses"),
        rule(["create"], "authentication.k8s.io", "tokenreviews"),
        rule(["create"], "authorization.k8s.io", "subjectaccessreviews"),
    ],
    "system:kube-aggregator": [rule(READ, "core", "endpoints services")],
    "system:kube-dns": [rule(["list", "watch"], "core", "endpoints services")],
    "system:volume-scheduler": [
        can("get list watch patch update", "core", "persistentvolumes persistentvolumeclaims"),
        rule(READ, "storage.k8s.io", "storageclasses"),
    ],
    "system:persistent-volume-provisioner": [
        can("get list watch create delete", "core", "persistentvolumes"),
        can("get list watch update", "core", "persistentvolumeclaims"),
        rule(READ, "storage.k8s.io", "storageclasses"),
        can("watch", "core", "events"),
        EVENTS,
    ],
    "system:node-problem-detector": [can("get", "core", "nodes"), can("patch", "core", "nodes/status"), EVENTS],
    "system:service-account-issuer-discovery": [
        paths("/.well-known/openid-configuration", "/.well-known/openid-configuration/",
              "/openid/v1/jwks", "/openid/v1/jwks/"),
    ],
    "system:certificates.k8s.io:certificatesigningrequests:nodeclient": [
        can("create", "certificates.k8s.io", "certificatesigningrequests/nodeclient"),
    ],
    "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient": [
        can("create", "certificates.k8s.io", "certificatesigningrequests/selfnodeclient"),
    ],
    # Ours: which requests for certificates are approved by themselves (controllers.csrapproving).
    "wherry:certificates:node": [
        can("create", "certificates.k8s.io",
            "certificatesigningrequests/selfnodeserving certificatesigningrequests/nodeproxyclient"),
    ],
    "wherry:certificates:self": [
        can("create get", "certificates.k8s.io", "certificatesigningrequests"),
        can("create", "certificates.k8s.io", "certificatesigningrequests/selfclient"),
    ],
    # Ours: a machine that joins looks whether its name is taken.
    "wherry:get-nodes": [can("get", "core", "nodes")],
    **{
        f"system:certificates.k8s.io:{signer}-approver": [
            can("approve", "certificates.k8s.io", "signers", _SIGNERS + signer),
        ]
        for signer in ("kube-apiserver-client", "kube-apiserver-client-kubelet", "kubelet-serving", "legacy-unknown")
    },
    # One identity runs all controllers here, so this role is the union of the system:controller:* roles.
    "system:kube-controller-manager": [
        EVENTS,
        _LEASES,
        rule(READ, "*", "*"),
        paths("/api", "/api/*", "/apis", "/apis/*", "/version"),
        rule(["delete", "deletecollection", "patch", "update"], "*", "*"),  # garbage collection, namespaces, finalizers
        rule(["create"], "core", "pods serviceaccounts serviceaccounts/token secrets configmaps endpoints "
             "persistentvolumes persistentvolumeclaims pods/eviction"),
        rule(["create"], "apps", "replicasets controllerrevisions"),
        rule(["create"], "batch", "jobs"),
        rule(["create"], "discovery.k8s.io", "endpointslices"),
        rule(["create"], "authentication.k8s.io", "tokenreviews"),
        rule(["create"], "authorization.k8s.io", "subjectaccessreviews"),
        rule(["approve", "sign"], "certificates.k8s.io", "signers"),
        rule(["escalate", "bind"], "rbac.authorization.k8s.io", "clusterroles roles"),  # aggregation writes rules
    ],
}  # fmt: skip

AGGREGATED: dict[str, tuple[str, ...]] = {
    "admin": ("admin", "edit", "view"),
    "edit": ("edit", "view"),
    "view": ("view",),
}
"""Roles whose rules the aggregation controller collects: name -> which `aggregate-to-*` labels. They start with what
the labelled bootstrap roles hold, so that they are right before any controller runs."""

BINDINGS: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "cluster-admin": ("cluster-admin", [("Group", "system:masters")]),
    "system:monitoring": ("system:monitoring", [("Group", "system:monitoring")]),
    "system:discovery": ("system:discovery", [("Group", "system:authenticated")]),
    "system:basic-user": ("system:basic-user", [("Group", "system:authenticated")]),
    "system:public-info-viewer": (
        "system:public-info-viewer", [("Group", "system:authenticated"), ("Group", "system:unauthenticated")],
    ),
    "system:node": ("system:node", [("Group", "system:nodes")]),
    "system:node-proxier": ("system:node-proxier", [("User", "system:kube-proxy")]),
    "system:kube-scheduler": ("system:kube-scheduler", [("User", "system:kube-scheduler")]),
    "system:kube-controller-manager": ("system:kube-controller-manager", [("User", "system:kube-controller-manager")]),
    "system:node-bootstrapper": ("system:node-bootstrapper", [("Group", "system:bootstrappers")]),
    "wherry:node-autoapprove-bootstrap": (
        "system:certificates.k8s.io:certificatesigningrequests:nodeclient", [("Group", "system:bootstrappers")],
    ),
    "wherry:node-autoapprove-certificate-rotation": (
        "system:certificates.k8s.io:certificatesigningrequests:selfnodeclient", [("Group", "system:nodes")],
    ),
    "wherry:certificates:node": ("wherry:certificates:node", [("Group", "system:nodes")]),
    "wherry:certificates:self": (
        "wherry:certificates:self",
        [("User", "system:kube-scheduler"), ("User", "system:kube-controller-manager"), ("User", "system:kube-proxy")],
    ),
    "wherry:get-nodes": ("wherry:get-nodes", [("Group", "system:bootstrappers")]),
    # Ours: the API server's own identity towards node agents is no master.
    "wherry:kubelet-api-admin": ("system:kubelet-api-admin", [("User", "kube-apiserver-kubelet-client")]),
    "system:volume-scheduler": ("system:volume-scheduler", [("User", "system:kube-scheduler")]),
    "system:kube-dns": ("system:kube-dns", [("ServiceAccount", "kube-dns")]),
    "system:service-account-issuer-discovery": (
        "system:service-account-issuer-discovery", [("Group", "system:serviceaccounts")],
    ),
}  # fmt: skip
"""Name of the binding -> the role, and subjects as (kind, name); service accounts are those of kube-system."""
