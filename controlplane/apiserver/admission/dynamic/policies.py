"""ValidatingAdmissionPolicy: expressions that an object must fulfil, where a binding says so, with parameters.

Source: k8s.io/apiserver/pkg/admission/plugin/policy/validating, the wording included.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from controlplane.api import status
from controlplane.api.apply.entries import plain
from controlplane.api.cel.environment import CompileError, EvaluationError
from controlplane.api.resources import Resource, ResourceTable
from controlplane.api.selectors import from_selector
from controlplane.api.status import StatusError
from controlplane.apiserver.admission.dynamic import expressions, question
from controlplane.apiserver.admission.dynamic.expressions import Variables
from controlplane.apiserver.admission.dynamic.matching import Constraints
from controlplane.apiserver.admission.notes import Notes
from controlplane.apiserver.authz.authorizer import Authorizer
from controlplane.apiserver.registry.codec import object_in
from controlplane.apiserver.registry.generic import Attributes
from controlplane.store.cache import WatchCache

log = logging.getLogger(__name__)
Object = dict[str, Any]
_FAILURE = "validation.policy.admission.k8s.io/validation_failure"
_CODES = {"Unauthorized": 401, "Forbidden": 403, "RequestEntityTooLarge": 413, "Invalid": 422}


@dataclass(frozen=True, slots=True)
class Binding:
    """A ValidatingAdmissionPolicyBinding, compiled."""

    name: str
    spec: Object
    constraints: Constraints | None


@dataclass(frozen=True, slots=True)
class Policy:
    """A ValidatingAdmissionPolicy with its bindings, compiled."""

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


@dataclass(frozen=True, slots=True)
class _Finding:
    """Something that an operation does not fulfil."""

    message: str
    reason: str = ""
    index: int = 0


class Policies:
    """Evaluates policies. `table` is set again when resources come and go."""

    def __init__(self, cache: WatchCache, table: ResourceTable, authz: Authorizer) -> None:
        self._cache = cache
        self.table = table
        self._authz = authz

    def validate(self, policies: Sequence[Policy], a: Attributes, notes: Notes) -> None:
        """Raises the first refusal as StatusError."""
        for policy in policies:
            resource = policy.constraints.match(a, self.table, self._cache)
            if resource is None:
                continue
            for binding in policy.bindings:
                if self._bound(binding, a):
                    self._check(policy, binding, resource, a, notes)

    def _bound(self, binding: Binding, a: Attributes) -> bool:
        limits = binding.constraints
        if limits is None:
            return True
        if not limits.rules:  # a binding may narrow by selectors alone
            everything = {"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*/*"]}
            limits = Constraints([everything], limits.excluded, limits.namespaces, limits.objects, limits.equivalent)
        return limits.match(a, self.table, self._cache) is not None

    def _check(self, policy: Policy, binding: Binding, resource: Resource, a: Attributes, notes: Notes) -> None:
        with expressions.authorizing(self._authz, a.user) as authorizer:
            try:
                params = list(self._params(policy, binding, a))
            except ValueError as error:
                if not policy.fails_open:
                    self._act(policy, binding, a, notes, [_Finding(str(error))])
                return
            for param in params:
                known = self._known(resource, a, param, authorizer)
                self._act(policy, binding, a, notes, self._evaluate(policy, known, notes))

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

    def _evaluate(self, policy: Policy, variables: Variables, notes: Notes) -> list[_Finding]:
        spec = policy.spec
        variables.compose({each["name"]: each["expression"] for each in spec.get("variables") or ()})
        try:
            if expressions.first_false(spec.get("matchConditions") or (), variables) is not None:
                return []
        except (EvaluationError, CompileError) as error:
            return [] if policy.fails_open else [_Finding(f"match conditions evaluated to error: {error}")]
        findings = []
        for index, each in enumerate(spec.get("validations") or ()):
            expression = each["expression"]
            try:
                if variables.evaluate(expression) is not True:
                    findings.append(_Finding(_message(each, variables), each.get("reason") or "", index))
            except (EvaluationError, CompileError) as error:
                if not policy.fails_open:
                    findings.append(_Finding(f"expression '{expression.strip()}' resulted in error: {error}"))
        for each in spec.get("auditAnnotations") or ():
            try:
                value = variables.evaluate(each["valueExpression"])
            except (EvaluationError, CompileError) as error:
                if not policy.fails_open:
                    findings.append(_Finding(f"expression '{each['valueExpression']}' resulted in error: {error}"))
                continue
            if isinstance(value, str) and value.strip():
                notes.annotate(f"{policy.name}/{each['key']}", value)
        return findings

    def _act(self, policy: Policy, binding: Binding, a: Attributes, notes: Notes, findings: Sequence[_Finding]) -> None:
        actions = binding.spec.get("validationActions") or ("Deny",)
        for finding in findings:
            if "Warn" in actions:
                notes.warn(
                    f"Validation failed for ValidatingAdmissionPolicy '{policy.name}' with binding '{binding.name}': "
                    f"{finding.message}"
                )
            if "Audit" in actions:
                failure = {
                    "message": finding.message, "policy": policy.name, "binding": binding.name,
                    "expressionIndex": finding.index, "validationActions": list(actions),
                }  # fmt: skip
                notes.annotate(_FAILURE, msgspec.json.encode([failure]).decode())
        if findings and "Deny" in actions:
            raise _refusal(policy, binding, a, findings[0])

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


def _message(validation: Object, variables: Variables) -> str:
    expression = validation.get("messageExpression")
    if expression:
        try:
            text = variables.evaluate(expression)
        except (EvaluationError, CompileError):
            text = ""
        if isinstance(text, str) and text.strip() and "\n" not in text:
            return text.strip()
    return (validation.get("message") or "").strip() or f"failed expression: {validation['expression'].strip()}"


def _refusal(policy: Policy, binding: Binding, a: Attributes, finding: _Finding) -> StatusError:
    text = f"ValidatingAdmissionPolicy '{policy.name}' with binding '{binding.name}' denied request: {finding.message}"
    error = status.forbidden_object(a.resource.group_resource, a.name, text)
    error.reason = finding.reason or "Invalid"
    error.code = _CODES.get(error.reason, 422)
    error.details = {**error.details, "causes": [{"message": text}]}
    return error
