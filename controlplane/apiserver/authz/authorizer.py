"""The decision: system:masters, then the node authoriser, then RBAC. The first that allows decides."""

from controlplane.api import status
from controlplane.apiserver.authz.node import NodeAuthorizer
from controlplane.apiserver.authz.rbac import Rbac
from controlplane.apiserver.http import Handler, Request, Response, User
from controlplane.apiserver.requestinfo import RequestInfo


class Authorizer:
    def __init__(self, rbac: Rbac, nodes: NodeAuthorizer) -> None:
        self.rbac = rbac
        self.nodes = nodes

    def allows(self, user: User, info: RequestInfo) -> bool:
        if "system:masters" in user.groups:
            return True
        if info.is_resource and self.nodes.allows(user, info):
            return True
        return self.rbac.allows(user, info)

    async def filter(self, request: Request, rest: Handler) -> Response:
        """Raises StatusError 403; 401 for a stranger, who might only have forgotten to say who he is."""
        if not self.allows(request.user, request.info):
            raise refusal(request.user, request.info)
        return await rest(request)


def refusal(user: User, info: RequestInfo, reason: str = "") -> status.StatusError:
    if not info.is_resource:
        return status.forbidden(user.name, info.verb, path=info.path, reason=reason)
    return status.forbidden(
        user.name, info.verb, info.resource, group=info.group, subresource=info.subresource,
        namespace=info.namespace, name=info.name, reason=reason,
    )  # fmt: skip
