"""The roles and bindings that every cluster starts with, in Kubernetes' names: data, and their reconciliation.

Reconciled at each start: missing roles are created, missing rules added; what an administrator added stays, and an
object annotated `rbac.authorization.kubernetes.io/autoupdate: "false"` is left alone.
Source: kubernetes.io/docs/reference/access-authn-authz/rbac, "Default roles and role bindings".
"""

from typing import Any

Object = dict[str, Any]

_READ = ["get", "list", "watch"]
_WRITE = ["create", "delete", "deletecollection", "patch", "update"]
_BOOTSTRAP = {"kubernetes.io/bootstrapping": "rbac-defaults"}
_AUTO = {"rbac.authorization.kubernetes.io/autoupdate": "true"}
_LEADER = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"]}


def rule(verbs: list[str], groups: str, resources: str, names: list[str] | None = None) -> Object:
    """A rule from space-separated groups ("core" is the empty one) and resources."""
    made: Object = {
        "verbs": verbs,
        "apiGroups": ["" if g == "core" else g for g in groups.split()],
        "resources": resources.split(),
    }
    if names:
        made["resourceNames"] = names
    return made


def paths(*urls: str) -> Object:
    return {"verbs": ["get"], "nonResourceURLs": list(urls)}


_EVENTS = rule(["create", "patch", "update"], "core events.k8s.io", "events")
_LEASES = rule([*_READ, "create", "update", "patch"], "coordination.k8s.io", "leases")
_EDITED = [
    rule(_WRITE, "core", "pods pods/attach pods/exec pods/portforward pods/proxy"),
    rule(["create"], "core", "pods/eviction"),
    rule(_WRITE, "core", "configmaps events persistentvolumeclaims replicationcontrollers replicationcontrollers/scale "
         "secrets serviceaccounts services services/proxy"),
    rule(["create"], "core", "serviceaccounts/token"),
    rule(["impersonate"], "core", "serviceaccounts"),
    rule(_WRITE, "apps", "daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale "
         "statefulsets statefulsets/scale"),
    rule(_WRITE, "autoscaling", "horizontalpodautoscalers"),
    rule(_WRITE, "batch", "cronjobs jobs"),
    rule(_WRITE, "networking.k8s.io", "ingresses networkpolicies"),
    rule(_WRITE, "policy", "poddisruptionbudgets"),
    rule([*_READ, *_WRITE], "coordination.k8s.io", "leases"),
]  # fmt: skip
_SECRETIVE = [
    rule(_READ, "core", "pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy"),
]
_VIEWED = [
    rule(_READ, "core", "configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods "
         "replicationcontrollers replicationcontrollers/scale serviceaccounts services services/status"),
    rule(_READ, "core", "bindings events limitranges namespaces/status pods/log pods/status "
         "replicationcontrollers/status resourcequotas resourcequotas/status namespaces"),
    rule(_READ, "discovery.k8s.io", "endpointslices"),
    rule(_READ, "apps", "controllerrevisions daemonsets daemonsets/status deployments deployments/scale "
         "deployments/status replicasets replicasets/scale replicasets/status statefulsets statefulsets/scale "
         "statefulsets/status"),
    rule(_READ, "autoscaling", "horizontalpodautoscalers horizontalpodautoscalers/status"),
    rule(_READ, "batch", "cronjobs cronjobs/status jobs jobs/status"),
    rule(_READ, "networking.k8s.io", "ingresses ingresses/status networkpolicies"),
    rule(_READ, "policy", "poddisruptionbudgets poddisruptionbudgets/status"),
]  # fmt: skip
_ADMIN = [
    rule([*_READ, *_WRITE], "rbac.authorization.k8s.io", "rolebindings roles"),
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
        rule(_READ, "core", "services"),
        rule([*_READ, "create"], "core", "nodes"),
        rule(["patch", "update"], "core", "nodes nodes/status"),
        rule(["create", "patch", "update"], "core", "events"),
        # Reading pods is the node authorizer's to allow: only its own.
        rule(["create", "delete"], "core", "pods"),
        rule(["patch", "update"], "core", "pods/status"),
        rule(["create"], "core", "pods/eviction"),
        rule(["get"], "core", "persistentvolumes"),
        rule([*_READ, "create"], "certificates.k8s.io", "certificatesigningrequests"),
        rule(_READ, "node.k8s.io", "runtimeclasses"),
        rule(_READ, "storage.k8s.io", "csidrivers"),
        rule(_READ, "discovery.k8s.io", "endpointslices"),
    ],
    "system:node-proxier": [
        rule(["list", "watch"], "core", "services endpoints"),
        rule(_READ, "core", "nodes"),
        rule(["list", "watch"], "discovery.k8s.io", "endpointslices"),
        rule(["list", "watch"], "networking.k8s.io", "servicecidrs"),
        _EVENTS,
    ],
    "system:node-bootstrapper": [rule([*_READ, "create"], "certificates.k8s.io", "certificatesigningrequests")],
    "system:auth-delegator": [
        rule(["create"], "authentication.k8s.io", "tokenreviews"),
        rule(["create"], "authorization.k8s.io", "subjectaccessreviews"),
    ],
    "system:kubelet-api-admin": [
        rule(_READ, "core", "nodes"),
        rule(["proxy"], "core", "nodes"),
        rule(["*"], "core", "nodes/log nodes/metrics nodes/proxy nodes/stats nodes/healthz nodes/configz nodes/pods"),
    ],
    "system:kube-scheduler": [
        _EVENTS,
        _LEASES,
        rule(_READ, "core", "nodes namespaces persistentvolumeclaims persistentvolumes services"),
        rule(_READ, "core", "replicationcontrollers"),
        rule([*_READ, "delete"], "core", "pods"),
        rule(["create"], "core", "bindings pods/binding"),
        rule(["patch", "update"], "core", "pods/status"),
        rule(_READ, "apps", "replicasets statefulsets"),
        rule(_READ, "policy", "poddisruptionbudgets"),
        rule(_READ, "storage.k8s.io", "csidrivers csinodes csistoragecapacities storageclasses volumeattachments"),
        rule(_READ, "scheduling.k8s.io", "priorityclasses"),
        rule(["create"], "authentication.k8s.io", "tokenreviews"),
        rule(["create"], "authorization.k8s.io", "subjectaccessreviews"),
    ],
    # One identity runs all controllers here, so this role is the union of Kubernetes' system:controller:* roles.
    "system:kube-controller-manager": [
        _EVENTS,
        _LEASES,
        rule(_READ, "*", "*"),
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
}  # fmt: skip


def _meta(name: str, **labels: str) -> Object:
    return {"name": name, "labels": {**_BOOTSTRAP, **labels}, "annotations": dict(_AUTO)}


def objects() -> list[Object]:
    """Every bootstrap ClusterRole and ClusterRoleBinding."""
    made: list[Object] = []
    version = "rbac.authorization.k8s.io/v1"
    for name, rules in CLUSTER_ROLES.items():
        labels = {}
        if name.startswith("system:aggregate-to-"):
            labels[f"rbac.authorization.k8s.io/{name.removeprefix('system:')}"] = "true"
        made.append({"kind": "ClusterRole", "apiVersion": version, "metadata": _meta(name, **labels), "rules": rules})
    for name, parts in AGGREGATED.items():
        selectors = [{"matchLabels": {f"rbac.authorization.k8s.io/aggregate-to-{name}": "true"}}]
        labels = (
            {f"rbac.authorization.k8s.io/aggregate-to-{'admin' if name == 'edit' else 'edit'}": "true"}
            if name != "admin"
            else {}
        )
        rules = [r for part in parts for r in CLUSTER_ROLES[f"system:aggregate-to-{part}"]]
        made.append({
            "kind": "ClusterRole", "apiVersion": version, "metadata": _meta(name, **labels),
            "aggregationRule": {"clusterRoleSelectors": selectors}, "rules": rules,
        })  # fmt: skip
    for name, (role, subjects) in BINDINGS.items():
        made.append({
            "kind": "ClusterRoleBinding", "apiVersion": version, "metadata": _meta(name),
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": kind, "name": n, "apiGroup": "rbac.authorization.k8s.io"} for kind, n in subjects],
        })  # fmt: skip
    return made
