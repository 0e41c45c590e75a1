"""Nobody can grant what he does not hold: writing a role needs its rules (or `escalate`), binding one needs the
role's rules (or `bind`)."""

from controlplane.api import status
from controlplane.apiserver.authz.authorizer import Authorizer
from controlplane.apiserver.registry.generic import Attributes
from controlplane.apiserver.requestinfo import RequestInfo

_GROUP = "rbac.authorization.k8s.io"


class RbacEscalation:
    def __init__(self, authorizer: Authorizer) -> None:
        self._authorizer = authorizer

    async def admit(self, a: Attributes) -> None:
        if a.resource.group != _GROUP or a.new is None or "system:masters" in a.user.groups:
            return
        if a.resource.plural in ("roles", "clusterroles"):
            if a.old is not None and a.new.get("rules") == a.old.get("rules"):
                return
            verb, plural, name, rules = "escalate", a.resource.plural, a.name, a.new.get("rules") or ()
        else:
            if a.old is not None and a.new.get("subjects") == a.old.get("subjects"):
                return
            reference = a.new.get("roleRef") or {}
            verb, name = "bind", reference.get("name", "")
            plural = "clusterroles" if reference.get("kind") == "ClusterRole" else "roles"
            rules = self._authorizer.rbac.rules_of(reference, a.namespace)
        asked = RequestInfo(True, "", verb, _GROUP, "v1", plural, namespace=a.namespace, name=name)
        if self._authorizer.allows(a.user, asked):
            return
        missing = self._authorizer.rbac.covers(a.user, rules, a.namespace)
        if missing:
            shown = "; ".join(str(dict(rule)) for rule in missing[:5])
            raise status.forbidden_object(
                a.resource.group_resource, a.name,
                f'user "{a.user.name}" (groups={list(a.user.groups)}) is attempting to grant RBAC permissions not '
                f"currently held: {shown}",
            )  # fmt: skip
