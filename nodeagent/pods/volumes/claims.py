"""From a claim to the volume behind it: whether the pod may use it now, and where it is. Fetches, mounts nothing.

Checks and words: kubelet's volumemanager/populator (getPVCExtractPV) and pkg/controller/volume/ephemeral.
"""

from __future__ import annotations

from dataclasses import dataclass

from nodeagent.pods.model import Object
from nodeagent.pods.objects import Objects
from nodeagent.pods.volumes.content import VolumeFailure


@dataclass(frozen=True, slots=True)
class Claimed:
    """The PersistentVolume's spec, and whether the pod asked for it read-only."""

    spec: Object
    name: str
    readonly: bool
    dynamic: bool  # made by a provisioner for this claim


async def resolve(volume: Object, kind: str, pod: Object, objects: Objects, since: float) -> Claimed:
    """What `volume` (a persistentVolumeClaim or ephemeral one) of `pod` is. Raises VolumeFailure, StatusError,
    Unreachable."""
    meta = pod["metadata"]
    namespace = meta.get("namespace", "")
    source = volume[kind] or {}
    name = source["claimName"] if kind == "persistentVolumeClaim" else f"{meta['name']}-{volume['name']}"
    claim = await objects.claim(namespace, name, since)
    if claim is None:
        raise VolumeFailure(f'persistentvolumeclaim "{name}" not found')
    if kind == "ephemeral" and not _owned(claim, meta["uid"]):
        message = f"PVC {namespace}/{name} was not created for pod {namespace}/{meta['name']} (pod is not owner)"
        raise VolumeFailure(message)
    if claim["metadata"].get("deletionTimestamp"):
        raise VolumeFailure(f"can't start pod because PVC {namespace}/{name} is being deleted")
    bound = claim["spec"].get("volumeName")
    if (claim.get("status") or {}).get("phase") != "Bound" or not bound:
        raise VolumeFailure(f'persistentvolumeclaim "{name}" is not bound')
    persistent = await objects.persistent_volume(bound, since)
    if persistent is None:
        raise VolumeFailure(f'persistentvolume "{bound}" not found')
    other = persistent["spec"].get("claimRef") or {}
    if other.get("uid") and claim["metadata"].get("uid") and other["uid"] != claim["metadata"]["uid"]:
        raise VolumeFailure(f'persistentvolume "{bound}" is bound to another claim')
    if persistent["spec"].get("volumeMode") == "Block":
        raise VolumeFailure(f'volume "{volume["name"]}" has volumeMode Block, which this node does not support')
    annotations = persistent["metadata"].get("annotations") or {}
    dynamic = "pv.kubernetes.io/provisioned-by" in annotations
    modes = persistent["spec"].get("accessModes") or ()
    readonly = bool(source.get("readOnly")) or (bool(modes) and set(modes) == {"ReadOnlyMany"})
    return Claimed(persistent["spec"], bound, readonly, dynamic)


def _owned(claim: Object, uid: str) -> bool:
    owners = claim["metadata"].get("ownerReferences") or ()
    return any(owner.get("uid") == uid and owner.get("controller") for owner in owners)
