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


def decode(body: bytes) -> Any:
    """The JSON values of a YAML text. Raises ValueError."""
    try:
        depth = 0
        for event in yaml.parse(body, Loader=_Loader):
            if isinstance(event, yaml.events.CollectionStartEvent):
                depth += 1
                if depth > _MAX_DEPTH:
                    raise ValueError("exceeded max depth")
            elif isinstance(event, yaml.events.CollectionEndEvent):
                depth -= 1
            elif isinstance(event, yaml.events.AliasEvent):
                raise ValueError("aliases are not accepted")
        return _json(yaml.load(body, Loader=_Loader))
    except yaml.YAMLError as error:
        raise ValueError(f"yaml: {error}") from None


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
