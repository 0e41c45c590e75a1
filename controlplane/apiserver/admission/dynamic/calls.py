"""What a webhook is asked, an AdmissionReview, and what its answer means.

Source: k8s.io/apiserver/pkg/admission/plugin/webhook/request. The connection is webhook_client's.
"""

import base64
from dataclasses import dataclass
from typing import Any

import msgspec

from controlplane.apiserver.webhook_client import CallFailed

Object = dict[str, Any]
_SUPPORTED = ("v1", "v1beta1")


@dataclass(frozen=True, slots=True)
class Answer:
    """A webhook's response."""

    allowed: bool
    status: Object
    patch: list[Any] | None
    warnings: list[str]
    annotations: dict[str, str]


def review(version: str, request: Object) -> Object:
    """The AdmissionReview to send."""
    return {"kind": "AdmissionReview", "apiVersion": f"admission.k8s.io/{version}", "request": request}


def version_for(hook: Object) -> str:
    """The first version of AdmissionReview that a webhook takes and we have. Raises CallFailed."""
    for version in hook.get("admissionReviewVersions") or ():
        if version in _SUPPORTED:
            return str(version)
    raise CallFailed("webhook does not accept known AdmissionReview versions (v1, v1beta1)")


def read(answer: Object, version: str, uid: str, *, may_patch: bool) -> Answer:
    """What a webhook's AdmissionReview says. Raises CallFailed."""
    wanted = f"admission.k8s.io/{version}"
    if version == "v1" and (answer.get("kind"), answer.get("apiVersion")) != ("AdmissionReview", wanted):
        given = f"{answer.get('apiVersion')}, Kind={answer.get('kind')}"
        raise CallFailed(
            "received invalid webhook response: expected webhook response of "
            f"{wanted}, Kind=AdmissionReview, got {given}"
        )
    response = answer.get("response")
    if not isinstance(response, dict):
        raise CallFailed("webhook response was absent")
    if version == "v1" and response.get("uid") != uid:
        raise CallFailed(
            f'received invalid webhook response: expected response.uid="{uid}", got "{response.get("uid", "")}"'
        )
    patch = None
    if response.get("patch"):
        if not may_patch:
            patch = None
        elif version == "v1" and response.get("patchType") != "JSONPatch":
            raise CallFailed(
                "received invalid webhook response: webhook returned response.patch but response.patchType is not "
                f'"JSONPatch": "{response.get("patchType", "")}"'
            )
        else:
            try:
                patch = msgspec.json.decode(base64.b64decode(response["patch"], validate=True), type=list[Any])
            except (ValueError, msgspec.DecodeError) as error:
                raise CallFailed(f"received undecodable patch in webhook response: {error}") from None
    result = response.get("status")
    return Answer(
        bool(response.get("allowed")),
        result if isinstance(result, dict) else {},
        patch,
        [str(each) for each in response.get("warnings") or ()],
        {str(key): str(value) for key, value in (response.get("auditAnnotations") or {}).items()},
    )
