"""Which hosts stand for a registry: the part of talking to registries that needs no HTTP library.

Settings are known when the agent starts, registries are spoken to at the first pull (registry.py, with aiohttp: 11 MB
that a node which never pulls need not carry).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from nodeagent.images import hosts
from nodeagent.images.hosts import Host

_DOCKER_HUB = "registry-1.docker.io"


@dataclass(frozen=True, slots=True)
class Registries:
    """How to reach registries. `mirrors`: by registry name (`*` for all others), base URLs to try first, e.g.
    `http://10.0.0.1:5000`. `insecure`: registries spoken to in plain HTTP, beside localhost. `ca_file`: certificates
    to trust beside the system's. `config_dir`: a directory of hosts.toml files (hosts.py), which where they say
    something decide alone."""

    mirrors: dict[str, Sequence[str]] = field(default_factory=dict)
    insecure: Sequence[str] = ()
    ca_file: str = ""
    config_dir: str = ""

    def hosts(self, registry: str) -> list[Host]:
        """The hosts for `registry`, in the order to try. Raises RuntimeFailure for an unreadable hosts.toml."""
        host = _DOCKER_HUB if registry == "docker.io" else registry
        own = f"{'http' if self._is_plain(registry) else 'https'}://{host}"
        if self.config_dir and (found := hosts.read(Path(self.config_dir), registry, own)):
            return found
        mirrors = self.mirrors.get(registry, self.mirrors.get("*", ()))
        return [*(Host(f"{m.rstrip('/')}/v2", own=False) for m in mirrors if m.rstrip("/") != own), Host(f"{own}/v2")]

    def _is_plain(self, registry: str) -> bool:
        host = urlsplit(f"//{registry}").hostname or ""
        return registry in self.insecure or host in ("localhost", "::1") or host.startswith("127.")
