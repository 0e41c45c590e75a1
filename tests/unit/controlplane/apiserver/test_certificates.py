"""Certificate requests: the server writes who asked; approving and signing are permissions."""

import base64
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from controlplane.apiserver.http import User

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
