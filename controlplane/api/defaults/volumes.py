"""Defaults of volumes in pods, and of the volume sources that persistent volumes share with them."""

from collections.abc import Iterable
from typing import Any

Object = dict[str, Any]

FILE_MODE = 0o644
TOKEN_SECONDS = 3600
CERTIFICATE_SECONDS = 86400


def pull_policy(image: str) -> str:
    """When to pull `image`: always if its tag is `latest` (or there is none), else only if it is missing."""
    if "@" in image:
        return "IfNotPresent"
    _, colon, tag = image.rpartition("/")[2].partition(":")
    return "IfNotPresent" if colon and tag != "latest" else "Always"


def downward_items(items: Iterable[Object]) -> None:
    """Anything with fieldRef or resourceFieldRef: environment variables and downward API files."""
    for item in items:
        if "fieldRef" in item and not item["fieldRef"].get("apiVersion"):
            item["fieldRef"]["apiVersion"] = "v1"
        if "resourceFieldRef" in item:
            item["resourceFieldRef"].setdefault("divisor", "0")


def volume(each: Object) -> None:
    """A pod's volume; one without a source is an empty directory."""
    if not any(key != "name" for key in each):
        each["emptyDir"] = {}
        return
    for key in ("secret", "configMap", "downwardAPI", "projected"):
        if key in each:
            each[key].setdefault("defaultMode", FILE_MODE)
    if "downwardAPI" in each:
        downward_items(each["downwardAPI"].get("items") or ())
    for source in (each["projected"].get("sources") or ()) if "projected" in each else ():
        if "serviceAccountToken" in source:
            source["serviceAccountToken"].setdefault("expirationSeconds", TOKEN_SECONDS)
        if "downwardAPI" in source:
            downward_items(source["downwardAPI"].get("items") or ())
        if "podCertificate" in source:
            source["podCertificate"].setdefault("maxExpirationSeconds", CERTIFICATE_SECONDS)
    if "ephemeral" in each and "volumeClaimTemplate" in each["ephemeral"]:
        claim_spec(each["ephemeral"]["volumeClaimTemplate"].setdefault("spec", {}))
    if "image" in each and not each["image"].get("pullPolicy"):
        each["image"]["pullPolicy"] = pull_policy(each["image"].get("reference", ""))
    shared_sources(each)


def claim_spec(spec: Object) -> None:
    """The spec of a PersistentVolumeClaim."""
    spec.setdefault("volumeMode", "Filesystem")
    spec.setdefault("resources", {})


_SHARED: dict[str, Object] = {
    "hostPath": {"type": ""},
    "iscsi": {"iscsiInterface": "default"},
    "rbd": {"pool": "rbd", "user": "admin", "keyring": "/etc/ceph/keyring"},
    "azureDisk": {"cachingMode": "ReadWrite", "kind": "Shared", "fsType": "ext4", "readOnly": False},
    "scaleIO": {"storageMode": "ThinProvisioned", "fsType": "xfs"},
}


def shared_sources(spec: Object) -> None:
    """Sources that a pod's volume and a PersistentVolume's spec both can have."""
    for name, defaults in _SHARED.items():
        if name in spec:
            source = spec[name]
            for key, value in defaults.items():
                if source.get(key) in (None, ""):
                    source[key] = value
