"""Expressions: compiled once, evaluated many times, with an end to what one evaluation may cost.

The library stops an evaluation after 10,000 iterations of comprehensions, which stands for Kubernetes' cost limit.
"""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import Any

ADMISSION = ("object", "oldObject", "request", "params", "namespaceObject", "variables", "authorizer")
"""The variables of expressions in admission."""


class CompileError(ValueError):
    """An expression that cannot be compiled; the text says where, as cel-go does."""


class EvaluationError(ValueError):
    """An expression that has no value for these inputs, in cel-go's words."""


class CostExceeded(EvaluationError):
    """An expression that takes too long."""


class Program:
    """A compiled expression. `returns`: "bool", "string", "int"..., "dyn" if that is only known when it runs."""

    __slots__ = ("_expression", "returns", "text")

    def __init__(self, text: str, expression: Any) -> None:
        self.text = text
        self._expression = expression
        self.returns = _TYPE_NAMES.get(expression.return_type().name(), "dyn")

    def evaluate(self, variables: Mapping[str, Any]) -> Any:
        """The value. Raises EvaluationError."""
        try:
            found = self._expression.eval(data=variables)
        except (RuntimeError, ValueError, TypeError, OverflowError) as error:
            raise _failure(str(error)) from None
        if found.type().name() in _FAILED:
            raise _failure(str(found.plain_value()))
        return found.plain_value()


_FAILED = ("*error*", "ERROR", "error", "*unknown*", "UNKNOWN", "unknown")
_TYPE_NAMES = {
    "BOOL": "bool", "bool": "bool", "STRING": "string", "string": "string", "INT": "int", "int": "int",
    "DOUBLE": "double", "double": "double",
}  # fmt: skip


@lru_cache(maxsize=4096)
def compile_expression(text: str, variables: tuple[str, ...]) -> Program:
    """`text` with these variables. The same program for the same arguments. Raises CompileError."""
    try:
        return Program(text, _environment(variables).compile(text))
    except (RuntimeError, ValueError) as error:
        raise CompileError(_compile_failure(str(error))) from None


@lru_cache(maxsize=64)
def _environment(variables: Iterable[str]) -> Any:
    from cel_expr_python import cel
    from cel_expr_python.ext import ext_bindings, ext_encoders, ext_math, ext_optional, ext_strings

    from controlplane.api.cel import library

    extensions = [
        ext_strings.ExtStrings(), ext_optional.ExtOptional(), ext_bindings.ExtBindings(), ext_math.ExtMath(),
        ext_encoders.ExtEncoders(), library.extension(cel),
    ]  # fmt: skip
    return cel.NewEnv(variables=dict.fromkeys(variables, cel.Type.DYN), extensions=extensions)


_STATUS = re.compile(r"^[A-Z_]+: |\s*\[[A-Z_]+\]$")
_NO_KEY = re.compile(r'Key not found in map : "?([^"]*)"?')


def _compile_failure(text: str) -> str:
    return _STATUS.sub("", text)


def _failure(text: str) -> EvaluationError:
    text = _STATUS.sub("", text)
    if "Iteration budget exceeded" in text:
        return CostExceeded("operation cancelled: actual cost limit exceeded")
    if found := _NO_KEY.search(text):
        return EvaluationError(f"no such key: {found[1]}")
    if "No matching overload" in text:
        return EvaluationError("no such overload")
    if "divide by zero" in text:
        return EvaluationError("division by zero")
    return EvaluationError(text)
