"""ValidatingAdmissionPolicy: expressions that an object must fulfil, where a binding says so, with parameters.

Source: k8s.io/apiserver/pkg/admission/plugin/policy/validating, the wording included.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from controlplane.api import status
from controlplane.api.cel.environment import CompileError, EvaluationError
from controlplane.api.resources import Resource
from controlplane.api.status import StatusError
from controlplane.apiserver.admission.dynamic import expressions
from controlplane.apiserver.admission.dynamic.bound import Binding, Bound, Policy
from controlplane.apiserver.admission.dynamic.expressions import Variables
from controlplane.apiserver.admission.notes import Notes
from controlplane.apiserver.registry.generic import Attributes

log = logging.getLogger(__name__)
Object = dict[str, Any]
_FAILURE = "validation.policy.admission.k8s.io/validation_failure"
_CODES = {"Unauthorized": 401, "Forbidden": 403, "RequestEntityTooLarge": 413, "Invalid": 422}


@dataclass(frozen=True, slots=True)
class _Finding:
    """Something that an operation does not fulfil."""

    message: str
    reason: str = ""
    index: int = 0


class Policies(Bound):
    """Evaluates ValidatingAdmissionPolicies."""

    def validate(self, policies: Sequence[Policy], a: Attributes, notes: Notes) -> None:
        """Raises the first refusal as StatusError."""
        for policy, binding, resource in self._concerning(policies, a):
            self._check(policy, binding, resource, a, notes)

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
