"""The roles and bindings that every cluster starts with, in Kubernetes' names.

`roles` has those of people, nodes and components, `controllers` those of each controller's service account,
`namespaced` the few that hold in one namespace only; here they become API objects. `apiserver.bootstrap` reconciles
them at each start: missing roles are created, missing rules added; what an administrator added stays, and an object
annotated `rbac.authorization.kubernetes.io/autoupdate: "false"` is left alone.
Source: kubernetes.io/docs/reference/access-authn-authz/rbac, "Default roles and role bindings".
"""

from collections.abc import Iterable, Iterator
from typing import Any

from controlplane.apiserver.authz.policy.controllers import CONTROLLERS
from controlplane.apiserver.authz.policy.namespaced import ROLE_BINDINGS, ROLES
from controlplane.apiserver.authz.policy.roles import AGGREGATED, BINDINGS, CLUSTER_ROLES

Object = dict[str, Any]
_GROUP = "rbac.authorization.k8s.io"
_CONTROLLER = "system:controller:"


def objects() -> list[Object]:
    """Every bootstrap role and binding. Those with a namespace are for kube-system and kube-public."""
    return [*_cluster_roles(), *_aggregated(), *_cluster_bindings(), *_controllers(), *_namespaced()]


def _cluster_roles() -> Iterator[Object]:
    for name, rules in CLUSTER_ROLES.items():
        aggregated = name.startswith("system:aggregate-to-")
        labels = {f"{_GROUP}/{name.removeprefix('system:')}": "true"} if aggregated else {}
        yield {**_object("ClusterRole", name, labels=labels), "rules": rules}


def _aggregated() -> Iterator[Object]:
    for name, parts in AGGREGATED.items():
        selectors = [{"matchLabels": {f"{_GROUP}/aggregate-to-{name}": "true"}}]
        into = {"edit": "admin", "view": "edit"}.get(name)
        labels = {f"{_GROUP}/aggregate-to-{into}": "true"} if into else {}
        yield {
            **_object("ClusterRole", name, labels=labels),
            "aggregationRule": {"clusterRoleSelectors": selectors},
            "rules": [rule for part in parts for rule in CLUSTER_ROLES[f"system:aggregate-to-{part}"]],
        }


def _cluster_bindings() -> Iterator[Object]:
    for name, (role, subjects) in BINDINGS.items():
        yield _bind("ClusterRoleBinding", name, "ClusterRole", role, subjects)


def _controllers() -> Iterator[Object]:
    for account, rules in CONTROLLERS.items():
        name = _CONTROLLER + account
        yield {**_object("ClusterRole", name), "rules": rules}
        yield _bind("ClusterRoleBinding", name, "ClusterRole", name, [("ServiceAccount", account)])


def _namespaced() -> Iterator[Object]:
    for (namespace, name), rules in ROLES.items():
        yield {**_object("Role", name, namespace), "rules": rules}
    for (namespace, name), (role, subjects) in ROLE_BINDINGS.items():
        yield _bind("RoleBinding", name, "Role", role, subjects, namespace)


def _object(kind: str, name: str, namespace: str = "", labels: dict[str, str] | None = None) -> Object:
    meta: Object = {
        "name": name,
        "labels": {"kubernetes.io/bootstrapping": "rbac-defaults", **(labels or {})},
        "annotations": {"rbac.authorization.kubernetes.io/autoupdate": "true"},
    }
    if namespace:
        meta["namespace"] = namespace
    return {"kind": kind, "apiVersion": f"{_GROUP}/v1", "metadata": meta}


def _bind(
    kind: str, name: str, role_kind: str, role: str, subjects: Iterable[tuple[str, str]], namespace: str = ""
) -> Object:
    return {
        **_object(kind, name, namespace),
        "roleRef": {"apiGroup": _GROUP, "kind": role_kind, "name": role},
        "subjects": [_subject(*each) for each in subjects],
    }


def _subject(kind: str, name: str) -> Object:
    if kind == "ServiceAccount":
        return {"kind": kind, "name": name, "namespace": "kube-system"}
    return {"kind": kind, "name": name, "apiGroup": _GROUP}
