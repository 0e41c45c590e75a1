"""Which FlowSchema a request belongs to, with the objects that every cluster starts with."""

from __future__ import annotations

import pytest

from controlplane.apiserver.flowcontrol.defaults import objects
from controlplane.apiserver.flowcontrol.schemas import Classifier
from controlplane.apiserver.http import Request, User
from controlplane.apiserver.requestinfo import parse

CLASSIFIER = Classifier.of([o for o in objects() if o["kind"] == "FlowSchema"])
AUTHENTICATED = "system:authenticated"
ADMIN = User("kubernetes-admin", ("system:masters", AUTHENTICATED))
NODE = User("system:node:n1", ("system:nodes", AUTHENTICATED))
CONTROLLERS = User("system:kube-controller-manager", (AUTHENTICATED,))
ACCOUNT = User("system:serviceaccount:team:bot", ("system:serviceaccounts", AUTHENTICATED))
SYSTEM_ACCOUNT = User("system:serviceaccount:kube-system:dns", ("system:serviceaccounts", AUTHENTICATED))
ALICE, NOBODY = User("alice", (AUTHENTICATED,)), User("system:anonymous", ("system:unauthenticated",))
LEASE = "/apis/coordination.k8s.io/v1/namespaces"


@pytest.mark.parametrize(
    ("user", "method", "path", "schema", "level", "flow"),
    [
        (ADMIN, "GET", "/api/v1/pods", "exempt", "exempt", ""),
        (NOBODY, "GET", "/healthz", "probes", "exempt", ""),
        (CONTROLLERS, "PUT", f"{LEASE}/kube-system/leases/x", "system-leader-election", "leader-election", "c"),
        (NODE, "PUT", f"{LEASE}/kube-node-lease/leases/n1", "system-node-high", "node-high", "system:node:n1"),
        (NODE, "PATCH", "/api/v1/nodes/n1/status", "system-node-high", "node-high", "system:node:n1"),
        (NODE, "PATCH", "/api/v1/namespaces/team/pods/p/status", "system-nodes", "system", "system:node:n1"),
        (CONTROLLERS, "POST", "/api/v1/namespaces/team/pods", "kube-controller-manager", "workload-high", "team"),
        (SYSTEM_ACCOUNT, "GET", "/api/v1/services", "kube-system-service-accounts", "workload-high", ""),
        (ACCOUNT, "GET", "/api/v1/pods", "service-accounts", "workload-low", ACCOUNT.name),
        (ALICE, "GET", "/api/v1/pods", "global-default", "global-default", "alice"),
        (ALICE, "GET", "/version", "global-default", "global-default", "alice"),
        (NOBODY, "GET", "/api", "global-default", "global-default", "system:anonymous"),
    ],
)
def test_where_requests_go(user, method, path, schema, level, flow) -> None:
    info = parse(Request(method, path))
    found = CLASSIFIER.find(user, info)
    assert (found.name, found.level) == (schema, level)
    assert found.flow(user, info) == (user.name if flow == "c" else flow)
    assert CLASSIFIER.find(user, info) is found


def test_the_lower_precedence_wins_and_rules_need_subject_and_request() -> None:
    mine = {
        "metadata": {"name": "mine", "uid": "u"},
        "spec": {
            "matchingPrecedence": 5, "priorityLevelConfiguration": {"name": "workload-high"},
            "rules": [{
                "subjects": [{"kind": "User", "user": {"name": "alice"}}],
                "resourceRules": [
                    {"verbs": ["get"], "apiGroups": [""], "resources": ["pods/log"], "namespaces": ["a"]},
                ],
                "nonResourceRules": [{"verbs": ["get"], "nonResourceURLs": ["/openapi/*"]}],
            }],
        },
    }  # fmt: skip
    classifier = Classifier.of([mine, *(o for o in objects() if o["kind"] == "FlowSchema")])

    def of(user: User, path: str) -> str:
        return classifier.find(user, parse(Request("GET", path))).name

    assert of(ALICE, "/api/v1/namespaces/a/pods/p/log") == "mine" and of(ALICE, "/openapi/v3") == "mine"
    assert of(ALICE, "/api/v1/namespaces/b/pods/p/log") == "global-default"
    assert of(ALICE, "/api/v1/namespaces/a/pods/p") == "global-default"
    assert of(NODE, "/api/v1/namespaces/a/pods/p/log") == "system-nodes"
