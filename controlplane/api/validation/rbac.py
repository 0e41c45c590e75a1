"""Rules for roles and bindings."""

from controlplane.api import names
from controlplane.api.status import Cause, invalid_value, not_supported, required
from controlplane.api.validation.common import Object, selector

GROUP = "rbac.authorization.k8s.io"


def role(obj: Object) -> list[Cause]:
    """Role."""
    return _rules(obj, namespaced=True)


def cluster_role(obj: Object) -> list[Cause]:
    """ClusterRole."""
    causes = _rules(obj, namespaced=False)
    aggregation = obj.get("aggregationRule")
    if aggregation is not None:
        path = "aggregationRule.clusterRoleSelectors"
        chosen = aggregation.get("clusterRoleSelectors") or ()
        if not chosen:
            causes.append(required(path, "at least one clusterRoleSelector required if aggregationRule is non-nil"))
        for index, each in enumerate(chosen):
            causes += selector(each, f"{path}[{index}]")
    return causes


def _rules(obj: Object, namespaced: bool) -> list[Cause]:
    causes = []
    for index, rule in enumerate(obj.get("rules") or ()):
        at = f"rules[{index}]"
        if not rule.get("verbs"):
            causes.append(required(f"{at}.verbs", "verbs must contain at least one value"))
        if rule.get("nonResourceURLs"):
            urls = rule["nonResourceURLs"]
            if namespaced:
                text = "namespaced rules cannot apply to non-resource URLs"
                causes.append(invalid_value(f"{at}.nonResourceURLs", urls, text))
            if rule.get("apiGroups") or rule.get("resources") or rule.get("resourceNames"):
                text = "rules cannot apply to both regular resources and non-resource URLs"
                causes.append(invalid_value(f"{at}.nonResourceURLs", urls, text))
            continue
        if not rule.get("apiGroups"):
            causes.append(required(f"{at}.apiGroups", "resource rules must supply at least one api group"))
        if not rule.get("resources"):
            causes.append(required(f"{at}.resources", "resource rules must supply at least one resource"))
    return causes


def role_binding(obj: Object) -> list[Cause]:
    """RoleBinding."""
    return _binding(obj, ("Role", "ClusterRole"))


def cluster_role_binding(obj: Object) -> list[Cause]:
    """ClusterRoleBinding."""
    return _binding(obj, ("ClusterRole",))


def _binding(obj: Object, kinds: tuple[str, ...]) -> list[Cause]:
    causes = []
    target = obj.get("roleRef") or {}
    if target.get("apiGroup") != GROUP:
        causes.append(not_supported("roleRef.apiGroup", target.get("apiGroup", ""), (GROUP,)))
    if target.get("kind") not in kinds:
        causes.append(not_supported("roleRef.kind", target.get("kind", ""), kinds))
    name = target.get("name", "")
    if not name:
        causes.append(required("roleRef.name"))
    else:
        causes += [invalid_value("roleRef.name", name, each) for each in names.path_segment(name)]
    for index, subject in enumerate(obj.get("subjects") or ()):
        at = f"subjects[{index}]"
        kind, group = subject.get("kind", ""), subject.get("apiGroup", "")
        if not subject.get("name"):
            causes.append(required(f"{at}.name"))
        if kind == "ServiceAccount":
            if subject.get("name"):
                complaints = names.name_errors(kind, subject["name"])
                causes += [invalid_value(f"{at}.name", subject["name"], each) for each in complaints]
            if group:
                causes.append(not_supported(f"{at}.apiGroup", group, ("",)))
            if not subject.get("namespace"):
                causes.append(required(f"{at}.namespace"))
        elif kind in ("User", "Group"):
            if not subject.get("name"):
                causes.append(invalid_value(f"{at}.name", "", f"{kind.lower()} name cannot be empty"))
            if group != GROUP:
                causes.append(not_supported(f"{at}.apiGroup", group, (GROUP,)))
        else:
            causes.append(not_supported(f"{at}.kind", kind, ("ServiceAccount", "User", "Group")))
    return causes


BY_KIND = {
    (GROUP, "Role"): role,
    (GROUP, "ClusterRole"): cluster_role,
    (GROUP, "RoleBinding"): role_binding,
    (GROUP, "ClusterRoleBinding"): cluster_role_binding,
}
