"""YAML bodies, made safe: JSON values only, no aliases, and no deeper than a C stack can bear.

libyaml's binding recurses in C, so a body of a hundred thousand brackets would end the process: the events are counted
first. Aliases, with which a few bytes become gigabytes, are refused; clients expand them before they send.
Imported when the first YAML body comes.
"""

from typing import Any

import yaml

_MAX_DEPTH = 200


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML 1.1 as Kubernetes reads it: timestamps stay text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in _Loader.yaml_implicit_resolvers.items()
}


def decode(body: bytes) -> tuple[Any, list[str]]:
    """The JSON values of a YAML text, and a line for each key that a mapping has twice. Raises ValueError."""
    try:
        repeated = _look_over(body)
        return _json(yaml.load(body, Loader=_Loader)), repeated
    except yaml.YAMLError as error:
        raise ValueError(f"yaml: {error}") from None


def _look_over(body: bytes) -> list[str]:
    """Refuses what must not be loaded; returns what is repeated, in the words of Go's YAML."""
    repeated: list[str] = []
    # A set of keys for each open mapping, None for a list; whether the next scalar in a mapping is a key.
    open_: list[set[str] | None] = []
    is_key: list[bool] = []
    for event in yaml.parse(body, Loader=_Loader):
        if isinstance(event, yaml.events.AliasEvent):
            raise ValueError("aliases are not accepted")
        if isinstance(event, yaml.events.CollectionStartEvent):
            if is_key:
                is_key[-1] = not is_key[-1]
            open_.append(set() if isinstance(event, yaml.events.MappingStartEvent) else None)
            is_key.append(open_[-1] is not None)
            if len(open_) > _MAX_DEPTH:
                raise ValueError("exceeded max depth")
        elif isinstance(event, yaml.events.CollectionEndEvent):
            open_.pop()
            is_key.pop()
        elif isinstance(event, yaml.events.ScalarEvent) and open_:
            keys = open_[-1]
            if keys is None:
                continue
            if is_key[-1]:
                if event.value in keys and event.start_mark is not None:
                    line = event.start_mark.line + 1
                    repeated.append(f'line {line}: key "{event.value}" already set in map')
                keys.add(event.value)
            is_key[-1] = not is_key[-1]
    return repeated


def _json(value: Any) -> Any:
    """With texts for keys, and nothing that JSON does not have."""
    if isinstance(value, dict):
        return {key if isinstance(key, str) else _key(key): _json(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_json(each) for each in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise ValueError(f"yaml: a {type(value).__name__} has no place in JSON")


def _key(key: Any) -> str:
    if isinstance(key, bool):
        return "true" if key else "false"
    if isinstance(key, int | float):
        return str(key)
    raise ValueError(f"yaml: unsupported map key {key!r}")
