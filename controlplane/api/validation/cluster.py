"""Rules for namespaces, nodes, priorities and custom resource definitions."""

from controlplane.api import names
from controlplane.api.status import Cause, duplicate, forbidden_field, invalid_value, not_supported, required
from controlplane.api.validation import certificates
from controlplane.api.validation.common import Object, at_least, labels, maybe_one_of, named, need, one_of
from controlplane.api.validation.placement import EFFECTS

HIGHEST_USER_PRIORITY = 1_000_000_000


def namespace(obj: Object) -> list[Cause]:
    """v1 Namespace."""
    causes = []
    for name in (obj.get("spec") or {}).get("finalizers") or ():
        if name != "kubernetes":
            causes += [invalid_value("spec.finalizers", name, each) for each in names.qualified_name(name)]
    return causes


def node(obj: Object) -> list[Cause]:
    """v1 Node."""
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    seen = set()
    for index, taint in enumerate(spec.get("taints") or ()):
        at = f"spec.taints[{index}]"
        named(causes, taint.get("key"), f"{at}.key", names.qualified_name)
        causes += [invalid_value(f"{at}.value", taint["value"], e) for e in names.label_value(taint.get("value", ""))]
        one_of(causes, taint, at, "effect", EFFECTS)
        pair = (taint.get("key"), taint.get("effect"))
        if pair in seen:
            causes.append(duplicate(at, taint))
        seen.add(pair)
    if len(spec.get("podCIDRs") or ()) > 2:
        text = "may specify no more than one CIDR for each IP family"
        causes.append(invalid_value("spec.podCIDRs", spec["podCIDRs"], text))
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


def custom_resource(obj: Object) -> list[Cause]:
    """apiextensions.k8s.io/v1 CustomResourceDefinition: its names and versions; schemas are looked at when served."""
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    group, found = spec.get("group", ""), spec.get("names") or {}
    if not group:
        causes.append(required("spec.group"))
    else:
        causes += [invalid_value("spec.group", group, each) for each in names.dns1123_subdomain(group)]
        if "." not in group:
            causes.append(invalid_value("spec.group", group, "should be a domain with at least one dot"))
    name = (obj.get("metadata") or {}).get("name", "")
    expected = f"{found.get('plural', '')}.{group}"
    if name and name != expected:
        text = 'must be spec.names.plural+"."+spec.group'
        causes.append(invalid_value("metadata.name", name, text))
    one_of(causes, spec, "spec", "scope", ("Cluster", "Namespaced"))
    for field in ("plural", "singular"):
        named(causes, found.get(field), f"spec.names.{field}", names.dns1035_label)
    for field in ("kind", "listKind"):
        value = found.get(field, "")
        named(causes, value, f"spec.names.{field}", lambda text: names.dns1035_label(text.lower()))
    versions = spec.get("versions") or []
    if not versions:
        causes.append(required("spec.versions"))
    elif sum(bool(each.get("storage")) for each in versions) != 1:
        text = "must have exactly one version marked as storage version"
        causes.append(invalid_value("spec.versions", versions, text))
    for index, each in enumerate(versions):
        at = f"spec.versions[{index}]"
        named(causes, each.get("name"), f"{at}.name", names.dns1035_label)
        if not (each.get("schema") or {}).get("openAPIV3Schema"):
            causes.append(required(f"{at}.schema.openAPIV3Schema", "schemas are required"))
    strategy = (spec.get("conversion") or {}).get("strategy", "None")
    if strategy not in ("None", "Webhook"):
        causes.append(not_supported("spec.conversion.strategy", strategy, ("None", "Webhook")))
    return causes


def runtime_class(obj: Object) -> list[Cause]:
    """node.k8s.io/v1 RuntimeClass."""
    causes: list[Cause] = []
    named(causes, obj.get("handler"), "handler", names.dns1123_label)
    causes += labels((obj.get("scheduling") or {}).get("nodeSelector"), "scheduling.nodeSelector")
    return causes


def flow_schema(obj: Object) -> list[Cause]:
    """flowcontrol.apiserver.k8s.io/v1 FlowSchema."""
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    at_least(causes, spec, "spec", 1, "matchingPrecedence")
    if spec.get("matchingPrecedence", 1) > 10000:
        text = "must not be greater than 10000"
        causes.append(invalid_value("spec.matchingPrecedence", spec["matchingPrecedence"], text))
    need(causes, spec.get("priorityLevelConfiguration") or {}, "spec.priorityLevelConfiguration", "name")
    return causes


BY_KIND = {
    ("", "Namespace"): namespace,
    ("", "Node"): node,
    ("scheduling.k8s.io", "PriorityClass"): priority_class,
    ("certificates.k8s.io", "CertificateSigningRequest"): certificates.signing_request,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): custom_resource,
    ("node.k8s.io", "RuntimeClass"): runtime_class,
    ("flowcontrol.apiserver.k8s.io", "FlowSchema"): flow_schema,
}
