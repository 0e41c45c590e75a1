"""Bearer tokens: ServiceAccounts' and bootstrap tokens, good and no longer good."""

import base64
from typing import Any

import pytest

NS = "/api/v1/namespaces/team"
REVIEW = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


async def who(api: Any, token: str) -> Any:
    answer = await api("POST", REVIEW, {}, user=None, headers={"Authorization": f"Bearer {token}"})
    return answer.body["status"]["userInfo"] if answer.status == 201 else answer.status


@pytest.fixture
async def team(api: Any) -> None:
    await api.namespace("team")


async def issue(api: Any, spec: Any) -> str:
    made = await api.ok("POST", f"{NS}/serviceaccounts/default/token", {"spec": spec})
    return str(made["status"]["token"])


async def test_a_token_is_its_service_account_until_that_is_gone(api: Any, team: None) -> None:
    token = await issue(api, {})
    info = await who(api, token)
    assert info["username"] == "system:serviceaccount:team:default"
    assert "system:serviceaccounts:team" in info["groups"]
    await api.ok("DELETE", f"{NS}/serviceaccounts/default")
    assert await who(api, token) == 401
    await api.ok("POST", f"{NS}/serviceaccounts", {"metadata": {"name": "default"}})
    assert await who(api, token) == 401, "another account of the same name is not the same account"


async def test_a_bound_token_dies_with_its_pod(api: Any, team: None, pod: Any) -> None:
    await api.ok("POST", f"{NS}/pods", pod("web"))
    token = await issue(api, {"boundObjectRef": {"kind": "Pod", "apiVersion": "v1", "name": "web"}})
    info = await who(api, token)
    assert info["extra"]["authentication.kubernetes.io/pod-name"] == ["web"]
    await api.ok("DELETE", f"{NS}/pods/web")
    assert await who(api, token) == 401


async def test_another_audience_and_bad_tokens(api: Any, team: None) -> None:
    token = await issue(api, {"audiences": ["somebody-else"]})
    assert await who(api, token) == 401
    for bad in ("x", token[:-4] + "AAAA", "a.b.c", "abcdef.0123456789abcdef"):
        assert await who(api, bad) == 401
    review = {"spec": {"token": token, "audiences": ["somebody-else"]}}
    answer = await api.ok("POST", "/apis/authentication.k8s.io/v1/tokenreviews", review)
    assert answer["status"]["authenticated"] is True
    assert answer["status"]["audiences"] == ["somebody-else"]


async def test_too_short_a_token_is_invalid(api: Any, team: None) -> None:
    answer = await api("POST", f"{NS}/serviceaccounts/default/token", {"spec": {"expirationSeconds": 10}})
    assert answer.status == 422
    assert answer.body["details"]["causes"][0]["field"] == "spec.expirationSeconds"


async def test_bootstrap_tokens(api: Any) -> None:
    def text(value: str) -> str:
        return base64.b64encode(value.encode()).decode()

    data = {
        "token-id": text("abcdef"),
        "token-secret": text("0123456789abcdef"),
        "usage-bootstrap-authentication": text("true"),
        "auth-extra-groups": text("system:bootstrappers:lab,system:masters"),
    }
    secret = {"metadata": {"name": "bootstrap-token-abcdef"}, "type": "bootstrap.kubernetes.io/token", "data": data}
    path = "/api/v1/namespaces/kube-system/secrets"
    await api.ok("POST", path, secret)
    info = await who(api, "abcdef.0123456789abcdef")
    assert info["username"] == "system:bootstrap:abcdef"
    assert info["groups"] == ["system:bootstrappers", "system:bootstrappers:lab", "system:authenticated"]
    assert await who(api, "abcdef.0123456789abcdeX") == 401
    assert await who(api, "abcdef.0123456789abcdee") == 401
    expired = {"data": {"expiration": text("2020-01-01T00:00:00Z")}}
    await api.ok("PATCH", f"{path}/bootstrap-token-abcdef", expired, kind="application/merge-patch+json")
    assert await who(api, "abcdef.0123456789abcdef") == 401
    assert await refusal(api, "abcdef.0123456789abcdef") == "BootstrapTokenExpired"


async def refusal(api: Any, token: str, target: str = "/api") -> str:
    """Why a bootstrap token is refused, "" if it is not."""
    answer = await api("GET", target, user=None, headers={"Authorization": f"Bearer {token}"})
    if answer.status != 401:
        return ""
    assert answer.body["message"].startswith("Unauthorized: the bootstrap token ")
    return str(answer.body["details"]["causes"][0]["reason"])


async def test_a_used_bootstrap_token_opens_its_own_request_only(api: Any) -> None:
    def text(value: str) -> str:
        return base64.b64encode(value.encode()).decode()

    data = {
        "token-id": text("abcdef"),
        "token-secret": text("0123456789abcdef"),
        "usage-bootstrap-authentication": text("true"),
        "max-uses": text("1"),
    }
    secret = {"metadata": {"name": "bootstrap-token-abcdef"}, "type": "bootstrap.kubernetes.io/token", "data": data}
    path = "/api/v1/namespaces/kube-system/secrets"
    await api.ok("POST", path, secret)
    good = "abcdef.0123456789abcdef"
    assert (await who(api, good))["username"] == "system:bootstrap:abcdef"
    used = {"data": {"used-by-request": text("csr-1/uid"), "used-for": text("system:node:n1")}}
    await api.ok("PATCH", f"{path}/bootstrap-token-abcdef", used, kind="application/merge-patch+json")
    assert await refusal(api, good) == "BootstrapTokenAlreadyUsed"
    requests = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
    assert await refusal(api, good, f"{requests}/csr-1") == ""
    for elsewhere in (f"{requests}/csr-2", requests, f"{requests}/csr-1/status", "/api/v1/nodes/csr-1"):
        assert await refusal(api, good, elsewhere) == "BootstrapTokenAlreadyUsed"
    assert await refusal(api, "abcdef.0123456789abcdee") == "BootstrapTokenUnknown", "no word to who guesses"
    assert await refusal(api, "abcdee.0123456789abcdef") == "BootstrapTokenUnknown"


async def test_anonymous_sees_only_what_is_public(api: Any) -> None:
    for path in ("/version", "/healthz", "/livez", "/readyz"):
        assert (await api("GET", path, user=None)).status == 200
    for path in ("/api", "/api/v1/namespaces", "/metrics", "/openapi/v3"):
        answer = await api("GET", path, user=None)
        assert (answer.status, answer.body["reason"]) == (403, "Forbidden")
        assert "system:anonymous" in answer.body["message"]
