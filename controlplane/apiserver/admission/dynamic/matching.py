"""Which operations a webhook or policy is about: rules, selectors, and equivalent versions of a resource.

Source: k8s.io/apiserver/pkg/admission/plugin/webhook/predicates and policy/matching.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from controlplane.api.resources import Resource, ResourceTable
from controlplane.api.selectors import LabelSelector, from_selector
from controlplane.api.status import StatusError, internal
from controlplane.apiserver.registry.generic import Attributes
from controlplane.store.cache import WatchCache

Object = dict[str, Any]
_EXEMPT = frozenset((
    "validatingwebhookconfigurations", "mutatingwebhookconfigurations", "validatingadmissionpolicies",
    "validatingadmissionpolicybindings", "mutatingadmissionpolicies", "mutatingadmissionpolicybindings",
))  # fmt: skip
GROUP = "admissionregistration.k8s.io"


def is_exempt(resource: Resource) -> bool:
    """Nobody may lock himself out of the configuration of admission."""
    return resource.group == GROUP and resource.plural in _EXEMPT


@dataclass(frozen=True, slots=True)
class Constraints:
    """`rules`, `excluded`: RuleWithOperations, as configured."""

    rules: Sequence[Object]
    excluded: Sequence[Object]
    namespaces: LabelSelector
    objects: LabelSelector
    equivalent: bool

    @classmethod
    def of(cls, config: Object, rules: str = "rules") -> "Constraints":
        """From a webhook, or from a policy's matchConstraints (`rules`="resourceRules")."""
        return cls(
            config.get(rules) or (),
            config.get("excludeResourceRules") or (),
            from_selector(config.get("namespaceSelector") or {}),
            from_selector(config.get("objectSelector") or {}),
            config.get("matchPolicy", "Equivalent") == "Equivalent",
        )

    def match(self, a: Attributes, table: ResourceTable, cache: WatchCache) -> Resource | None:
        """The resource as which they are about an operation: its own, or an equivalent version; None if they are not.
        Raises StatusError 500 if the operation's namespace cannot be found."""
        found = self._resource(a, table)
        if found is None or any(_matches(rule, a, a.resource) for rule in self.excluded):
            return None
        placed = bool(a.namespace) or _is_namespace(a)
        if placed and not self.namespaces.empty and not self.namespaces.matches(_namespace_labels(a, cache)):
            return None
        if not self.objects.empty and not any(self.objects.matches(_labels(obj)) for obj in (a.new, a.old) if obj):
            return None
        return found

    def _resource(self, a: Attributes, table: ResourceTable) -> Resource | None:
        if any(_matches(rule, a, a.resource) for rule in self.rules):
            return a.resource
        if self.equivalent:
            for other in _others(a.resource, table):
                if any(_matches(rule, a, other) for rule in self.rules):
                    return other
        return None


def _others(resource: Resource, table: ResourceTable) -> Iterator[Resource]:
    for version in table.versions(resource.group):
        other = table.find(resource.group, version, resource.plural)
        if other is not None and other is not resource:
            yield other


def _matches(rule: Object, a: Attributes, resource: Resource) -> bool:
    operation = "CREATE" if a.subresource in ("binding", "eviction", "token") else a.operation
    return (
        _has(rule.get("operations"), operation)
        and _has(rule.get("apiGroups"), resource.group)
        and _has(rule.get("apiVersions"), resource.version)
        and any(_is_named(pattern, resource.plural, a.subresource) for pattern in rule.get("resources") or ())
        and _in_scope(rule.get("scope") or "*", a, resource)
        and (not rule.get("resourceNames") or a.name in rule["resourceNames"])
    )


def _has(values: Sequence[str] | None, wanted: str) -> bool:
    return values is not None and ("*" in values or wanted in values)


def _is_named(pattern: str, plural: str, subresource: str) -> bool:
    resource, _, sub = pattern.partition("/")
    if resource not in ("*", plural):
        return False
    return sub in ("*", subresource) if sub else not subresource


def _in_scope(scope: str, a: Attributes, resource: Resource) -> bool:
    if scope == "*":
        return True
    return (scope == "Namespaced") == (resource.namespaced and bool(a.namespace))


def _is_namespace(a: Attributes) -> bool:
    return a.resource.plural == "namespaces" and not a.resource.group


def _labels(obj: Object) -> dict[str, str]:
    labels: dict[str, str] = (obj.get("metadata") or {}).get("labels") or {}
    return labels


def _namespace_labels(a: Attributes, cache: WatchCache) -> dict[str, str]:
    if _is_namespace(a):
        return _labels(a.new or a.old or {})
    if not a.namespace:
        return {}
    cached = cache.get(f"core/namespaces/{a.namespace}")
    if cached is None:
        raise internal(f'namespaces "{a.namespace}" not found')
    return cached.labels


__all__ = ["Constraints", "StatusError", "is_exempt"]
