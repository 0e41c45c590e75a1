"""Impersonation: `kubectl --as jane`. Who may impersonate acts as somebody else, with that one's rights only.

Each identity asked for is a permission of its own (verb `impersonate` on users, groups, serviceaccounts, uids and
userextras), decided as the real user. Source: kubernetes.io/docs, "User impersonation".
"""

from collections.abc import Iterator
from urllib.parse import unquote

from controlplane.api import status
from controlplane.apiserver.authz.authorizer import Authorizer, refusal
from controlplane.apiserver.http import Handler, Request, Response, User, header_values
from controlplane.apiserver.requestinfo import RequestInfo

_EXTRA = "impersonate-extra-"
_ACCOUNT = "system:serviceaccount:"


class Impersonation:
    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    async def filter(self, request: Request, rest: Handler) -> Response:
        """Replace `request.user`. Raises StatusError 400, 403."""
        headers = request.headers
        if "Impersonate-User" in headers or "Impersonate-Group" in headers or "Impersonate-Uid" in headers:
            wanted = _wanted(request)
            for question in _questions(wanted):
                if not self._authorizer.allows(request.user, question):
                    raise refusal(request.user, question)
            request.impersonator, request.user = request.user, _complete(wanted)
        return await rest(request)


def _wanted(request: Request) -> User:
    name = request.headers.get("Impersonate-User", "")
    if not name:
        raise status.bad_request("requested impersonation without impersonating a user")
    extra = {
        unquote(header[len(_EXTRA) :].lower()): tuple(header_values(request, header))
        for header in request.headers
        if header.lower().startswith(_EXTRA)
    }
    return User(
        name, tuple(header_values(request, "Impersonate-Group")), request.headers.get("Impersonate-Uid", ""), extra
    )


def _questions(wanted: User) -> Iterator[RequestInfo]:
    def ask(group: str, resource: str, name: str, namespace: str = "", subresource: str = "") -> RequestInfo:
        return RequestInfo(True, "", "impersonate", group, "v1", resource, subresource, namespace, name)

    if wanted.name.startswith(_ACCOUNT) and wanted.name.count(":") == 3:
        namespace, _, name = wanted.name[len(_ACCOUNT) :].partition(":")
        yield ask("", "serviceaccounts", name, namespace)
    else:
        yield ask("", "users", wanted.name)
    for group in wanted.groups:
        yield ask("", "groups", group)
    if wanted.uid:
        yield ask("authentication.k8s.io", "uids", wanted.uid)
    for key, values in wanted.extra.items():
        for value in values:
            yield ask("authentication.k8s.io", "userextras", value, subresource=key)


def _complete(user: User) -> User:
    """With the groups that authentication itself would have given."""
    groups = list(user.groups)
    if user.name.startswith(_ACCOUNT) and user.name.count(":") == 3 and not groups:
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{user.name.split(':')[2]}"]
    if user.name == "system:anonymous":
        groups = groups or ["system:unauthenticated"]
    elif "system:authenticated" not in groups and "system:unauthenticated" not in groups:
        groups.append("system:authenticated")
    return User(user.name, tuple(groups), user.uid, user.extra)
