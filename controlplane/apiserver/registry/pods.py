"""What can be done to a pod besides changing it: bind it to a node, evict it, issue its ServiceAccount's tokens."""

from typing import Any

from controlplane import clock
from controlplane.api import status
from controlplane.api.resources import Resource
from controlplane.api.selectors import from_selector
from controlplane.apiserver.http import User
from controlplane.apiserver.registry.deletion import DeleteOptions
from controlplane.apiserver.registry.generic import Registry
from pki.tokens import Signer

Object = dict[str, Any]
_SUCCESS: Object = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


async def bind(
    registry: Registry, pods: Resource, namespace: str, name: str, binding: Object, user: User, *, dry_run: bool = False
) -> Object:
    """Assign a pod to a node, once. Raises StatusError 404, 409, 422."""
    target = binding.get("target") or {}
    node = target.get("name", "")
    if target.get("kind", "Node") not in ("", "Node") or not node:
        cause = (
            status.required("target.name")
            if not node
            else status.not_supported("target.kind", target["kind"], ["Node"])
        )
        raise status.invalid("", "Binding", name, [cause])
    uid = binding.get("metadata", {}).get("uid", "")

    async def assign(pod: Object) -> Object:
        if uid and uid != pod["metadata"]["uid"]:
            raise status.conflict(
                "pods",
                name,
                f"Precondition failed: UID in precondition: {uid}, UID in object meta: {pod['metadata']['uid']}",
            )
        if "deletionTimestamp" in pod["metadata"]:
            raise status.conflict("pods/binding", name, f"pod {name} is being deleted, cannot be assigned to a host")
        if pod["spec"].get("nodeName"):
            raise status.conflict(
                "pods/binding", name, f'pod {name} is already assigned to node "{pod["spec"]["nodeName"]}"'
            )
        if pod["spec"].get("schedulingGates"):
            raise status.conflict("pods/binding", name, f"pod {name} has non-empty .spec.schedulingGates")
        labels = {**(pod["metadata"].get("labels") or {}), **_topology(registry, node)}
        annotations = {**(pod["metadata"].get("annotations") or {}), **(binding["metadata"].get("annotations") or {})}
        meta = {**pod["metadata"], **({"annotations": annotations} if annotations else {}),
                **({"labels": labels} if labels else {})}  # fmt: skip
        old = pod.get("status", {})
        conditions = [c for c in old.get("conditions", ()) if c["type"] != "PodScheduled"]
        conditions.append({"type": "PodScheduled", "status": "True", "lastProbeTime": None,
                           "lastTransitionTime": clock.rfc3339()})  # fmt: skip
        return {
            **pod,
            "metadata": meta,
            "spec": {**pod["spec"], "nodeName": node},
            "status": {**old, "conditions": conditions},
        }

    await registry.update(pods, namespace, name, user, assign, subresource="binding", manager=None, dry_run=dry_run)
    return _SUCCESS


_TOPOLOGY = ("topology.kubernetes.io/zone", "topology.kubernetes.io/region")


def _topology(registry: Registry, node: str) -> Object:
    """Where a node is: its pods wear these labels too (Kubernetes' PodTopologyLabels)."""
    cached = registry.cache.get(f"core/nodes/{node}")
    if cached is None or b'"topology.kubernetes.io/' not in cached.data:
        return {}
    labels = cached.object["metadata"].get("labels") or {}
    return {key: labels[key] for key in _TOPOLOGY if key in labels}


async def evict(
    registry: Registry,
    pods: Resource,
    namespace: str,
    name: str,
    eviction: Object,
    user: User,
    *,
    dry_run: bool = False,
) -> Object:
    """Delete a pod if its disruption budgets allow it. Raises StatusError 404, 429, 500."""
    pod = registry.find(pods, namespace, name).object
    options = eviction.get("deleteOptions") or {}
    preconditions = options.get("preconditions") or {}
    dry_run = dry_run or bool(options.get("dryRun"))
    finished = pod.get("status", {}).get("phase") in ("Succeeded", "Failed", "Pending")
    if not finished and "deletionTimestamp" not in pod["metadata"]:
        await _respect_budgets(registry, pod, namespace, user, dry_run=dry_run)
    await registry.delete(pods, namespace, name, user, DeleteOptions(
        options.get("gracePeriodSeconds"), preconditions.get("uid", ""), preconditions.get("resourceVersion", ""),
        options.get("propagationPolicy", ""), dry_run,
    ))  # fmt: skip
    return _SUCCESS


async def _respect_budgets(registry: Registry, pod: Object, namespace: str, user: User, *, dry_run: bool) -> None:
    labels = pod["metadata"].get("labels") or {}
    budgets = [
        cached.object for cached in registry.cache.list(f"policy/poddisruptionbudgets/{namespace}/")[0]
        if from_selector(cached.object["spec"].get("selector")).matches(labels)
    ]  # fmt: skip
    if not budgets:
        return
    if len(budgets) > 1:
        raise status.internal(
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
        )
    name = budgets[0]["metadata"]["name"]
    from controlplane.api.resources import builtin

    resource = builtin(registry.definitions).find("policy", "v1", "poddisruptionbudgets")
    assert resource is not None

    async def consume(budget: Object) -> Object:
        current = budget.get("status", {})
        allowed = current.get("disruptionsAllowed", 0)
        if current.get("observedGeneration", 0) < budget["metadata"].get("generation", 1):
            error = status.too_many_requests("Cannot evict pod as it would violate the pod's disruption budget.", 10)
            error.details = {
                **error.details,
                "causes": [
                    {
                        "reason": "DisruptionBudget",
                        "message": f"The disruption budget {name} is still being processed by the server.",
                    }
                ],
            }
            raise error
        if allowed <= 0:
            error = status.too_many_requests("Cannot evict pod as it would violate the pod's disruption budget.", 0)
            error.details = {**error.details, "causes": [{"reason": "DisruptionBudget", "message":
                f"The disruption budget {name} needs {current.get('desiredHealthy', 0)} healthy pods and has "
                f"{current.get('currentHealthy', 0)} currently"}]}  # fmt: skip
            raise error
        disrupted = {**(current.get("disruptedPods") or {}), pod["metadata"]["name"]: clock.rfc3339()}
        return {**budget, "status": {**current, "disruptionsAllowed": allowed - 1, "disruptedPods": disrupted}}

    await registry.update(resource, namespace, name, user, consume, subresource="status", dry_run=dry_run)


def issue_token(registry: Registry, signer: Signer, namespace: str, name: str, request: Object) -> Object:
    """Answer a TokenRequest. Raises StatusError 404, 409, 422."""
    cached = registry.cache.get(f"core/serviceaccounts/{namespace}/{name}")
    if cached is None:
        raise status.not_found("serviceaccounts", name)
    spec = request.get("spec") or {}
    seconds = spec.get("expirationSeconds", 3600)
    if seconds < 600:
        cause = status.invalid_value(
            "spec.expirationSeconds", seconds, "may not specify a duration less than 10 minutes"
        )
        raise status.invalid("authentication.k8s.io", "TokenRequest", "", [cause])
    seconds = min(seconds, 1 << 32)
    audiences = spec.get("audiences") or [signer.issuer]
    bound: dict[str, dict[str, str]] = {}
    reference = spec.get("boundObjectRef")
    if reference:
        kind, target = reference.get("kind", ""), reference.get("name", "")
        plural = {"Pod": "pods", "Secret": "secrets", "Node": "nodes"}.get(kind)
        if plural is None:
            cause = status.not_supported("spec.boundObjectRef.kind", kind, ["Pod", "Secret", "Node"])
            raise status.invalid("authentication.k8s.io", "TokenRequest", "", [cause])
        scope = "" if kind == "Node" else f"{namespace}/"
        holder = registry.cache.get(f"core/{plural}/{scope}{target}")
        if holder is None:
            raise status.not_found(plural, target)
        uid = holder.object["metadata"]["uid"]
        if reference.get("uid") and reference["uid"] != uid:
            raise status.conflict(
                plural,
                target,
                f"the UID in the bound object reference ({reference['uid']}) does not match the UID in record ({uid})",
            )
        bound[kind.lower()] = {"name": target, "uid": uid}
        if kind == "Pod" and (node := holder.object["spec"].get("nodeName")):
            cached_node = registry.cache.get(f"core/nodes/{node}")
            if cached_node is not None:
                bound["node"] = {"name": node, "uid": cached_node.object["metadata"]["uid"]}
    now = clock.wall_time()
    token = signer.issue(
        namespace=namespace, name=name, uid=cached.object["metadata"]["uid"], audiences=audiences, now=now,
        lifetime_s=seconds, token_id=clock.new_uid(), bound=bound,
    )  # fmt: skip
    return {
        "kind": "TokenRequest",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": {"name": name, "namespace": namespace, "creationTimestamp": clock.rfc3339(now)},
        "spec": {**spec, "audiences": audiences, "expirationSeconds": seconds},
        "status": {"token": token, "expirationTimestamp": clock.rfc3339(now + seconds)},
    }
