"""What the controllers of CertificateSigningRequests share: reading one, and the rules of Kubernetes' own signers.

`breach(signer, request, usages)` says why a request may not be signed by one of the `kubernetes.io/` signers, which are
promises about what their certificates can be used for. Source: kubernetes.io/docs, "Certificates and Certificate
Signing Requests", table of signers.
"""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass

from controlplane.controllers import meta
from pki import requests

CLIENT = "kubernetes.io/kube-apiserver-client"
KUBELET_CLIENT = "kubernetes.io/kube-apiserver-client-kubelet"
KUBELET_SERVING = "kubernetes.io/kubelet-serving"
LEGACY = "kubernetes.io/legacy-unknown"
APISERVER_SERVING = "wherry.internal/kube-apiserver-serving"
"""Ours: the API server's serving certificate, asked for by the API server itself."""

PEER_ADDRESS = "wherry.internal/peer-address"
"""spec.extra entry in which the API server says where a node's request came from."""

NODES = "system:nodes"
NODE_PREFIX = "system:node:"
BOOTSTRAP_PREFIX = "system:bootstrap:"


@dataclass(frozen=True, slots=True)
class Csr:
    """A CertificateSigningRequest, read."""

    name: str
    uid: str
    signer: str
    username: str
    groups: tuple[str, ...]
    usages: tuple[str, ...]
    request: requests.SigningRequest


def read(obj: meta.Object) -> Csr:
    """Raises pki.requests.NotARequest if spec.request is none."""
    spec = obj["spec"]
    try:
        pem = base64.b64decode(spec["request"], validate=True)
    except binascii.Error as error:
        raise requests.NotARequest(str(error)) from error
    return Csr(
        meta.name(obj), meta.uid(obj), spec["signerName"], spec.get("username") or "",
        tuple(spec.get("groups") or ()), tuple(spec.get("usages") or ()), requests.parse(pem),
    )  # fmt: skip


def decided(obj: meta.Object) -> set[str]:
    """The types of its conditions: Approved, Denied, Failed."""
    return {c["type"] for c in meta.status(obj).get("conditions") or () if c.get("status", "True") == "True"}


def issued(obj: meta.Object) -> bool:
    return bool(meta.status(obj).get("certificate"))


def breach(signer: str, request: requests.SigningRequest, usages: Sequence[str]) -> str:
    """Why `signer` may not sign this; empty if it may."""
    return {
        CLIENT: _client, KUBELET_CLIENT: _kubelet_client, KUBELET_SERVING: _kubelet_serving,
        APISERVER_SERVING: _apiserver_serving,
    }.get(signer, _anything)(request, set(usages))  # fmt: skip


def _anything(request: requests.SigningRequest, usages: set[str]) -> str:
    return ""


def _client(request: requests.SigningRequest, usages: set[str]) -> str:
    return _usages(usages, "client auth")


def _kubelet_client(request: requests.SigningRequest, usages: set[str]) -> str:
    if request.alternatives:
        return "subject alternative names are not allowed"
    return _node_subject(request) or _usages(usages, "client auth", exactly=True)


def _kubelet_serving(request: requests.SigningRequest, usages: set[str]) -> str:
    if request.other_names:
        return "only DNS names and IP addresses are allowed as subject alternative names"
    if not request.dns_names and not request.ip_addresses:
        return "at least one DNS name or IP address is required as subject alternative name"
    return _node_subject(request) or _usages(usages, "server auth", exactly=True)


def _apiserver_serving(request: requests.SigningRequest, usages: set[str]) -> str:
    return _usages(usages, "server auth")


def _node_subject(request: requests.SigningRequest) -> str:
    if request.organizations != [NODES]:
        return f"organization is not {NODES}"
    if not request.common_name.startswith(NODE_PREFIX) or request.common_name == NODE_PREFIX:
        return f"common name does not start with {NODE_PREFIX}"
    return ""


def _usages(usages: set[str], needed: str, *, exactly: bool = False) -> str:
    """`exactly`: the digital signature must be among them, as Kubernetes asks of kubelets."""
    if needed not in usages or (exactly and "digital signature" not in usages):
        return f"usages did not contain {needed!r}" if needed not in usages else "usages lack 'digital signature'"
    more = usages - {needed, "digital signature", "key encipherment"}
    return f"usages {', '.join(sorted(more))} are not allowed" if more else ""
