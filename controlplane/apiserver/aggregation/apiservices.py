"""APIServices: group and version -> the Service that answers for them. Those without a Service are our own."""

from dataclasses import dataclass
from typing import Any

from controlplane.store.broadcaster import Overflow
from controlplane.store.cache import WatchCache

Object = dict[str, Any]
PREFIX = "apiregistration.k8s.io/apiservices/"


@dataclass(frozen=True, slots=True)
class Backend:
    """Who answers for a group's version. `bundle` is base64 PEM, "" to trust the system's CAs."""

    name: str
    group: str
    version: str
    namespace: str
    service: str
    port: int
    bundle: str
    insecure: bool
    priority: tuple[int, int]
    """groupPriorityMinimum and versionPriority: higher comes first."""

    @property
    def host(self) -> str:
        return f"{self.service}.{self.namespace}.svc"

    @property
    def path(self) -> str:
        return f"/apis/{self.group}/{self.version}"


def backend_of(obj: Object) -> Backend | None:
    """None for an APIService that is served locally."""
    spec = obj.get("spec") or {}
    service = spec.get("service")
    if not service:
        return None
    return Backend(
        obj["metadata"]["name"], spec.get("group", ""), spec["version"], service.get("namespace", ""),
        service.get("name", ""), int(service.get("port") or 443), spec.get("caBundle") or "",
        bool(spec.get("insecureSkipTLSVerify")),
        (spec.get("groupPriorityMinimum") or 0, spec.get("versionPriority") or 0),
    )  # fmt: skip


class APIServices:
    """Those of the store, as they are now."""

    def __init__(self, cache: WatchCache) -> None:
        self._cache = cache
        self._watcher = cache.subscribe(PREFIX)
        self._backends: dict[tuple[str, str], Backend] = {}
        self._read()

    def backend(self, group: str, version: str) -> Backend | None:
        """Who answers for a group's version, if it is not we."""
        self._refresh()
        return self._backends.get((group, version)) if self._backends else None

    def backends(self) -> list[Backend]:
        """All of them, the most important first."""
        self._refresh()
        return sorted(self._backends.values(), key=lambda each: (each.priority, each.name), reverse=True)

    def close(self) -> None:
        self._watcher.close()

    def _refresh(self) -> None:
        try:
            if not self._watcher.take():
                return
        except Overflow:
            self._watcher.close()
            self._watcher = self._cache.subscribe(PREFIX)
        self._read()

    def _read(self) -> None:
        found = [backend_of(cached.object) for cached in self._cache.list(PREFIX)[0]]
        self._backends = {(each.group, each.version): each for each in found if each is not None}
