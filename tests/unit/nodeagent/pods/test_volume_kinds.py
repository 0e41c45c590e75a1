"""Volumes of the rarer kinds, and what fsGroup does to real files."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from nodeagent.pods.volumes import nfs, ownership, places
from nodeagent.pods.volumes.content import VolumeFailure

Obj = dict[str, Any]


def mounting(kind: Obj, **mount: Any) -> Obj:
    """A pod's `containers` and `volumes` with one volume of this kind at /v."""
    container = {"name": "app", "image": "busybox:1", "volumeMounts": [{"name": "v", "mountPath": "/v", **mount}]}
    return {"containers": [container], "volumes": [{"name": "v", **kind}]}


def failures(world: Any) -> list[str]:
    return [message for _, reason, message in world.events if reason == "FailedMount"]


def claim(world: Any, name: str, spec: Obj, *, owner: str = "", annotations: Obj | None = None, **meta: Any) -> None:
    owners = [{"apiVersion": "v1", "kind": "Pod", "name": "web", "uid": owner, "controller": True}] if owner else []
    world.api.put({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "spec": {"volumeName": f"pv-{name}"},
        "metadata": {"name": name, "namespace": "default", "ownerReferences": owners, **meta},
        "status": {"phase": "Bound"},
    })  # fmt: skip
    pv = {"name": f"pv-{name}", "annotations": annotations or {}}
    world.api.put({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": pv, "spec": spec})


async def test_an_ephemeral_volume_uses_only_the_claim_made_for_this_pod(world, tmp_path: Path) -> None:
    local = {"local": {"path": str(tmp_path)}}
    world.pod(**mounting({"ephemeral": {"volumeClaimTemplate": {"spec": {}}}}))
    claim(world, "web-v", local, owner="somebody-else")
    wanted = "PVC default/web-v was not created for pod default/web (pod is not owner)"
    await world.until(lambda: any(wanted in m for m in failures(world)))
    assert not world.container().get("ready")
    claim(world, "web-v", local, owner=world.uid())
    await world.until(lambda: world.container().get("ready"))


async def test_a_claim_that_is_going_away_starts_no_pod(world, tmp_path: Path) -> None:
    claim(
        world, "data", {"local": {"path": str(tmp_path)}}, deletionTimestamp="2026-01-01T00:00:00Z", finalizers=["x/y"]
    )
    world.pod(**mounting({"persistentVolumeClaim": {"claimName": "data"}}))
    await world.until(lambda: any("PVC default/data is being deleted" in m for m in failures(world)))


@pytest.mark.root
@pytest.mark.parametrize(("policy", "inner"), [("Always", 4242), ("OnRootMismatch", 0)])
async def test_fs_group_owns_a_claims_files(world, tmp_path: Path, policy: str, inner: int) -> None:
    disk = tmp_path / "disk"
    (disk / "deep").mkdir(parents=True)
    (disk / "deep/file").write_text("x")
    (disk / "deep/file").chmod(0o600)
    os.chown(disk, -1, 4242)
    disk.chmod(0o2770)  # as it should be: OnRootMismatch looks no further
    claim(world, "data", {"local": {"path": str(disk)}})
    context = {"fsGroup": 4242, "fsGroupChangePolicy": policy}
    world.pod(**mounting({"persistentVolumeClaim": {"claimName": "data"}}), securityContext=context)
    await world.until(lambda: world.container().get("ready"))
    assert (disk / "deep/file").stat().st_gid == inner
    assert 4242 in world.find().config.security.supplemental_groups


@pytest.mark.root
def test_the_walk_gives_links_away_and_not_what_they_point_to(tmp_path: Path) -> None:
    volume, outside = tmp_path / "v", tmp_path / "outside"
    volume.mkdir()
    outside.write_text("x")
    outside.chmod(0o600)
    (volume / "link").symlink_to(outside)
    (volume / "dir").mkdir(mode=0o700)
    (volume / "dir/f").write_text("x")
    (volume / "dir/f").chmod(0o400)
    assert ownership.give(str(volume), 4242)
    assert outside.stat().st_gid == 0 and stat.S_IMODE(outside.stat().st_mode) == 0o600
    assert (volume / "link").lstat().st_gid == 4242
    assert stat.S_IMODE((volume / "dir").stat().st_mode) == 0o2770
    assert stat.S_IMODE((volume / "dir/f").stat().st_mode) == 0o660
    assert not ownership.give(str(volume), 4242, only_on_mismatch=True)
    assert ownership.give(str(volume), 4243, only_on_mismatch=True)


@pytest.mark.root
async def test_an_image_as_a_volume(world, tmp_path: Path) -> None:
    import dataclasses

    layer, top = tmp_path / "layer", tmp_path / "top"
    for directory, text in ((layer, "old"), (top, "new")):
        directory.mkdir()
        (directory / "model").write_text(text)
    (layer / "below").write_text("1")
    image = world.runtime.images.add("model:1")
    world.runtime.images.local["model:1"] = dataclasses.replace(image, layers=(str(top), str(layer)))
    world.pod(**mounting({"image": {"reference": "model:1", "pullPolicy": "Never"}}))
    await world.until(lambda: world.container().get("ready"))
    mount = next(m for m in world.find().config.mounts if m.container_path == "/v")
    assert mount.readonly and (Path(mount.host_path) / "model").read_text() == "new"
    assert (Path(mount.host_path) / "below").exists()
    assert os.statvfs(mount.host_path).f_flag & (os.ST_RDONLY | os.ST_NOEXEC | os.ST_NOSUID) == (
        os.ST_RDONLY | os.ST_NOEXEC | os.ST_NOSUID
    )
    await world.delete(grace=1)
    await world.until(lambda: world.api.get("pods", "web", "default") is None)
    assert str(world.root) not in Path("/proc/self/mountinfo").read_text()


async def test_an_image_volume_that_is_not_there(world) -> None:
    world.pod(**mounting({"image": {"reference": "absent:1", "pullPolicy": "Never"}}))
    await world.until(
        lambda: (world.container().get("state") or {}).get("waiting", {}).get("reason") == "ErrImageNeverPull"
    )


@pytest.mark.parametrize("source", [{"clusterTrustBundle": {"name": "x", "path": "p"}}, {"podCertificate": {}}])
async def test_projected_sources_that_are_not_supported_say_so(world, source: Obj) -> None:
    world.pod(**mounting({"projected": {"sources": [source]}}))
    kind = next(iter(source))
    await world.until(lambda: any(f"projected source {kind} is not supported" in m for m in failures(world)))


async def test_kinds_that_are_not_supported_say_so(world) -> None:
    world.pod(**mounting({"iscsi": {"targetPortal": "x", "iqn": "y", "lun": 0}}))
    await world.until(lambda: any("volumes of type iscsi are not supported" in m for m in failures(world)))


def test_nfs_options() -> None:
    assert nfs.compile_options(["nfsvers=4.1", "hard", "noatime", "rw"], "10.0.0.1") == (
        1024, "vers=4.1,hard,addr=10.0.0.1",
    )  # fmt: skip
    assert nfs.compile_options([], "fd00::1") == (0, "vers=4.2,addr=fd00::1")


async def test_nfs_without_a_client_in_the_kernel(world, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nfs, "available", lambda: False)
    world.pod(**mounting({"nfs": {"server": "10.0.0.9", "path": "/export"}}))
    await world.until(lambda: any("kernel has no NFS client" in m for m in failures(world)))


def test_how_large_memory_may_grow() -> None:
    def limit(source: Obj, memory: str = "") -> int:
        resources = {"resources": {"limits": {"memory": memory}}} if memory else {}
        pod = {"metadata": {"uid": "u"}, "spec": {"containers": [{"name": "app", **resources}]}}
        return places.memory_limit(pod, source, {"memory": "1Gi"})

    assert limit({}) == 1 << 30
    assert limit({"sizeLimit": "1Mi"}) == 1 << 20 and limit({"sizeLimit": "1Gi"}, "64Mi") == 64 << 20
    assert limit({"sizeLimit": "4Gi"}) == 1 << 30


def test_huge_pages_must_be_asked_for(tmp_path: Path) -> None:
    def pod(**limits: str) -> Obj:
        return {"metadata": {"uid": "u"}, "spec": {"containers": [{"name": "app", "resources": {"limits": limits}}]}}

    for asked, medium, message in (
        (pod(), "HugePages", "no resource"),
        (pod(**{"hugepages-2Mi": "2Mi", "hugepages-1Gi": "1Gi"}), "HugePages", "multiple page sizes"),
        (pod(**{"hugepages-2Mi": "2Mi"}), "HugePages-1Gi", "no container of the pod asks"),
        (pod(**{"hugepages-3Mi": "3Mi"}), "HugePages", "no huge pages of 3Mi"),
    ):
        with pytest.raises(VolumeFailure, match=message):
            places.empty_dir(asked, {"medium": medium}, str(tmp_path / "v"), None)
