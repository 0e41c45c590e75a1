"""How much is told of which request: an audit Policy, as Kubernetes writes it. Pure.

    apiVersion: audit.k8s.io/v1
    kind: Policy
    omitStages: [RequestReceived]
    rules:                       # the first that fits decides; none: nothing is told
    - level: None
      users: ["system:kube-proxy"]
      verbs: [watch]
    - level: Metadata
      resources: [{group: "", resources: [secrets, configmaps]}]

Source: k8s.io/apiserver/pkg/audit/policy and kubernetes.io/docs, "Auditing".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from controlplane.apiserver.http import User
from controlplane.apiserver.requestinfo import RequestInfo

Object = dict[str, Any]
STAGES = ("RequestReceived", "ResponseStarted", "ResponseComplete", "Panic")


class PolicyError(ValueError):
    """A policy that cannot be used; the message names the field."""


class Level(IntEnum):
    """How much is told; each level includes those before it."""

    NONE = 0
    METADATA = 1
    REQUEST = 2
    REQUEST_RESPONSE = 3


_LEVELS = {
    "None": Level.NONE, "Metadata": Level.METADATA, "Request": Level.REQUEST,
    "RequestResponse": Level.REQUEST_RESPONSE,
}  # fmt: skip
NAMES = {level: name for name, level in _LEVELS.items()}
_FIELDS = {
    "level": str, "users": list, "userGroups": list, "verbs": list, "resources": list, "namespaces": list,
    "nonResourceURLs": list, "omitStages": list, "omitManagedFields": bool,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Decision:
    """What is told of a request: how much, at which stages, and whether managedFields are left out."""

    level: Level
    omit_stages: frozenset[str] = frozenset()
    omit_managed_fields: bool = False


@dataclass(frozen=True, slots=True)
class _Rule:
    decision: Decision
    given: Mapping[str, Any]

    def fits(self, user: User, info: RequestInfo) -> bool:
        rule = self.given
        if (users := rule.get("users")) and user.name not in users:
            return False
        if (groups := rule.get("userGroups")) and not any(group in groups for group in user.groups):
            return False
        if (verbs := rule.get("verbs")) and info.verb not in verbs:
            return False
        if rule.get("resources") or rule.get("namespaces"):
            return info.is_resource and _of_resource(rule, info)
        if paths := rule.get("nonResourceURLs"):
            return not info.is_resource and any(_path_fits(path, info.path) for path in paths)
        return True


@dataclass(frozen=True, slots=True)
class Policy:
    rules: Sequence[_Rule]

    @classmethod
    def parse(cls, document: Any) -> Policy:
        """From a decoded YAML or JSON document. Raises PolicyError."""
        if not isinstance(document, dict) or document.get("kind") != "Policy":
            raise PolicyError("not an audit policy: kind must be Policy")
        if document.get("apiVersion") != "audit.k8s.io/v1":
            raise PolicyError(f"apiVersion: unsupported value {document.get('apiVersion')!r}: use audit.k8s.io/v1")
        if not document.get("rules"):
            raise PolicyError("rules: required: a policy without rules tells nothing")
        everywhere = _stages(document.get("omitStages") or (), "omitStages")
        hide = bool(document.get("omitManagedFields"))
        return cls([_rule(rule, f"rules[{i}]", everywhere, hide) for i, rule in enumerate(document["rules"])])

    def decide(self, user: User, info: RequestInfo) -> Decision:
        """What the first fitting rule says."""
        return next((rule.decision for rule in self.rules if rule.fits(user, info)), _NOTHING)


_NOTHING = Decision(Level.NONE)


def _rule(rule: Any, path: str, everywhere: frozenset[str], hide: bool) -> _Rule:
    if not isinstance(rule, dict):
        raise PolicyError(f"{path}: must be an object")
    for name, value in rule.items():
        if name not in _FIELDS:
            raise PolicyError(f"{path}.{name}: unknown field")
        if not isinstance(value, _FIELDS[name]):
            raise PolicyError(f"{path}.{name}: must be a {_FIELDS[name].__name__}")
    level = _LEVELS.get(rule.get("level", ""))
    if level is None:
        raise PolicyError(f"{path}.level: unsupported value {rule.get('level')!r}: use {', '.join(_LEVELS)}")
    if rule.get("nonResourceURLs") and (rule.get("resources") or rule.get("namespaces")):
        raise PolicyError(f"{path}: rules cannot apply to both regular resources and non-resource URLs")
    for each in rule.get("resources") or ():
        if not isinstance(each, dict) or not isinstance(each.get("group", ""), str):
            raise PolicyError(f"{path}.resources: each is an object with group, resources and resourceNames")
        if each.get("resourceNames") and not each.get("resources"):
            raise PolicyError(f"{path}.resources: using resourceNames requires at least one resource")
    stages = everywhere | _stages(rule.get("omitStages") or (), f"{path}.omitStages")
    return _Rule(Decision(level, stages, bool(rule.get("omitManagedFields", hide))), rule)


def _stages(values: Sequence[str], path: str) -> frozenset[str]:
    for value in values:
        if value not in STAGES:
            raise PolicyError(f"{path}: unsupported value {value!r}: use {', '.join(STAGES)}")
    return frozenset(values)


def _of_resource(rule: Mapping[str, Any], info: RequestInfo) -> bool:
    if (namespaces := rule.get("namespaces")) and info.namespace not in namespaces:
        return False
    wanted = rule.get("resources")
    return not wanted or any(_resource_fits(each, info) for each in wanted)


def _resource_fits(each: Mapping[str, Any], info: RequestInfo) -> bool:
    if each.get("group", "") != info.group:
        return False
    names = each.get("resources")
    if not names:
        return True
    asked = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
    for name in names:
        if name in (asked, "*"):
            break
        if info.subresource and name.endswith("/*") and name[:-2] == info.resource:
            break
        if name.startswith("*/") and name[2:] == info.subresource:
            break
    else:
        return False
    return not each.get("resourceNames") or info.name in each["resourceNames"]


def _path_fits(pattern: str, path: str) -> bool:
    return pattern in ("*", path) or (pattern.endswith("*") and path.startswith(pattern[:-1]))
