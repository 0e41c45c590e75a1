"""Which credentials of an imagePullSecret are for an image: kubelet's keyring (pkg/credentialprovider/keyring.go).

A Secret of type `kubernetes.io/dockerconfigjson` or the older `kubernetes.io/dockercfg` maps registries to logins. A
registry may be a URL, may have a path (then it is for images below it), and each part of its host may be a pattern:
`*.example.com/team` is for `eu.example.com/team/web`, not for `a.b.example.com/team/web`. Pure: no Secret is fetched
and nothing is sent here.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any
from urllib.parse import urlsplit

from nodeagent.images.references import DEFAULT_REGISTRY, Reference
from nodeagent.runtime.interface import RegistryAuth

Keyring = Sequence[tuple[str, RegistryAuth]]
"""(host, with port and path if any; login), longer and so more special ones first."""

_HUB = "index.docker.io"


def of_secret(data: Mapping[str, str]) -> Keyring:
    """The logins in a Secret's `data` (base64). Raises ValueError for what is no Docker configuration."""
    try:
        if ".dockerconfigjson" in data:
            document = json.loads(base64.b64decode(data[".dockerconfigjson"], validate=True))
            entries = document.get("auths") if isinstance(document, dict) else None
        elif ".dockercfg" in data:
            entries = json.loads(base64.b64decode(data[".dockercfg"], validate=True))
        else:
            entries = None
        return of_docker_config(entries or {})
    except (binascii.Error, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"not a Docker configuration: {type(error).__name__}") from error


def of_docker_config(entries: Any) -> Keyring:
    """The logins in the `auths` of a Docker config.json. Raises ValueError."""
    if not isinstance(entries, dict):
        raise ValueError("not a Docker configuration: no object of registries")
    found = []
    for registry, entry in entries.items():
        if not isinstance(entry, dict):
            raise ValueError("not a Docker configuration: a registry without an object")
        user, password = str(entry.get("username") or ""), str(entry.get("password") or "")
        if entry.get("auth") and not user:
            try:
                pair = base64.b64decode(str(entry["auth"])).decode()
            except (binascii.Error, UnicodeDecodeError) as error:
                raise ValueError("not a Docker configuration: unreadable auth") from error
            user, _, password = pair.partition(":")
        token = str(entry.get("registrytoken") or entry.get("identitytoken") or "")
        found.append((_key(registry), RegistryAuth(user, password, token)))
    return sorted(found, key=lambda pair: pair[0], reverse=True)


def lookup(keyring: Keyring, reference: Reference) -> list[RegistryAuth]:
    """The logins to try for an image, in order."""
    registry = reference.registry
    found = [auth for key, auth in keyring if _matches(key, registry, f"/{reference.path}")]
    if not found and registry == DEFAULT_REGISTRY:
        found = [auth for key, auth in keyring if key == _HUB]
    return found


def _key(registry: str) -> str:
    """Without scheme, and without the API's version: `https://index.docker.io/v1/` is a host."""
    parts = urlsplit(registry if registry.startswith(("https://", "http://")) else f"https://{registry}")
    path = parts.path
    if path.startswith(("/v1/", "/v2/")):
        path = path[3:]
    return parts.netloc + (path if path != "/" else "")


def _matches(key: str, registry: str, path: str) -> bool:
    host, slash, below = key.partition("/")
    pattern, _, port = host.partition(":")
    target, _, target_port = registry.partition(":")
    parts, target_parts = pattern.split("."), target.split(".")
    if port != target_port or len(parts) != len(target_parts) or not path.startswith(slash + below):
        return False
    return all(fnmatchcase(theirs, ours) for ours, theirs in zip(parts, target_parts, strict=True))
