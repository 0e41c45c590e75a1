"""What differs between kinds when an object is created, updated or deleted; the defaults suit most kinds.

A strategy prepares (fills in what the server decides, drops what a client may not say) before validation, and may
release things afterwards. Objects given to `prepare_*` are this request's own and may be changed in place.
"""

from typing import Any

from controlplane import clock
from controlplane.api import defaults, jobs, status
from controlplane.api.resources import Resource
from controlplane.api.validation import certificates, containers, resize

Object = dict[str, Any]


class Strategy:
    """The generic rules: generation counts changes of spec; status is only written through /status."""

    graceful = False

    def __init__(self, resource: Resource) -> None:
        self.resource = resource
        kind = (resource.group, resource.kind)
        self.allow_create_on_update = kind in _MADE_BY_PUT
        """A PUT of an object that is not there makes it."""
        self.allow_unconditional_update = resource.custom is None and kind not in _PUT_WITH_VERSION
        """A PUT may leave out the resourceVersion that it was made from."""
        self.orphans = kind in _ORPHANS
        """A delete that names no policy leaves dependents alone."""
        self.has_status = "status" in resource.subresources

    async def prepare_create(self, obj: Object) -> None:
        """Called before defaulting has been validated; raise StatusError to refuse."""
        if self.has_status:
            obj.pop("status", None)

    async def prepare_update(self, new: Object, old: Object) -> None:
        if self.has_status:
            _take(new, old, "status")

    def prepare_status_update(self, new: Object, old: Object) -> None:
        """A write to /status changes status, and of the metadata what belongs to everybody."""
        for key in [k for k in new if k not in ("status", "metadata", "kind", "apiVersion")]:
            _take(new, old, key)
        for key in old:
            if key not in new and key != "status":
                new[key] = old[key]

    def prepare_subresource_update(self, subresource: str, new: Object, old: Object) -> None:
        """A write through another subresource; `new` may be anything that a client sent, unless the server made it
        itself (scale, binding). Kinds with such subresources say what may change."""

    def generation_changed(self, new: Object, old: Object) -> bool:
        """Whether the desired state differs: everything but metadata and status counts."""
        keys = (new.keys() | old.keys()) - {"metadata", "status", "kind", "apiVersion"}
        return any(new.get(key) != old.get(key) for key in keys)

    def grace_period(self, obj: Object, asked: int | None) -> int:
        """Seconds that a delete leaves the object to its node; 0 deletes at once."""
        return 0

    def deleting(self, obj: Object) -> Object:
        """`obj` (shared) as it is when somebody asks for its deletion: a strategy may put a finalizer on a copy."""
        return obj

    def finished(self, obj: Object) -> bool:
        """Whether nothing holds an object that was marked for deletion any more."""
        meta = obj["metadata"]
        return "deletionTimestamp" in meta and not meta.get("finalizers") and not meta.get("deletionGracePeriodSeconds")

    async def created(self, obj: Object) -> None:
        """After the object is durable."""

    async def updated(self, new: Object, old: Object) -> None:
        """After `prepare_update`, when the change is durable."""

    async def refused(self, obj: Object) -> None:
        """After `prepare_create` or `prepare_update` when the object was not written after all (or the preparation
        itself failed): give back what was taken."""

    async def deleted(self, obj: Object) -> None:
        """After the object is gone."""


def _restore(new: Object, old: Object, *but: str) -> None:
    """Everything of `old` back into `new`, except metadata and the fields in `but`."""
    for key in (new.keys() | old.keys()) - {"kind", "apiVersion", "metadata", *but}:
        _take(new, old, key)


def _take(new: Object, old: Object, key: str) -> None:
    if key in old:
        new[key] = old[key]
    else:
        new.pop(key, None)


class PodStrategy(Strategy):
    graceful = True

    async def prepare_create(self, obj: Object) -> None:
        spec = obj["spec"]
        obj["status"] = {"phase": "Pending", "qosClass": qos_class(spec)}
        if spec.get("schedulingGates"):
            obj["status"]["conditions"] = [dict(_GATED)]
        if "affinity" in spec:
            _match_label_keys(spec["affinity"] or {}, obj["metadata"].get("labels") or {})

    def prepare_subresource_update(self, subresource: str, new: Object, old: Object) -> None:
        if subresource == "ephemeralcontainers":
            _restore(new, old, "spec")
            if "kubernetes.io/config.mirror" in (old["metadata"].get("annotations") or {}):
                cause = status.forbidden_field("[]", "static pods do not support ephemeral containers")
                raise status.invalid("", "Pod", old["metadata"]["name"], [cause])
            wanted = [dict(c) for c in new.get("spec", {}).get("ephemeralContainers") or ()]
            new["spec"] = {**old["spec"], "ephemeralContainers": wanted}
            defaults.apply(self.resource, new)
            _check_ephemeral(new["spec"], old)
        elif subresource == "resize":
            _restore(new, old, "spec")
            new["spec"] = _resized(new.get("spec", {}), old["spec"])
            defaults.apply(self.resource, new)
            groups = {"qos": qos_class(new["spec"]), "qos_before": qos_class(old["spec"])}
            if causes := resize.resized(new["spec"], old["spec"], **groups):
                raise status.invalid("", "Pod", old["metadata"]["name"], causes)

    def grace_period(self, obj: Object, asked: int | None) -> int:
        """Unscheduled and finished pods need no node to agree; others get what was asked or their own period."""
        if not obj["spec"].get("nodeName") or obj.get("status", {}).get("phase") in ("Succeeded", "Failed"):
            return 0
        seconds = int(obj["spec"].get("terminationGracePeriodSeconds", 30)) if asked is None else asked
        return 1 if seconds < 0 else seconds


_GATED: Object = {
    "type": "PodScheduled", "status": "False", "lastProbeTime": None, "lastTransitionTime": None,
    "reason": "SchedulingGated", "message": "Scheduling is blocked due to non-empty scheduling gates",
}  # fmt: skip


def _match_label_keys(affinity: Object, labels: Object) -> None:
    """Terms with matchLabelKeys (mismatchLabelKeys) get the pod's own values of these labels into their selectors."""
    for kind in ("podAffinity", "podAntiAffinity"):
        found = affinity.get(kind) or {}
        terms = [*(found.get("requiredDuringSchedulingIgnoredDuringExecution") or ())]
        preferred = found.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
        terms += [each["podAffinityTerm"] for each in preferred if "podAffinityTerm" in each]
        for term in terms:
            selector = term.get("labelSelector")
            if selector is None:
                continue
            for field, operator in (("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")):
                for key in term.get(field) or ():
                    if key in labels:
                        expression = {"key": key, "operator": operator, "values": [labels[key]]}
                        selector["matchExpressions"] = [*(selector.get("matchExpressions") or ()), expression]


def _check_ephemeral(spec: Object, old: Object) -> None:
    """Ephemeral containers can only become more, and must be in order. Raises StatusError 422."""
    field = "spec.ephemeralContainers"
    by_name = {c.get("name"): c for c in spec["ephemeralContainers"]}
    causes: list[status.Cause] = []
    if spec["ephemeralContainers"]:
        volumes = {volume["name"]: volume for volume in spec.get("volumes") or ()}
        containers.ephemeral(causes, spec, field, volumes)
    for container in old["spec"].get("ephemeralContainers") or ():
        name = container["name"]
        if name not in by_name:
            detail = f'existing ephemeral containers "{name}" may not be removed\n'
            causes.append(status.forbidden_field(field, detail))
        elif by_name[name] != container:
            detail = f'existing ephemeral containers "{name}" may not be changed\n'
            causes.append(status.forbidden_field(field, detail))
    if causes:
        raise status.invalid("", "Pod", old["metadata"]["name"], causes)


def _resized(wanted: Object, spec: Object) -> Object:
    """The old spec with the new resources of containers, the only thing that a resize changes."""
    result = dict(spec)
    for kind in ("containers", "initContainers"):
        by_name = {c.get("name"): c for c in wanted.get(kind) or ()}
        if kind in spec:
            result[kind] = [
                {**c, **{k: v for k, v in by_name.get(c["name"], {}).items() if k in ("resources", "resizePolicy")}}
                for c in spec[kind]
            ]
    return result


def qos_class(spec: Object) -> str:
    """Guaranteed, Burstable or BestEffort (k8s.io/docs: Pod Quality of Service Classes)."""
    guaranteed, some = True, False
    for container in [*spec.get("containers", ()), *spec.get("initContainers", ())]:
        resources = container.get("resources", {})
        requests, limits = resources.get("requests", {}), resources.get("limits", {})
        for name in ("cpu", "memory"):
            wanted, most = requests.get(name), limits.get(name)
            some = some or wanted is not None or most is not None
            if most is None or (wanted is not None and wanted != most):
                guaranteed = False
    if not some:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"


class NamespaceStrategy(Strategy):
    async def prepare_create(self, obj: Object) -> None:
        obj["status"] = {"phase": "Active"}
        spec = obj.setdefault("spec", {})
        spec.setdefault("finalizers", ["kubernetes"])

    async def prepare_update(self, new: Object, old: Object) -> None:
        await super().prepare_update(new, old)
        _take(new, old, "spec")

    def prepare_subresource_update(self, subresource: str, new: Object, old: Object) -> None:
        if subresource == "finalize":
            _restore(new, old, "spec")

    def finished(self, obj: Object) -> bool:
        return super().finished(obj) and not obj.get("spec", {}).get("finalizers")


class CustomStrategy(Strategy):
    """Custom objects (apiextensions-apiserver's registry/customresource): a status is only apart from the rest if there
    is a subresource for it, and its subresource changes nothing else, not even labels."""

    async def prepare_create(self, obj: Object) -> None:
        custom = self.resource.custom
        assert custom is not None
        if custom.terminating:
            error = status.method_not_allowed(self.resource.group_resource, "create")
            error.message = "create not allowed while custom resource definition is terminating"
            raise error
        await super().prepare_create(obj)

    def prepare_status_update(self, new: Object, old: Object) -> None:
        _restore(new, old, "status")
        kept = {key: new["metadata"][key] for key in ("managedFields",) if key in new["metadata"]}
        new["metadata"] = {**{k: v for k, v in old["metadata"].items() if k != "managedFields"}, **kept}

    def generation_changed(self, new: Object, old: Object) -> bool:
        ignored = {"metadata", "status"} if self.has_status else {"metadata"}
        return any(new.get(key) != old.get(key) for key in (new.keys() | old.keys()) - ignored)


class _WithPhase(Strategy):
    async def prepare_create(self, obj: Object) -> None:
        obj["status"] = {"phase": "Pending"}


class NodeStrategy(Strategy):
    """A node writes its first status with its creation (kubelets rely on it)."""

    async def prepare_create(self, obj: Object) -> None:
        return


_DECISIONS = ("Approved", "Denied")


class CertificateRequestStrategy(Strategy):
    """The request itself never changes; /approval decides, /status carries the certificate or a failure."""

    async def prepare_update(self, new: Object, old: Object) -> None:
        await super().prepare_update(new, old)
        _take(new, old, "spec")

    def prepare_status_update(self, new: Object, old: Object) -> None:
        super().prepare_status_update(new, old)
        before = old.get("status", {}).get("conditions") or ()
        others = [c for c in new.get("status", {}).get("conditions") or () if c.get("type") not in _DECISIONS]
        decided = [c for c in before if c["type"] in _DECISIONS]
        new["status"] = {**new.get("status", {}), "conditions": [*decided, *map(_dated, others)]}
        self._check(new, old, certificates.certificate(
            new["status"].get("certificate") or "", old.get("status", {}).get("certificate") or ""))  # fmt: skip

    def prepare_subresource_update(self, subresource: str, new: Object, old: Object) -> None:
        conditions = new.get("status", {}).get("conditions") or ()
        _restore(new, old)
        new["status"] = {**old.get("status", {}), "conditions": [_dated(c) for c in conditions]}
        self._check(new, old, [])

    def _check(self, new: Object, old: Object, causes: list[status.Cause]) -> None:
        before = old.get("status", {}).get("conditions") or ()
        causes = certificates.conditions(new["status"]["conditions"], before) + causes
        if causes:
            raise status.invalid(self.resource.group, self.resource.kind, old["metadata"]["name"], causes)


def _dated(condition: Object) -> Object:
    now = clock.rfc3339()
    return {"lastUpdateTime": now, "lastTransitionTime": now, **{k: v for k, v in condition.items() if v is not None}}


class JobStrategy(Strategy):
    """The selector and labels that tie pods to their Job are the server's."""

    async def prepare_create(self, obj: Object) -> None:
        await super().prepare_create(obj)
        jobs.generate_selector(obj)
        worn, own = obj["spec"]["template"].get("metadata", {}).get("labels") or {}, obj["metadata"].get("labels") or {}
        if own.keys() <= {*jobs.UID_LABELS, *jobs.NAME_LABELS} and own.items() <= worn.items() and worn:
            obj["metadata"]["labels"] = dict(worn)  # a Job without labels of its own wears its pods'

    async def refused(self, obj: Object) -> None:
        jobs.forget_name(obj)


STRATEGIES: dict[tuple[str, str], type[Strategy]] = {
    ("", "Pod"): PodStrategy,
    ("", "Namespace"): NamespaceStrategy,
    ("", "Node"): NodeStrategy,
    ("", "PersistentVolume"): _WithPhase,
    ("", "PersistentVolumeClaim"): _WithPhase,
    ("batch", "Job"): JobStrategy,
    ("certificates.k8s.io", "CertificateSigningRequest"): CertificateRequestStrategy,
}
_ADMISSION = "admissionregistration.k8s.io"
_RBAC = "rbac.authorization.k8s.io"
_MADE_BY_PUT = frozenset((
    ("", "Endpoints"), ("", "Event"), ("events.k8s.io", "Event"), ("", "LimitRange"), ("", "Service"),
    ("coordination.k8s.io", "Lease"), ("node.k8s.io", "RuntimeClass"), (_RBAC, "Role"), (_RBAC, "RoleBinding"),
    (_RBAC, "ClusterRole"), (_RBAC, "ClusterRoleBinding"),
))  # fmt: skip
_PUT_WITH_VERSION = frozenset((
    ("coordination.k8s.io", "Lease"), ("policy", "PodDisruptionBudget"), ("apiregistration.k8s.io", "APIService"),
    ("apiextensions.k8s.io", "CustomResourceDefinition"), ("storage.k8s.io", "CSINode"),
    ("storage.k8s.io", "CSIDriver"), ("storage.k8s.io", "VolumeAttachment"),
    (_ADMISSION, "MutatingWebhookConfiguration"), (_ADMISSION, "ValidatingWebhookConfiguration"),
))  # fmt: skip
# For the sake of clients older than garbage collection.
_ORPHANS = frozenset((("", "ReplicationController"), ("batch", "Job")))
# Only objects whose desired state somebody observes have a generation.
WITHOUT_GENERATION = frozenset((
    "ConfigMap", "Secret", "Event", "Endpoints", "Namespace", "Node", "ServiceAccount", "Lease", "Role",
    "RoleBinding", "ClusterRole", "ClusterRoleBinding", "PersistentVolume", "PersistentVolumeClaim", "Service",
    "LimitRange", "ResourceQuota", "ControllerRevision", "StorageClass", "VolumeAttachment", "CSINode",
    "CSIDriver", "RuntimeClass", "CertificateSigningRequest", "ComponentStatus", "HorizontalPodAutoscaler",
    "ResourceClaim", "ResourceClaimTemplate", "IPAddress", "ServiceCIDR", "VolumeAttributesClass",
    "ClusterTrustBundle", "APIService",
))  # fmt: skip


def of(resource: Resource) -> Strategy:
    if resource.custom is not None:
        return CustomStrategy(resource)
    return STRATEGIES.get((resource.group, resource.kind), Strategy)(resource)
