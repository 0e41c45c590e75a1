"""Regular expressions as Kubernetes understands them: RE2, which matches in linear time whatever the pattern is.

Python's own `re` would let a CustomResourceDefinition's pattern hold the server for hours, and reads some patterns
differently. RE2 comes with the CEL library, which is loaded at the first pattern.
"""

from functools import lru_cache
from typing import Any

from controlplane.api.status import quote


class BadPattern(ValueError):
    """Not a regular expression."""


class Pattern:
    """A compiled pattern. Raises BadPattern."""

    def __init__(self, text: str) -> None:
        self._expression = _environment().compile(f"value.matches({quote(text)})")
        found = self._expression.eval(data={"value": ""})
        if found.plain_value() is not True and found.plain_value() is not False:
            raise BadPattern(str(found.plain_value()).partition("invalid regular expression: ")[2] or "not a pattern")

    def search(self, value: str) -> bool:
        """Whether the pattern is found anywhere in `value`."""
        return self._expression.eval(data={"value": value}).plain_value() is True


@lru_cache(maxsize=4096)
def compiled(text: str) -> Pattern:
    """The pattern, compiled once. Raises BadPattern."""
    return Pattern(text)


@lru_cache(maxsize=1)
def _environment() -> Any:
    from cel_expr_python import cel

    return cel.NewEnv(variables={"value": cel.Type.STRING})
