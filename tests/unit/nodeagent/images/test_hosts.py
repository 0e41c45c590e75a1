"""Settings of registries in containerd's format."""

from __future__ import annotations

from pathlib import Path

import pytest

from nodeagent.images.endpoints import Registries
from nodeagent.images.hosts import Host
from nodeagent.runtime.interface import RuntimeFailure


def write(directory: Path, registry: str, text: str) -> Path:
    folder = directory / registry
    folder.mkdir()
    (folder / "hosts.toml").write_text(text)
    return folder


def test_everything_that_may_be_said(tmp_path: Path) -> None:
    folder = write(
        tmp_path, "r.io", """
        server = "https://real.r.io"
        ca = "/abs/ca.pem"
        [host."https://one:5000/v2"]
          capabilities = ["pull"]
          ca = ["a.pem", "b.pem"]
          client = [["c.pem", "c.key"]]
        [host."two"]
          skip_verify = true
          [host."two".header]
            authorization = "Basic eA=="
            x-many = ["1", "2"]
        [host."http://three/prefix/api"]
          override_path = true
        [host."https://push-only"]
          capabilities = ["push"]
        """,
    )  # fmt: skip
    assert Registries(config_dir=str(tmp_path)).hosts("r.io") == [
        Host("https://one:5000/v2", False, False, (f"{folder}/a.pem", f"{folder}/b.pem"),
             (f"{folder}/c.pem", f"{folder}/c.key")),
        Host("https://two/v2", False, skip_verify=True,
             headers=(("authorization", "Basic eA=="), ("x-many", "1"), ("x-many", "2"))),
        Host("http://three/prefix/api", False),
        Host("https://real.r.io/v2", ca_files=("/abs/ca.pem",)),
    ]  # fmt: skip


def test_where_settings_come_from(tmp_path: Path) -> None:
    registries = Registries({"r.io": ["http://flag"]}, insecure=["plain:80"], config_dir=str(tmp_path))
    assert registries.hosts("r.io") == [Host("http://flag/v2", False), Host("https://r.io/v2")]
    assert registries.hosts("plain:80") == [Host("http://plain:80/v2")]
    assert registries.hosts("localhost:5000") == [Host("http://localhost:5000/v2")]
    write(tmp_path, "_default", '[host."https://all"]')
    assert registries.hosts("r.io") == [Host("https://all/v2", False), Host("https://r.io/v2")]
    assert registries.hosts("docker.io")[1] == Host("https://registry-1.docker.io/v2")
    write(tmp_path, "r.io_5000_", 'server = "https://five"')
    assert registries.hosts("r.io:5000") == [Host("https://five/v2")]
    folder = tmp_path / "r.io"
    folder.mkdir()
    for name in ("b.crt", "a.crt", "me.cert", "me.key"):
        (folder / name).touch()
    assert registries.hosts("r.io") == [
        Host("https://r.io/v2", ca_files=(f"{folder}/a.crt", f"{folder}/b.crt"),
             client=(f"{folder}/me.cert", f"{folder}/me.key"))
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["host = 1", "[host.x]\nca = [1]", 'server = "ftp://x"', "nonsense", "host.x = 1"])
def test_nonsense_is_an_error_and_not_an_open_door(tmp_path: Path, text: str) -> None:
    write(tmp_path, "r.io", text)
    with pytest.raises(RuntimeFailure, match=r"hosts\.toml"):
        Registries(config_dir=str(tmp_path)).hosts("r.io")
