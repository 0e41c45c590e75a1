"""JSONPath as custom resources use it: `.spec.replicas`, `.status.conditions[?(@.type=="Ready")].status`.

The part of kubectl's JSONPath that finds values: fields, quoted fields, indices, slices, `[*]`, unions, `..` and
filters with one comparison or a mere existence. A path is compiled once; a missing key finds nothing.
Not here: templates (`{range}`, text around braces).
"""

import operator
import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

Step = Callable[[Any], Iterable[Any]]


class BadPath(ValueError):
    """Not a path that can be read, in kubectl's words as far as they are known."""


@lru_cache(maxsize=4096)
def compiled(text: str) -> "Path":
    """The path, compiled once. Raises BadPath."""
    return Path(text)


class Path:
    """A compiled path. Raises BadPath."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._steps = _steps(text)

    def find(self, value: Any) -> list[Any]:
        """Every value that the path leads to."""
        found = [value]
        for step in self._steps:
            found = [each for one in found for each in step(one)]
            if not found:
                return []
        return found

    def first(self, value: Any) -> Any:
        """The first value that the path leads to, or None."""
        found = self.find(value)
        return found[0] if found else None


def simple(text: str) -> tuple[str, ...]:
    """The fields of a path in dot notation (`.spec.replicas`, with `['quoted']` parts). Raises BadPath."""
    fields = []
    at = 0
    while at < len(text):
        found = _SIMPLE.match(text, at)
        if found is None:
            raise BadPath("must be a simple json path in the dot notation")
        fields.append(_unescaped(found["plain"] if found["plain"] is not None else found["quoted"]))
        at = found.end()
    return tuple(fields)


def get(value: Any, fields: Sequence[str]) -> Any:
    """What `fields` lead to, or None."""
    for key in fields:
        value = value.get(key) if isinstance(value, dict) else None
        if value is None:
            return None
    return value


_PLAIN = r"(?P<plain>(?:\\.|[^.\[\]\\{}()'\"\s])+)"
_SIMPLE = re.compile(r"\.?\[['\"](?P<quoted>[^'\"]*)['\"]\]|\." + _PLAIN)
_TOKEN = re.compile(
    r"(?P<deep>\.\.)(?P<deepfield>(?:\\.|[\w$@/-])+|\*)?"
    r"|\.(?P<star>\*)"
    r"|\.(?P<field>(?:\\.|[^.\[\]\\{}()'\"\s])+)"
    r"|\.?\[(?P<filter>\?\((?:[^()'\"]|'[^']*'|\"[^\"]*\")*\))\]"
    r"|\.?\[(?P<inside>(?:[^\[\]'\"]|'[^']*'|\"[^\"]*\")*)\]"
)
_SLICE = re.compile(r"(-?\d+)?:(-?\d+)?(?::(-?\d+))?$")
_QUOTED = re.compile(r"'([^']*)'|\"([^\"]*)\"")
_COMPARISON = re.compile(r"(==|!=|<=|>=|<|>)")
_OPERATORS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge,
}  # fmt: skip


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def _steps(text: str) -> list[Step]:
    text = text.strip()
    if text.startswith("{") and text.endswith("}"):
        text = text[1:-1].strip()
    text = text.removeprefix("$").removeprefix("@")
    if text in ("", "."):
        return []
    steps: list[Step] = []
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise BadPath(f"unrecognized character in action at {text[at:]!r}")
        steps.extend(_step(found))
        at = found.end()
    return steps


def _step(found: re.Match[str]) -> list[Step]:
    if found["deep"]:
        inner = found["deepfield"]
        return [_everything] if inner in (None, "*") else [_everything, _field(_unescaped(inner))]
    if found["star"]:
        return [_children]
    if found["field"] is not None:
        return [_field(_unescaped(found["field"]))]
    if found["filter"] is not None:
        return [_filter(found["filter"][2:-1])]
    inside = found["inside"].strip()
    if inside == "*":
        return [_children]
    if ":" in inside and (cut := _SLICE.match(inside)):
        return [_slice(*(int(part) if part else None for part in cut.groups()))]
    parts = [part.strip() for part in re.findall(r"'[^']*'|\"[^\"]*\"|[^,]+", inside)]
    if not parts:
        raise BadPath("unterminated array")
    return [_union([_one(part) for part in parts])]


def _one(part: str) -> Step:
    if quoted := _QUOTED.fullmatch(part):
        return _field(_unescaped(quoted[1] if quoted[1] is not None else quoted[2]))
    if re.fullmatch(r"-?\d+", part):
        return _index(int(part))
    raise BadPath(f"invalid array index {part}")


def _field(name: str) -> Step:
    return lambda value: (value[name],) if isinstance(value, dict) and name in value else ()


def _index(number: int) -> Step:
    return lambda value: (
        (value[number],) if isinstance(value, list) and -len(value) <= number < len(value) else ()
    )  # fmt: skip


def _slice(start: int | None, end: int | None, step: int | None) -> Step:
    return lambda value: value[start:end:step] if isinstance(value, list) and step != 0 else ()


def _union(steps: list[Step]) -> Step:
    if len(steps) == 1:
        return steps[0]
    return lambda value: [each for step in steps for each in step(value)]


def _children(value: Any) -> Iterable[Any]:
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list) else ()


def _everything(value: Any) -> Iterable[Any]:
    yield value
    for each in _children(value):
        yield from _everything(each)


def _filter(text: str) -> Step:
    parts = _COMPARISON.split(text, maxsplit=1)
    left = Path(parts[0].strip())
    if len(parts) == 1:
        return lambda value: [each for each in _children(value) if left.find(each)]
    compare, literal = _OPERATORS[parts[1]], _literal(parts[2].strip())

    def matches(each: Any) -> bool:
        found = left.find(each)
        try:
            return bool(found) and compare(found[0], literal)
        except TypeError:
            return False

    return lambda value: [each for each in _children(value) if matches(each)]


def _literal(text: str) -> Any:
    if quoted := _QUOTED.fullmatch(text):
        return quoted[1] if quoted[1] is not None else quoted[2]
    if text in ("true", "false"):
        return text == "true"
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise BadPath(f"unrecognized literal {text!r}") from None
