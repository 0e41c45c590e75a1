"""A pod's priority is its PriorityClass's value; without a class, the cluster's default one's, else 0."""

from controlplane.api import status
from controlplane.apiserver.registry.generic import Attributes
from controlplane.store.cache import WatchCache

_SYSTEM = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}


class Priority:
    def __init__(self, cache: WatchCache) -> None:
        self._cache = cache

    async def admit(self, a: Attributes) -> None:
        if a.resource.plural != "pods" or a.resource.group or a.operation != "CREATE" or a.subresource or a.new is None:
            return
        spec = a.new["spec"]
        name = spec.get("priorityClassName", "")
        value, policy = 0, "PreemptLowerPriority"
        if name in _SYSTEM:
            value = _SYSTEM[name]
        elif name:
            cached = self._cache.get(f"scheduling.k8s.io/priorityclasses/{name}")
            if cached is None:
                raise status.forbidden_object("pods", a.name, f"no PriorityClass with name {name} was found")
            value = cached.object["value"]
            policy = cached.object.get("preemptionPolicy", policy)
        else:
            for cached in self._cache.list("scheduling.k8s.io/priorityclasses/")[0]:
                if cached.object.get("globalDefault"):
                    spec["priorityClassName"] = cached.object["metadata"]["name"]
                    value = cached.object["value"]
                    policy = cached.object.get("preemptionPolicy", policy)
        if spec.get("priority", value) != value:
            raise status.forbidden_object(
                "pods", a.name, f"the integer value of priority ({spec['priority']}) must not be provided in pod spec; "
                f"priority admission controller computed {value} from the given PriorityClass name",
            )  # fmt: skip
        spec["priority"] = value
        spec.setdefault("preemptionPolicy", policy)
