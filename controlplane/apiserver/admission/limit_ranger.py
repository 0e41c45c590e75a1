"""LimitRanges: default requests and limits for containers, and bounds for containers, pods and claims.

Source: kubernetes.io/docs, "Limit Ranges". A violation is 403 with all that is wrong in one message.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from controlplane.api import quantity, status
from controlplane.api.quantity import Quantity
from controlplane.apiserver.registry.generic import Attributes
from controlplane.store.cache import WatchCache

Amounts = Mapping[str, str]


class LimitRanger:
    def __init__(self, cache: WatchCache) -> None:
        self._cache = cache

    async def admit(self, a: Attributes) -> None:
        if a.operation != "CREATE" or a.resource.group or a.subresource or a.new is None:
            return
        if a.resource.plural not in ("pods", "persistentvolumeclaims"):
            return
        limits = [
            limit
            for cached in self._cache.list(f"core/limitranges/{a.namespace}/")[0]
            for limit in cached.object.get("spec", {}).get("limits") or ()
        ]
        if not limits:
            return
        if a.resource.plural == "pods":
            errors = _pod(a.new["spec"], limits)
        else:
            requests = a.new["spec"].get("resources", {}).get("requests") or {}
            claims = (limit for limit in limits if limit.get("type") == "PersistentVolumeClaim")
            errors = [e for limit in claims for e in _violations(limit, requests, requests)]
        if errors:
            text = errors[0] if len(errors) == 1 else f"[{', '.join(errors)}]"
            raise status.forbidden_object(a.resource.group_resource, a.name, text)


def _pod(spec: dict[str, Any], limits: Iterable[Mapping[str, Any]]) -> list[str]:
    errors: list[str] = []
    containers = [c for kind in ("initContainers", "containers") for c in spec.get(kind) or ()]
    for limit in limits:
        if limit.get("type") == "Container":
            for container in containers:
                resources = container["resources"] = _defaulted(container.get("resources") or {}, limit)
                errors += _violations(limit, resources.get("requests") or {}, resources.get("limits") or {})
        elif limit.get("type") == "Pod":
            errors += _violations(limit, _sum(spec, "requests"), _sum(spec, "limits"))
    return errors


def _defaulted(resources: Mapping[str, Any], limit: Mapping[str, Any]) -> dict[str, Any]:
    limits = {**(limit.get("default") or {}), **(resources.get("limits") or {})}
    requests = {**(limit.get("defaultRequest") or {}), **(resources.get("requests") or {})}
    for name, amount in (resources.get("limits") or {}).items():
        requests.setdefault(name, amount)
    result = dict(resources)
    if limits:
        result["limits"] = limits
    if requests:
        result["requests"] = requests
    return result


def _sum(spec: Mapping[str, Any], which: str) -> dict[str, str]:
    total: dict[str, Quantity] = {}
    for container in spec.get("containers") or ():
        for name, amount in (container.get("resources", {}).get(which) or {}).items():
            parsed = quantity.parse(amount)
            total[name] = total[name] + parsed if name in total else parsed
    return {name: str(amount) for name, amount in total.items()}


def _violations(limit: Mapping[str, Any], requests: Amounts, limits: Amounts) -> Iterable[str]:
    kind = limit.get("type")
    for name, least in (limit.get("min") or {}).items():
        asked = requests.get(name)
        if asked is None:
            yield f"minimum {name} usage per {kind} is {least}.  No request is specified"
        elif quantity.parse(asked) < quantity.parse(least):
            yield f"minimum {name} usage per {kind} is {least}, but request is {asked}"
    for name, most in (limit.get("max") or {}).items():
        asked = limits.get(name)
        if asked is None:
            yield f"maximum {name} usage per {kind} is {most}.  No limit is specified"
        elif quantity.parse(most) < quantity.parse(asked):
            yield f"maximum {name} usage per {kind} is {most}, but limit is {asked}"
    for name, ratio in (limit.get("maxLimitRequestRatio") or {}).items():
        if name in requests and name in limits and (least_milli := quantity.parse(requests[name]).milli()):
            actual = quantity.parse(limits[name]).milli() / least_milli
            if actual * 1000 > quantity.parse(ratio).milli():
                yield f"{name} max limit to request ratio per {kind} is {ratio}, but provided ratio is {actual:f}"
