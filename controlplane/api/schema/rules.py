"""x-kubernetes-validations: rules in CEL, at every place of a schema that has some.

A rule sees its value as `self`; one that uses `oldSelf` is about changes and only looked at when there is a stored
value in the same place (unless optionalOldSelf). Each rule is compiled once, when it is first needed or when the
CustomResourceDefinition is validated. A write may only cost so many evaluations.

Source: k8s.io/apiextensions-apiserver/pkg/apiserver/schema/cel/validation.go, the wording included.
"""

import re
from collections.abc import Iterator
from typing import Any

from controlplane.api.cel.convert import converts, to_cel
from controlplane.api.cel.environment import (
    CompileError,
    CostExceeded,
    EvaluationError,
    Program,
    compile_expression,
)
from controlplane.api.schema.paths import BadPath, simple
from controlplane.api.schema.structural import MISSING, Node, Schema
from controlplane.api.schema.values import by_keys, key_of
from controlplane.api.status import Cause, duplicate, forbidden_field, invalid_value, required
from controlplane.api.structure import below

BUDGET = 100_000
"""What all rules of one write may cost: 1 an evaluation, 50 if it loops (which itself ends after 10,000 rounds)."""
_LOOPS = re.compile(r"\.(?:all|exists|exists_one|map|filter)\(")
_OLD = re.compile(r"\boldSelf\b")


class Rule:
    """One rule, compiled. Raises CompileError."""

    __slots__ = ("_message", "_with_old", "_without_old", "cost", "optional_old", "path", "raw", "transition")

    def __init__(self, raw: Schema) -> None:
        self.raw = raw
        text = raw["rule"]
        self.optional_old = bool(raw.get("optionalOldSelf"))
        self._without_old: Program | None = None
        self.transition = False
        if self.optional_old:
            self._without_old = compile_expression(f"cel.bind(oldSelf, optional.none(), ({text}\n))", ("self",))
            self._with_old = compile_expression(
                f"cel.bind(oldSelf, optional.of(oldSelfValue), ({text}\n))", ("self", "oldSelfValue")
            )
        else:
            self.transition = uses_old(text)
            self._with_old = compile_expression(text, ("self", "oldSelf") if self.transition else ("self",))
        if self._with_old.returns not in ("bool", "dyn"):
            raise CompileError("cel expression must evaluate to a bool")
        self.cost = 50 if _LOOPS.search(text) else 1
        expression = raw.get("messageExpression")
        self._message = compile_message(expression, self.transition) if expression else None
        self.path = field_path(raw["fieldPath"]) if raw.get("fieldPath") else ""

    def holds(self, value: Any, old: Any) -> bool:
        """Whether the rule is true of a value (as CEL sees it). Raises EvaluationError."""
        if self.optional_old and old is MISSING:
            assert self._without_old is not None
            return self._without_old.evaluate({"self": value}) is True
        if self.optional_old:
            return self._with_old.evaluate({"self": value, "oldSelfValue": old}) is True
        variables = {"self": value, "oldSelf": old} if self.transition else {"self": value}
        return self._with_old.evaluate(variables) is True

    def message(self, value: Any, old: Any) -> str:
        """What to say when it does not hold."""
        if self._message is not None:
            variables = {"self": value} if old is MISSING or not self.transition else {"self": value, "oldSelf": old}
            try:
                text = self._message.evaluate(variables)
            except EvaluationError:
                text = ""
            if isinstance(text, str) and text.strip() and "\n" not in text and len(text) <= 5 * 1024:
                return text.strip()
        return self.said

    @property
    def said(self) -> str:
        """The rule's fixed message, or its text."""
        fixed = str(self.raw.get("message") or "").strip()
        return fixed or f"failed rule: {str(self.raw['rule']).strip()}"

    def cause(self, path: str, kind: str, detail: str) -> Cause:
        where = path + self.path if path else self.path.removeprefix(".")
        reason = self.raw.get("reason") or "FieldValueInvalid"
        if reason == "FieldValueForbidden":
            return forbidden_field(where, detail)
        if reason == "FieldValueRequired":
            return required(where, detail)
        if reason == "FieldValueDuplicate":
            return duplicate(where, kind)
        return invalid_value(where or "<nil>", kind, detail)


def uses_old(text: str) -> bool:
    """Whether an expression speaks of `oldSelf` (rather than only having the word in a text)."""
    if not _OLD.search(text):
        return False
    try:
        compile_expression(text, ("self",))
    except CompileError:
        return True
    return False


def compile_message(text: str, transition: bool) -> Program:
    """A messageExpression. Raises CompileError."""
    program = compile_expression(text, ("self", "oldSelf") if transition else ("self",))
    if program.returns not in ("string", "dyn"):
        raise CompileError("messageExpression must evaluate to a string")
    return program


def field_path(text: str) -> str:
    """A rule's fieldPath as it is appended to a field's path. Raises CompileError."""
    try:
        fields = simple(text)
    except BadPath as error:
        raise CompileError(str(error)) from None
    return "".join(f".{name}" if re.fullmatch(r"[\w-]+", name) else f"[{name}]" for name in fields)


class Rules:
    """All rules of one schema."""

    def __init__(self, root: Node) -> None:
        self._root = root
        self._compiled: dict[int, tuple[list[Rule], bool]] = {}

    def check(self, obj: Any, old: Any = MISSING) -> list[Cause]:
        """What the rules say of an object, given the stored one if there is one."""
        if not self._root.has_rules:
            return []
        causes: list[Cause] = []
        budget = [BUDGET]
        for cause in self._walk(obj, old, self._root, "", budget):
            causes.append(cause)
            if budget[0] < 0:
                break
        return causes

    def _walk(self, value: Any, old: Any, node: Node, path: str, budget: list[int]) -> Iterator[Cause]:
        if value is None or not node.has_rules:
            return
        if node.rules:
            yield from self._here(value, old, node, path, budget)
        if type(value) is dict:
            was = old if type(old) is dict else {}
            for key, each in value.items():
                inner = node.child(key)
                if inner is not None and inner.has_rules:
                    yield from self._walk(each, was.get(key, MISSING), inner, below(path, key), budget)
        elif type(value) is list and node.items is not None and node.items.has_rules:
            before = by_keys(old, node) if node.list_type == "map" and type(old) is list else {}
            for index, each in enumerate(value):
                old_each = before.get(key_of(each, node), MISSING) if before else MISSING
                yield from self._walk(each, old_each, node.items, f"{path}[{index}]", budget)

    def _here(self, value: Any, old: Any, node: Node, path: str, budget: list[int]) -> Iterator[Cause]:
        rules, changes = self._rules(node)
        unchanged = old is not MISSING and type(old) is type(value) and value == old
        kind = node.type or ("string" if isinstance(value, str) else "integer" if isinstance(value, int) else "object")
        seen = to_cel(value, node) if changes else value
        before = to_cel(old, node) if changes and old is not MISSING else old
        for rule in rules:
            if rule.transition and old is MISSING:
                continue
            if unchanged and not rule.transition and not rule.optional_old:
                continue  # what was accepted once stays accepted
            budget[0] -= rule.cost
            if budget[0] < 0:
                text = "validation failed due to running out of cost budget, no further validation rules will be run"
                yield invalid_value(path or "<nil>", kind, text)
                return
            try:
                if not rule.holds(seen, before):
                    yield rule.cause(path, kind, rule.message(seen, before))
            except CostExceeded as error:
                budget[0] = -1
                text = f"'{error}': no further validation rules will be run due to call cost exceeds limit for rule: "
                yield invalid_value(path or "<nil>", kind, text + rule.said)
                return
            except EvaluationError as error:
                if str(error) == "no such overload":
                    text = f"'{error}': call arguments did not match a supported operator, function or macro signature"
                    yield invalid_value(path or "<nil>", kind, f"{text} for rule: {rule.said}")
                else:
                    yield invalid_value(path or "<nil>", kind, f"{error} evaluating rule: {rule.said}")

    def _rules(self, node: Node) -> tuple[list[Rule], bool]:
        found = self._compiled.get(id(node))
        if found is None:
            found = self._compiled[id(node)] = [Rule(raw) for raw in node.rules], converts(node)
        return found
