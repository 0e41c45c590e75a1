"""Rules for certificates.k8s.io/v1 CertificateSigningRequest: the request, its conditions, its certificate.

Wording as in Kubernetes' pkg/apis/certificates/validation. Whether a signer should sign is the signer's affair.
"""

import base64
from collections.abc import Iterable

from controlplane.api import names
from controlplane.api.status import Cause, duplicate, forbidden_field, invalid_value, not_supported, required
from controlplane.api.validation.common import Object

USAGES = (
    "any", "cert sign", "client auth", "code signing", "content commitment", "crl sign", "data encipherment",
    "decipher only", "digital signature", "email protection", "encipher only", "ipsec end system", "ipsec tunnel",
    "ipsec user", "key agreement", "key encipherment", "microsoft sgc", "netscape sgc", "ocsp signing", "s/mime",
    "server auth", "signing", "timestamping",
)  # fmt: skip
_LEGACY = "kubernetes.io/legacy-unknown"
_FINAL = ("Approved", "Denied", "Failed")


def signing_request(obj: Object) -> list[Cause]:
    """The spec of a new request."""
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    request = spec.get("request") or ""
    if trouble := _request_trouble(request):
        causes.append(invalid_value("spec.request", request, trouble))
    usages = spec.get("usages") or []
    if not usages:
        causes.append(required("spec.usages", "usages are required"))
    for index, usage in enumerate(usages):
        if usage not in USAGES:
            causes.append(not_supported(f"spec.usages[{index}]", usage, USAGES))
        elif usage in usages[:index]:
            causes.append(duplicate(f"spec.usages[{index}]", usage))
    causes += _signer(spec.get("signerName") or "")
    if spec.get("expirationSeconds", 600) < 600:
        text = "may not specify a duration less than 600 seconds (10 minutes)"
        causes.append(invalid_value("spec.expirationSeconds", spec["expirationSeconds"], text))
    return causes


def _signer(name: str) -> list[Cause]:
    at = "spec.signerName"
    if name == _LEGACY:
        return [invalid_value(at, name, "the legacy signerName is not allowed via this API version")]
    return signer_name(name, at)


def signer_name(name: str, at: str) -> list[Cause]:
    """Who signs: a domain and a path, "example.com/signer-name"."""
    if not name:
        return [required(at)]
    domain, slash, path = name.partition("/")
    if not slash or "/" in path or not path:
        text = "must be a fully qualified domain and path of the form 'example.com/signer-name'"
        return [invalid_value(at, name, text)]
    causes = [invalid_value(at, domain, each) for each in names.dns1123_subdomain(domain)]
    if "." not in domain:
        causes.append(invalid_value(at, domain, "should be a domain with at least two segments separated by dots"))
    return causes + [invalid_value(at, path, each) for each in names.dns1123_subdomain(path)]


def _request_trouble(encoded: str) -> str:
    """Why `encoded` is no request; empty if it is one, signed with its own key."""
    from cryptography import x509

    try:
        pem = base64.b64decode(encoded, validate=True)
    except ValueError:
        return "illegal base64 data"
    if b"-----BEGIN CERTIFICATE REQUEST-----" not in pem:
        return "PEM block type must be CERTIFICATE REQUEST"
    try:
        request = x509.load_pem_x509_csr(pem)
        return "" if request.is_signature_valid else "the request is not signed with its own key"
    except Exception as error:  # what malformed DER or an unknown key raises is not one kind
        return str(error) or type(error).__name__


def conditions(new: Iterable[Object], old: Iterable[Object]) -> list[Cause]:
    """All conditions of an update. Those that decide never change and never go."""
    at, causes, seen = "status.conditions", [], set()
    new, old = list(new), list(old)
    for index, each in enumerate(new):
        kind, value = each.get("type") or "", each.get("status") or ""
        if not kind:
            causes.append(required(f"{at}[{index}].type"))
        if not value:
            causes.append(required(f"{at}[{index}].status"))
        elif kind in _FINAL and value != "True":
            causes.append(not_supported(f"{at}[{index}].status", value, ("True",)))
        elif value not in ("True", "False", "Unknown"):
            causes.append(not_supported(f"{at}[{index}].status", value, ("True", "False", "Unknown")))
        if kind in seen:
            causes.append(duplicate(f"{at}[{index}].type", kind))
        seen.add(kind)
        if kind in ("Approved", "Denied") and {"Approved", "Denied"} <= seen:
            text = "Approved and Denied conditions are mutually exclusive"
            causes.append(invalid_value(f"{at}[{index}].type", kind, text))
    for kind in _FINAL:
        before = [c for c in old if c.get("type") == kind]
        after = [c for c in new if c.get("type") == kind]
        if len(after) < len(before):
            causes.append(forbidden_field(at, f'updates may not remove a condition of type "{kind}"'))
        elif before and after[: len(before)] != before:
            causes.append(forbidden_field(at, f'updates may not modify a condition of type "{kind}"'))
    return causes


def certificate(new: str, old: str) -> list[Cause]:
    """status.certificate of an update, base64: PEM certificates, set once."""
    from cryptography import x509

    at = "status.certificate"
    if new == old:
        return []
    if old:
        return [forbidden_field(at, "updates may not modify existing certificate content")]
    try:
        x509.load_pem_x509_certificates(base64.b64decode(new, validate=True))
    except ValueError as error:
        return [invalid_value(at, "<certificate data>", str(error))]
    return []
