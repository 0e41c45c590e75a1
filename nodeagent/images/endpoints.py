"""Which URLs stand for a registry: the part of talking to registries that needs no HTTP library.

Settings are read when the agent starts, registries are spoken to at the first pull (registry.py, with aiohttp: 11 MB
that a node which never pulls need not carry).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_DOCKER_HUB = "registry-1.docker.io"


@dataclass(frozen=True, slots=True)
class Registries:
    """How to reach registries. `mirrors`: by registry name (`*` for all others), base URLs to try first, e.g.
    `http://10.0.0.1:5000`. `insecure`: registries spoken to in plain HTTP, beside localhost. `ca_file`: certificates
    to trust beside the system's."""

    mirrors: dict[str, Sequence[str]] = field(default_factory=dict)
    insecure: Sequence[str] = ()
    ca_file: str = ""

    def endpoints(self, registry: str) -> list[str]:
        """Base URLs for `registry`, in the order to try."""
        mirrors = self.mirrors.get(registry, self.mirrors.get("*", ()))
        host = _DOCKER_HUB if registry == "docker.io" else registry
        own = f"{'http' if self._is_plain(registry) else 'https'}://{host}"
        return [*(m.rstrip("/") for m in mirrors if m.rstrip("/") != own), own]

    def _is_plain(self, registry: str) -> bool:
        host = urlsplit(f"//{registry}").hostname or ""
        return registry in self.insecure or host in ("localhost", "::1") or host.startswith("127.")
