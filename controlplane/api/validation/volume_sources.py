"""Rules for the kinds of volumes that pods and PersistentVolumes share: disks, network file systems, CSI.

Most are fields that must be there; their names are the table below. `where` is the path that Kubernetes uses in causes,
which is not always the field's name.
"""

import posixpath
import re
from collections.abc import Callable, Mapping
from typing import Any

from controlplane.api import names
from controlplane.api.status import Cause, invalid_value, not_supported, required, too_long
from controlplane.api.validation.common import complain, need
from controlplane.api.validation.paths import descending, no_backsteps

Each = Mapping[str, Any]
Check = Callable[[list[Cause], Each, str], None]

_HOST_PATH_TYPES = frozenset(
    ("", "DirectoryOrCreate", "Directory", "FileOrCreate", "File", "Socket", "CharDevice", "BlockDevice")
)
_IQN = {
    "iqn": re.compile(r"iqn\.\d{4}-\d{2}\.([a-zA-Z0-9.-]+)(:[^,;*&$|\s]+)$").match,
    "eui": re.compile(r"eui.[a-zA-Z0-9]{16}").fullmatch,
    "naa": re.compile(r"naa.[a-zA-Z0-9]{32}").fullmatch,
}


def required_fields(*fields: str) -> Check:
    """A source of which only some fields must be there."""

    def check(causes: list[Cause], source: Each, path: str) -> None:
        need(causes, source, path, *fields)

    return check


def host_path(causes: list[Cause], source: Each, path: str) -> None:
    if not source.get("path"):
        causes.append(required(f"{path}.path"))
        return
    no_backsteps(causes, source["path"], f"{path}.path")
    kind = source.get("type")
    if kind is not None and kind not in _HOST_PATH_TYPES:
        causes.append(not_supported(f"{path}.type", kind, _HOST_PATH_TYPES))


def local(causes: list[Cause], source: Each, path: str) -> None:
    if not source.get("path"):
        causes.append(required(f"{path}.path"))
    else:
        no_backsteps(causes, source["path"], f"{path}.path")


def nfs(causes: list[Cause], source: Each, path: str) -> None:
    need(causes, source, path, "server", "path")
    if not source.get("path", "").startswith("/"):
        causes.append(invalid_value(f"{path}.path", source.get("path", ""), "must be an absolute path"))


def driver_name(causes: list[Cause], name: str, at: str) -> None:
    """The name of a CSI driver: a domain name of up to 63 characters."""
    if not name:
        causes.append(required(at))
    if len(name) > 63:
        causes.append(too_long(at, 63))
    complain(causes, at, name, names.dns1123_subdomain(name.lower()))


def csi(causes: list[Cause], source: Each, path: str) -> None:
    driver_name(causes, source.get("driver", ""), f"{path}.driver")
    if "nodePublishSecretRef" in source:
        name = source["nodePublishSecretRef"].get("name", "")
        if not name:
            causes.append(required(f"{path}.nodePublishSecretRef.name"))
        else:
            complain(causes, f"{path}.name", name, names.dns1123_subdomain(name))


def csi_persistent(causes: list[Cause], source: Each, path: str) -> None:
    driver_name(causes, source.get("driver", ""), f"{path}.driver")
    need(causes, source, path, "volumeHandle")
    for field in (
        "controllerPublishSecretRef", "controllerExpandSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef",
    ):  # fmt: skip
        if field in source:
            for part, check in (("name", names.dns1123_subdomain), ("namespace", names.dns1123_label)):
                value = source[field].get(part, "")
                if not value:
                    causes.append(required(f"{path}.{field}.{part}"))
                else:
                    complain(causes, f"{path}.{field}.{part}", value, check(value))


def _iscsi(causes: list[Cause], source: Each, path: str) -> None:
    need(causes, source, path, "targetPortal")
    if not source.get("iqn"):
        causes.append(required(f"{path}.iqn"))
    else:
        _initiator(causes, source["iqn"], f"{path}.iqn")
    _byte(causes, source.get("lun", 0), f"{path}.lun")
    if (source.get("chapAuthDiscovery") or source.get("chapAuthSession")) and "secretRef" not in source:
        causes.append(required(f"{path}.secretRef"))
    if source.get("initiatorName") is not None:
        _initiator(causes, source["initiatorName"], f"{path}.initiatorname")


def _initiator(causes: list[Cause], value: str, at: str) -> None:
    matches = _IQN.get(value[:3])
    if matches is None:
        causes.append(invalid_value(at, value, "must be valid format starting with iqn, eui, or naa"))
    elif not matches(value):
        causes.append(invalid_value(at, value, "must be valid format"))


def _byte(causes: list[Cause], value: int, at: str, least: int = 0) -> None:
    if not 0 <= value <= 255:
        causes.append(invalid_value(at, value, f"must be between {least} and 255, inclusive"))


def _fibre_channel(causes: list[Cause], source: Each, path: str) -> None:
    names_, ids = source.get("targetWWNs"), source.get("wwids")
    if not names_ and not ids:
        text = "must specify either targetWWNs or wwids, but not both"
        causes.append(required(f"{path}.targetWWNs", text))
    if names_ and ids:
        text = "targetWWNs and wwids can not be specified simultaneously"
        causes.append(invalid_value(f"{path}.targetWWNs", names_, text))
    if names_:
        if source.get("lun") is None:
            causes.append(required(f"{path}.lun", "lun is required if targetWWNs is specified"))
        else:
            _byte(causes, source["lun"], f"{path}.lun")


def _disk(field: str) -> Check:
    def check(causes: list[Cause], source: Each, path: str) -> None:
        need(causes, source, path, field)
        _byte(causes, source.get("partition", 0), f"{path}.partition", 1)

    return check


def _quobyte(causes: list[Cause], source: Each, path: str) -> None:
    text = "must be a host:port pair or multiple pairs separated by commas"
    registry = source.get("registry", "")
    if not registry:
        causes.append(required(f"{path}.registry", text))
    elif len(source.get("tenant", "")) >= 65:
        about = "must be a UUID and may not exceed a length of 64 characters"
        causes.append(required(f"{path}.tenant", about))
    else:
        for pair in registry.split(","):
            if pair.count(":") != 1 and not re.fullmatch(r"\[[^\]]*\]:[^:]*", pair):
                causes.append(invalid_value(f"{path}.registry", registry, text))
    need(causes, source, path, "volume")


def _flocker(causes: list[Cause], source: Each, path: str) -> None:
    name, uid = source.get("datasetName", ""), source.get("datasetUUID", "")
    if not name and not uid:
        causes.append(required(path, "one of datasetName and datasetUUID is required"))
    if name and uid:
        text = "datasetName and datasetUUID can not be specified simultaneously"
        causes.append(invalid_value(path, "resource", text))
    if "/" in name:
        causes.append(invalid_value(f"{path}.datasetName", name, "must not contain '/'"))


def _flex(causes: list[Cause], source: Each, path: str) -> None:
    need(causes, source, path, "driver")
    for key in source.get("options") or ():
        domain = "." + key.partition("/")[0].lower()
        if domain.endswith((".kubernetes.io", ".k8s.io")):
            text = "kubernetes.io and k8s.io namespaces are reserved"
            causes.append(invalid_value(f"{path}.options[{key}]", key, text))


def _azure_disk(causes: list[Cause], source: Each, path: str) -> None:
    need(causes, source, path, "diskName", "diskURI")
    for field, supported in (
        ("cachingMode", ("None", "ReadOnly", "ReadWrite")), ("kind", ("Dedicated", "Managed", "Shared")),
    ):  # fmt: skip
        if source.get(field) is not None and source[field] not in supported:
            causes.append(not_supported(f"{path}.{field}", source[field], supported))
    kind, uri = source.get("kind"), source.get("diskURI", "")
    managed = "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}"
    blob = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"
    if kind == "Managed" and not uri.startswith("/subscriptions/"):
        causes.append(not_supported(f"{path}.diskURI", uri, (managed,)))
    elif kind is not None and kind != "Managed" and not uri.startswith("https://"):
        causes.append(not_supported(f"{path}.diskURI", uri, (blob,)))


def _storage_os(causes: list[Cause], source: Each, path: str) -> None:
    name, namespace = source.get("volumeName", ""), source.get("volumeNamespace", "")
    if not name:
        causes.append(required(f"{path}.volumeName"))
    else:
        complain(causes, f"{path}.volumeName", name, names.dns1123_label(name))
    if namespace:
        complain(causes, f"{path}.volumeNamespace", namespace, names.dns1123_label(namespace))
    if "secretRef" in source:
        need(causes, source["secretRef"], f"{path}.secretRef", "name")


def git_repo(causes: list[Cause], source: Each, path: str) -> None:
    need(causes, source, path, "repository")
    descending(causes, source.get("directory", ""), f"{path}.directory")


# In the order in which Kubernetes looks at them: the first one that is there counts, the others are too many.
SHARED: dict[str, tuple[str, Check]] = {
    "hostPath": ("hostPath", host_path),
    "gcePersistentDisk": ("persistentDisk", _disk("pdName")),
    "awsElasticBlockStore": ("awsElasticBlockStore", _disk("volumeID")),
    "nfs": ("nfs", nfs),
    "iscsi": ("iscsi", _iscsi),
    "glusterfs": ("glusterfs", required_fields("endpoints", "path")),
    "flocker": ("flocker", _flocker),
    "rbd": ("rbd", required_fields("monitors", "image")),
    "cinder": ("cinder", required_fields("volumeID")),
    "cephfs": ("cephfs", required_fields("monitors")),
    "quobyte": ("quobyte", _quobyte),
    "fc": ("fc", _fibre_channel),
    "flexVolume": ("flexVolume", _flex),
    "azureFile": ("azureFile", required_fields("secretName", "shareName")),
    "vsphereVolume": ("vsphereVolume", required_fields("volumePath")),
    "photonPersistentDisk": ("photonPersistentDisk", required_fields("pdID")),
    "portworxVolume": ("portworxVolume", required_fields("volumeID")),
    "azureDisk": ("azureDisk", _azure_disk),
    "storageos": ("storageos", _storage_os),
    "scaleIO": ("scaleIO", required_fields("gateway", "system", "volumeName")),
}


def is_root(path: str) -> bool:
    """Whether a path is `/`, however it is written."""
    return posixpath.normpath(path).lstrip("/") in ("", ".")
