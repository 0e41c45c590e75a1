"""Volumes: atomic files, safe sub-paths, what is in them, and how they are renewed."""

from __future__ import annotations

import base64
import itertools
import os
import threading
from pathlib import Path

import pytest

from nodeagent.linux import syscalls
from nodeagent.pods.volumes import places, subpath
from nodeagent.pods.volumes.content import VolumeFailure
from nodeagent.pods.volumes.writer import File, write


def shown(directory: Path) -> dict[str, str]:
    """What a user sees: relative path -> content."""
    names = [n for n in os.listdir(directory) if not n.startswith("..")]
    found = {}
    for name in names:
        path = directory / name
        files = [path] if path.is_file() else [p for p in path.resolve().rglob("*") if p.is_file()]
        for file in files:
            inner = "" if path.is_file() else "/" + str(file.relative_to(path.resolve()))
            found[name + inner] = file.read_text()
    return found


def test_files_change_all_at_once(tmp_path: Path) -> None:
    assert write(str(tmp_path), {"a": File(b"1", 0o644), "d/b": File(b"2", 0o600)})
    assert shown(tmp_path) == {"a": "1", "d/b": "2"}
    assert (tmp_path / "d/b").stat().st_mode & 0o777 == 0o600
    first = os.readlink(tmp_path / "..data")
    assert not write(str(tmp_path), {"a": File(b"1", 0o644), "d/b": File(b"2", 0o600)})
    assert os.readlink(tmp_path / "..data") == first
    held = open(tmp_path / "a")  # noqa: SIM115 - a reader that has the old file open
    assert write(str(tmp_path), {"a": File(b"3", 0o644), "c": File(b"4", 0o644)})
    assert shown(tmp_path) == {"a": "3", "c": "4"} and held.read() == "1"
    held.close()
    assert len(list(tmp_path.glob("..2*"))) == 1
    (tmp_path / "..data_tmp").symlink_to("nowhere")  # a writer that was killed between two steps
    assert write(str(tmp_path), {})
    assert shown(tmp_path) == {}


def test_sub_paths_never_leave_the_volume(tmp_path: Path) -> None:
    volume, outside = tmp_path / "v", tmp_path / "secret"
    (volume / "dir").mkdir(parents=True)
    outside.write_text("no")
    (volume / "f").write_text("yes")
    (volume / "link").symlink_to("dir/../f")
    (volume / "absolute").symlink_to("/f")
    (volume / "escape").symlink_to("../secret")
    (volume / "dir/up").symlink_to("../../../../../../f")
    (volume / "loop").symlink_to("loop")

    def read(path: str) -> str:
        fd = subpath.open_inside(str(volume), path)
        try:
            return Path(f"/proc/self/fd/{fd}").read_text()
        finally:
            os.close(fd)

    assert read("f") == read("link") == read("absolute") == read("dir/up") == read("dir/../../f") == "yes"
    with pytest.raises(FileNotFoundError):
        read("escape")
    with pytest.raises(subpath.UnsafePath):
        read("loop")
    with pytest.raises(NotADirectoryError):
        read("f/x")
    os.close(subpath.open_inside(str(volume), "new/deep", create_mode=0o755))
    assert (volume / "new/deep").is_dir()
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError):
        read("dir/none/x")
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_sub_path_that_is_swapped_while_it_is_walked_stays_inside(tmp_path: Path) -> None:
    """CVE-2021-25741: a container that changes a directory into a link at the worst moment, again and again."""
    volume, outside = tmp_path / "v", tmp_path / "outside"
    (volume / "dir/sub").mkdir(parents=True)
    (outside / "sub").mkdir(parents=True)
    (volume / "link").symlink_to(outside)
    (volume / "other").symlink_to("../outside")
    within = {(volume / "dir/sub").stat().st_ino, (volume / "dir").stat().st_ino}
    stop = threading.Event()

    def swap() -> None:
        names = itertools.cycle(["link", "other"])
        while not stop.is_set():
            name = next(names)
            rename_exchange(str(volume / "dir"), str(volume / name))
            rename_exchange(str(volume / "dir"), str(volume / name))

    thread = threading.Thread(target=swap)
    thread.start()
    found = 0
    try:
        for _ in range(3000):
            try:
                fd = subpath.open_inside(str(volume), "dir/sub")
            except OSError:
                continue
            found += 1
            assert os.fstat(fd).st_ino in within
            os.close(fd)
    finally:
        stop.set()
        thread.join()
    assert found


def rename_exchange(one: str, other: str) -> None:
    number = {"x86_64": 316, "aarch64": 276}[os.uname().machine]
    assert syscalls.raw(number, -100, one.encode() + b"\0", -100, other.encode() + b"\0", 2) == 0


def test_host_path_types(tmp_path: Path) -> None:
    file, directory = tmp_path / "f", tmp_path / "d"
    assert places.host_path({"path": str(directory), "type": "DirectoryOrCreate"}) == str(directory)
    assert places.host_path({"path": str(file), "type": "FileOrCreate"}) == str(file)
    assert places.host_path({"path": str(directory), "type": "Directory"})
    with pytest.raises(VolumeFailure, match="is not a file"):
        places.host_path({"path": str(directory), "type": "File"})
    with pytest.raises(VolumeFailure, match="is not a directory"):
        places.host_path({"path": str(tmp_path / "none"), "type": "Directory"})
    with pytest.raises(VolumeFailure, match="is not a socket file"):
        places.host_path({"path": str(file), "type": "Socket"})


def config_map(world, name: str, **data: str) -> None:
    world.api.put(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": data}
    )


def mounted(world) -> dict[str, Path]:
    return {m.container_path: Path(m.host_path) for m in world.find().config.mounts}


async def test_contents_of_all_kinds_and_their_renewal(world) -> None:
    config_map(world, "cm", a="1", b="2")
    account = {"name": "default", "namespace": "default"}
    world.api.put({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": account})
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "sec", "namespace": "default"}}
    world.api.put({**secret, "data": {"key": base64.b64encode(b"geheim").decode()}})
    item = {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}
    projected = [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
        {"configMap": {"name": "cm", "items": [{"key": "a", "path": "x/y", "mode": 0o400}]}},
        {"secret": {"name": "absent", "optional": True}},
        {"downwardAPI": {"items": [item]}},
    ]
    volumes = [
        {"name": "cm", "configMap": {"name": "cm"}},
        {"name": "sec", "secret": {"secretName": "sec", "defaultMode": 0o400}},
        {"name": "all", "projected": {"sources": projected}},
        {"name": "empty", "emptyDir": {}},
    ]
    mounts = [{"name": v["name"], "mountPath": f"/{v['name']}"} for v in volumes]
    world.pod(
        containers=[{"name": "app", "image": "busybox:1", "volumeMounts": mounts}], volumes=volumes,
        meta={"labels": {"app": "web"}},
    )  # fmt: skip
    await world.until(lambda: world.container().get("ready"))
    paths = mounted(world)
    assert shown(paths["/cm"]) == {"a": "1", "b": "2"}
    assert shown(paths["/sec"]) == {"key": "geheim"} and (paths["/sec"] / "key").stat().st_mode & 0o777 == 0o400
    everything = shown(paths["/all"])
    assert everything["x/y"] == "1" and everything["labels"] == 'app="web"' and everything["token"]
    assert str(paths["/sec"]).startswith(str(world.root / "node/memory"))

    asked = len(world.api.requests)
    config_map(world, "cm", a="one")
    await world.volumes.refresh()
    assert shown(paths["/cm"]) == {"a": "one"} and shown(paths["/all"])["x/y"] == "one"
    assert len([r for r in world.api.requests[asked:] if "configmaps/cm" in r[1]]) == 1  # once for both volumes
    # The fake's tokens have expired when they are made: each round asks for a new one.
    assert len([r for r in world.api.requests[asked:] if r[1].endswith("/serviceaccounts/default/token")]) == 1


async def test_a_missing_object_holds_the_pod_up_until_it_is_there(world) -> None:
    mounts = [{"name": "cm", "mountPath": "/cm"}]
    world.pod(
        containers=[{"name": "app", "image": "busybox:1", "volumeMounts": mounts}],
        volumes=[{"name": "cm", "configMap": {"name": "late"}}],
    )
    message = 'MountVolume.SetUp failed for volume "cm" : configmap "late" not found'
    await world.until(lambda: ("web", "FailedMount", message) in world.events)
    config_map(world, "late", a="1")
    await world.until(lambda: world.container().get("ready"))


async def test_claims(world, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    meta = {"name": "data", "namespace": "default"}
    world.api.put({
        "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta, "spec": {"volumeName": "pv1"},
        "status": {"phase": "Bound"},
    })  # fmt: skip
    spec = {"hostPath": {"path": str(tmp_path / "disk")}}
    world.api.put({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "pv1"}, "spec": spec})
    world.pod(
        containers=[{"name": "app", "image": "busybox:1", "volumeMounts": [{"name": "d", "mountPath": "/d"}]}],
        volumes=[{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}],
    )
    await world.until(lambda: world.container().get("ready"))
    assert mounted(world)["/d"] == tmp_path / "disk"


@pytest.mark.root
async def test_memory_and_sub_path_mounts_are_taken_down_with_the_pod(world) -> None:
    mounts = [{"name": "m", "mountPath": "/m"}, {"name": "e", "mountPath": "/s", "subPath": "a/b"}]
    world.pod(
        containers=[{"name": "app", "image": "busybox:1", "volumeMounts": mounts}],
        volumes=[{"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}, {"name": "e", "emptyDir": {}}],
    )
    await world.until(lambda: world.container().get("ready"))
    paths = mounted(world)
    assert (
        os.path.ismount(paths["/m"]) and os.statvfs(paths["/m"]).f_blocks * os.statvfs(paths["/m"]).f_frsize == 1 << 20
    )
    (paths["/s"] / "file").write_text("x")
    assert list((world.root / "node").glob("pods/*/volumes/*/e/a/b/file"))
    await world.delete(grace=1)
    await world.until(lambda: world.api.get("pods", "web", "default") is None)
    assert str(world.root) not in Path("/proc/self/mountinfo").read_text()
