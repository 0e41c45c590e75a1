"""Every pod runs as a ServiceAccount that exists, with a token, the cluster's CA and its namespace mounted.

The volume is what Kubernetes projects (token for 3607 s, kube-root-ca.crt, namespace), under a name of its own.
"""

from typing import Any

from controlplane import clock
from controlplane.api import status
from controlplane.apiserver.registry.generic import Attributes
from controlplane.store.cache import WatchCache

_PATH = "/var/run/secrets/kubernetes.io/serviceaccount"
_PREFIX = "kube-api-access-"


class ServiceAccount:
    def __init__(self, cache: WatchCache) -> None:
        self._cache = cache

    async def admit(self, a: Attributes) -> None:
        if a.operation != "CREATE" or a.resource.plural != "pods" or a.resource.group or a.subresource or a.new is None:
            return
        pod = a.new
        if "kubernetes.io/config.mirror" in (pod["metadata"].get("annotations") or {}):
            if pod["spec"].get("serviceAccountName"):
                raise status.forbidden_object("pods", a.name, "a mirror pod may not reference service accounts")
            return
        spec = pod["spec"]
        name = spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
        spec["serviceAccountName"] = spec["serviceAccount"] = name
        cached = self._cache.get(f"core/serviceaccounts/{a.namespace}/{name}")
        if cached is None:
            raise status.forbidden_object(
                "pods", a.name,
                f'error looking up service account {a.namespace}/{name}: serviceaccount "{name}" not found',
            )  # fmt: skip
        account = cached.object
        if not spec.get("imagePullSecrets") and account.get("imagePullSecrets"):
            spec["imagePullSecrets"] = [dict(secret) for secret in account["imagePullSecrets"]]
        wanted = spec.get("automountServiceAccountToken", account.get("automountServiceAccountToken", True))
        if wanted:
            _mount_token(spec)


def _mount_token(spec: dict[str, Any]) -> None:
    volumes = spec.setdefault("volumes", [])
    volume = next((v["name"] for v in volumes if v.get("name", "").startswith(_PREFIX)), "")
    name = volume or _PREFIX + clock.name_suffix()
    used = False
    for container in [*spec.get("initContainers", ()), *spec.get("containers", ())]:
        mounts = container.setdefault("volumeMounts", [])
        if all(mount.get("mountPath") != _PATH for mount in mounts):
            mounts.append({"name": name, "readOnly": True, "mountPath": _PATH})
            used = True
    if used and not volume:
        volumes.append({"name": name, "projected": {"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [
                {"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}
            ]}},
        ]}})  # fmt: skip
    if not volumes:
        del spec["volumes"]
