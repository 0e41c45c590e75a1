"""REST resources: kind <-> plural, scope, verbs, short names, subresources, for every kind in the definitions.

The definitions say which kinds exist; how they appear as REST resources is in the small tables below (facts of the
Kubernetes API that the published schemas do not carry) plus three rules: a kind with ObjectMeta is a resource, its
plural is regular, and it has a /status subresource if its schema has a status. The tables cover 1.29 to 1.37; kinds
that a document does not have are simply not there. A ResourceTable is immutable: custom resources make a new one
(`with_added`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from controlplane.api.definitions import OBJECT_META, Definitions, ref_name

if TYPE_CHECKING:
    from controlplane.api.schema.kind import CustomKind

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
_OBJECT_VERBS = ("get", "patch", "update")


def _kinds(text: str) -> frozenset[str]:
    return frozenset(text.split())


_CLUSTER_SCOPED = _kinds(
    """
    APIService CSIDriver CSINode CertificateSigningRequest ClusterRole ClusterRoleBinding ClusterTrustBundle
    ComponentStatus CustomResourceDefinition DeviceClass DeviceTaintRule FlowSchema IPAddress IngressClass
    MutatingAdmissionPolicy MutatingAdmissionPolicyBinding MutatingWebhookConfiguration Namespace Node
    PersistentVolume PriorityClass PriorityLevelConfiguration ResourceClass ResourcePoolStatusRequest ResourceSlice
    RuntimeClass SelfSubjectAccessReview SelfSubjectReview SelfSubjectRulesReview ServiceCIDR StorageClass
    StorageVersion StorageVersionMigration SubjectAccessReview TokenReview ValidatingAdmissionPolicy
    ValidatingAdmissionPolicyBinding ValidatingWebhookConfiguration VolumeAttachment VolumeAttributesClass
    """
)

_SHORT_NAMES = {
    "CertificateSigningRequest": ("csr",),
    "ComponentStatus": ("cs",),
    "ConfigMap": ("cm",),
    "CronJob": ("cj",),
    "CustomResourceDefinition": ("crd", "crds"),
    "DaemonSet": ("ds",),
    "Deployment": ("deploy",),
    "Endpoints": ("ep",),
    "Event": ("ev",),
    "HorizontalPodAutoscaler": ("hpa",),
    "IPAddress": ("ip",),
    "Ingress": ("ing",),
    "LimitRange": ("limits",),
    "Namespace": ("ns",),
    "NetworkPolicy": ("netpol",),
    "Node": ("no",),
    "PersistentVolume": ("pv",),
    "PersistentVolumeClaim": ("pvc",),
    "Pod": ("po",),
    "PodDisruptionBudget": ("pdb",),
    "PriorityClass": ("pc",),
    "ReplicaSet": ("rs",),
    "ReplicationController": ("rc",),
    "ResourceQuota": ("quota",),
    "Service": ("svc",),
    "ServiceAccount": ("sa",),
    "StatefulSet": ("sts",),
    "StorageClass": ("sc",),
    "VolumeAttributesClass": ("vac",),
}

_IN_ALL = _kinds(
    """
    CronJob DaemonSet Deployment HorizontalPodAutoscaler Job Pod ReplicaSet ReplicationController Service StatefulSet
    """
)
_API_EXTENSIONS = _kinds(
    """
    APIService CustomResourceDefinition MutatingAdmissionPolicy MutatingAdmissionPolicyBinding
    MutatingWebhookConfiguration ValidatingAdmissionPolicy ValidatingAdmissionPolicyBinding
    ValidatingWebhookConfiguration
    """
)

_PLURALS = {"Endpoints": "endpoints"}

# Kinds that are answered, not stored: only POST, nothing to get.
_REVIEWS = _kinds(
    """
    Binding LocalSubjectAccessReview SelfSubjectAccessReview SelfSubjectReview SelfSubjectRulesReview
    SubjectAccessReview TokenReview
    """
)
# Kinds with metadata that exist only as the body of a subresource.
_BODIES = frozenset((("autoscaling", "Scale"), ("policy", "Eviction"), ("authentication.k8s.io", "TokenRequest")))

_VERBS = {
    "ComponentStatus": ("get", "list"),
    "Namespace": tuple(verb for verb in ALL_VERBS if verb != "deletecollection"),
}

# Discovery order: the group priorities of kube-aggregator. Groups that are not listed come last, by name.
_GROUP_ORDER = {
    group: place
    for place, group in enumerate(
        (
            "",
            "apiregistration.k8s.io",
            "apps",
            "events.k8s.io",
            "authentication.k8s.io",
            "authorization.k8s.io",
            "autoscaling",
            "batch",
            "certificates.k8s.io",
            "networking.k8s.io",
            "policy",
            "rbac.authorization.k8s.io",
            "storage.k8s.io",
            "admissionregistration.k8s.io",
            "apiextensions.k8s.io",
            "scheduling.k8s.io",
            "coordination.k8s.io",
            "node.k8s.io",
            "discovery.k8s.io",
            "resource.k8s.io",
            "flowcontrol.apiserver.k8s.io",
            "internal.apiserver.k8s.io",
            "storagemigration.k8s.io",
            "lifecycle.k8s.io",
        )
    )
}


@dataclass(frozen=True, slots=True)
class Subresource:
    """A path below an object: /status, /scale, /log… `group`, `version`, `kind` are those of its body."""

    name: str
    verbs: tuple[str, ...]
    group: str
    version: str
    kind: str
    schema: str = ""
    """Definition name of the body; empty for bodies without one (exec, log, proxy)."""


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind in one API version, as REST sees it."""

    group: str
    version: str
    kind: str
    plural: str
    singular: str
    namespaced: bool
    verbs: tuple[str, ...]
    schema: str
    """Definition name of the kind."""
    storage_version: str
    """The apiVersion in which objects are stored, "apps/v1"; may be of another group (events.k8s.io stores "v1")."""
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: Mapping[str, Subresource] = field(default_factory=lambda: MappingProxyType({}))
    custom: "CustomKind | None" = None
    """What stands in the place of definition, defaults, rules and columns if this is a custom resource."""

    @property
    def api_version(self) -> str:
        """As in an object's apiVersion: "v1", "apps/v1"."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def list_kind(self) -> str:
        """The kind of a list of these."""
        return f"{self.kind}List" if self.custom is None else self.custom.list_kind

    @property
    def group_resource(self) -> str:
        """As in error messages: "pods", "deployments.apps"."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def group_kind(self) -> str:
        """As in error messages about objects: "Pod", "Deployment.apps"."""
        return f"{self.kind}.{self.group}" if self.group else self.kind

    @property
    def storage_group(self) -> str:
        """The API group under which objects are stored; "" is the core group."""
        return self.storage_version.rpartition("/")[0]

    @property
    def native(self) -> bool:
        """Whether stored bytes are this version's answers as they are."""
        return self.custom is None and self.storage_version == self.api_version

    def __hash__(self) -> int:
        return hash((self.group, self.version, self.plural))


class ResourceTable:
    """Resources by path, by kind, and in the order of discovery. Immutable."""

    def __init__(self, resources: Iterable[Resource]) -> None:
        self._all = tuple(resources)
        self._by_plural = {(r.group, r.version, r.plural): r for r in self._all}
        self._by_kind = {(r.group, r.version, r.kind): r for r in self._all}
        groups: dict[str, dict[str, list[Resource]]] = {}
        for r in self._all:
            groups.setdefault(r.group, {}).setdefault(r.version, []).append(r)
        self._groups = {
            group: {
                version: tuple(sorted(groups[group][version], key=lambda r: r.plural))
                for version in sorted(groups[group], key=version_order)
            }
            for group in sorted(groups, key=lambda group: (_GROUP_ORDER.get(group, len(_GROUP_ORDER)), group))
        }

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        """The resource behind /apis/GROUP/VERSION/PLURAL (group "" is /api)."""
        return self._by_plural.get((group, version, plural))

    def by_kind(self, group: str, version: str, kind: str) -> Resource | None:
        """The resource of an object with this apiVersion and kind."""
        return self._by_kind.get((group, version, kind))

    def for_object(self, api_version: str, kind: str) -> Resource | None:
        """Like by_kind, from an object's own apiVersion ("apps/v1") and kind."""
        group, _, version = api_version.rpartition("/")
        return self._by_kind.get((group, version, kind))

    def preferred(self, group: str, plural: str) -> Resource | None:
        """The resource in the first version of its group that has it."""
        for version in self._groups.get(group, ()):
            if (found := self._by_plural.get((group, version, plural))) is not None:
                return found
        return None

    def groups(self) -> list[str]:
        """Groups in discovery order, the core group "" first."""
        return list(self._groups)

    def versions(self, group: str) -> list[str]:
        """Versions of a group, preferred first; [] if there is no such group."""
        return list(self._groups.get(group, ()))

    def resources(self, group: str, version: str) -> list[Resource]:
        """Resources of a group's version by plural; [] if there is none."""
        return list(self._groups.get(group, {}).get(version, ()))

    def all(self) -> tuple[Resource, ...]:
        """Every resource in every version."""
        return self._all

    def with_added(self, resources: Iterable[Resource]) -> "ResourceTable":
        """A table that has `resources` too; one with the same group, version and plural is replaced."""
        rows = dict(self._by_plural)
        rows.update({(r.group, r.version, r.plural): r for r in resources})
        return ResourceTable(rows.values())

    def without(self, group: str, plural: str) -> "ResourceTable":
        """A table without any version of a resource."""
        return ResourceTable(r for r in self._all if (r.group, r.plural) != (group, plural))


def version_order(version: str) -> tuple[int, int, int, str]:
    """Sort key for Kubernetes' order of preference: v2, v1, v1beta2, v1beta1, v1alpha1, others."""
    head, stage, tail = version.removeprefix("v"), "", ""
    for name in ("beta", "alpha"):
        if name in head:
            head, _, tail = head.partition(name)
            stage = name
            break
    if not version.startswith("v") or not head.isdigit() or (stage and not tail.isdigit()):
        return (3, 0, 0, version)
    return ({"": 0, "beta": 1, "alpha": 2}[stage], -int(head), -int(tail or 0), version)


def plural_of(kind: str) -> str:
    """The regular plural of a kind in lower case, with Kubernetes' exceptions."""
    if kind in _PLURALS:
        return _PLURALS[kind]
    word = kind.lower()
    if word.endswith(("s", "x", "ch", "sh")):
        return f"{word}es"
    return f"{word[:-1]}ies" if word.endswith("y") else f"{word}s"


def builtin(definitions: Definitions) -> ResourceTable:
    """Every kind in `definitions` that is a REST resource."""
    kinds = {gvk: name for gvk, name in definitions.gvks().items() if _is_resource(*gvk)}
    rows = []
    stored: dict[tuple[str, str], str] = {}
    for group, version, kind in sorted(kinds, key=lambda gvk: version_order(gvk[1])):
        stored.setdefault((group, kind), f"{group}/{version}" if group else version)
    stored["events.k8s.io", "Event"] = stored.get(("", "Event"), "v1")
    for (group, version, kind), name in kinds.items():
        properties = definitions.schemas[name].get("properties", {})
        if ref_name(properties.get("metadata", {}).get("$ref", "")) != OBJECT_META:
            continue
        categories = ("all",) if kind in _IN_ALL else ("api-extensions",) if kind in _API_EXTENSIONS else ()
        rows.append(
            Resource(
                group=group,
                version=version,
                kind=kind,
                plural=plural_of(kind),
                singular=kind.lower(),
                namespaced=kind not in _CLUSTER_SCOPED,
                verbs=("create",) if kind in _REVIEWS else _VERBS.get(kind, ALL_VERBS),
                schema=name,
                storage_version=stored[group, kind],
                short_names=_SHORT_NAMES.get(kind, ()),
                categories=categories,
                subresources=_subresources(group, version, kind, name, "status" in properties, definitions),
            )
        )
    return ResourceTable(rows)


def _is_resource(group: str, version: str, kind: str) -> bool:
    if kind.endswith("List") or kind in ("DeleteOptions", "WatchEvent", "Status"):
        return False
    return (group, kind) not in _BODIES


_CONNECT = ("create", "get")
_PROXY = ("create", "delete", "get", "patch", "update")
# Kind -> (name, verbs, group, version and kind of the body; group None: the kind's own).
_EXTRA: dict[str, tuple[tuple[str, tuple[str, ...], str | None, str, str], ...]] = {
    "Pod": (
        ("attach", _CONNECT, "", "v1", "PodAttachOptions"),
        ("binding", ("create",), "", "v1", "Binding"),
        ("ephemeralcontainers", _OBJECT_VERBS, None, "", ""),
        ("eviction", ("create",), "policy", "v1", "Eviction"),
        ("exec", _CONNECT, "", "v1", "PodExecOptions"),
        ("log", ("get",), None, "", ""),
        ("portforward", _CONNECT, "", "v1", "PodPortForwardOptions"),
        ("proxy", _PROXY, "", "v1", "PodProxyOptions"),
        ("resize", _OBJECT_VERBS, None, "", ""),
    ),
    "Service": (("proxy", _PROXY, "", "v1", "ServiceProxyOptions"),),
    "Node": (("proxy", _PROXY, "", "v1", "NodeProxyOptions"),),
    "Namespace": (("finalize", ("update",), None, "", ""),),
    "ServiceAccount": (("token", ("create",), "authentication.k8s.io", "v1", "TokenRequest"),),
    "CertificateSigningRequest": (("approval", _OBJECT_VERBS, None, "", ""),),
    **dict.fromkeys(
        ("Deployment", "ReplicaSet", "StatefulSet", "ReplicationController"),
        (("scale", _OBJECT_VERBS, "autoscaling", "v1", "Scale"),),
    ),
}
_NO_STATUS = _REVIEWS | {"ComponentStatus"}


def _subresources(
    group: str, version: str, kind: str, schema: str, has_status: bool, definitions: Definitions
) -> Mapping[str, Subresource]:
    found: dict[str, Subresource] = {}
    for name, verbs, body_group, body_version, body_kind in (
        _EXTRA.get(kind, ()) if _EXTRA_GROUPS.get(kind) == group else ()
    ):
        if body_group is None:
            found[name] = Subresource(name, verbs, group, version, kind, schema)
        else:
            body = definitions.gvks().get((body_group, body_version, body_kind), "")
            found[name] = Subresource(name, verbs, body_group, body_version, body_kind, body)
    if has_status and kind not in _NO_STATUS:
        found["status"] = Subresource("status", _OBJECT_VERBS, group, version, kind, schema)
    return MappingProxyType(dict(sorted(found.items())))


_EXTRA_GROUPS = {
    "CertificateSigningRequest": "certificates.k8s.io",
    **dict.fromkeys(("Deployment", "ReplicaSet", "StatefulSet"), "apps"),
    **dict.fromkeys(("Pod", "Service", "Node", "Namespace", "ServiceAccount", "ReplicationController"), ""),
}
