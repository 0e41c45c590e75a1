"""Certificate requests: who asked is written by the server; approving and signing are permissions of their own.

Three of Kubernetes' plugins: CertificateApproval, CertificateSigning (verbs `approve` and `sign` on signers), and
CertificateSubjectRestriction (nobody becomes system:masters by a request).
"""

import base64
from typing import Any

from controlplane.api import status
from controlplane.apiserver.authz.authorizer import Authorizer
from controlplane.apiserver.registry.generic import Attributes
from controlplane.apiserver.requestinfo import RequestInfo

_GROUP = "certificates.k8s.io"
_CLIENT = "kubernetes.io/kube-apiserver-client"


class CertificateRequest:
    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    async def admit(self, a: Attributes) -> None:
        if a.resource.group != _GROUP or a.resource.plural != "certificatesigningrequests" or a.new is None:
            return
        if a.operation == "CREATE":
            self._created(a, a.new)
        elif a.subresource == "approval":
            self._may(a, "approve", a.new)
        elif a.subresource == "status" and _certificate(a.new) != _certificate(a.old or {}):
            self._may(a, "sign", a.new)

    def _created(self, a: Attributes, request: dict[str, Any]) -> None:
        spec = request.setdefault("spec", {})
        spec["username"], spec["groups"] = a.user.name, list(a.user.groups)
        for key in ("uid", "extra"):
            spec.pop(key, None)
        if a.user.uid:
            spec["uid"] = a.user.uid
        if a.user.extra:
            spec["extra"] = {key: list(values) for key, values in a.user.extra.items()}
        if spec.get("signerName") == _CLIENT and "system:masters" in _organizations(spec.get("request", "")):
            raise status.forbidden_object(
                a.resource.group_resource, a.name,
                f"use of {_CLIENT} signer with system:masters group is not allowed",
            )  # fmt: skip

    def _may(self, a: Attributes, verb: str, request: dict[str, Any]) -> None:
        signer = request.get("spec", {}).get("signerName", "")
        domain = signer.partition("/")[0] + "/*"
        for name in (signer, domain):
            if self._authorizer.allows(a.user, RequestInfo(True, "", verb, _GROUP, "*", "signers", name=name)):
                return
        raise status.forbidden_object(
            a.resource.group_resource, a.name, f'user not permitted to {verb} requests with signerName "{signer}"'
        )


def _certificate(obj: dict[str, Any]) -> Any:
    return obj.get("status", {}).get("certificate")


def _organizations(encoded: str) -> list[str]:
    """The subject's O values in a base64 PEM request; none if it is not one (validation says so)."""
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    try:
        request = x509.load_pem_x509_csr(base64.b64decode(encoded))
    except ValueError:
        return []
    return [str(each.value) for each in request.subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)]
