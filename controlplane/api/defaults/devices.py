"""Defaults of requests for devices (resource.k8s.io): one device, and tolerations that compare."""

from collections.abc import Iterator
from typing import Any

Object = dict[str, Any]

GROUP = "resource.k8s.io"


def claim(obj: Object) -> None:
    """ResourceClaim."""
    _spec(obj.get("spec") or {})


def claim_template(obj: Object) -> None:
    """ResourceClaimTemplate, whose spec has a claim's spec in it."""
    _spec((obj.get("spec") or {}).get("spec") or {})


def _spec(spec: Object) -> None:
    for request in (spec.get("devices") or {}).get("requests") or ():
        for each in _parts(request):
            if not each.get("allocationMode"):
                each["allocationMode"] = "ExactCount"
            if each["allocationMode"] == "ExactCount" and not each.get("count"):
                each["count"] = 1
            for toleration in each.get("tolerations") or ():
                if not toleration.get("operator"):
                    toleration["operator"] = "Equal"


def _parts(request: Object) -> Iterator[Object]:
    """What is asked for: exactly one thing, or the first that there is. (Before v1 the former had no name.)"""
    alternatives = request.get("firstAvailable") or ()
    yield from alternatives
    if "exactly" in request:
        yield request["exactly"]
    elif not alternatives and "deviceClassName" in request:
        yield request


BY_KIND = {(GROUP, "ResourceClaim"): claim, (GROUP, "ResourceClaimTemplate"): claim_template}
