"""Admission: what is checked or filled in after authorisation and before validation. A plugin a file, one list."""

from collections.abc import Awaitable, Callable, Sequence

from controlplane.apiserver.admission import (
    certificate_request,
    classes,
    limit_ranger,
    namespace_lifecycle,
    node_restriction,
    priority,
    rbac_escalation,
    service_account,
    toleration_seconds,
)
from controlplane.apiserver.authz.authorizer import Authorizer
from controlplane.apiserver.registry.generic import Attributes
from controlplane.store.cache import WatchCache

Plugin = Callable[[Attributes], Awaitable[None]]


def plugins(cache: WatchCache, authorizer: Authorizer) -> Sequence[Plugin]:
    """In Kubernetes' order."""
    return (
        namespace_lifecycle.NamespaceLifecycle(cache).admit,
        limit_ranger.LimitRanger(cache).admit,
        node_restriction.NodeRestriction(cache).admit,
        service_account.ServiceAccount(cache).admit,
        toleration_seconds.admit,
        priority.Priority(cache).admit,
        classes.Classes(cache).admit,
        certificate_request.CertificateRequest(authorizer).admit,
        rbac_escalation.RbacEscalation(authorizer).admit,
    )


def chain(plugins: Sequence[Plugin]) -> Plugin:
    async def admit(attributes: Attributes) -> None:
        for plugin in plugins:
            await plugin(attributes)

    return admit
