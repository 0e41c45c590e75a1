"""A node's agent writes only its own Node, Lease and pods, and cannot give its node rights by labels or taints."""

import base64
from typing import Any

from controlplane.api import status
from controlplane.apiserver.authz.node import node_name
from controlplane.apiserver.registry.generic import Attributes
from controlplane.store.cache import WatchCache
from pki import requests

_NODE_SIGNERS = ("kubernetes.io/kubelet-serving", "kubernetes.io/kube-apiserver-client-kubelet")
_PROTECTED = "node-restriction.kubernetes.io/"
_MIRROR = "kubernetes.io/config.mirror"
_REFERENCES = ("secret", "configMap", "persistentVolumeClaim", "serviceAccountToken")
_KEYED = ("configMapRef", "secretRef", "configMapKeyRef", "secretKeyRef")


class NodeRestriction:
    def __init__(self, cache: WatchCache) -> None:
        self._cache = cache

    async def admit(self, a: Attributes) -> None:
        node = node_name(a.user)
        if not node:
            return
        plural = a.resource.plural
        if plural == "nodes" and not a.resource.group:
            self._node(node, a)
        elif plural == "pods" and not a.resource.group:
            self._pod(node, a)
        elif plural == "serviceaccounts" and a.subresource == "token":
            self._token(node, a)
        elif plural == "certificatesigningrequests" and a.operation == "CREATE" and not a.subresource:
            self._certificate(node, a)
        elif plural in ("leases", "csinodes") and a.name != node:
            raise _refuse(a, f"can only access {plural} with the same name as the requesting node")

    def _node(self, node: str, a: Attributes) -> None:
        if a.name != node:
            raise _refuse(a, f'node "{node}" is not allowed to modify node "{a.name}"')
        if a.new is None:
            return
        labels = a.new["metadata"].get("labels") or {}
        before = (a.old or {}).get("metadata", {}).get("labels") or {}
        changed = [k for k in labels.keys() | before.keys() if labels.get(k) != before.get(k) and _PROTECTED in k]
        if changed:
            raise _refuse(a, f"is not allowed to modify labels: {', '.join(sorted(changed))}")
        if a.old is not None and _spec(a.new, "taints") != _spec(a.old, "taints"):
            raise _refuse(a, f'node "{node}" is not allowed to modify taints')

    def _pod(self, node: str, a: Attributes) -> None:
        obj = a.new if a.operation == "CREATE" else a.old
        assert obj is not None
        if obj.get("spec", {}).get("nodeName") != node:
            raise _refuse(a, f'node "{node}" can only {a.operation.lower()} pods with spec.nodeName set to itself')
        if a.operation == "CREATE":
            self._mirror_pod(node, a, obj)
        elif a.operation == "UPDATE" and a.subresource != "status":
            raise _refuse(a, f'node "{node}" can only update pod status')

    def _mirror_pod(self, node: str, a: Attributes, pod: dict[str, Any]) -> None:
        """A mirror pod shows what the node runs anyway: it belongs to the Node, and must not be a way to read what the
        node may read on behalf of its pods."""
        if _MIRROR not in (pod["metadata"].get("annotations") or {}):
            raise _refuse(a, f'pod does not have "{_MIRROR}" annotation, node "{node}" can only create mirror pods')
        owners = pod["metadata"].get("ownerReferences") or []
        if len(owners) != 1 or not owners[0].get("controller"):
            raise _refuse(a, f'node "{node}" can only create pods with a single owner reference set to itself')
        owner = owners[0]
        cached = self._cache.get(f"core/nodes/{node}")
        itself = ("v1", "Node", node, cached.object["metadata"]["uid"] if cached else "")
        if (owner.get("apiVersion"), owner.get("kind"), owner.get("name"), owner.get("uid")) != itself:
            raise _refuse(a, f'node "{node}" can only create pods with an owner reference set to itself')
        if owner.get("blockOwnerDeletion"):
            raise _refuse(a, f'node "{node}" must not set blockOwnerDeletion on an owner reference')
        for reference in ("serviceAccountName", "resourceClaims"):
            if pod["spec"].get(reference):
                raise _refuse(a, f'node "{node}" can not create pods that reference {reference}')
        for volume in pod["spec"].get("volumes") or ():
            for source in (volume, *((volume.get("projected") or {}).get("sources") or ())):
                found = [k for k in _REFERENCES if source.get(k) is not None]
                if found:
                    raise _refuse(a, f'node "{node}" can not create pods that reference {found[0]} volumes')
        for container in (*(pod["spec"].get("initContainers") or ()), *(pod["spec"].get("containers") or ())):
            sources = [*(container.get("envFrom") or ())]
            sources += [entry.get("valueFrom") or {} for entry in container.get("env") or ()]
            if any(key in source for source in sources for key in _KEYED):
                raise _refuse(a, f'node "{node}" can not create pods that reference configmaps or secrets')

    def _certificate(self, node: str, a: Attributes) -> None:
        """A node asks for its own certificates only; what else must be in them is the signer's to judge."""
        spec = (a.new or {}).get("spec") or {}
        if spec.get("signerName") not in _NODE_SIGNERS:
            return
        try:
            name = requests.parse(base64.b64decode(spec.get("request") or "")).common_name
        except ValueError as error:
            raise _refuse(a, f"unable to parse csr: {error}") from None
        if name != a.user.name:
            raise _refuse(a, f"can only create a node CSR with CN={a.user.name}")

    def _token(self, node: str, a: Attributes) -> None:
        reference = (a.new or {}).get("spec", {}).get("boundObjectRef") or {}
        if reference.get("kind") != "Pod" or not reference.get("uid"):
            raise _refuse(a, f'node "{node}" requested token not bound to a pod with a uid')
        cached = self._cache.get(f"core/pods/{a.namespace}/{reference.get('name', '')}")
        pod = cached.object if cached else None
        if pod is None or pod["metadata"]["uid"] != reference["uid"]:
            raise _refuse(a, f'node "{node}" requested token bound to a pod that there is not')
        if pod["spec"].get("nodeName") != node:
            raise _refuse(a, f'node "{node}" requested token bound to a pod scheduled on a different node')
        if pod["spec"].get("serviceAccountName") != a.name:
            raise _refuse(a, f'node "{node}" requested token for a service account that the pod does not use')


def _spec(obj: dict[str, Any], key: str) -> Any:
    return obj.get("spec", {}).get(key) or []


def _refuse(a: Attributes, message: str) -> status.StatusError:
    return status.forbidden_object(a.resource.group_resource, a.name, message)
