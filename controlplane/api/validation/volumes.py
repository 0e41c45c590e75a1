"""Rules for the volumes of a pod."""

from collections.abc import Mapping, Sequence
from typing import Any

from controlplane.api import names
from controlplane.api.status import Cause, duplicate, forbidden_field, invalid_value, required
from controlplane.api.validation.common import maybe_one_of, named, need, not_negative

Each = Mapping[str, Any]
_HOST_PATH_TYPES = ("", "DirectoryOrCreate", "Directory", "FileOrCreate", "File", "Socket", "CharDevice", "BlockDevice")
_MEDIA = ("", "Memory", "HugePages")


def volumes(causes: list[Cause], found: Sequence[Each], path: str) -> dict[str, bool]:
    """The volumes of a pod. Returns name -> whether it comes from a claim (which can be a block device)."""
    known: dict[str, bool] = {}
    for index, volume in enumerate(found):
        at = f"{path}[{index}]"
        name = volume.get("name")
        if named(causes, name, f"{at}.name", names.dns1123_label):
            if name in known:
                causes.append(duplicate(f"{at}.name", name))
            known[str(name)] = "persistentVolumeClaim" in volume or "ephemeral" in volume
        kinds = [kind for kind in volume if kind != "name"]
        if not kinds:
            causes.append(required(at, "must specify a volume type"))
        for kind in kinds[1:]:
            causes.append(forbidden_field(f"{at}.{kind}", "may not specify more than 1 volume type"))
        for kind in kinds[:1]:
            check = _SOURCES.get(kind)
            if check is not None:
                check(causes, volume[kind], f"{at}.{kind}")
    return known


def local_path(causes: list[Cause], value: str, path: str) -> None:
    """A path below a volume's root."""
    if value.startswith("/"):
        causes.append(invalid_value(path, value, "must be a relative path"))
    elif ".." in value.split("/"):
        causes.append(invalid_value(path, value, "must not contain '..'"))


def _mode(causes: list[Cause], value: int | None, path: str) -> None:
    if value is not None and not 0 <= value <= 0o777:
        text = "must be a number between 0 and 0777 (octal), both inclusive"
        causes.append(invalid_value(path, value, text))


def _items(causes: list[Cause], items: Sequence[Each], path: str) -> None:
    for index, item in enumerate(items):
        at = f"{path}[{index}]"
        need(causes, item, at, "key", "path")
        if item.get("path"):
            local_path(causes, item["path"], f"{at}.path")
        _mode(causes, item.get("mode"), f"{at}.mode")


def _downward(causes: list[Cause], source: Each, path: str) -> None:
    _mode(causes, source.get("defaultMode"), f"{path}.defaultMode")
    for index, item in enumerate(source.get("items") or ()):
        at = f"{path}.items[{index}]"
        need(causes, item, at, "path")
        if item.get("path"):
            local_path(causes, item["path"], f"{at}.path")
        _mode(causes, item.get("mode"), f"{at}.mode")
        if "fieldRef" in item:
            need(causes, item["fieldRef"], f"{at}.fieldRef", "fieldPath")
            if "resourceFieldRef" in item:
                text = "fieldRef and resourceFieldRef can not be specified simultaneously"
                causes.append(invalid_value(f"{path}.items", "resource", text))
        elif "resourceFieldRef" in item:
            need(causes, item["resourceFieldRef"], f"{at}.resourceFieldRef", "containerName", "resource")
        else:
            causes.append(required(at, "one of fieldRef and resourceFieldRef is required"))


def _secret(causes: list[Cause], source: Each, path: str) -> None:
    need(causes, source, path, "secretName")
    _mode(causes, source.get("defaultMode"), f"{path}.defaultMode")
    _items(causes, source.get("items") or (), f"{path}.items")


def _config_map(causes: list[Cause], source: Each, path: str) -> None:
    need(causes, source, path, "name")
    _mode(causes, source.get("defaultMode"), f"{path}.defaultMode")
    _items(causes, source.get("items") or (), f"{path}.items")


def _projected(causes: list[Cause], source: Each, path: str) -> None:
    _mode(causes, source.get("defaultMode"), f"{path}.defaultMode")
    for index, each in enumerate(source.get("sources") or ()):
        at = f"{path}.sources[{index}]"
        kinds = list(each)
        if not kinds:
            causes.append(required(at, "must specify a projected volume source"))
        for kind in kinds[1:]:
            causes.append(forbidden_field(f"{at}.{kind}", "may not specify more than 1 volume type per source"))
        for kind in ("secret", "configMap"):
            if kind in each:
                need(causes, each[kind], f"{at}.{kind}", "name")
                _items(causes, each[kind].get("items") or (), f"{at}.{kind}.items")
        if "downwardAPI" in each:
            _downward(causes, each["downwardAPI"], f"{at}.downwardAPI")
        if "serviceAccountToken" in each:
            token = each["serviceAccountToken"]
            seconds = token.get("expirationSeconds", 3600)
            field = f"{at}.serviceAccountToken.expirationSeconds"
            if seconds < 600:
                causes.append(invalid_value(field, seconds, "may not specify a duration less than 10 minutes"))
            elif seconds > 1 << 32:
                causes.append(invalid_value(field, seconds, "may not specify a duration larger than 2^32 seconds"))
            need(causes, token, f"{at}.serviceAccountToken", "path")


def _empty_dir(causes: list[Cause], source: Each, path: str) -> None:
    if "sizeLimit" in source:
        causes += not_negative({"sizeLimit": source["sizeLimit"]}, path)
    medium = source.get("medium", "")
    if medium not in _MEDIA and not medium.startswith("HugePages-"):
        causes.append(invalid_value(f"{path}.medium", medium, "unknown medium"))


def _host_path(causes: list[Cause], source: Each, path: str) -> None:
    need(causes, source, path, "path")
    if ".." in source.get("path", "").split("/"):
        causes.append(invalid_value(f"{path}.path", source["path"], "must not contain '..'"))
    maybe_one_of(causes, source, path, "type", _HOST_PATH_TYPES)


def _claim(causes: list[Cause], source: Each, path: str) -> None:
    need(causes, source, path, "claimName")


def _nfs(causes: list[Cause], source: Each, path: str) -> None:
    need(causes, source, path, "server", "path")
    if source.get("path") and not source["path"].startswith("/"):
        causes.append(invalid_value(f"{path}.path", source["path"], "must be an absolute path"))


def _csi(causes: list[Cause], source: Each, path: str) -> None:
    need(causes, source, path, "driver")


def _image(causes: list[Cause], source: Each, path: str) -> None:
    need(causes, source, path, "reference")
    maybe_one_of(causes, source, path, "pullPolicy", ("Always", "IfNotPresent", "Never"))


def _ephemeral(causes: list[Cause], source: Each, path: str) -> None:
    need(causes, source, path, "volumeClaimTemplate")
    spec = (source.get("volumeClaimTemplate") or {}).get("spec") or {}
    need(causes, spec, f"{path}.volumeClaimTemplate.spec", "accessModes", "resources")


_SOURCES = {
    "configMap": _config_map,
    "csi": _csi,
    "downwardAPI": _downward,
    "emptyDir": _empty_dir,
    "ephemeral": _ephemeral,
    "hostPath": _host_path,
    "image": _image,
    "nfs": _nfs,
    "persistentVolumeClaim": _claim,
    "projected": _projected,
    "secret": _secret,
}
