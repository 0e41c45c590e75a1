"""Per-registry settings from files, in containerd's own format: `<directory>/<registry>/hosts.toml`.

    server = "https://registry.example.com"        # the registry itself, should it be reached by another name
    ca = "/etc/ssl/private-ca.pem"                 # these are for the server; each host has its own
    [host."https://mirror.example.com"]            # asked first, in the order of the file
      capabilities = ["pull", "resolve"]           # only "pull": not asked what a tag means
      ca = ["a.pem"]                               # relative to the file's directory
      client = [["cert.pem", "key.pem"]]
      skip_verify = true
      override_path = true                         # the URL already ends in the API's root
      [host."https://mirror.example.com".header]
        authorization = "Basic …"

`_default` stands for registries without a directory; a port is written `host:5000` or `host_5000_`. A directory without
hosts.toml may have Docker's files: *.crt to trust, *.cert and *.key to show. Read at each pull, so that a change needs
no restart. Source: github.com/containerd/containerd, docs/hosts.md.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from nodeagent.runtime.interface import RuntimeFailure


@dataclass(frozen=True, slots=True)
class Host:
    """Who may answer for a registry. `base`: URL of the API's root, `https://r.io/v2`. `own`: the registry itself,
    which alone gets the pod's credentials. `client`: (certificate, key or empty) to show."""

    base: str
    own: bool = True
    resolve: bool = True
    ca_files: tuple[str, ...] = ()
    client: tuple[str, str] | None = None
    skip_verify: bool = False
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)

    @property
    def plain_http(self) -> bool:
        return self.base.startswith("http://")


def read(directory: Path, registry: str, default_server: str) -> list[Host] | None:
    """The hosts for `registry`, mirrors first; None if no file says anything. Raises RuntimeFailure."""
    names = (registry, registry.replace(":", "_") + "_" if ":" in registry else registry, "_default")
    for name in names:
        folder = directory / name
        file = folder / "hosts.toml"
        try:
            if file.is_file():
                return _hosts(tomllib.loads(file.read_text()), folder, default_server)
            if folder.is_dir():
                return [_dockers(folder, default_server)]
        except (OSError, ValueError, TypeError) as error:
            raise RuntimeFailure(f"{file}: {error}", "ErrImagePull") from error
    return None


def _hosts(document: Mapping[str, Any], folder: Path, default_server: str) -> list[Host]:
    tables = document.get("host") or {}
    if not isinstance(tables, dict) or not all(isinstance(table, dict) for table in tables.values()):
        raise ValueError("host is not a table of tables")
    mirrors = [_host(url, table, folder, own=False) for url, table in tables.items()]
    server = _host(str(document.get("server") or default_server), document, folder, own=True)
    return [host for host in (*mirrors, server) if host is not None]


def _host(url: str, table: Mapping[str, Any], folder: Path, *, own: bool) -> Host | None:
    url = url if "://" in url else f"https://{url}"
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"not a URL: {url!r}")
    url = url.rstrip("/")
    base = url if table.get("override_path") else url.removesuffix("/v2") + "/v2"
    capabilities = table.get("capabilities") or ["pull", "resolve"]
    if "pull" not in capabilities:
        return None
    authorities = _texts(table.get("ca"))
    header = table.get("header") or {}
    headers = tuple((name, value) for name, values in header.items() for value in _texts(values))
    return Host(
        base, own, "resolve" in capabilities, tuple(str(folder / file) for file in authorities),
        _client(table.get("client"), folder), bool(table.get("skip_verify")), headers,
    )  # fmt: skip


def _client(value: Any, folder: Path) -> tuple[str, str] | None:
    """A string (both in one file), a list of strings, or a list of pairs: the first is taken."""
    first = value[0] if isinstance(value, list) and value else value
    pair = first if isinstance(first, list) else [first]
    if not pair or not pair[0]:
        return None
    certificate, key = str(pair[0]), str(pair[1]) if len(pair) > 1 and pair[1] else ""
    return str(folder / certificate), str(folder / key) if key else ""


def _texts(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value] if value else []
    if not all(isinstance(text, str) for text in values):
        raise ValueError(f"not a string or a list of strings: {value!r}")
    return values


def _dockers(folder: Path, server: str) -> Host:
    certificate = next(iter(sorted(folder.glob("*.cert"))), None)
    key = certificate.with_suffix(".key") if certificate else None
    client = (str(certificate), str(key) if key and key.exists() else "") if certificate else None
    return Host(f"{server}/v2", ca_files=tuple(map(str, sorted(folder.glob("*.crt")))), client=client)
