"""Roles that hold in one namespace only, and their bindings. Keys are (namespace, name)."""

from typing import Any

from controlplane.apiserver.authz.policy.rules import EVENTS, can

Object = dict[str, Any]
_SYSTEM, _PUBLIC = "kube-system", "kube-public"
_SIGNER = "system:controller:bootstrap-signer"
_CLOUD = "system:controller:cloud-provider"
_CLEANER = "system:controller:token-cleaner"
_AUTHENTICATION = "extension-apiserver-authentication-reader"
_LEASES = "kube-node-lease"
_INFO, _HEARTBEATS = "wherry:cluster-info", "wherry:heartbeats"
_LOCK = "system::leader-locking-"
_MANAGER, _SCHEDULER = "kube-controller-manager", "kube-scheduler"


def _lock(component: str) -> list[Object]:
    """Leader election as it was long ago, by a ConfigMap of the component's name."""
    return [can("watch", "core", "configmaps"), can("get update", "core", "configmaps", component)]


ROLES: dict[tuple[str, str], list[Object]] = {
    # What an extension API server needs to know to recognise our callers.
    (_SYSTEM, _AUTHENTICATION): [can("get list watch", "core", "configmaps", "extension-apiserver-authentication")],
    (_SYSTEM, _SIGNER): [can("get list watch", "core", "secrets")],
    (_SYSTEM, _CLOUD): [can("create get list watch", "core", "configmaps")],
    (_SYSTEM, _CLEANER): [can("get list watch delete", "core", "secrets"), EVENTS],
    (_SYSTEM, _LOCK + _MANAGER): [
        *_lock(_MANAGER),
        can("get list watch create update", "coordination.k8s.io", "leases"),
    ],
    (_SYSTEM, _LOCK + _SCHEDULER): _lock(_SCHEDULER),
    (_PUBLIC, _SIGNER): [
        can("get list watch", "core", "configmaps"),
        can("update", "core", "configmaps", "cluster-info"),
        EVENTS,
    ],
    # Ours, as kubeadm makes them: what a machine that joins reads before and after anybody knows it.
    (_PUBLIC, _INFO): [can("get", "core", "configmaps", "cluster-info")],
    (_LEASES, _HEARTBEATS): [can("get", "coordination.k8s.io", "leases")],
}

ROLE_BINDINGS: dict[tuple[str, str], tuple[str, list[tuple[str, str]]]] = {
    (_SYSTEM, f"system::{_AUTHENTICATION}"): (
        _AUTHENTICATION,
        [("User", f"system:{_MANAGER}"), ("User", f"system:{_SCHEDULER}")],
    ),
    (_SYSTEM, _LOCK + _MANAGER): (
        _LOCK + _MANAGER,
        [
            ("User", f"system:{_MANAGER}"),
            ("ServiceAccount", _MANAGER),
            ("ServiceAccount", "leader-election-controller"),
        ],
    ),
    (_SYSTEM, _LOCK + _SCHEDULER): (
        _LOCK + _SCHEDULER,
        [("User", f"system:{_SCHEDULER}"), ("ServiceAccount", _SCHEDULER)],
    ),
    (_SYSTEM, _SIGNER): (_SIGNER, [("ServiceAccount", "bootstrap-signer")]),
    (_SYSTEM, _CLOUD): (_CLOUD, [("ServiceAccount", "cloud-provider")]),
    (_SYSTEM, _CLEANER): (_CLEANER, [("ServiceAccount", "token-cleaner")]),
    (_PUBLIC, _SIGNER): (_SIGNER, [("ServiceAccount", "bootstrap-signer")]),
    (_PUBLIC, _INFO): (_INFO, [("Group", "system:unauthenticated"), ("Group", "system:authenticated")]),
    (_LEASES, _HEARTBEATS): (_HEARTBEATS, [("Group", "system:bootstrappers")]),
}
"""Role of the same namespace, and subjects as (kind, name); service accounts are those of kube-system."""
