"""The FlowSchemas and PriorityLevelConfigurations that every cluster starts with.

Source: k8s.io/apiserver/pkg/apis/flowcontrol/bootstrap/default.go. An administrator may change the suggested ones
(annotation apf.kubernetes.io/autoupdate-spec: "false" keeps the server from setting them back); exempt and catch-all
are mandatory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

Object = dict[str, Any]
API_VERSION = "flowcontrol.apiserver.k8s.io/v1"
AUTOUPDATE = "apf.kubernetes.io/autoupdate-spec"
MANDATORY = ("exempt", "catch-all")

_ALL: Object = {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": True}
_EVERY_PATH: Object = {"verbs": ["*"], "nonResourceURLs": ["*"]}


def objects() -> Iterator[Object]:
    """All of them, levels first."""
    yield _object("PriorityLevelConfiguration", "exempt", {
        "type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0},
    })  # fmt: skip
    yield _level("catch-all", 5, 0)
    for name, shares, lendable, queues, hand in _LEVELS:
        yield _level(name, shares, lendable, queues, hand)
    for name, level, precedence, by, rules in _SCHEMAS:
        spec: Object = {
            "priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence, "rules": rules,
        }  # fmt: skip
        if by:
            spec["distinguisherMethod"] = {"type": by}
        yield _object("FlowSchema", name, spec)


def _object(kind: str, name: str, spec: Object) -> Object:
    meta = {"name": name, "annotations": {AUTOUPDATE: "true"}}
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": meta, "spec": spec}


def _level(name: str, shares: int, lendable: int, queues: int = 0, hand: int = 0) -> Object:
    response: Object = {"type": "Reject"}
    if queues:
        response = {"type": "Queue", "queuing": {"queues": queues, "handSize": hand, "queueLengthLimit": 50}}
    limited = {"nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response}
    return _object("PriorityLevelConfiguration", name, {"type": "Limited", "limited": limited})


_LEVELS = (  # name, shares, lendable percent, queues, hand
    ("system", 30, 33, 64, 6),
    ("node-high", 40, 25, 64, 6),
    ("leader-election", 10, 0, 16, 4),
    ("workload-high", 40, 50, 128, 6),
    ("workload-low", 100, 90, 128, 6),
    ("global-default", 20, 50, 128, 6),
)


def _users(*names: str) -> list[Object]:
    return [{"kind": "User", "user": {"name": name}} for name in names]


def _groups(*names: str) -> list[Object]:
    return [{"kind": "Group", "group": {"name": name}} for name in names]


def _accounts(namespace: str, *names: str) -> list[Object]:
    return [{"kind": "ServiceAccount", "serviceAccount": {"namespace": namespace, "name": name}} for name in names]


def _resources(
    verbs: Sequence[str], group: str, *names: str, namespaces: Sequence[str] = ("*",), cluster: bool = True
) -> Object:
    rule: Object = {
        "verbs": list(verbs), "apiGroups": [group], "resources": list(names), "namespaces": list(namespaces),
    }  # fmt: skip
    return rule | ({"clusterScope": True} if cluster else {})


def _rule(subjects: list[Object], resources: Sequence[Object] = (), paths: Sequence[Object] = ()) -> Object:
    rule: Object = {"subjects": subjects}
    if resources:
        rule["resourceRules"] = list(resources)
    if paths:
        rule["nonResourceRules"] = list(paths)
    return rule


_EVERYTHING = ([_ALL], [_EVERY_PATH])
_ELECTION = ("get", "create", "update")
_SYSTEM = ("kube-system",)

_SCHEMAS: tuple[tuple[str, str, int, str, list[Object]], ...] = (  # name, level, precedence, distinguisher, rules
    ("exempt", "exempt", 1, "", [_rule(_groups("system:masters"), *_EVERYTHING)]),
    ("probes", "exempt", 2, "", [_rule(
        _groups("system:unauthenticated", "system:authenticated"), (),
        [{"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]}],
    )]),
    ("system-leader-election", "leader-election", 100, "ByUser", [_rule(
        _users("system:kube-controller-manager", "system:kube-scheduler"),
        [_resources(_ELECTION, "coordination.k8s.io", "leases", namespaces=_SYSTEM, cluster=False)],
    ), _rule(
        _accounts("kube-system", "*"),
        [_resources(_ELECTION, "coordination.k8s.io", "leases", namespaces=_SYSTEM, cluster=False)],
    )]),
    ("endpoint-controller", "workload-high", 150, "ByUser", [_rule(
        [*_users("system:kube-controller-manager"),
         *_accounts("kube-system", "endpoint-controller", "endpointslicemirroring-controller")],
        [_resources(("get", "create", "update"), "", "endpoints", cluster=False)],
    )]),
    ("workload-leader-election", "leader-election", 200, "ByUser", [_rule(
        _accounts("kube-system", "*"),
        [_resources(_ELECTION, "", "endpoints", "configmaps", cluster=False),
         _resources(_ELECTION, "coordination.k8s.io", "leases", cluster=False)],
    )]),
    ("system-node-high", "node-high", 400, "ByUser", [_rule(
        _groups("system:nodes"),
        [_resources(("*",), "", "nodes", "nodes/status"), _resources(("*",), "coordination.k8s.io", "leases")],
    )]),
    ("system-nodes", "system", 500, "ByUser", [_rule(_groups("system:nodes"), *_EVERYTHING)]),
    ("kube-controller-manager", "workload-high", 800, "ByNamespace",
     [_rule(_users("system:kube-controller-manager"), *_EVERYTHING)]),
    ("kube-scheduler", "workload-high", 800, "ByNamespace", [_rule(_users("system:kube-scheduler"), *_EVERYTHING)]),
    ("kube-system-service-accounts", "workload-high", 900, "ByNamespace",
     [_rule(_accounts("kube-system", "*"), *_EVERYTHING)]),
    ("service-accounts", "workload-low", 9000, "ByUser", [_rule(_groups("system:serviceaccounts"), *_EVERYTHING)]),
    ("global-default", "global-default", 9900, "ByUser",
     [_rule(_groups("system:unauthenticated", "system:authenticated"), *_EVERYTHING)]),
    ("catch-all", "catch-all", 10000, "ByUser",
     [_rule(_groups("system:unauthenticated", "system:authenticated"), *_EVERYTHING)]),
)  # fmt: skip
