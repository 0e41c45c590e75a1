"""Which FlowSchema a request belongs to. Pure.

The schema of the lowest matchingPrecedence whose rules fit wins (then by name). Rules are looked at once for each
combination that can matter, and remembered; a change of any schema begins anew.
Source: k8s.io/apiserver/pkg/util/flowcontrol/rule.go.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from controlplane.apiserver.http import User
from controlplane.apiserver.requestinfo import RequestInfo

Object = dict[str, Any]
_MOST_REMEMBERED = 20_000


@dataclass(frozen=True, slots=True)
class Schema:
    """One FlowSchema, ready to be asked. `by`: ByUser, ByNamespace or empty (one flow for all)."""

    name: str
    uid: str
    level: str
    precedence: int
    by: str
    rules: Sequence[Object]

    @classmethod
    def of(cls, obj: Object) -> Schema:
        spec = obj.get("spec") or {}
        return cls(
            obj["metadata"]["name"],
            obj["metadata"].get("uid", ""),
            (spec.get("priorityLevelConfiguration") or {}).get("name", ""),
            int(spec.get("matchingPrecedence") or 1000),
            (spec.get("distinguisherMethod") or {}).get("type", ""),
            spec.get("rules") or (),
        )

    def fits(self, user: User, info: RequestInfo) -> bool:
        return any(_rule_fits(rule, user, info) for rule in self.rules)

    def flow(self, user: User, info: RequestInfo) -> str:
        """Whom a request of this schema is told apart by."""
        if self.by == "ByUser":
            return user.name
        return info.namespace if self.by == "ByNamespace" else ""


@dataclass(slots=True)
class Classifier:
    """`schemas` in the order in which they are asked; the last one fits everything (catch-all)."""

    schemas: Sequence[Schema]
    _known: dict[tuple[Any, ...], Schema] = field(default_factory=dict)

    @classmethod
    def of(cls, objects: Sequence[Object]) -> Classifier:
        return cls(sorted(map(Schema.of, objects), key=lambda s: (s.precedence, s.name)))

    def find(self, user: User, info: RequestInfo) -> Schema | None:
        if info.is_resource:
            asked: tuple[Any, ...] = (info.verb, info.group, info.resource, info.subresource, info.namespace)
        else:
            asked = (info.verb, info.path)
        key = (user.name, user.groups, asked)
        found = self._known.get(key)
        if found is None:
            found = next((schema for schema in self.schemas if schema.fits(user, info)), None)
            if found is None:
                return None
            if len(self._known) >= _MOST_REMEMBERED:
                self._known.clear()
            self._known[key] = found
        return found


def _rule_fits(rule: Object, user: User, info: RequestInfo) -> bool:
    if not any(_is_subject(subject, user) for subject in rule.get("subjects") or ()):
        return False
    if info.is_resource:
        return any(_resource_fits(each, info) for each in rule.get("resourceRules") or ())
    return any(
        _has(each.get("verbs"), info.verb) and _path_fits(each.get("nonResourceURLs") or (), info.path)
        for each in rule.get("nonResourceRules") or ()
    )


def _is_subject(subject: Mapping[str, Any], user: User) -> bool:
    kind = subject.get("kind")
    if kind == "User":
        return (subject.get("user") or {}).get("name") in ("*", user.name)
    if kind == "Group":
        name = (subject.get("group") or {}).get("name")
        return name == "*" or name in user.groups
    if kind == "ServiceAccount":
        account = subject.get("serviceAccount") or {}
        prefix = f"system:serviceaccount:{account.get('namespace')}:"
        if account.get("name") == "*":
            return user.name.startswith(prefix)
        return user.name == prefix + str(account.get("name"))
    return False


def _resource_fits(rule: Mapping[str, Any], info: RequestInfo) -> bool:
    asked = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
    if not _has(rule.get("verbs"), info.verb) or not _has(rule.get("apiGroups"), info.group):
        return False
    if not _has(rule.get("resources"), asked):
        return False
    if not info.namespace:
        return bool(rule.get("clusterScope"))
    return _has(rule.get("namespaces"), info.namespace)


def _has(values: Sequence[str] | None, value: str) -> bool:
    return bool(values) and ("*" in values or value in values)  # type: ignore[operator]


def _path_fits(patterns: Sequence[str], path: str) -> bool:
    return any(p == "*" or p == path or (p.endswith("/*") and path.startswith(p[:-1])) for p in patterns)
