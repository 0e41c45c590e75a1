"""Regular expressions as Kubernetes understands them: RE2, which matches in linear time whatever the pattern is.

Python's own `re` would let a CustomResourceDefinition's pattern hold the server for hours, and reads some patterns
differently. The library (google-re2) is loaded at the first pattern.
"""

from functools import lru_cache
from typing import Any

_GO = {
    "missing ]": "missing closing ]",
    "missing )": "missing closing )",
    "unexpected )": "unexpected )",
    "no argument for repetition operator": "missing argument to repetition operator",
    "bad repetition operator": "invalid nested repetition operator",
    "invalid perl operator": "invalid or unsupported Perl syntax",
}


class BadPattern(ValueError):
    """Not a regular expression; the text says why, as Go does."""


@lru_cache(maxsize=4096)
def compiled(text: str) -> "Pattern":
    """The pattern, compiled once. Raises BadPattern."""
    return Pattern(text)


class Pattern:
    """A compiled pattern. Raises BadPattern."""

    def __init__(self, text: str) -> None:
        import re2

        try:
            self._pattern: Any = re2.compile(text, options=_options())
        except re2.error as error:
            raise BadPattern(_in_go(error.args[0])) from None

    def search(self, value: str) -> bool:
        """Whether the pattern is found anywhere in `value`."""
        return self._pattern.search(value) is not None

    def find(self, value: str, most: int) -> list[str]:
        """The first `most` places where the pattern is found; all if it is negative."""
        found = []
        for match in self._pattern.finditer(value) if most else ():
            found.append(match.group(0))
            if len(found) == most:
                break
        return found


def find_all(pattern: str, text: str, most: int) -> list[str]:
    """Where `pattern` is found in `text`. Raises BadPattern."""
    return compiled(pattern).find(text, most)


@lru_cache(maxsize=1)
def _options() -> Any:
    import re2

    options = re2.Options()
    options.log_errors = False
    return options


def _in_go(text: str | bytes) -> str:
    whole = text.decode(errors="replace") if isinstance(text, bytes) else text
    what, _, where = whole.partition(": ")
    return f"{_GO.get(what, what)}: `{where}`" if where else what
