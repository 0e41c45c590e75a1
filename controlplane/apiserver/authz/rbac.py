"""Role-based access control: rules from (Cluster)Roles, given to subjects by (Cluster)RoleBindings.

Rules are collected once for each set of identities and kept until any role or binding changes, so that a decision is a
look-up and a short scan. Source of the semantics: kubernetes.io/docs/reference/access-authn-authz/rbac.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from controlplane.apiserver.http import User
from controlplane.apiserver.requestinfo import RequestInfo
from controlplane.store.cache import CacheWatcher, Overflow, WatchCache

_GROUP = "rbac.authorization.k8s.io"
_KINDS = ("roles", "rolebindings", "clusterroles", "clusterrolebindings")
Rule = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Grants:
    """All rules of one user: for the whole cluster, and for single namespaces."""

    everywhere: Sequence[Rule]
    in_namespace: Mapping[str, Sequence[Rule]]


class Rbac:
    def __init__(self, cache: WatchCache) -> None:
        self._cache = cache
        self._grants: dict[tuple[str, tuple[str, ...]], Grants] = {}
        self._watchers = self._subscribe()

    def _subscribe(self) -> list[CacheWatcher]:
        return [self._cache.subscribe(f"{_GROUP}/{kind}/") for kind in _KINDS]

    def allows(self, user: User, info: RequestInfo) -> bool:
        grants = self.grants(user)
        if info.is_resource:
            rules: Iterable[Rule] = grants.everywhere
            if any(resource_matches(rule, info) for rule in rules):
                return True
            if info.namespace:
                return any(resource_matches(rule, info) for rule in grants.in_namespace.get(info.namespace, ()))
            return False
        return any(path_matches(rule, info) for rule in grants.everywhere)

    def grants(self, user: User) -> Grants:
        """Collected anew when a role or binding has changed since."""
        try:
            changed = [watcher for watcher in self._watchers if watcher.take()]
        except Overflow:  # nobody asked for so long that the queue ran over: what we know is old in any case
            self._watchers = changed = self._subscribe()
        if changed:
            self._grants.clear()
        key = (user.name, user.groups)
        found = self._grants.get(key)
        if found is None:
            if len(self._grants) > 2000:
                self._grants.clear()
            found = self._grants[key] = self._collect(user)
        return found

    def _collect(self, user: User) -> Grants:
        everywhere: list[Rule] = []
        for binding in self._objects("clusterrolebindings"):
            if _is_subject(binding, user, ""):
                everywhere += self.rules_of(binding["roleRef"], "")
        local: dict[str, list[Rule]] = {}
        for binding in self._objects("rolebindings"):
            namespace = binding["metadata"]["namespace"]
            if _is_subject(binding, user, namespace):
                local.setdefault(namespace, []).extend(self.rules_of(binding["roleRef"], namespace))
        return Grants(everywhere, local)

    def rules_of(self, reference: Mapping[str, str], namespace: str) -> Sequence[Rule]:
        """The rules that a roleRef means; none if the role does not exist."""
        kind = "clusterroles/" if reference.get("kind") == "ClusterRole" else f"roles/{namespace}/"
        cached = self._cache.get(f"{_GROUP}/{kind}{reference.get('name')}")
        return (cached.object.get("rules") or ()) if cached else ()

    def _objects(self, plural: str) -> Iterable[Mapping[str, Any]]:
        return (cached.object for cached in self._cache.list(f"{_GROUP}/{plural}/")[0])

    def covers(self, user: User, rules: Iterable[Rule], namespace: str) -> list[Rule]:
        """Those of `rules` that `user` does not hold: what granting them would escalate."""
        grants = self.grants(user)
        held = [*grants.everywhere, *grants.in_namespace.get(namespace, ())]
        return [rule for rule in rules if not all(_held(atom, held) for atom in _atoms(rule))]


def resource_matches(rule: Rule, info: RequestInfo) -> bool:
    verbs = rule.get("verbs", ())
    if info.verb not in verbs and "*" not in verbs:
        return False
    groups = rule.get("apiGroups") or ()
    if info.group not in groups and "*" not in groups:
        return False
    resources = rule.get("resources") or ()
    if "*" not in resources:
        wanted = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
        if wanted not in resources and not (info.subresource and f"*/{info.subresource}" in resources):
            return False
    names = rule.get("resourceNames")
    return not names or info.name in names


def path_matches(rule: Rule, info: RequestInfo) -> bool:
    verbs = rule.get("verbs", ())
    if info.verb not in verbs and "*" not in verbs:
        return False
    for path in rule.get("nonResourceURLs") or ():
        if path in ("*", info.path) or (path.endswith("*") and info.path.startswith(path[:-1])):
            return True
    return False


def _is_subject(binding: Mapping[str, Any], user: User, namespace: str) -> bool:
    for subject in binding.get("subjects") or ():
        kind, name = subject.get("kind"), subject.get("name")
        if kind == "User" and name == user.name:
            return True
        if kind == "Group" and name in user.groups:
            return True
        if kind == "ServiceAccount":
            home = subject.get("namespace") or namespace
            if user.name == f"system:serviceaccount:{home}:{name}":
                return True
    return False


def _atoms(rule: Rule) -> Iterable[Rule]:
    """`rule` as rules of one verb on one thing each."""
    for verb in rule.get("verbs", ()):
        for path in rule.get("nonResourceURLs") or ():
            yield {"verbs": [verb], "nonResourceURLs": [path]}
        for group in rule.get("apiGroups") or ():
            for resource in rule.get("resources") or ():
                for name in rule.get("resourceNames") or ("",):
                    yield {
                        "verbs": [verb], "apiGroups": [group], "resources": [resource],
                        "resourceNames": [name] if name else [],
                    }  # fmt: skip


def _held(atom: Rule, held: Sequence[Rule]) -> bool:
    verb = atom["verbs"][0]
    for rule in held:
        verbs = rule.get("verbs", ())
        if verb not in verbs and "*" not in verbs:
            continue
        if "nonResourceURLs" in atom:
            path = atom["nonResourceURLs"][0]
            if any(
                p in (path, "*") or (p.endswith("*") and path.startswith(p[:-1]))
                for p in rule.get("nonResourceURLs") or ()
            ):
                return True
            continue
        groups, resources = rule.get("apiGroups") or (), rule.get("resources") or ()
        group, resource = atom["apiGroups"][0], atom["resources"][0]
        if group not in groups and "*" not in groups:
            continue
        if resource not in resources and "*" not in resources:
            sub = resource.partition("/")[2]
            if not (sub and f"*/{sub}" in resources):
                continue
        names = rule.get("resourceNames")
        if not names or (atom["resourceNames"] and atom["resourceNames"][0] in names):
            return True
    return False
