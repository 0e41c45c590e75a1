"""Label and field selectors: their text form, their object form, and matching.

Text as in a URL's labelSelector and fieldSelector ("app=web,tier in (a,b),!old" and "spec.nodeName=node-1"); objects
as in metav1.LabelSelector (matchLabels, matchExpressions). A selector is parsed once and then matches many label
maps, so requirements are kept as plain tuples. Which fields a resource can be selected by is the server's business.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from controlplane.api import names

Operator = Literal["=", "!=", "in", "notin", "exists", "!", "gt", "lt"]

_TOKEN = re.compile(r"\s*(==|!=|=|!|<|>|\(|\)|,|[^\s=!<>(),]+)")
_SYMBOLS = frozenset(("==", "!=", "=", "!", "<", ">", "(", ")", ","))


class Requirement(NamedTuple):
    """One condition on one label. `values` is empty for "exists" and "!"; one decimal number for "gt" and "lt"."""

    key: str
    operator: Operator
    values: frozenset[str]

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether `labels` fulfil the condition."""
        value = labels.get(self.key)
        operator = self.operator
        if operator in ("=", "in"):
            return value is not None and value in self.values
        if operator in ("!=", "notin"):
            return value is None or value not in self.values
        if operator == "exists":
            return value is not None
        if operator == "!":
            return value is None
        bound = int(next(iter(self.values)))
        try:
            number = int(value) if value is not None else None
        except ValueError:
            return False
        return number is not None and (number > bound if operator == "gt" else number < bound)

    def __str__(self) -> str:
        values = sorted(self.values)
        if self.operator == "exists":
            return self.key
        if self.operator == "!":
            return f"!{self.key}"
        if self.operator in ("in", "notin"):
            return f"{self.key} {self.operator} ({','.join(values)})"
        symbol = {"gt": ">", "lt": "<"}.get(self.operator, self.operator)
        return f"{self.key}{symbol}{values[0]}"


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """All of `requirements` must hold; without any, everything matches. With `nothing`, nothing does."""

    requirements: tuple[Requirement, ...] = ()
    nothing: bool = False

    @property
    def empty(self) -> bool:
        """Whether every object matches."""
        return not self.requirements and not self.nothing

    def matches(self, labels: Mapping[str, str] | None) -> bool:
        """Whether an object with these labels is selected."""
        if self.nothing:
            return False
        if not self.requirements:
            return True
        known = labels or {}
        return all(requirement.matches(known) for requirement in self.requirements)

    def __str__(self) -> str:
        return ",".join(str(requirement) for requirement in self.requirements)


EVERYTHING = LabelSelector()
NOTHING = LabelSelector(nothing=True)


class FieldRequirement(NamedTuple):
    """One condition on one field: `operator` is "=" or "!="."""

    path: str
    operator: Literal["=", "!="]
    value: str

    def __str__(self) -> str:
        return f"{self.path}{self.operator}{self.value}"


@dataclass(frozen=True, slots=True)
class FieldSelector:
    """All of `requirements` must hold; without any, everything matches."""

    requirements: tuple[FieldRequirement, ...] = ()

    @property
    def empty(self) -> bool:
        """Whether every object matches."""
        return not self.requirements

    def matches(self, fields: Mapping[str, str]) -> bool:
        """Whether an object with these selectable fields is selected; a field that is not there counts as ""."""
        return all((fields.get(path, "") == value) == (operator == "=") for path, operator, value in self.requirements)

    def exact(self, path: str) -> str | None:
        """The value that `path` must have, if the selector says so."""
        for requirement in self.requirements:
            if requirement.path == path and requirement.operator == "=":
                return requirement.value
        return None

    def __str__(self) -> str:
        return ",".join(str(requirement) for requirement in self.requirements)


def parse_labels(text: str) -> LabelSelector:
    """A labelSelector from a URL. Raises ValueError with Kubernetes' complaint."""
    if not text.strip():
        return EVERYTHING
    tokens = _Tokens(text)
    requirements = []
    while True:
        requirements.append(_requirement(tokens))
        end = tokens.next()
        if end == "":
            break
        if end != ",":
            raise ValueError(f"found '{end}', expected: ',' or 'end of string'")
        if tokens.peek() == "":
            raise ValueError("found '', expected: identifier after ','")
    return LabelSelector(tuple(sorted(requirements, key=lambda requirement: requirement.key)))


def parse_fields(text: str) -> FieldSelector:
    """A fieldSelector from a URL: "path=value,path!=value"; "," "=" and "\\" in values are escaped with "\\"."""
    requirements = []
    for term in re.split(r"(?<!\\)(?:\\\\)*,", text):
        if not term:
            continue
        found = re.fullmatch(r"((?:\\.|[^\\=!])*)(==|!=|=)(.*)", term, re.DOTALL)
        if found is None:
            raise ValueError(f"invalid selector: '{text}'; can't understand '{term}'")
        path, operator, value = found.groups()
        if re.search(r"(?<!\\)(?:\\\\)*=", value):
            raise ValueError(f"invalid field selector: unescaped '=' in value of '{term}'")
        requirements.append(
            FieldRequirement(path.strip(), "!=" if operator == "!=" else "=", re.sub(r"\\([\\,=])", r"\1", value))
        )
    return FieldSelector(tuple(requirements))


_EXPRESSION_OPERATORS: dict[str, Operator] = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!"}


def from_selector(selector: Mapping[str, Any] | None) -> LabelSelector:
    """A metav1.LabelSelector object. None selects nothing, {} selects everything. Raises ValueError."""
    if selector is None:
        return NOTHING
    labels = selector.get("matchLabels") or {}
    requirements = [Requirement(key, "=", frozenset((value,))) for key, value in sorted(labels.items())]
    for expression in selector.get("matchExpressions") or ():
        operator = _EXPRESSION_OPERATORS.get(expression.get("operator", ""))
        if operator is None:
            raise ValueError(f'"{expression.get("operator", "")}" is not a valid label selector operator')
        requirements.append(_checked(expression.get("key", ""), operator, expression.get("values") or ()))
    return LabelSelector(tuple(requirements))


def from_map(labels: Mapping[str, str] | None) -> LabelSelector:
    """A plain map as in Service.spec.selector. None or {} selects nothing (a Service without selector has no pods)."""
    if not labels:
        return NOTHING
    return LabelSelector(tuple(Requirement(key, "=", frozenset((value,))) for key, value in sorted(labels.items())))


class _Tokens:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = _TOKEN.findall(text)
        if _TOKEN.sub("", text).strip():
            raise ValueError(f"unable to parse requirement: {text}")
        self._at = 0

    def peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def next(self) -> str:
        token = self.peek()
        self._at += 1
        return token

    def identifier(self) -> str:
        token = self.next()
        if token in _SYMBOLS or not token:
            raise ValueError(f"found '{token}', expected: identifier")
        return token


def _requirement(tokens: _Tokens) -> Requirement:
    if tokens.peek() == "!":
        tokens.next()
        return _checked(tokens.identifier(), "!", ())
    if tokens.peek() in ("", ","):
        raise ValueError(f"found '{tokens.peek()}', expected: !, identifier, or 'end of string'")
    key = tokens.identifier()
    operator = tokens.peek()
    if operator in ("", ","):
        return _checked(key, "exists", ())
    tokens.next()
    if operator in ("in", "notin"):
        return _checked(key, "in" if operator == "in" else "notin", _values(tokens))
    if operator in ("=", "==", "!=", "<", ">"):
        value = "" if tokens.peek() in ("", ",") else tokens.identifier()
        known: dict[str, Operator] = {"=": "=", "==": "=", "!=": "!=", "<": "lt", ">": "gt"}
        return _checked(key, known[operator], (value,))
    raise ValueError(f"found '{operator}', expected: in, notin, =, ==, !=, gt, lt")


def _values(tokens: _Tokens) -> list[str]:
    if (opening := tokens.next()) != "(":
        raise ValueError(f"found '{opening}' expected: '('")
    values: list[str] = []
    while True:
        token = tokens.peek()
        if token == ")":
            tokens.next()
            return values or [""]
        if token == ",":
            tokens.next()
            values += [""] if not values else []
            if tokens.peek() in (",", ")"):
                values.append("")
            continue
        values.append(tokens.identifier())
        if tokens.peek() not in (",", ")"):
            raise ValueError(f"found '{tokens.peek()}', expected: ',' or ')'")


def _checked(key: str, operator: Operator, values: Iterable[str]) -> Requirement:
    wanted = frozenset(values)
    if complaints := names.qualified_name(key):
        raise ValueError(f'key: Invalid value: "{key}": {"; ".join(complaints)}')
    if operator in ("in", "notin") and not wanted:
        raise ValueError("values: Invalid value: []: for 'in', 'notin' operators, values set can't be empty")
    if operator in ("exists", "!") and wanted:
        raise ValueError("values: Invalid value: values set must be empty for exists and does not exist")
    if operator in ("gt", "lt"):
        if not re.fullmatch(r"[-+]?\d+", next(iter(wanted))):
            raise ValueError("values[0]: Invalid value: for 'Gt', 'Lt' operators, the value must be an integer")
        return Requirement(key, operator, wanted)
    for value in wanted:
        if complaints := names.label_value(value):
            raise ValueError(f'values[0][{key}]: Invalid value: "{value}": {"; ".join(complaints)}')
    return Requirement(key, operator, wanted)
