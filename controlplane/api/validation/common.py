"""What the rules of many kinds share: numbers, supported values, labels, selectors, quantities."""

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import lru_cache
from typing import Any

from controlplane.api import names, quantity
from controlplane.api.status import Cause, invalid_value, not_supported, required

Object = dict[str, Any]
Rules = Callable[[Object], list[Cause]]

IMMUTABLE = "field is immutable"


def at_least(causes: list[Cause], obj: Mapping[str, Any], path: str, least: int, *fields: str) -> None:
    """Integer fields, where they are set, must not be below `least`."""
    for field in fields:
        value = obj.get(field)
        if value is not None and value < least:
            bound = "greater than or equal to 0" if least == 0 else f"greater than {least - 1}"
            causes.append(invalid_value(f"{path}.{field}", value, f"must be {bound}"))


def one_of(causes: list[Cause], obj: Mapping[str, Any], path: str, field: str, supported: Collection[str]) -> None:
    """A field that must be set, to one of some values."""
    value = obj.get(field)
    if not value:
        causes.append(required(f"{path}.{field}" if path else field))
    elif value not in supported:
        causes.append(not_supported(f"{path}.{field}" if path else field, value, supported))


def maybe_one_of(
    causes: list[Cause], obj: Mapping[str, Any], path: str, field: str, supported: Collection[str]
) -> None:
    """A field that may be set, to one of some values."""
    value = obj.get(field)
    if value is not None and value not in supported:
        causes.append(not_supported(f"{path}.{field}" if path else field, value, supported))


def named(causes: list[Cause], value: Any, path: str, check: Callable[[str], list[str]]) -> bool:
    """A required name that has to pass `check`. Whether it does."""
    if not value:
        causes.append(required(path))
        return False
    complaints = check(value)
    causes += [invalid_value(path, value, each) for each in complaints]
    return not complaints


def complain(causes: list[Cause], path: str, value: Any, complaints: Iterable[str]) -> None:
    """One cause a complaint about the value."""
    for each in complaints:
        causes.append(invalid_value(path, value, each))


def within(causes: list[Cause], obj: Mapping[str, Any], path: str, least: int, most: int, *fields: str) -> None:
    """Integer fields, where they are set, must be in a range."""
    for field in fields:
        value = obj.get(field)
        if value is not None and not least <= value <= most:
            causes.append(invalid_value(f"{path}.{field}", value, f"must be between {least} and {most}, inclusive"))


def need(causes: list[Cause], obj: Mapping[str, Any], path: str, *fields: str) -> None:
    """Fields that must be set to something."""
    for field in fields:
        if obj.get(field) in (None, "", [], {}):
            causes.append(required(f"{path}.{field}" if path else field))


@lru_cache(maxsize=8192)
def good_key(key: str) -> bool:
    """Whether `key` can be a label's key."""
    return not names.qualified_name(key)


@lru_cache(maxsize=8192)
def good_label(key: str, value: str) -> bool:
    """Whether `key: value` can be a label."""
    return not names.qualified_name(key) and not names.label_value(value)


def labels(found: Mapping[str, str] | None, path: str) -> list[Cause]:
    """Labels, or anything that is matched with labels."""
    if not found:
        return []
    causes = []
    for key, value in found.items():
        if not good_label(key, value):
            causes += [invalid_value(path, key, each) for each in names.qualified_name(key)]
            causes += [invalid_value(path, value, each) for each in names.label_value(value)]
    return causes


def selector(found: Mapping[str, Any] | None, path: str) -> list[Cause]:
    """A metav1.LabelSelector."""
    if not found:
        return []
    causes = labels(found.get("matchLabels"), f"{path}.matchLabels")
    for index, each in enumerate(found.get("matchExpressions") or ()):
        at = f"{path}.matchExpressions[{index}]"
        operator, values = each.get("operator", ""), each.get("values") or ()
        if operator in ("In", "NotIn"):
            if not values:
                causes.append(required(f"{at}.values", "must be specified when `operator` is 'In' or 'NotIn'"))
        elif operator in ("Exists", "DoesNotExist"):
            if values:
                text = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
                causes.append(Cause("FieldValueForbidden", f"{at}.values", f"Forbidden: {text}"))
        else:
            causes.append(invalid_value(f"{at}.operator", operator, "not a valid selector operator"))
        causes += [
            invalid_value(f"{at}.key", each.get("key", ""), text) for text in names.qualified_name(each.get("key", ""))
        ]
        for place, value in enumerate(values):
            causes += [invalid_value(f"{at}.values[{place}]", value, text) for text in names.label_value(value)]
    return causes


def empty_selector(found: Mapping[str, Any] | None) -> bool:
    """Whether a label selector has no condition."""
    return not found or not (found.get("matchLabels") or found.get("matchExpressions"))


def int_or_percent(value: Any, path: str) -> list[Cause]:
    """A count that is not negative, or a percentage."""
    if isinstance(value, int):
        return [] if value >= 0 else [invalid_value(path, value, "must be greater than or equal to 0")]
    if isinstance(value, str) and value.endswith("%") and value[:-1].isdecimal() and value.isascii():
        return []
    text = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', "
    return [invalid_value(path, value, f"{text}regex used for validation is '[0-9]+%')")]


def is_zero(value: Any) -> bool:
    """Whether an IntOrString is 0 or "0%"."""
    return value == 0 or (isinstance(value, str) and value.rstrip("%").strip("0") == "" and value != "")


def not_negative(amounts: Mapping[str, str] | None, path: str) -> list[Cause]:
    """Quantities by name, none of them below zero."""
    causes = []
    for name, amount in (amounts or {}).items():
        if amount.startswith("-") and quantity.parse(amount) < quantity.ZERO:
            causes.append(invalid_value(f"{path}[{name}]", amount, "must be greater than or equal to 0"))
    return causes


def same(causes: list[Cause], new: Mapping[str, Any], old: Mapping[str, Any], path: str, fields: Iterable[str]) -> None:
    """Fields that may not change."""
    for field in fields:
        if new.get(field) != old.get(field):
            causes.append(invalid_value(f"{path}.{field}" if path else field, new.get(field), IMMUTABLE))
