"""Defaults of what configures the cluster itself: nodes, webhooks and policies, custom resources, flow control."""

from collections.abc import Iterable
from typing import Any

Object = dict[str, Any]

ADMISSION = "admissionregistration.k8s.io"
FLOW_CONTROL = "flowcontrol.apiserver.k8s.io"


def node(obj: Object) -> None:
    """v1 Node: a node that says no allocatable offers all of its capacity."""
    obj.setdefault("spec", {})
    status = obj.setdefault("status", {})
    if status.get("capacity") and not status.get("allocatable"):
        status["allocatable"] = dict(status["capacity"])


def _service_port(client_config: Object | None) -> None:
    if client_config and "service" in client_config:
        client_config["service"].setdefault("port", 443)


def _scopes(rules: Iterable[Object]) -> None:
    for rule in rules:
        rule.setdefault("scope", "*")


def webhooks(obj: Object) -> None:
    """Validating- and MutatingWebhookConfiguration."""
    for hook in obj.get("webhooks") or ():
        hook.setdefault("failurePolicy", "Fail")
        hook.setdefault("matchPolicy", "Equivalent")
        hook.setdefault("namespaceSelector", {})
        hook.setdefault("objectSelector", {})
        hook.setdefault("timeoutSeconds", 10)
        if obj.get("kind") == "MutatingWebhookConfiguration":
            hook.setdefault("reinvocationPolicy", "Never")
        _scopes(hook.get("rules") or ())
        _service_port(hook.get("clientConfig"))


def _match(match: Object | None) -> None:
    if match is not None:
        match.setdefault("matchPolicy", "Equivalent")
        match.setdefault("namespaceSelector", {})
        match.setdefault("objectSelector", {})
        _scopes((*(match.get("resourceRules") or ()), *(match.get("excludeResourceRules") or ())))


def admission_policy(obj: Object) -> None:
    """Validating- and MutatingAdmissionPolicy."""
    spec = obj.setdefault("spec", {})
    spec.setdefault("failurePolicy", "Fail")
    _match(spec.get("matchConstraints"))


def admission_policy_binding(obj: Object) -> None:
    """Validating- and MutatingAdmissionPolicyBinding."""
    _match(obj.get("spec", {}).get("matchResources"))


def custom_resource(obj: Object) -> None:
    """apiextensions.k8s.io/v1 CustomResourceDefinition."""
    spec = obj.setdefault("spec", {})
    names = spec.setdefault("names", {})
    if names.get("kind"):
        if not names.get("singular"):
            names["singular"] = names["kind"].lower()
        if not names.get("listKind"):
            names["listKind"] = f"{names['kind']}List"
    conversion = spec.setdefault("conversion", {})
    conversion.setdefault("strategy", "None")
    _service_port((conversion.get("webhook") or {}).get("clientConfig"))


def api_service(obj: Object) -> None:
    """apiregistration.k8s.io/v1 APIService."""
    service = obj.get("spec", {}).get("service")
    if service is not None:
        service.setdefault("port", 443)


def flow_schema(obj: Object) -> None:
    """flowcontrol.apiserver.k8s.io/v1 FlowSchema."""
    spec = obj.setdefault("spec", {})
    if not spec.get("matchingPrecedence"):
        spec["matchingPrecedence"] = 1000


def priority_level(obj: Object) -> None:
    """flowcontrol.apiserver.k8s.io/v1 PriorityLevelConfiguration."""
    spec = obj.setdefault("spec", {})
    if "exempt" in spec:
        spec["exempt"].setdefault("nominalConcurrencyShares", 0)
        spec["exempt"].setdefault("lendablePercent", 0)
    if "limited" in spec:
        limited = spec["limited"]
        limited.setdefault("nominalConcurrencyShares", 30)
        limited.setdefault("lendablePercent", 0)
        response = limited.setdefault("limitResponse", {})
        response.setdefault("type", "Reject")
        if "queuing" in response:
            for key, value in (("queues", 64), ("handSize", 8), ("queueLengthLimit", 50)):
                if not response["queuing"].get(key):
                    response["queuing"][key] = value


BY_KIND = {
    ("", "Node"): node,
    (ADMISSION, "ValidatingWebhookConfiguration"): webhooks,
    (ADMISSION, "MutatingWebhookConfiguration"): webhooks,
    (ADMISSION, "ValidatingAdmissionPolicy"): admission_policy,
    (ADMISSION, "MutatingAdmissionPolicy"): admission_policy,
    (ADMISSION, "ValidatingAdmissionPolicyBinding"): admission_policy_binding,
    (ADMISSION, "MutatingAdmissionPolicyBinding"): admission_policy_binding,
    ("apiextensions.k8s.io", "CustomResourceDefinition"): custom_resource,
    ("apiregistration.k8s.io", "APIService"): api_service,
    (FLOW_CONTROL, "FlowSchema"): flow_schema,
    (FLOW_CONTROL, "PriorityLevelConfiguration"): priority_level,
}
