"""Rules in CEL inside a schema must compile, and say something that can be said.

Source: apiextensions-apiserver pkg/apis/apiextensions/validation. Costs are not estimated here: what a rule takes is
limited when it runs.
"""

from collections.abc import Mapping
from typing import Any

from controlplane.api.status import Cause, invalid_value, not_supported, required

Schema = Mapping[str, Any]
_REASONS = ("FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired")


def check(schema: Schema, path: str) -> list[Cause]:
    """What is wrong with the rules of a schema and of all schemas in it."""
    causes: list[Cause] = []
    _walk(schema, path, "", causes)
    return causes


def _walk(schema: Schema, path: str, uncorrelated: str, causes: list[Cause]) -> None:
    for index, rule in enumerate(schema.get("x-kubernetes-validations") or ()):
        _rule(rule, f"{path}.x-kubernetes-validations[{index}]", uncorrelated, causes)
    for key, inner in (schema.get("properties") or {}).items():
        _walk(inner, f"{path}.properties[{key}]", uncorrelated, causes)
    if isinstance(schema.get("additionalProperties"), Mapping):
        _walk(schema["additionalProperties"], f"{path}.additionalProperties", uncorrelated, causes)
    if isinstance(schema.get("items"), Mapping):
        within = uncorrelated or (path if schema.get("x-kubernetes-list-type") != "map" else "")
        _walk(schema["items"], f"{path}.items", within, causes)


def _rule(rule: Schema, path: str, uncorrelated: str, causes: list[Cause]) -> None:
    from controlplane.api.cel.environment import CompileError, compile_expression
    from controlplane.api.schema.rules import Rule, field_path

    text = str(rule.get("rule") or "")
    if not text.strip():
        causes.append(required(f"{path}.rule", "rule is not specified"))
        return
    message = rule.get("message")
    if message is not None:
        if not message.strip():
            causes.append(invalid_value(f"{path}.message", message, "message must be non-empty if specified"))
        elif "\n" in message.strip():
            causes.append(invalid_value(f"{path}.message", message, "message must not contain line breaks"))
        elif len(message) > 2048:
            causes.append(invalid_value(f"{path}.message", message[:100] + "...", "message must be 2048 bytes or less"))
    elif "\n" in text.strip():
        causes.append(required(f"{path}.message", "message must be specified if rule contains line breaks"))
    expression = rule.get("messageExpression")
    if expression is not None and not expression.strip():
        text_ = "messageExpression must be non-empty if specified"
        causes.append(required(f"{path}.messageExpression", text_))
    reason = rule.get("reason")
    if reason is not None and reason not in _REASONS:
        causes.append(not_supported(f"{path}.reason", reason, _REASONS))
    if rule.get("fieldPath"):
        try:
            field_path(rule["fieldPath"])
        except CompileError:
            causes.append(invalid_value(f"{path}.fieldPath", rule["fieldPath"], "fieldPath must be a valid path"))
            return
    try:
        compiled = Rule({key: value for key, value in rule.items() if key != "messageExpression"})
    except CompileError as error:
        where, shown = f"{path}.rule", dict(rule)
        detail = str(error) if "must evaluate" in str(error) else f"compilation failed: {error}"
        causes.append(invalid_value(where, shown, detail))
        return
    if compiled.transition and uncorrelated:
        detail = f"oldSelf cannot be used on the uncorrelatable portion of the schema within {uncorrelated}"
        causes.append(invalid_value(f"{path}.rule", text, detail))
    if expression and expression.strip():
        variables = ("self", "oldSelf") if compiled.transition else ("self",)
        try:
            returns = compile_expression(expression, variables).returns
        except CompileError as error:
            detail = f"messageExpression compilation failed: {error}"
            causes.append(invalid_value(f"{path}.messageExpression", dict(rule), detail))
            return
        if returns not in ("string", "dyn"):
            detail = "messageExpression must evaluate to a string"
            causes.append(invalid_value(f"{path}.messageExpression", dict(rule), detail))
