"""How much is told of which request."""

from __future__ import annotations

import pytest

from controlplane.apiserver.audit.policy import Level, Policy, PolicyError
from controlplane.apiserver.http import Request, User
from controlplane.apiserver.requestinfo import parse

ALICE = User("alice", ("dev", "system:authenticated"))
PROXY = User("system:kube-proxy", ("system:authenticated",))


def policy(*rules, **more) -> Policy:
    return Policy.parse({"apiVersion": "audit.k8s.io/v1", "kind": "Policy", "rules": list(rules), **more})


def level(found: Policy, method: str, path: str, user: User = ALICE) -> Level:
    return found.decide(user, parse(Request(method, *path.partition("?")[::2]))).level


def test_the_first_rule_that_fits_decides() -> None:
    found = policy(
        {"level": "None", "users": ["system:kube-proxy"], "verbs": ["watch"],
         "resources": [{"group": "", "resources": ["endpoints", "services"]}]},
        {"level": "Metadata", "resources": [{"group": "", "resources": ["secrets", "configmaps"]}]},
        {"level": "RequestResponse", "resources": [{"group": "apps"}], "namespaces": ["prod"]},
        {"level": "Request", "resources": [{"group": "", "resources": ["pods/*"], "resourceNames": ["web"]}]},
        {"level": "None", "nonResourceURLs": ["/healthz*", "/version"]},
        {"level": "Metadata", "userGroups": ["dev"]},
    )  # fmt: skip
    assert level(found, "GET", "/api/v1/services?watch=1", PROXY) is Level.NONE
    assert level(found, "GET", "/api/v1/services", PROXY) is Level.NONE  # nothing fits
    assert level(found, "GET", "/api/v1/namespaces/a/secrets/s") is Level.METADATA
    assert level(found, "PUT", "/apis/apps/v1/namespaces/prod/deployments/d") is Level.REQUEST_RESPONSE
    assert level(found, "PUT", "/apis/apps/v1/namespaces/test/deployments/d") is Level.METADATA
    assert level(found, "POST", "/api/v1/namespaces/a/pods/web/exec") is Level.REQUEST
    assert level(found, "POST", "/api/v1/namespaces/a/pods/other/exec", PROXY) is Level.NONE
    assert level(found, "GET", "/healthz/ping") is Level.NONE and level(found, "GET", "/metrics") is Level.METADATA


def test_stages_and_managers_are_left_out_everywhere_or_by_rule() -> None:
    found = policy(
        {"level": "Metadata", "verbs": ["get"], "omitStages": ["ResponseStarted"], "omitManagedFields": False},
        {"level": "Metadata"}, omitStages=["RequestReceived"], omitManagedFields=True,
    )  # fmt: skip
    first = found.decide(ALICE, parse(Request("GET", "/api/v1/namespaces/a/pods/p")))
    assert first.omit_stages == {"RequestReceived", "ResponseStarted"} and not first.omit_managed_fields
    assert found.decide(ALICE, parse(Request("POST", "/api/v1/namespaces/a/pods"))).omit_managed_fields


@pytest.mark.parametrize(
    ("document", "message"),
    [
        (None, "kind must be Policy"),
        ({"kind": "Policy", "apiVersion": "audit.k8s.io/v2", "rules": [{}]}, "apiVersion"),
        ({"kind": "Policy", "apiVersion": "audit.k8s.io/v1"}, "rules: required"),
        ([{"level": "Everything"}], r"rules\[0\].level: unsupported value 'Everything'"),
        ([{"level": "None"}, {"level": "None", "user": ["a"]}], r"rules\[1\].user: unknown field"),
        ([{"level": "None", "users": "a"}], r"rules\[0\].users: must be a list"),
        ([{"level": "None", "omitStages": ["Never"]}], "Never"),
        ([{"level": "None", "resources": [{"group": ""}], "nonResourceURLs": ["/x"]}], "both"),
        ([{"level": "None", "resources": [{"resourceNames": ["a"]}]}], "at least one resource"),
    ],
)
def test_a_bad_policy_says_where(document, message) -> None:
    if isinstance(document, list):
        document = {"kind": "Policy", "apiVersion": "audit.k8s.io/v1", "rules": document}
    with pytest.raises(PolicyError, match=message):
        Policy.parse(document)
