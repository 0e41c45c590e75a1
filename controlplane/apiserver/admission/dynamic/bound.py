"""Policies and their bindings, of both kinds: whom they concern, with which parameters, and what expressions see.

Source: k8s.io/apiserver/pkg/admission/plugin/policy/generic.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from controlplane.api.apply.entries import plain
from controlplane.api.resources import Resource, ResourceTable
from controlplane.api.selectors import from_selector
from controlplane.apiserver.admission.dynamic import expressions, question
from controlplane.apiserver.admission.dynamic.expressions import Variables
from controlplane.apiserver.admission.dynamic.matching import Constraints
from controlplane.apiserver.authz.authorizer import Authorizer
from controlplane.apiserver.registry.codec import object_in
from controlplane.apiserver.registry.generic import Attributes
from controlplane.store.cache import WatchCache

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Binding:
    """A binding, compiled."""

    name: str
    spec: Object
    constraints: Constraints | None


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy with its bindings, compiled."""

    name: str
    spec: Object
    constraints: Constraints
    bindings: list[Binding] = field(default_factory=list)

    @property
    def fails_open(self) -> bool:
        return self.spec.get("failurePolicy") == "Ignore"


def compiled(policies: Sequence[Object], bindings: Sequence[Object]) -> list[Policy]:
    """The policies that are bound at all."""
    found = {}
    for obj in policies:
        spec = obj.get("spec") or {}
        name = obj["metadata"]["name"]
        found[name] = Policy(name, spec, Constraints.of(spec.get("matchConstraints") or {}, "resourceRules"))
    for obj in bindings:
        spec = obj.get("spec") or {}
        policy = found.get(spec.get("policyName", ""))
        if policy is not None:
            match = spec.get("matchResources")
            constraints = Constraints.of(match, "resourceRules") if match else None
            policy.bindings.append(Binding(obj["metadata"]["name"], spec, constraints))
    return [policy for policy in found.values() if policy.bindings]


class Bound:
    """What validating and mutating policies have in common. `table` is set again when resources come and go."""

    def __init__(self, cache: WatchCache, table: ResourceTable, authz: Authorizer) -> None:
        self._cache = cache
        self.table = table
        self._authz = authz

    def _concerning(self, policies: Sequence[Policy], a: Attributes) -> Iterator[tuple[Policy, Binding, Resource]]:
        """The policies that an operation has to do with, and the version as which they see it."""
        for policy in policies:
            resource = policy.constraints.match(a, self.table, self._cache)
            if resource is None:
                continue
            for binding in policy.bindings:
                if self._bound(binding, a):
                    yield policy, binding, resource

    def _bound(self, binding: Binding, a: Attributes) -> bool:
        limits = binding.constraints
        if limits is None:
            return True
        if not limits.rules:  # a binding may narrow by selectors alone
            everything = {"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}
            limits = Constraints([everything], limits.excluded, limits.namespaces, limits.objects, limits.equivalent)
        return limits.match(a, self.table, self._cache) is not None

    def _known(self, resource: Resource, a: Attributes, param: Object | None, authorizer: Object) -> Variables:
        namespace = self._cache.get(f"core/namespaces/{a.namespace}") if a.namespace else None
        request = question.request_of(a, resource)
        asked = {"group": resource.group, "resource": resource.plural, "subresource": a.subresource,
                 "namespace": a.namespace, "name": a.name}  # fmt: skip
        known = {
            "object": question.shown(a.new, a, resource),
            "oldObject": question.shown(a.old, a, resource),
            "request": request,
            "params": None if param is None else plain(param),
            "namespaceObject": None if namespace is None else plain(namespace.object),
            "authorizer": {**authorizer, "requestResource": {expressions.ASKED: asked}},
        }
        return Variables(known)

    # --- parameters ---------------------------------------------------------------------------------------------------

    def _params(self, policy: Policy, binding: Binding, a: Attributes) -> Iterator[Object | None]:
        """The parameter objects of a binding; one None if the policy takes none. Raises ValueError."""
        kind, ref = policy.spec.get("paramKind"), binding.spec.get("paramRef")
        if not kind or not ref:
            yield None
            return
        resource = self.table.for_object(kind["apiVersion"], kind["kind"])
        if resource is None:
            raise ValueError(
                f"failed to configure policy: failed to find resource referenced by paramKind: "
                f"'{kind['apiVersion']}, Kind={kind['kind']}'"
            )
        found = list(self._found(resource, ref, a))
        if not found and ref.get("parameterNotFoundAction", "Deny") == "Deny":
            raise ValueError(
                "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"
            )
        yield from found

    def _found(self, resource: Resource, ref: Object, a: Attributes) -> Iterator[Object]:
        prefix = f"{resource.storage_group or 'core'}/{resource.plural}/"
        if resource.namespaced:
            namespace = ref.get("namespace") or a.namespace
            if not namespace:
                raise ValueError(
                    "failed to configure binding: cannot use namespaced paramRef in policy binding that matches "
                    "cluster-scoped resources"
                )
            prefix += f"{namespace}/"
        if ref.get("name"):
            cached = self._cache.get(prefix + ref["name"])
            if cached is not None:
                yield object_in(cached, resource)
            return
        selector = from_selector(ref.get("selector") or {})
        for cached in self._cache.list(prefix)[0]:
            if selector.matches(cached.labels):
                yield object_in(cached, resource)
