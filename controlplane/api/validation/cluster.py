"""Rules for namespaces, nodes, priorities and classes of runtimes."""

from controlplane.api import names
from controlplane.api.status import Cause, duplicate, forbidden_field, invalid_value
from controlplane.api.validation import amounts, certificates
from controlplane.api.validation.common import Object, complain, labels, maybe_one_of, one_of
from controlplane.api.validation.placement import EFFECTS, tolerations

HIGHEST_USER_PRIORITY = 1_000_000_000


def namespace(obj: Object) -> list[Cause]:
    """v1 Namespace."""
    causes = []
    for name in (obj.get("spec") or {}).get("finalizers") or ():
        if name != "kubernetes":
            causes += [invalid_value("spec.finalizers", name, each) for each in names.qualified_name(name)]
    return causes


def node(obj: Object) -> list[Cause]:
    """v1 Node. (Taints are `metadata.taints` in causes: that is how Kubernetes says it.)"""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    causes: list[Cause] = []
    seen = set()
    for index, taint in enumerate(spec.get("taints") or ()):
        at, key, value = f"metadata.taints[{index}]", taint.get("key", ""), taint.get("value", "")
        complain(causes, f"{at}.key", key, names.qualified_name(key))
        if complaints := names.label_value(value):
            causes.append(invalid_value(f"{at}.value", value, ";".join(complaints)))
        one_of(causes, taint, at, "effect", EFFECTS)
        pair = (key, taint.get("effect"))
        if pair in seen:
            causes.append(duplicate(at, taint, "taints must be unique by key and effect pair"))
        seen.add(pair)
    for part in ("capacity", "allocatable"):
        for name, value in (status.get(part) or {}).items():
            amounts.amount(causes, name, value, f"status.{part}.{name}")
    networks = spec.get("podCIDRs") or []
    for index, network in enumerate(networks):
        complain(causes, f"spec.podCIDRs[{index}]", network, names.cidr(network))
    if len(networks) > 2 or (len(networks) == 2 and (":" in networks[0]) == (":" in networks[1])):
        text = "may specify no more than one CIDR for each IP family"
        causes.append(invalid_value("spec.podCIDRs", networks, text))
    for index, network in enumerate(networks):
        if network in networks[:index]:
            causes.append(duplicate(f"spec.podCIDRs[{index}]", network))
    return causes


def priority_class(obj: Object) -> list[Cause]:
    """scheduling.k8s.io/v1 PriorityClass."""
    causes: list[Cause] = []
    name = (obj.get("metadata") or {}).get("name", "")
    if name.startswith("system-"):
        if name not in ("system-node-critical", "system-cluster-critical"):
            text = "priority class names with 'system-' prefix are reserved for system use only. error: "
            causes.append(forbidden_field("metadata.name", f"{text}{name} is not a known system priority class"))
    elif obj.get("value", 0) > HIGHEST_USER_PRIORITY:
        text = f"maximum allowed value of a user defined priority is {HIGHEST_USER_PRIORITY}"
        causes.append(forbidden_field("value", text))
    maybe_one_of(causes, obj, "", "preemptionPolicy", ("PreemptLowerPriority", "Never"))
    return causes


def runtime_class(obj: Object) -> list[Cause]:
    """node.k8s.io/v1 RuntimeClass."""
    causes: list[Cause] = []
    handler, scheduling = obj.get("handler", ""), obj.get("scheduling") or {}
    complain(causes, "handler", handler, names.dns1123_label(handler))
    if "overhead" in obj:
        amounts.requirements(causes, {"limits": obj["overhead"].get("podFixed") or {}}, "overhead")
    causes += labels(scheduling.get("nodeSelector"), "scheduling.nodeSelector")
    tolerations(causes, scheduling.get("tolerations") or (), "scheduling.tolerations")
    return causes


BY_KIND = {
    ("", "Namespace"): namespace,
    ("", "Node"): node,
    ("scheduling.k8s.io", "PriorityClass"): priority_class,
    ("certificates.k8s.io", "CertificateSigningRequest"): certificates.signing_request,
    ("node.k8s.io", "RuntimeClass"): runtime_class,
}
