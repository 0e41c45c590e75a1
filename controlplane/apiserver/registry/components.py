"""ComponentStatus: is the control plane well? Deprecated since 1.19, and still what many scripts ask.

Nothing is stored: the store's health is known here, and a component that leads holds a fresh lease in kube-system.
"""

from datetime import datetime
from typing import Any

from controlplane import clock
from controlplane.apiserver.registry.codec import to_json
from controlplane.store.cache import Cached, WatchCache

Object = dict[str, Any]
_LEASES = "coordination.k8s.io/leases/kube-system/"
_COMPONENTS = (("controller-manager", "kube-controller-manager"), ("scheduler", "kube-scheduler"))


def statuses(cache: WatchCache) -> list[Cached]:
    """One object a component, by name."""
    found = [(name, _led(cache, lease)) for name, lease in _COMPONENTS]
    found.append(("etcd-0", cache.trouble()))
    return [_status(name, trouble, cache.revision) for name, trouble in sorted(found)]


def _led(cache: WatchCache, name: str) -> str:
    """What is wrong with the component that leads by this lease."""
    lease = cache.get(_LEASES + name)
    spec = lease.object.get("spec", {}) if lease is not None else {}
    renewed, lasts = spec.get("renewTime"), spec.get("leaseDurationSeconds", 15)
    if not renewed or not spec.get("holderIdentity"):
        return "no instance holds its lease"
    age = clock.wall_time() - datetime.fromisoformat(renewed).timestamp()
    return f"its lease was renewed {age:.0f} s ago, for {lasts} s" if age > lasts else ""


def _status(name: str, trouble: str, revision: int) -> Cached:
    condition: Object = {"type": "Healthy", "status": "False" if trouble else "True"}
    condition |= {"message": "", "error": trouble} if trouble else {"message": "ok"}
    obj = {"kind": "ComponentStatus", "apiVersion": "v1", "metadata": {"name": name, "creationTimestamp": None},
           "conditions": [condition]}  # fmt: skip
    return Cached(name, to_json(obj), revision, revision)
