"""The daemons' `--config` files: only what differs from their defaults; what somebody added by hand stays."""

import dataclasses
from pathlib import Path
from typing import Any

import yaml

from pki.provision import write_if_changed

_HEAD = "# Settings that differ from the defaults; `python -m {module} --help` lists all.\n"


def write(path: Path, cls: type, module: str, **wanted: Any) -> list[str]:
    """Make the settings file `path` of the daemon `module` (whose Config is `cls`) say `wanted`; returns what changed.
    Raises ValueError if the file is not a mapping."""
    defaults = {f.name: _default(f) for f in dataclasses.fields(cls)}
    there = yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else None
    if there is not None and not isinstance(there, dict):
        raise ValueError(f"{path}: not a mapping of settings")
    kept = {key: value for key, value in (there or {}).items() if key not in wanted}
    ours = {key: value for key, value in wanted.items() if value != defaults[key]}
    if there == {**kept, **ours}:
        return []
    head = _HEAD.format(module=module)
    body = yaml.safe_dump({**ours, **kept}, sort_keys=False) if ours or kept else ""
    said = write_if_changed(path, (head + body).encode())
    return [f"{path}: {said}"] if said else []


def _default(field: "dataclasses.Field[Any]") -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default
