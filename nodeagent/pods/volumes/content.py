"""The files of configMap, secret, downwardAPI and projected volumes. Fetches what it needs through `Objects`.

Rules of names, modes and optional objects: kubelet's pkg/volume/{configmap,secret,downwardapi,projected}.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from nodeagent.pods import env
from nodeagent.pods.model import Object
from nodeagent.pods.objects import Objects, Token
from nodeagent.pods.volumes.writer import File

DEFAULT_MODE = 0o644
KINDS = ("configMap", "secret", "downwardAPI", "projected")


class VolumeFailure(Exception):
    """A volume cannot be set up now; the message is for the user (event FailedMount). It is tried again."""


@dataclass(slots=True)
class Tokens:
    """The tokens that one pod's volumes hold, by (volume, path)."""

    held: dict[tuple[str, str], Token] = field(default_factory=dict)

    def next_refresh(self) -> float | None:
        return min((t.refresh_at for t in self.held.values()), default=None)


@dataclass(frozen=True, slots=True)
class Wish:
    """What a payload is made from. `since`: how fresh fetched objects must be. `now`: to judge tokens."""

    pod: Object
    sources: env.Sources
    objects: Objects
    tokens: Tokens
    since: float
    now: float


async def payload(volume: Object, wish: Wish) -> dict[str, File]:
    """relative path -> file. Raises VolumeFailure, StatusError, Unreachable."""
    if (source := volume.get("configMap")) is not None:
        return await _object(source, "configmap", source.get("name", ""), wish, source.get("defaultMode"))
    if (source := volume.get("secret")) is not None:
        return await _object(source, "secret", source.get("secretName", ""), wish, source.get("defaultMode"))
    if (source := volume.get("downwardAPI")) is not None:
        return _downward(source, wish, source.get("defaultMode"))
    projected = volume["projected"]
    mode = projected.get("defaultMode")
    files: dict[str, File] = {}
    for source in projected.get("sources") or ():
        if (part := source.get("serviceAccountToken")) is not None:
            files.update(await _token(volume["name"], part, wish, mode))
        elif (part := source.get("configMap")) is not None:
            files.update(await _object(part, "configmap", part.get("name", ""), wish, mode))
        elif (part := source.get("secret")) is not None:
            files.update(await _object(part, "secret", part.get("name", ""), wish, mode))
        elif (part := source.get("downwardAPI")) is not None:
            files.update(_downward(part, wish, mode))
        elif (part := source.get("clusterTrustBundle")) is not None:
            if not part.get("optional"):
                raise VolumeFailure("projected source clusterTrustBundle is not supported by this node")
        else:
            kind = next(iter(source), "unknown")
            raise VolumeFailure(f"projected source {kind} is not supported by this node")
    return files


async def _object(source: Object, kind: str, name: str, wish: Wish, default: int | None) -> dict[str, File]:
    namespace = wish.pod["metadata"].get("namespace", "")
    fetch = wish.objects.config_map if kind == "configmap" else wish.objects.secret
    found = await fetch(namespace, name, wish.since)
    if found is None:
        if source.get("optional"):
            return {}
        raise VolumeFailure(f'{kind} "{name}" not found')
    data = env.contents({**found, "kind": "Secret" if kind == "secret" else "ConfigMap"})
    mode = DEFAULT_MODE if default is None else default
    items = source.get("items")
    if not items:
        return {key: File(value, mode) for key, value in data.items()}
    files: dict[str, File] = {}
    for item in items:
        if item["key"] not in data:
            if source.get("optional"):
                continue
            word = "secret" if kind == "secret" else "config"
            raise VolumeFailure(f"{kind} references non-existent {word} key: {item['key']}")
        files[_safe(item["path"])] = File(data[item["key"]], mode if item.get("mode") is None else item["mode"])
    return files


def _downward(source: Object, wish: Wish, default: int | None) -> dict[str, File]:
    mode = DEFAULT_MODE if default is None else default
    files: dict[str, File] = {}
    for item in source.get("items") or ():
        if ref := item.get("fieldRef"):
            text = env.field_value(ref.get("fieldPath", ""), wish.sources)
        else:
            ref = item.get("resourceFieldRef") or {}
            spec = wish.pod["spec"]
            containers = [*spec["containers"], *(spec.get("initContainers") or ())]
            container: Object = next((c for c in containers if c["name"] == ref.get("containerName")), {})
            text = env.resource_value(ref, container, wish.sources)
        files[_safe(item["path"])] = File(text.encode(), mode if item.get("mode") is None else item["mode"])
    return files


async def _token(volume: str, source: Object, wish: Wish, default: int | None) -> dict[str, File]:
    path = _safe(source["path"])
    held = wish.tokens.held.get((volume, path))
    if held is None or held.refresh_at <= wish.now:
        lifetime = int(source.get("expirationSeconds") or 3600)
        held = await wish.objects.token(wish.pod, source.get("audience") or "", lifetime)
        wish.tokens.held[(volume, path)] = held
    mode, owner = (DEFAULT_MODE if default is None else default), None
    shared = wish.pod["spec"].get("securityContext") or {}
    if shared.get("fsGroup") is not None:
        mode = 0o640  # the group gets it from the writer
    elif (only := _only_user(wish.pod)) is not None:
        mode, owner = 0o600, only
    return {path: File(held.text.encode(), mode, owner)}


def _only_user(pod: Object) -> int | None:
    """The one uid that every container says it runs as: the token is for its eyes only."""
    shared = pod["spec"].get("securityContext") or {}
    users = set()
    for container in (*(pod["spec"].get("initContainers") or ()), *pod["spec"]["containers"]):
        own = (container.get("securityContext") or {}).get("runAsUser")
        users.add(shared.get("runAsUser") if own is None else own)
    only = users.pop() if len(users) == 1 else None
    return int(only) if only is not None else None


def _safe(path: str) -> str:
    parts = path.split("/")
    if path.startswith("/") or ".." in parts or not path or parts[0].startswith(".."):
        raise VolumeFailure(f"invalid path {path!r} in a volume")
    return path
