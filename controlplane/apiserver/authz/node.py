"""The node authoriser: a node's agent may read what its own pods need, and write what is its own; nothing else.

Secrets, ConfigMaps and claims are readable for a node only while a pod bound to it refers to them. Which pods are
bound to which node is kept up to date from the watch cache. Source: kubernetes.io/docs, "Using Node Authorization".
"""

from collections.abc import Iterator, Mapping
from typing import Any

from controlplane.api.selectors import parse_fields
from controlplane.apiserver.http import User
from controlplane.apiserver.requestinfo import RequestInfo
from controlplane.store.cache import Cached, CacheWatcher, Overflow, WatchCache

_PREFIX = "system:node:"
_READ = ("get", "list", "watch")
_REFERRED = ("secrets", "configmaps", "persistentvolumeclaims", "serviceaccounts")


def node_name(user: User) -> str:
    """The node that `user` is the agent of; empty if it is none."""
    if user.name.startswith(_PREFIX) and "system:nodes" in user.groups:
        return user.name[len(_PREFIX) :]
    return ""


class NodeAuthorizer:
    """Answers only for what depends on the node; what all nodes may do is RBAC's system:node role."""

    def __init__(self, cache: WatchCache) -> None:
        self._cache = cache
        self._by_node: dict[str, dict[str, Cached]] = {}
        self._watcher = self._begin()

    def _begin(self) -> CacheWatcher:
        self._by_node.clear()
        for cached in self._cache.list("core/pods/")[0]:
            self._add(cached)
        return self._cache.subscribe("core/pods/")

    def allows(self, user: User, info: RequestInfo) -> bool:
        node = node_name(user)
        if not node:
            return False
        resource = info.resource
        if info.group == "coordination.k8s.io" and resource == "leases":
            return info.namespace == "kube-node-lease" and (info.name == node or info.verb == "create")
        if info.group == "storage.k8s.io" and resource == "csinodes":
            return info.name == node or info.verb == "create"
        if info.group:
            return False
        if resource == "serviceaccounts" and info.subresource == "token":
            return info.verb == "create" and self._refers(node, info)
        if resource == "pods" and not info.subresource and info.verb in _READ:
            return self._own_pods(node, info)
        if resource in _REFERRED and not info.subresource and info.verb in _READ:
            # A list or watch must name the one object, by a field selector.
            return bool(info.name) and self._refers(node, info)
        if resource == "persistentvolumes" and info.verb == "get":
            return self._uses_volume(node, info.name)
        return False

    def _own_pods(self, node: str, info: RequestInfo) -> bool:
        """One of its own by name, or all of them by `spec.nodeName`. Of a pod that there is not, it may be told so."""
        if info.verb == "get":
            pod = self._cache.get(f"core/pods/{info.namespace}/{info.name}")
            return pod is None or pod.object["spec"].get("nodeName") == node
        try:
            return parse_fields(info.field_selector).exact("spec.nodeName") == node
        except ValueError:
            return False

    def _refers(self, node: str, info: RequestInfo) -> bool:
        self._catch_up()
        wanted = (info.resource, info.namespace, info.name)
        return any(wanted in references(cached.object) for cached in self._by_node.get(node, {}).values())

    def _uses_volume(self, node: str, name: str) -> bool:
        volume = self._cache.get(f"core/persistentvolumes/{name}")
        claim = volume.object.get("spec", {}).get("claimRef") if volume else None
        if not claim:
            return False
        info = RequestInfo(True, "", "get", resource="persistentvolumeclaims", namespace=claim.get("namespace", ""),
                           name=claim.get("name", ""))  # fmt: skip
        return self._refers(node, info)

    def _catch_up(self) -> None:
        try:
            events = self._watcher.take()
        except Overflow:  # no node has asked for a long time: start again
            self._watcher, events = self._begin(), ()
        for event in events:
            if event.previous is not None and (node := event.previous.object["spec"].get("nodeName")):
                self._by_node.get(node, {}).pop(event.key, None)
            if event.type != "DELETED":
                self._add(event.cached)

    def _add(self, cached: Cached) -> None:
        if node := cached.object["spec"].get("nodeName"):
            self._by_node.setdefault(node, {})[cached.key] = cached


def references(pod: Mapping[str, Any]) -> set[tuple[str, str, str]]:
    """(plural, namespace, name) of everything that `pod` needs read for it."""
    namespace, spec = pod["metadata"]["namespace"], pod["spec"]
    found = {(kind, namespace, name) for kind, name in _named(spec) if name}
    found.add(("serviceaccounts", namespace, spec.get("serviceAccountName", "default")))
    return found


def _named(spec: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for secret in spec.get("imagePullSecrets") or ():
        yield "secrets", secret.get("name", "")
    for container in [
        *spec.get("containers", ()),
        *spec.get("initContainers", ()),
        *spec.get("ephemeralContainers", ()),
    ]:
        for source in container.get("envFrom") or ():
            yield "configmaps", source.get("configMapRef", {}).get("name", "")
            yield "secrets", source.get("secretRef", {}).get("name", "")
        for variable in container.get("env") or ():
            value = variable.get("valueFrom", {})
            yield "configmaps", value.get("configMapKeyRef", {}).get("name", "")
            yield "secrets", value.get("secretKeyRef", {}).get("name", "")
    for volume in spec.get("volumes") or ():
        yield "secrets", volume.get("secret", {}).get("secretName", "")
        yield "configmaps", volume.get("configMap", {}).get("name", "")
        yield "persistentvolumeclaims", volume.get("persistentVolumeClaim", {}).get("claimName", "")
        for source in volume.get("projected", {}).get("sources") or ():
            yield "secrets", source.get("secret", {}).get("name", "")
            yield "configmaps", source.get("configMap", {}).get("name", "")
