"""CEL in admission: the variables that an expression sees, evaluated when it asks for them.

`object`, `oldObject`, `request`, `params`, `namespaceObject`, `variables` and `authorizer`, as kubernetes.io/docs
describes them for ValidatingAdmissionPolicy; match conditions of webhooks see some of them.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from controlplane.api.cel import authorizer
from controlplane.api.cel.environment import ADMISSION, EvaluationError, Program, compile_expression
from controlplane.apiserver.authz.authorizer import Authorizer
from controlplane.apiserver.http import User
from controlplane.apiserver.requestinfo import RequestInfo

Object = dict[str, Any]
ASKED = authorizer.ASKED
_USED = re.compile(r"\bvariables\.(\w+)")


def program(text: str) -> Program:
    """An expression of admission. Raises CompileError."""
    return compile_expression(text, ADMISSION)


class Variables:
    """The values of one operation."""

    def __init__(self, known: Mapping[str, Any]) -> None:
        self._known = {**dict.fromkeys(ADMISSION), **known}
        self._composed: Mapping[str, str] = {}
        self._made: dict[str, Any] = {}

    def compose(self, variables: Mapping[str, str]) -> None:
        """A policy's own variables, name -> expression."""
        self._composed = variables

    def evaluate(self, text: str) -> Any:
        """The value of an expression. Raises EvaluationError, CompileError."""
        used = {name: self._variable(name) for name in _USED.findall(text) if name in self._composed}
        return program(text).evaluate({**self._known, "variables": used})

    def _variable(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = self.evaluate(self._composed[name])
        return self._made[name]


def first_false(conditions: Sequence[Object], variables: Variables) -> str | None:
    """The name of a match condition that is false, or None. Raises EvaluationError if none is and one has no value."""
    errors = []
    for condition in conditions:
        try:
            if variables.evaluate(condition["expression"]) is not True:
                return str(condition["name"])
        except EvaluationError as error:
            errors.append(f"condition {condition['name']!r}: {error}")
    if errors:
        raise EvaluationError("; ".join(errors))
    return None


@contextmanager
def authorizing(authz: Authorizer, user: User) -> Iterator[Object]:
    """The `authorizer` of an expression: what `user` may do."""

    def check(who: Mapping[str, Any] | None, asked: Mapping[str, str]) -> bool:
        subject = user if who is None else User(str(who["name"]), tuple(who["groups"]))
        if "path" in asked:
            return authz.allows(subject, RequestInfo(False, asked["path"], asked["verb"]))
        info = RequestInfo(
            True, "", asked["verb"], asked.get("group", ""), "*", asked.get("resource", ""),
            asked.get("subresource", ""), asked.get("namespace", ""), asked.get("name", ""),
        )  # fmt: skip
        return authz.allows(subject, info)

    token = authorizer.CHECK.set(check)
    try:
        yield {authorizer.AUTHORIZER: {}}
    finally:
        authorizer.CHECK.reset(token)
