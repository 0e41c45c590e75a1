"""Pods stay five minutes on a node that is not ready or not reachable, unless they say otherwise."""

from controlplane.apiserver.registry.generic import Attributes

_KEYS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")


async def admit(a: Attributes) -> None:
    if a.resource.plural != "pods" or a.resource.group or a.operation != "CREATE" or a.subresource or a.new is None:
        return
    tolerations = list(a.new["spec"].get("tolerations") or ())
    for key in _KEYS:
        if not any(t.get("key", key) == key and t.get("effect", "NoExecute") == "NoExecute" for t in tolerations):
            tolerations.append({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300})
    a.new["spec"]["tolerations"] = tolerations
