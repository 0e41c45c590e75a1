"""ConfigMaps, Secrets, claims and tokens that pods need: fetched when asked for, shared while fresh.

A pod that starts must see an object as it is at least since the agent saw the pod: an answer is reused only if it was
asked for after that moment. Requests in flight are shared, so thirty pods of one Deployment cause few requests.
`kube-root-ca.crt`, which every pod mounts and which hardly ever changes, may be a minute old. A node may `get` what its
pods name, never list or watch a namespace's Secrets: hence no informer.

Tokens are bound to their pod: one TokenRequest a pod and volume, kept until 80 % of its life is over.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Protocol

from controlplane import clock
from controlplane.api.status import StatusError
from controlplane.client.resources import (
    CONFIGMAPS,
    PERSISTENTVOLUMECLAIMS,
    PERSISTENTVOLUMES,
    RUNTIMECLASSES,
    SECRETS,
    SERVICEACCOUNTS,
    ApiResource,
)
from nodeagent.pods.model import Object

ROOT_CA = "kube-root-ca.crt"
_ROOT_CA_FRESH_S = 60.0
_KEPT = 512


@dataclass(frozen=True, slots=True)
class Token:
    text: str
    refresh_at: float  # seconds since the epoch


class ObjectApi(Protocol):
    """The part of `controlplane.client.Client` that is needed here."""

    async def get(self, r: ApiResource, name: str, namespace: str = "", *, subresource: str = "") -> Object: ...

    async def create(
        self, r: ApiResource, obj: Object, namespace: str = "", *, name: str = "", subresource: str = ""
    ) -> Object: ...


@dataclass(slots=True)
class _Cached:
    asked_at: float
    task: asyncio.Task[Object | None]


class Objects:
    """`since` is always the time at which the agent saw the pod (or now, for a refresh), in seconds since the epoch."""

    def __init__(self, api: ObjectApi) -> None:
        self._api = api
        self._cache: dict[tuple[str, str, str], _Cached] = {}

    async def config_map(self, namespace: str, name: str, since: float) -> Object | None:
        """None if there is none. Raises StatusError and Unreachable for other failures."""
        return await self._get(CONFIGMAPS, namespace, name, since)

    async def secret(self, namespace: str, name: str, since: float) -> Object | None:
        return await self._get(SECRETS, namespace, name, since)

    async def claim(self, namespace: str, name: str, since: float) -> Object | None:
        return await self._get(PERSISTENTVOLUMECLAIMS, namespace, name, since)

    async def persistent_volume(self, name: str, since: float) -> Object | None:
        return await self._get(PERSISTENTVOLUMES, "", name, since)

    async def runtime_class(self, name: str, since: float) -> Object | None:
        return await self._get(RUNTIMECLASSES, "", name, since)

    async def token(self, pod: Object, audience: str, expiration_s: int) -> Token:
        """A token of the pod's service account, bound to the pod."""
        meta = pod["metadata"]
        account = pod["spec"].get("serviceAccountName") or "default"
        bound = {"apiVersion": "v1", "kind": "Pod", "name": meta["name"], "uid": meta["uid"]}
        request: Object = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {
                "expirationSeconds": expiration_s,
                "boundObjectRef": bound,
                "audiences": [audience] if audience else [],
            },
        }
        asked = clock.wall_time()
        answer = await self._api.create(
            SERVICEACCOUNTS, request, meta.get("namespace", ""), name=account, subresource="token"
        )
        expires = clock.parse_rfc3339(answer["status"]["expirationTimestamp"])
        # A tenth of the time at random, so that the tokens of pods started together are not renewed together.
        life = (expires - asked) * (0.8 - 0.1 * clock.chance.random())
        return Token(answer["status"]["token"], asked + min(life, 24 * 3600.0))

    async def _get(self, resource: ApiResource, namespace: str, name: str, since: float) -> Object | None:
        key = (resource.plural, namespace, name)
        fresh_since = since - _ROOT_CA_FRESH_S if resource is CONFIGMAPS and name == ROOT_CA else since
        cached = self._cache.get(key)
        if cached is None or cached.asked_at < fresh_since or _failed(cached.task):
            self._trim()
            task = asyncio.get_running_loop().create_task(_or_none(self._api.get(resource, name, namespace)))
            cached = self._cache[key] = _Cached(clock.wall_time(), task)
        return await asyncio.shield(cached.task)

    def _trim(self) -> None:
        if len(self._cache) >= _KEPT:
            done = [k for k, c in self._cache.items() if c.task.done()]
            for key in done[: _KEPT // 2]:
                del self._cache[key]


def _failed(task: asyncio.Task[Object | None]) -> bool:
    return task.done() and (task.cancelled() or task.exception() is not None)


async def _or_none(request: Awaitable[Object]) -> Object | None:
    try:
        return await request
    except StatusError as error:
        if error.code == 404:
            return None
        raise
