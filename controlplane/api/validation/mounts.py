"""Rules for what a container sees of the pod's volumes: mounts, and block devices.

Some causes have no index in their path (`volumeMounts.subPath`): that is how Kubernetes states them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from controlplane.api.status import Cause, forbidden_field, invalid_value, not_found_value, not_supported, required
from controlplane.api.validation.paths import descending

Each = Mapping[str, Any]
Volumes = Mapping[str, Each]
"""The pod's volumes that are in order, by name."""

_PROPAGATIONS = ("Bidirectional", "HostToContainer", "None")
_RECURSIVE = ("Disabled", "Enabled", "IfPossible")


def mounts(causes: list[Cause], container: Each, path: str, volumes: Volumes) -> None:
    """A container's volumeMounts, at `path`."""
    devices = {each.get("name"): each.get("devicePath") for each in container.get("volumeDevices") or ()}
    seen = set()
    for index, mount in enumerate(container["volumeMounts"] or ()):
        name, where = mount.get("name", ""), mount.get("mountPath", "")
        if not name:
            causes.append(required(f"{path}[{index}].name"))
        volume = volumes.get(name)
        if volume is None:
            causes.append(not_found_value(f"{path}[{index}].name", name))
        if not where:
            causes.append(required(f"{path}[{index}].mountPath"))
        if where in seen:
            causes.append(invalid_value(f"{path}[{index}].mountPath", where, "must be unique"))
        seen.add(where)
        if devices:
            if name in devices:
                text = "must not already exist in volumeDevices"
                causes.append(invalid_value(f"{path}[{index}].name", name, text))
            if where in devices.values():
                text = "must not already exist as a path in volumeDevices"
                causes.append(invalid_value(f"{path}[{index}].mountPath", where, text))
        if "subPath" in mount or "subPathExpr" in mount:
            _sub_paths(causes, mount, path, index, volume)
        if mount.get("mountPropagation") is not None:
            _propagation(causes, mount["mountPropagation"], container, f"{path}.mountPropagation")
        if mount.get("recursiveReadOnly") is not None:
            _recursive(causes, mount, f"{path}.recursiveReadOnly")


def _sub_paths(causes: list[Cause], mount: Each, path: str, index: int, volume: Each | None) -> None:
    plain, expression = mount.get("subPath"), mount.get("subPathExpr")
    if volume is not None and "image" in volume:
        for field, value in (("subPath", plain), ("subPathExpr", expression)):
            if value and field == "subPathExpr":
                causes.append(invalid_value(f"{path}[{index}].{field}", value, "not allowed in image volume sources"))
    if plain:
        descending(causes, plain, f"{path}.subPath")
    if expression:
        if plain:
            text = "subPathExpr and subPath are mutually exclusive"
            causes.append(invalid_value(f"{path}[{index}].subPathExpr", expression, text))
        descending(causes, expression, f"{path}.subPathExpr")


def _propagation(causes: list[Cause], value: str, container: Each, at: str) -> None:
    if value not in _PROPAGATIONS:
        causes.append(not_supported(at, value, _PROPAGATIONS))
    elif value == "Bidirectional" and not (container.get("securityContext") or {}).get("privileged"):
        text = "Bidirectional mount propagation is available only to privileged containers"
        causes.append(forbidden_field(at, text))


def _recursive(causes: list[Cause], mount: Each, at: str) -> None:
    value = mount["recursiveReadOnly"]
    if value not in _RECURSIVE:
        causes.append(not_supported(at, value, _RECURSIVE))
    elif value != "Disabled":
        if not mount.get("readOnly"):
            causes.append(forbidden_field(at, "may only be specified when readOnly is true"))
        if mount.get("mountPropagation", "None") != "None":
            text = "may only be specified when mountPropagation is None or not specified"
            causes.append(forbidden_field(at, text))


def devices(causes: list[Cause], container: Each, path: str, volumes: Volumes) -> None:
    """A container's volumeDevices, at `path`: they need claims."""
    mounted = {each.get("name"): each.get("mountPath") for each in container.get("volumeMounts") or ()}
    names: set[str] = set()
    paths: set[str] = set()
    for index, device in enumerate(_sequence(container["volumeDevices"])):
        at, name, where = f"{path}[{index}]", device.get("name", ""), device.get("devicePath", "")
        if not name:
            causes.append(required(f"{at}.name"))
        if name in names:
            causes.append(invalid_value(f"{at}.name", name, "must be unique"))
        volume = volumes.get(name)
        if volume is None:
            causes.append(not_found_value(f"{at}.name", name))
        elif "persistentVolumeClaim" not in volume and "ephemeral" not in volume:
            text = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"
            causes.append(invalid_value(f"{at}.name", name, text))
        if not where:
            causes.append(required(f"{at}.devicePath"))
        if where in paths:
            causes.append(invalid_value(f"{at}.devicePath", where, "must be unique"))
        if ".." in where.split("/"):
            causes.append(invalid_value(f"{at}.devicePath", where, "can not contain backsteps ('..')"))
        else:
            paths.add(where)
        if name in mounted:
            causes.append(invalid_value(f"{at}.name", name, "must not already exist in volumeMounts"))
        if where in mounted.values():
            text = "must not already exist as a path in volumeMounts"
            causes.append(invalid_value(f"{at}.devicePath", where, text))
        if name:
            names.add(name)


def _sequence(found: Sequence[Each] | None) -> Sequence[Each]:
    return found or ()
