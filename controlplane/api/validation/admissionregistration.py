"""Rules for admissionregistration.k8s.io: webhook configurations, validating policies and their bindings.

Source: pkg/apis/admissionregistration/validation. Expressions must compile; what they cost is limited when they run.
"""

import re
from typing import Any
from urllib.parse import urlsplit

from controlplane.api import names
from controlplane.api.status import (
    Cause,
    duplicate,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
    too_many,
)
from controlplane.api.validation.common import selector

Object = dict[str, Any]
GROUP = "admissionregistration.k8s.io"
_REVIEWS = ("v1", "v1beta1")
_OPERATIONS = ("*", "CONNECT", "CREATE", "DELETE", "UPDATE")
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*", re.ASCII).fullmatch
_USED = re.compile(r"\bvariables\.(\w+)")


def webhooks(obj: Object) -> list[Cause]:
    """Validating- and MutatingWebhookConfiguration."""
    causes: list[Cause] = []
    seen: set[str] = set()
    for index, hook in enumerate(obj.get("webhooks") or ()):
        at = f"webhooks[{index}]"
        name = hook.get("name", "")
        _hook_name(name, f"{at}.name", causes)
        if name in seen:
            causes.append(duplicate(f"{at}.name", name))
        seen.add(name)
        _hook(hook, at, causes)
        if obj.get("kind") == "MutatingWebhookConfiguration":
            _supported(hook, "reinvocationPolicy", ("IfNeeded", "Never"), at, causes)
    return causes


def _hook_name(name: str, at: str, causes: list[Cause]) -> None:
    if not name:
        causes.append(required(at))
    elif complaints := names.dns1123_subdomain(name):
        causes += [invalid_value(at, name, each) for each in complaints]
    elif name.count(".") < 2:
        causes.append(invalid_value(at, name, "should be a domain with at least three segments separated by dots"))


def _hook(hook: Object, at: str, causes: list[Cause]) -> None:
    for position, rule in enumerate(hook.get("rules") or ()):
        _rule(rule, f"{at}.rules[{position}]", causes)
    _supported(hook, "failurePolicy", ("Fail", "Ignore"), at, causes)
    _supported(hook, "matchPolicy", ("Equivalent", "Exact"), at, causes)
    effects = hook.get("sideEffects")
    if effects is None:
        causes.append(required(f"{at}.sideEffects", "must specify one of None, NoneOnDryRun"))
    else:
        _supported(hook, "sideEffects", ("None", "NoneOnDryRun"), at, causes)
    versions = hook.get("admissionReviewVersions")
    if not versions:
        text = f"must specify one of {', '.join(_REVIEWS)}"
        causes.append(required(f"{at}.admissionReviewVersions", text))
    elif not set(versions) & set(_REVIEWS):
        text = f"must include at least one of {', '.join(_REVIEWS)}"
        causes.append(invalid_value(f"{at}.admissionReviewVersions", versions, text))
    seconds = hook.get("timeoutSeconds")
    if seconds is not None and not 1 <= seconds <= 30:
        text = "the timeout value must be between 1 and 30 seconds"
        causes.append(invalid_value(f"{at}.timeoutSeconds", seconds, text))
    for key in ("namespaceSelector", "objectSelector"):
        if hook.get(key):
            causes += selector(hook[key], f"{at}.{key}")
    _client(hook.get("clientConfig") or {}, f"{at}.clientConfig", causes)
    _conditions(hook.get("matchConditions") or (), f"{at}.matchConditions", causes)


def _supported(obj: Object, key: str, values: tuple[str, ...], at: str, causes: list[Cause]) -> None:
    value = obj.get(key)
    if value is not None and value not in values:
        causes.append(not_supported(f"{at}.{key}", value, values))


def _rule(rule: Object, at: str, causes: list[Cause]) -> None:
    for key in ("operations", "apiGroups", "apiVersions", "resources"):
        values = rule.get(key) or []
        if not values:
            causes.append(required(f"{at}.{key}"))
        if "*" in values and len(values) > 1 and key != "resources":
            what = {"operations": "operations", "apiGroups": "groups", "apiVersions": "versions"}[key]
            text = f"if '*' is present, must not specify other {'API ' if what != 'operations' else ''}{what}"
            causes.append(invalid_value(f"{at}.{key}", values, text))
    for index, operation in enumerate(rule.get("operations") or ()):
        if operation not in _OPERATIONS:
            causes.append(not_supported(f"{at}.operations[{index}]", operation, _OPERATIONS))
    for index, version in enumerate(rule.get("apiVersions") or ()):
        if not version:
            causes.append(required(f"{at}.apiVersions[{index}]"))
    for index, resource in enumerate(rule.get("resources") or ()):
        if not resource:
            causes.append(required(f"{at}.resources[{index}]"))
    _supported(rule, "scope", ("*", "Cluster", "Namespaced"), at, causes)


def _client(client: Object, at: str, causes: list[Cause]) -> None:
    url, service = client.get("url"), client.get("service")
    if (url is None) == (service is None):
        causes.append(required(at, "exactly one of url or service is required"))
    elif url is not None:
        desired = "desired format: https://host[/path]"
        parts = urlsplit(url)
        if parts.scheme != "https":
            text = f"'https' is the only allowed URL scheme; {desired}"
            causes.append(invalid_value(f"{at}.url", url, text))
        if not parts.netloc:
            causes.append(invalid_value(f"{at}.url", url, f"host must be specified; {desired}"))
        for value, what in ((parts.fragment, "fragments"), (parts.query, "query parameters")):
            if value:
                text = f'{what} are not permitted in the URL; "{value}"'
                causes.append(invalid_value(f"{at}.url", url, text))
        if "@" in parts.netloc:
            causes.append(invalid_value(f"{at}.url", url, "user information is not permitted in the URL"))
    elif service is not None:
        causes += [required(f"{at}.service.{key}") for key in ("name", "namespace") if not service.get(key)]
        port = service.get("port", 443)
        if not 1 <= port <= 65535:
            text = "port is not valid: must be between 1 and 65535, inclusive"
            causes.append(invalid_value(f"{at}.service.port", port, text))
        path = service.get("path")
        if path and not path.startswith("/"):
            text = "must start with a '/'"
            causes.append(invalid_value(f"{at}.service.path", path, text))


def _conditions(conditions: Any, at: str, causes: list[Cause]) -> None:
    if len(conditions) > 64:
        causes.append(too_many(at, len(conditions), 64))
    seen: set[str] = set()
    for index, condition in enumerate(conditions):
        name, where = condition.get("name", ""), f"{at}[{index}]"
        if not name:
            causes.append(required(f"{where}.name"))
        elif name in seen:
            causes.append(duplicate(f"{where}.name", name))
        else:
            causes += [invalid_value(f"{where}.name", name, each) for each in names.qualified_name(name)]
        seen.add(name)
        _expression(condition.get("expression"), f"{where}.expression", ("bool",), causes)


def _expression(
    text: str | None, at: str, returns: tuple[str, ...], causes: list[Cause], variables: set[str] | None = None
) -> None:
    """An expression that must be there, compile, and have a value of one of these types."""
    from controlplane.api.cel.environment import ADMISSION, CompileError, compile_expression

    if not (text or "").strip():
        causes.append(required(at, "expression is not specified" if returns == ("bool",) else ""))
        return
    assert text is not None
    try:
        program = compile_expression(text, ADMISSION)
    except CompileError as error:
        causes.append(invalid_value(at, text, f"compilation failed: {error}"))
        return
    if returns and program.returns not in (*returns, "dyn"):
        causes.append(invalid_value(at, text, f"must evaluate to {' or '.join(returns)}"))
    if variables is not None:
        for name in dict.fromkeys(_USED.findall(text)):
            if name not in variables:
                causes.append(invalid_value(at, text, f"compilation failed: ERROR: undefined field '{name}'"))


def _policy(spec: Object, causes: list[Cause]) -> set[str]:
    """What policies of both kinds have in common; the names of its variables."""
    kind = spec.get("paramKind")
    if kind is not None:
        causes += [required(f"spec.paramKind.{key}") for key in ("apiVersion", "kind") if not kind.get(key)]
    match = spec.get("matchConstraints")
    if match is None:
        causes.append(required("spec.matchConstraints"))
    else:
        if not match.get("resourceRules"):
            causes.append(required("spec.matchConstraints.resourceRules"))
        _match(match, "spec.matchConstraints", causes)
    _supported(spec, "failurePolicy", ("Fail", "Ignore"), "spec", causes)
    _conditions(spec.get("matchConditions") or (), "spec.matchConditions", causes)
    known: set[str] = set()
    for index, variable in enumerate(spec.get("variables") or ()):
        name, at = variable.get("name", ""), f"spec.variables[{index}]"
        if not name:
            causes.append(required(f"{at}.name", "name is not specified"))
        elif not _IDENTIFIER(name):
            causes.append(invalid_value(f"{at}.name", name, "name is not a valid CEL identifier"))
        elif name in known:
            causes.append(duplicate(f"{at}.name", name))
        _expression(variable.get("expression"), f"{at}.expression", (), causes, set(known))
        known.add(name)
    return known


def policy(obj: Object) -> list[Cause]:
    """ValidatingAdmissionPolicy."""
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    known = _policy(spec, causes)
    if not spec.get("validations") and not spec.get("auditAnnotations"):
        causes.append(required("spec.validations", "validations or auditAnnotations must be specified"))
    for index, each in enumerate(spec.get("validations") or ()):
        _validation(each, f"spec.validations[{index}]", known, causes)
    for index, each in enumerate(spec.get("auditAnnotations") or ()):
        at = f"spec.auditAnnotations[{index}]"
        causes += [
            invalid_value(f"{at}.key", each.get("key", ""), text) for text in names.qualified_name(each.get("key", ""))
        ]
        _expression(each.get("valueExpression"), f"{at}.valueExpression", ("string",), causes, known)
    return causes


def _validation(each: Object, at: str, known: set[str], causes: list[Cause]) -> None:
    _expression(each.get("expression"), f"{at}.expression", ("bool",), causes, known)
    message = each.get("message")
    if message and not message.strip():
        causes.append(invalid_value(f"{at}.message", message, "message must be non-empty if specified"))
    elif message and "\n" in message.strip():
        causes.append(invalid_value(f"{at}.message", message, "message must not contain line breaks"))
    elif not message and "\n" in (each.get("expression") or "").strip():
        causes.append(required(f"{at}.message", "message must be specified if expression contains line breaks"))
    if each.get("messageExpression"):
        _expression(each["messageExpression"], f"{at}.messageExpression", ("string",), causes, known)
    _supported(each, "reason", ("Forbidden", "Invalid", "RequestEntityTooLarge", "Unauthorized"), at, causes)


def mutating_policy(obj: Object) -> list[Cause]:
    """MutatingAdmissionPolicy."""
    from controlplane.api.cel.structs import as_maps

    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    known = _policy(spec, causes)
    if not spec.get("reinvocationPolicy"):
        causes.append(required("spec.reinvocationPolicy"))
    else:
        _supported(spec, "reinvocationPolicy", ("IfNeeded", "Never"), "spec", causes)
    mutations = spec.get("mutations") or ()
    if not mutations:
        causes.append(required("spec.mutations", "mutations must contain at least one item"))
    for index, each in enumerate(mutations):
        at, kind = f"spec.mutations[{index}]", each.get("patchType")
        if not kind:
            causes.append(required(f"{at}.patchType"))
            continue
        _supported(each, "patchType", ("ApplyConfiguration", "JSONPatch"), at, causes)
        for name, of in (("applyConfiguration", "ApplyConfiguration"), ("jsonPatch", "JSONPatch")):
            if kind != of:
                if each.get(name) is not None:
                    causes.append(forbidden_field(f"{at}.{name}", f"may only be specified when patchType is {of}"))
                continue
            text = (each.get(name) or {}).get("expression")
            _expression(as_maps(text) if text else text, f"{at}.{name}.expression", (), causes, known)
    return causes


def _match(match: Object, at: str, causes: list[Cause]) -> None:
    for key in ("resourceRules", "excludeResourceRules"):
        for index, rule in enumerate(match.get(key) or ()):
            _rule(rule, f"{at}.{key}[{index}]", causes)
    for key in ("namespaceSelector", "objectSelector"):
        if match.get(key):
            causes += selector(match[key], f"{at}.{key}")
    _supported(match, "matchPolicy", ("Equivalent", "Exact"), at, causes)


def binding(obj: Object) -> list[Cause]:
    """Validating- and MutatingAdmissionPolicyBinding."""
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    validating = obj.get("kind") == "ValidatingAdmissionPolicyBinding"
    if not spec.get("policyName"):
        causes.append(required("spec.policyName"))
    actions = spec.get("validationActions") or []
    if validating and not actions:
        causes.append(required("spec.validationActions", "at least one validation action is required"))
    for index, action in enumerate(actions):
        if action not in ("Audit", "Deny", "Warn"):
            causes.append(not_supported(f"spec.validationActions[{index}]", action, ("Audit", "Deny", "Warn")))
        elif action in actions[:index]:
            causes.append(duplicate(f"spec.validationActions[{index}]", action))
    if "Deny" in actions and "Warn" in actions:
        text = (
            "must not contain both Deny and Warn (repeating the same validation failure information in the API "
            "response and headers serves no purpose)"
        )
        causes.append(invalid_value("spec.validationActions", actions, text))
    ref = spec.get("paramRef")
    if ref is not None:
        if bool(ref.get("name")) == (ref.get("selector") is not None):
            text = (
                "name and selector are mutually exclusive"
                if ref.get("name")
                else "one of name or selector must be specified"
            )
            causes.append(invalid_value("spec.paramRef.name", ref.get("name", ""), text))
        if not ref.get("parameterNotFoundAction"):
            causes.append(required("spec.paramRef.parameterNotFoundAction"))
        else:
            _supported(ref, "parameterNotFoundAction", ("Allow", "Deny"), "spec.paramRef", causes)
    if spec.get("matchResources"):
        _match(spec["matchResources"], "spec.matchResources", causes)
    return causes


BY_KIND = {
    (GROUP, "ValidatingWebhookConfiguration"): webhooks,
    (GROUP, "MutatingWebhookConfiguration"): webhooks,
    (GROUP, "ValidatingAdmissionPolicy"): policy,
    (GROUP, "ValidatingAdmissionPolicyBinding"): binding,
    (GROUP, "MutatingAdmissionPolicy"): mutating_policy,
    (GROUP, "MutatingAdmissionPolicyBinding"): binding,
}
