"""Classes that the cluster has a default for, and what follows from a class: storage, ingresses, runtimes.

Four of Kubernetes' plugins: DefaultStorageClass, PersistentVolumeClaimResize (a class must allow it),
DefaultIngressClass, and RuntimeClass (overhead, nodes and tolerations of the pods that use it).
"""

from collections.abc import Iterable
from typing import Any

from controlplane.api import quantity, status
from controlplane.apiserver.registry.generic import Attributes
from controlplane.store.cache import WatchCache

Object = dict[str, Any]

_STORAGE = "storageclass.kubernetes.io/is-default-class"
_STORAGE_BETA = "storageclass.beta.kubernetes.io/is-default-class"
_CLAIMED = "volume.beta.kubernetes.io/storage-class"
_INGRESS, _INGRESS_NOTED = "ingressclass.kubernetes.io/is-default-class", "kubernetes.io/ingress.class"


class Classes:
    def __init__(self, cache: WatchCache) -> None:
        self._cache = cache
        self._plugins = {
            ("", "pods"): self._pod,
            ("", "persistentvolumeclaims"): self._claim,
            ("networking.k8s.io", "ingresses"): self._ingress,
        }

    async def admit(self, a: Attributes) -> None:
        """Raises StatusError 403."""
        if a.new is None or a.subresource:
            return
        plugin = self._plugins.get((a.resource.group, a.resource.plural))
        if plugin is not None:
            plugin(a, a.new)

    def _default(self, prefix: str, annotations: Iterable[str]) -> str:
        """The name of the newest class that is said to be the default; empty if none is."""
        found = [
            meta
            for cached in self._cache.list(prefix)[0]
            if (meta := cached.object["metadata"]).get("annotations")
            and any(meta["annotations"].get(key) == "true" for key in annotations)
        ]
        found.sort(key=lambda meta: meta["name"])
        newest = max((meta.get("creationTimestamp", "") for meta in found), default="")
        return next((meta["name"] for meta in found if meta.get("creationTimestamp", "") == newest), "")

    # --- claims

    def _claim(self, a: Attributes, claim: Object) -> None:
        spec = claim.get("spec") or {}
        if a.operation == "CREATE":
            noted = (claim["metadata"].get("annotations") or {}).get(_CLAIMED)
            if spec.get("storageClassName") is None and noted is None:
                name = self._default("storage.k8s.io/storageclasses/", (_STORAGE, _STORAGE_BETA))
                if name:
                    spec["storageClassName"] = name
        elif a.operation == "UPDATE" and a.old is not None and _size(spec) > _size(a.old.get("spec") or {}):
            self._resize(a, a.old)

    def _resize(self, a: Attributes, old: Object) -> None:
        if (old.get("status") or {}).get("phase") != "Bound":
            text = "Only bound persistent volume claims can be expanded"
            raise status.forbidden_object(a.resource.group_resource, a.name, text)
        noted = (old["metadata"].get("annotations") or {}).get(_CLAIMED)
        name = noted or old["spec"].get("storageClassName")
        cached = self._cache.get(f"storage.k8s.io/storageclasses/{name}") if name else None
        if cached is None or not cached.object.get("allowVolumeExpansion"):
            text = (
                "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must "
                "support resize"
            )
            raise status.forbidden_object(a.resource.group_resource, a.name, text)

    # --- ingresses

    def _ingress(self, a: Attributes, ingress: Object) -> None:
        if a.operation != "CREATE":
            return
        spec = ingress.setdefault("spec", {})
        noted = (ingress["metadata"].get("annotations") or {}).get(_INGRESS_NOTED)
        if spec.get("ingressClassName") is None and noted is None:
            name = self._default("networking.k8s.io/ingressclasses/", (_INGRESS,))
            if name:
                spec["ingressClassName"] = name

    # --- pods

    def _pod(self, a: Attributes, pod: Object) -> None:
        if a.operation != "CREATE":
            return
        spec = pod["spec"]
        name = spec.get("runtimeClassName")
        if not name:
            if spec.get("overhead"):
                raise _rejected(a, "Pod Overhead set without corresponding RuntimeClass defined Overhead")
            return
        cached = self._cache.get(f"node.k8s.io/runtimeclasses/{name}")
        if cached is None:
            raise _rejected(a, f'RuntimeClass "{name}" not found')
        found = cached.object
        fixed = (found.get("overhead") or {}).get("podFixed")
        if fixed:
            if not spec.get("overhead"):
                spec["overhead"] = dict(fixed)
            elif not _same_amounts(spec["overhead"], fixed):
                raise _rejected(a, "Pod's Overhead doesn't match RuntimeClass's defined Overhead")
        elif spec.get("overhead"):
            raise _rejected(a, "Pod Overhead set without corresponding RuntimeClass defined Overhead")
        scheduling = found.get("scheduling") or {}
        if scheduling.get("nodeSelector"):
            chosen = spec.get("nodeSelector") or {}
            for key, value in scheduling["nodeSelector"].items():
                if chosen.get(key, value) != value:
                    text = (
                        f"conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; "
                        f"pod.spec.nodeSelector[{key}] = {chosen[key]}"
                    )
                    raise status.forbidden_object(a.resource.group_resource, a.name, text)
            spec["nodeSelector"] = {**chosen, **scheduling["nodeSelector"]}
        more = [each for each in scheduling.get("tolerations") or () if each not in (spec.get("tolerations") or ())]
        if more:
            spec["tolerations"] = [*(spec.get("tolerations") or ()), *more]


def _rejected(a: Attributes, text: str) -> status.StatusError:
    return status.forbidden_object(a.resource.group_resource, a.name, f"pod rejected: {text}")


def _same_amounts(given: Object, wanted: Object) -> bool:
    return given.keys() == wanted.keys() and all(
        quantity.parse(given[name]) == quantity.parse(wanted[name]) for name in wanted
    )


def _size(spec: Object) -> quantity.Quantity:
    return quantity.parse(((spec.get("resources") or {}).get("requests") or {}).get("storage", "0"))
