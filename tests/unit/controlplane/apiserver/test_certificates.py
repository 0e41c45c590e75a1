"""Certificate requests: the server writes who asked; approving and signing are permissions."""

import base64
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from controlplane.apiserver.http import User
from pki.authority import Authority

PATH = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
JANE = User("jane", ("developers", "system:authenticated"))


def csr(name: str, organization: str = "", signer: str = "kubernetes.io/kube-apiserver-client") -> dict[str, Any]:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, "jane")]
    if organization:
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization))
    key = ec.generate_private_key(ec.SECP256R1())
    made = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(attributes)).sign(key, hashes.SHA256())
    request = base64.b64encode(made.public_bytes(serialization.Encoding.PEM)).decode()
    return {
        "metadata": {"name": name},
        "spec": {"request": request, "signerName": signer, "usages": ["client auth"], "username": "somebody-else"},
    }


async def grant(api: Any, verb: str, resource: str, names: list[str] | None = None) -> None:
    """Let jane do one thing with certificates."""
    name = f"{verb}-{resource.replace('/', '-')}"
    rule: dict[str, Any] = {"apiGroups": ["certificates.k8s.io"], "resources": [resource], "verbs": [verb]}
    if names:
        rule["resourceNames"] = names
    root = "/apis/rbac.authorization.k8s.io/v1"
    await api.ok("POST", f"{root}/clusterroles", {"metadata": {"name": name}, "rules": [rule]})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
    subjects = [{"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}]
    binding = {"metadata": {"name": name}, "roleRef": reference, "subjects": subjects}
    await api.ok("POST", f"{root}/clusterrolebindings", binding)


async def test_who_asked_is_written_by_the_server(api: Any) -> None:
    await grant(api, "create", "certificatesigningrequests")
    made = await api.ok("POST", PATH, csr("a"), user=JANE)
    assert made["spec"]["username"] == "jane"
    assert made["spec"]["groups"] == ["developers", "system:authenticated"]
    assert "status" not in made or not made["status"].get("conditions")


async def test_nobody_becomes_master_by_a_request(api: Any) -> None:
    assert (await api("POST", PATH, csr("a", "system:masters"))).status == 403


async def test_approval_is_a_permission_on_the_signer(api: Any) -> None:
    made = await api.ok("POST", PATH, csr("a"))
    await grant(api, "update", "certificatesigningrequests/approval")
    condition = {"type": "Approved", "status": "True", "reason": "ok"}
    wanted = {**made, "status": {"conditions": [condition], "certificate": "Zm9yZ2Vk"}}
    assert (await api("PUT", f"{PATH}/a/approval", wanted, user=JANE)).status == 403
    await grant(api, "approve", "signers", ["kubernetes.io/*"])
    forged = {**wanted, "spec": {**made["spec"], "username": "system:admin"}}
    approved = await api.ok("PUT", f"{PATH}/a/approval", forged, user=JANE)
    assert approved["status"]["conditions"][0]["type"] == "Approved"
    assert approved["status"]["conditions"][0]["lastUpdateTime"]
    assert "certificate" not in approved["status"]
    assert approved["spec"]["username"] == "kubernetes-admin"


async def test_status_cannot_approve(api: Any) -> None:
    made = await api.ok("POST", PATH, csr("a"))
    condition = {"type": "Approved", "status": "True", "reason": "ok"}
    wanted = {**made, "status": {"conditions": [condition]}}
    updated = await api.ok("PUT", f"{PATH}/a/status", wanted)
    assert not updated["status"].get("conditions")


def _replaced(made: dict[str, Any], **status: Any) -> dict[str, Any]:
    return {**made, "status": {**made.get("status", {}), **status}}


@pytest.mark.parametrize(
    ("field", "value", "reason", "text"),
    [
        ("request", "bm8=", "FieldValueInvalid", "PEM block type must be CERTIFICATE REQUEST"),
        ("request", "?", "FieldValueInvalid", ""),
        ("usages", [], "FieldValueRequired", "usages are required"),
        ("usages", ["client auth", "wishes"], "FieldValueNotSupported", "wishes"),
        ("usages", ["client auth", "client auth"], "FieldValueDuplicate", "client auth"),
        ("signerName", "nobody", "FieldValueInvalid", "fully qualified domain and path"),
        ("signerName", "kubernetes.io/legacy-unknown", "FieldValueInvalid", "the legacy signerName is not allowed"),
        ("expirationSeconds", 599, "FieldValueInvalid", "600 seconds"),
    ],
)
async def test_what_is_no_request(api: Any, field: str, value: Any, reason: str, text: str) -> None:
    asked = csr("a")
    asked["spec"][field] = value
    answer = await api("POST", PATH, asked)
    assert answer.status in (400, 422), answer
    if answer.status == 422:
        cause = answer.body["details"]["causes"][0]
        assert (cause["reason"], cause["field"].partition("[")[0]) == (reason, f"spec.{field}")
        assert text in cause["message"]


async def test_a_request_signed_with_another_key_is_refused(api: Any) -> None:
    asked = csr("a")
    der = bytearray(base64.b64decode(asked["spec"]["request"]))
    lines = bytes(der).decode().splitlines()
    body = bytearray(base64.b64decode("".join(lines[1:-1])))
    body[-1] ^= 1
    pem = "\n".join([lines[0], base64.b64encode(bytes(body)).decode(), lines[-1], ""])
    asked["spec"]["request"] = base64.b64encode(pem.encode()).decode()
    answer = await api("POST", PATH, asked)
    assert answer.status == 422, answer
    assert "signed" in answer.body["message"]


async def test_decisions_and_certificates_are_final(api: Any) -> None:
    made = await api.ok("POST", PATH, csr("a"))
    yes = {"type": "Approved", "status": "True", "reason": "ok", "message": "m"}
    no = {"type": "Denied", "status": "True", "reason": "no"}
    both = await api("PUT", f"{PATH}/a/approval", _replaced(made, conditions=[yes, no]))
    assert both.status == 422 and "mutually exclusive" in both.body["message"]
    half = await api("PUT", f"{PATH}/a/approval", _replaced(made, conditions=[{**yes, "status": "False"}]))
    assert half.status == 422 and "Unsupported value" in half.body["message"]
    approved = await api.ok("PUT", f"{PATH}/a/approval", _replaced(made, conditions=[yes]))
    gone = await api("PUT", f"{PATH}/a/approval", _replaced(approved, conditions=[]))
    assert gone.status == 422 and 'may not remove a condition of type "Approved"' in gone.body["message"]
    [decided] = approved["status"]["conditions"]
    other = await api("PUT", f"{PATH}/a/approval", _replaced(approved, conditions=[{**decided, "message": "other"}]))
    assert other.status == 422 and 'may not modify a condition of type "Approved"' in other.body["message"]
    junk = await api("PUT", f"{PATH}/a/status", _replaced(approved, certificate="bm8="))
    assert junk.status == 422 and junk.body["details"]["causes"][0]["field"] == "status.certificate"
    pem = Authority.create(datetime.now(UTC)).pem()
    signed = await api.ok("PUT", f"{PATH}/a/status", _replaced(approved, certificate=base64.b64encode(pem).decode()))
    again = Authority.create(datetime.now(UTC)).pem()
    twice = await api("PUT", f"{PATH}/a/status", _replaced(signed, certificate=base64.b64encode(again).decode()))
    assert twice.status == 422 and "may not modify existing certificate content" in twice.body["message"]
    assert (await api.ok("GET", f"{PATH}/a"))["status"]["certificate"] == base64.b64encode(pem).decode()
