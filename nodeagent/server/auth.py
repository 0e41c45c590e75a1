"""Who may ask what of this node: a verified client certificate, and the API server's word.

`system:masters` (the API server's own identity here) may everything. Everybody else is judged by a SubjectAccessReview
on the node's subresource that the path belongs to, as kubelet's webhook authorizer does; answers are kept a while.
"""

from __future__ import annotations

import asyncio

from controlplane.api.status import StatusError, forbidden_object, service_unavailable, unauthorized
from controlplane.client.errors import Unreachable
from controlplane.client.resources import ApiResource
from controlplane.client.rest import Client
from nodeagent.server.http import Request

SUBJECT_ACCESS_REVIEWS = ApiResource(
    "authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", namespaced=False
)
_ALLOWED_S, _DENIED_S = 300.0, 30.0
_SUBRESOURCES = {"stats": "stats", "metrics": "metrics", "logs": "log", "pods": "pods", "configz": "configz"}
_VERBS = {"GET": "get", "HEAD": "get", "POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}


class Authorizer:
    def __init__(self, client: Client, node_name: str) -> None:
        self._client = client
        self._node = node_name
        self._answers: dict[tuple[str, tuple[str, ...], str, str], tuple[float, bool]] = {}

    async def check(self, request: Request) -> None:
        """Raises StatusError: 401 without a certificate, 403 without the right, 503 when nobody can tell."""
        if not request.user:
            raise unauthorized()
        if "system:masters" in request.groups:
            return
        verb = _VERBS.get(request.method, "get")
        subresource = _SUBRESOURCES.get(request.path.strip("/").partition("/")[0], "proxy")
        if not await self._allowed(request.user, request.groups, verb, subresource):
            message = f'User "{request.user}" cannot {verb} resource "nodes/{subresource}" in API group ""'
            raise forbidden_object("nodes", self._node, message)

    async def _allowed(self, user: str, groups: tuple[str, ...], verb: str, subresource: str) -> bool:
        key, now = (user, groups, verb, subresource), asyncio.get_running_loop().time()
        known = self._answers.get(key)
        if known is not None and known[0] > now:
            return known[1]
        attributes = {
            "verb": verb,
            "version": "v1",
            "resource": "nodes",
            "subresource": subresource,
            "name": self._node,
        }
        spec = {"user": user, "groups": [*groups, "system:authenticated"], "resourceAttributes": attributes}
        review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
        try:
            answer = await self._client.create(SUBJECT_ACCESS_REVIEWS, review)
        except (Unreachable, StatusError) as error:
            raise service_unavailable(f"cannot ask the API server for this right: {error}") from error
        allowed = bool((answer.get("status") or {}).get("allowed"))
        if len(self._answers) > 1000:
            self._answers.clear()
        self._answers[key] = (now + (_ALLOWED_S if allowed else _DENIED_S), allowed)
        return allowed
