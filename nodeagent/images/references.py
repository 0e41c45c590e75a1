"""Image names: `busybox` → `docker.io/library/busybox:latest`, and what is not a name at all.

Grammar: github.com/distribution/reference. Pure text; it asks nobody whether the image exists.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from nodeagent.runtime.interface import RuntimeFailure

DEFAULT_REGISTRY = "docker.io"

_COMPONENT = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_COMPONENT}(?:/{_COMPONENT})*")
_LABEL = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST = re.compile(rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?")
_TAG = re.compile(r"[\w][\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")
_ID = re.compile(r"(?:sha256:)?([0-9a-f]{64})")
_LONGEST_NAME = 255


class InvalidName(RuntimeFailure):
    """Not an image reference; users see it as InvalidImageName."""

    def __init__(self, text: str, why: str) -> None:
        super().__init__(f'couldn\'t parse image name "{text}": {why}', "InvalidImageName")


@dataclass(frozen=True, slots=True)
class Reference:
    """`registry/path:tag@digest`, with at least one of tag and digest."""

    registry: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def repository(self) -> str:
        return f"{self.registry}/{self.path}"

    @property
    def tagged(self) -> str:
        """`registry/path:tag`, or empty without a tag."""
        return f"{self.repository}:{self.tag}" if self.tag else ""

    @property
    def target(self) -> str:
        """What to ask the registry for: the digest, which decides if there is one, or the tag."""
        return self.digest or self.tag

    def __str__(self) -> str:
        return self.repository + (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def parse(text: str) -> Reference:
    """The reference that a user means by `text`. Raises InvalidName."""
    name, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise InvalidName(text, "invalid digest")
    registry, slash, path = name.partition("/")
    # The first part is a registry only if it cannot be part of a path: Docker's rule.
    if not slash or not ("." in registry or ":" in registry or registry == "localhost" or registry != registry.lower()):
        registry, path = DEFAULT_REGISTRY, name
    elif not _HOST.fullmatch(registry):
        raise InvalidName(text, "invalid registry")
    if registry == "index.docker.io":
        registry = DEFAULT_REGISTRY
    path, colon, tag = path.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise InvalidName(text, "invalid tag")
    if not _PATH.fullmatch(path):
        lower = "repository name must be lowercase" if _PATH.fullmatch(path.lower()) else "invalid reference format"
        raise InvalidName(text, lower)
    if registry == DEFAULT_REGISTRY and "/" not in path:
        path = "library/" + path
    if len(registry) + 1 + len(path) > _LONGEST_NAME:
        raise InvalidName(text, f"repository name must not be more than {_LONGEST_NAME} characters")
    return Reference(registry, path, tag or ("" if digest else "latest"), digest)


def image_id(text: str) -> str:
    """`sha256:<hex>` if `text` is an image id (with or without its prefix), else empty."""
    match = _ID.fullmatch(text)
    return f"sha256:{match[1]}" if match else ""
