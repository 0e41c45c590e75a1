"""`wherry image` against the images of a node, through the agent's socket."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from controlplane.cli import image as cli
from controlplane.cli.main import main
from nodeagent.images import build
from nodeagent.images.door import Door
from nodeagent.images.service import LocalImages

pytestmark = pytest.mark.root


class Node:
    def __init__(self, path: Path) -> None:
        self.images = LocalImages(path / "images")
        self.used: set[str] = set()
        self.changes = 0
        self.socket = path / "run" / "images.sock"
        self.door = Door(self.images, str(self.socket), self._used, self._changed)

    async def _used(self) -> set[str]:
        return self.used

    def _changed(self) -> None:
        self.changes += 1

    async def wherry(self, *arguments: str, stdin: bytes | None = None, code: int = 0) -> Result:
        run = CliRunner().invoke
        result = await asyncio.to_thread(run, main, ["image", *arguments], input=stdin)
        assert result.exit_code == code, result.output
        return result

    async def listed(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads((await self.wherry("ls", "-o", "json")).output)
        return found


@pytest.fixture
async def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Node]:
    made = Node(tmp_path)
    await made.images.start()
    made.door.open()
    monkeypatch.setattr(cli, "_doors", lambda nodes: [("here", made.socket)])
    yield made
    await made.door.close()
    await made.images.close()
    assert not made.socket.exists()


async def test_build_list_and_remove(node: Node, tmp_path: Path) -> None:
    folder = tmp_path / "site"
    (folder / "www").mkdir(parents=True)
    (folder / "www" / "index.html").write_text("hello\n")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    options = ["--busybox", "--cmd", "httpd -f -h '/www dir'", "-e", "A=1", "-u", "7:8", "-w", "/www", "--volume", "/v"]
    said = await node.wherry("build", str(folder), "-t", "site:1", *options)
    assert "✓ here: load docker.io/library/site:1" in said.output
    image = await node.images.status("site:1")
    assert image is not None
    assert image.config.cmd == ("httpd", "-f", "-h", "/www dir")
    assert image.config.env == (build.PATH, "A=1")
    assert (image.config.user, image.config.working_dir, image.config.volumes) == ("7:8", "/www", ("/v",))
    layer = Path(image.layers[0])
    assert (layer / "www/index.html").read_text() == "hello\n"
    assert os.access(layer / "run.sh", os.X_OK)
    assert os.readlink(layer / "bin/sh") == "busybox"
    assert node.changes == 1

    node.used = {image.id}
    (seen,) = await node.listed()
    assert (seen["id"], seen["in_use"], seen["pinned"], seen["nodes"]) == (image.id, True, False, ["here"])
    table = (await node.wherry("ls")).output
    assert "docker.io/library/site:1" in table and "in use" in table
    refused = await node.wherry("rm", "site:1", code=1)
    assert "image site:1 is in use by a pod of this node" in refused.output
    await node.wherry("rm", "--force", "site:1")
    assert await node.listed() == []
    assert "no such image: site:1" in (await node.wherry("rm", "site:1", code=1)).output


async def test_load_from_file_directory_and_standard_input(node: Node, tmp_path: Path) -> None:
    archive = tmp_path / "busybox.tar"
    id_ = build.busybox(archive)
    assert "busybox:1.35" in (await node.wherry("load", str(archive))).output
    await node.wherry("rm", id_)
    await node.wherry("load", "-", stdin=archive.read_bytes())
    await node.wherry("rm", id_)
    directory = tmp_path / "layout"
    directory.mkdir()
    process = await asyncio.create_subprocess_exec("tar", "-xf", str(archive), "-C", str(directory))
    assert await process.wait() == 0
    await node.wherry("load", str(directory))
    assert [image["id"] for image in await node.listed()] == [id_]


async def test_what_goes_wrong_is_said(node: Node, tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.tar"
    garbage.write_bytes(b"not an archive")
    said = (await node.wherry("load", str(garbage), code=1)).output
    assert "not an image archive" in said and "/proc/self" not in said and "gzip" not in said
    assert "couldn't parse image name" in (await node.wherry("pull", "UPPER", code=1)).output
    said = (await node.wherry("pull", "127.0.0.1:1/x", "--user", "a:b", code=1)).output
    assert "127.0.0.1:1" in said and "ssl:" not in said
    assert "not NAME=VALUE" in (await node.wherry("build", str(tmp_path), "-t", "x", "-e", "A", code=1)).output
    assert node.socket.stat().st_mode & 0o777 == 0o600
    await node.door.close()
    assert "is the node agent running?" in (await node.wherry("ls", code=1)).output
