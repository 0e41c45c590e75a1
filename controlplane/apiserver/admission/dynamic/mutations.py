"""MutatingAdmissionPolicy: what expressions want changed in an object, as a part of it to apply or as a JSON patch.

Source: k8s.io/apiserver/pkg/admission/plugin/policy/mutating. A part is merged by the schema as server-side apply does
it, without owners. Kubernetes checks the fields of what is made when a policy is written, we when it runs.
"""

from collections.abc import Sequence
from typing import Any

from controlplane.api import convert, defaults, patch, status
from controlplane.api.apply.merge import merged
from controlplane.api.cel.environment import CompileError, EvaluationError
from controlplane.api.cel.structs import as_maps
from controlplane.api.resources import Resource
from controlplane.api.status import StatusError
from controlplane.api.validate import decode_checked
from controlplane.apiserver.admission.dynamic import expressions, question
from controlplane.apiserver.admission.dynamic.bound import Binding, Bound, Policy
from controlplane.apiserver.admission.dynamic.changing import put
from controlplane.apiserver.admission.dynamic.expressions import Variables
from controlplane.apiserver.patches import own
from controlplane.apiserver.registry.generic import Attributes
from controlplane.apiserver.registry.ownership import Ownership

Object = dict[str, Any]


class Mutations(Bound):
    """Evaluates MutatingAdmissionPolicies. `ownership` knows the types by which parts are merged."""

    ownership: Ownership

    def mutate(self, policies: Sequence[Policy], a: Attributes) -> None:
        """Change the operation's object in place. Raises StatusError."""
        if a.new is None or (a.subresource and a.subresource != "status"):
            return
        again = []
        for policy, binding, resource in self._concerning(policies, a):
            self._apply(policy, binding, resource, a)
            if policy.spec.get("reinvocationPolicy") == "IfNeeded":
                again.append((policy, binding, resource, own(a.new)))
        for policy, binding, resource, left in again:
            if own(a.new) != left:  # others changed something after it
                self._apply(policy, binding, resource, a)

    def _apply(self, policy: Policy, binding: Binding, resource: Resource, a: Attributes) -> None:
        with expressions.authorizing(self._authz, a.user) as authorizer:
            try:
                for param in list(self._params(policy, binding, a)):
                    self._with(policy, resource, a, param, authorizer)
            except (ValueError, CompileError, StatusError) as error:
                if policy.fails_open:
                    return
                text = f"policy '{policy.name}' with binding '{binding.name}' denied request: {_text(error)}"
                raise status.forbidden_object(a.resource.group_resource, a.name, text) from None

    def _with(
        self, policy: Policy, resource: Resource, a: Attributes, param: Object | None, authorizer: Object
    ) -> None:
        variables = self._variables(policy, resource, a, param, authorizer)
        if expressions.first_false(policy.spec.get("matchConditions") or (), variables) is not None:
            return
        for mutation in policy.spec.get("mutations") or ():
            variables = self._variables(policy, resource, a, param, authorizer)
            before = question.shown(a.new, a, resource)
            assert before is not None
            if mutation.get("patchType") == "JSONPatch":
                wanted = _value(mutation["jsonPatch"]["expression"], variables)
                if not isinstance(wanted, list):
                    raise EvaluationError("type mismatch: a JSONPatch expression must make a list of JSONPatch")
                after = patch.json_patch(before, wanted)
            else:
                wanted = _value(mutation["applyConfiguration"]["expression"], variables)
                if not isinstance(wanted, dict):
                    raise EvaluationError("type mismatch: an applyConfiguration must make an Object")
                after = merged(self.ownership.root(resource, "").whole, before, wanted)
            self._put(own(after), resource, a)

    def _put(self, after: Object, resource: Resource, a: Attributes) -> None:
        assert a.new is not None
        if resource is not a.resource:
            after = convert.convert(after, a.resource.api_version)
        after, _ = decode_checked(a.resource, after, "Ignore")
        defaults.apply(a.resource, after)
        put(a.new, after)

    def _variables(
        self, policy: Policy, resource: Resource, a: Attributes, param: Object | None, authorizer: Object
    ) -> Variables:
        variables = self._known(resource, a, param, authorizer)
        variables.compose({each["name"]: each["expression"] for each in policy.spec.get("variables") or ()})
        return variables


def _value(text: str, variables: Variables) -> Any:
    return variables.evaluate(as_maps(text))


def _text(error: Exception) -> str:
    return error.message if isinstance(error, StatusError) else str(error)
