"""A node's agent writes only its own Node, Lease and pods, and cannot give its node rights by labels or taints."""

from typing import Any

from controlplane.api import status
from controlplane.apiserver.authz.node import node_name
from controlplane.apiserver.registry.generic import Attributes

_PROTECTED = "node-restriction.kubernetes.io/"


class NodeRestriction:
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
            if "kubernetes.io/config.mirror" not in (obj["metadata"].get("annotations") or {}):
                raise _refuse(
                    a,
                    'pod does not have "kubernetes.io/config.mirror" annotation, '
                    f'node "{node}" can only create mirror pods',
                )
        elif a.operation == "UPDATE" and a.subresource != "status":
            raise _refuse(a, f'node "{node}" can only update pod status')

    def _token(self, node: str, a: Attributes) -> None:
        reference = (a.new or {}).get("spec", {}).get("boundObjectRef") or {}
        if reference.get("kind") != "Pod":
            raise _refuse(a, f'node "{node}" can only request tokens bound to a pod')


def _spec(obj: dict[str, Any], key: str) -> Any:
    return obj.get("spec", {}).get(key) or []


def _refuse(a: Attributes, message: str) -> status.StatusError:
    return status.forbidden_object(a.resource.group_resource, a.name, message)
