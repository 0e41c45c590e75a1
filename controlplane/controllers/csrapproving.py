"""Certificate approver: says yes to the requests by which nodes join, and by which daemons renew what they hold.

A rule recognises a kind of request by what it asks for and who asks, and names a permission: `create` on a subresource
of certificatesigningrequests, asked for the requester by a SubjectAccessReview. `nodeclient` and `selfnodeclient` are
Kubernetes'; the others are ours (README.md says why). An administrator switches a rule off by taking the permission
away. What no rule recognises waits for a person: `kubectl certificate approve`. It denies one thing: a machine that
has just come and wants the name of a node that is Ready.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass

from controlplane.client.resources import CERTIFICATESIGNINGREQUESTS, ENDPOINTSLICES, NODES, SERVICES, ApiResource
from controlplane.controllers import csr, meta, nodehealth
from controlplane.controllers.csr import Csr
from controlplane.controllers.reconcile import Context, Controller
from controlplane.controllers.servingnames import Known, serving_breach
from pki import profiles
from pki.requests import NotARequest

log = logging.getLogger(__name__)
SUBJECT_ACCESS_REVIEWS = ApiResource(
    "authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview", namespaced=False
)
_EVERYBODY = ("system:authenticated",)


@dataclass(frozen=True, slots=True)
class Rule:
    """`recognises` a request; whoever may `create certificatesigningrequests/<permission>` gets it approved."""

    permission: str
    recognises: Callable[[Csr], bool]
    what: str


def _node_client(c: Csr) -> bool:
    return c.signer == csr.KUBELET_CLIENT and not csr.breach(c.signer, c.request, c.usages)


def _plain_client(c: Csr, common_name: str) -> bool:
    """A client certificate for `common_name` and nothing else."""
    request = c.request
    return (
        c.signer == csr.CLIENT
        and not csr.breach(c.signer, request, c.usages)
        and not request.alternatives
        and (request.common_name, request.organizations) == (common_name, [])
    )


def _self_client(c: Csr) -> bool:
    return not set(c.groups) - set(_EVERYBODY) and _plain_client(c, c.username)


def _proxy_client(c: Csr) -> bool:
    return csr.NODES in c.groups and _plain_client(c, profiles.NETPROXY.common_name)


def _self_serving(c: Csr) -> bool:
    return (
        c.signer == csr.KUBELET_SERVING
        and not csr.breach(c.signer, c.request, c.usages)
        and c.request.common_name == c.username
        and csr.NODES in c.groups
    )


def _apiserver(c: Csr) -> bool:
    if c.username != "system:apiserver" or csr.breach(c.signer, c.request, c.usages):
        return False
    serving = c.signer == csr.APISERVER_SERVING and c.request.common_name == profiles.APISERVER.common_name
    return serving or _plain_client(c, profiles.APISERVER_KUBELET_CLIENT.common_name)


RULES = (
    Rule("selfnodeclient", lambda c: _node_client(c) and c.username == c.request.common_name,
         "self kubelet client certificate"),
    Rule("nodeclient", lambda c: _node_client(c) and c.username != c.request.common_name, "kubelet client certificate"),
    Rule("selfnodeserving", _self_serving, "self kubelet serving certificate"),
    Rule("nodeproxyclient", _proxy_client, "proxy client certificate of a node"),
    Rule("selfclient", _self_client, "self client certificate"),
    Rule("apiserver", _apiserver, "certificate of the API server itself"),
)  # fmt: skip


class CertificateApprover(Controller):
    """See the module. Keys are requests."""

    name = "certificatesigningrequest-approving-controller"
    workers = 2

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.nodes = self.view(NODES)
        self.services = self.view(SERVICES)
        self.slices = self.view(ENDPOINTSLICES)
        self.requests = self.watch(CERTIFICATESIGNINGREQUESTS)

    async def reconcile(self, key: str) -> float | None:
        obj = self.requests.get(key)
        if obj is None or csr.issued(obj) or csr.decided(obj) or meta.is_deleting(obj):
            return None
        try:
            read = csr.read(obj)
        except NotARequest:
            return None
        rule = next((rule for rule in RULES if rule.recognises(read)), None)
        if rule is None:
            return None
        if not await self._permitted(obj, rule.permission):
            log.info("not approved request=%s user=%s permission=%s reason=forbidden", key, read.username,
                     rule.permission)  # fmt: skip
            return None
        if rule.permission == "nodeclient" and (why := self._taken(read)):
            await self._decide(obj, "Denied", "NodeIsReady", why)
            return None
        if rule.permission == "selfnodeserving":
            peer = (obj["spec"].get("extra") or {}).get(csr.PEER_ADDRESS) or ()
            if why := serving_breach(read, peer, self._known()):
                log.info("not approved request=%s user=%s reason=%s", key, read.username, why)
                self.event(obj, "NotApproved", f"not approved by itself: {why}", warning=True)
                return None
        message = f"Auto approving {rule.what} after SubjectAccessReview."
        await self._decide(obj, "Approved", "AutoApproved", message)
        return None

    async def _permitted(self, obj: meta.Object, permission: str) -> bool:
        spec = obj["spec"]
        attributes = {
            "verb": "create", "group": CERTIFICATESIGNINGREQUESTS.group, "version": "*",
            "resource": CERTIFICATESIGNINGREQUESTS.plural, "subresource": permission,
        }  # fmt: skip
        asked = {"user": spec.get("username"), "groups": spec.get("groups"), "uid": spec.get("uid"),
                 "extra": spec.get("extra"), "resourceAttributes": attributes}  # fmt: skip
        review = {
            "apiVersion": SUBJECT_ACCESS_REVIEWS.api_version, "kind": SUBJECT_ACCESS_REVIEWS.kind,
            "spec": {key: value for key, value in asked.items() if value},
        }  # fmt: skip
        answer = await self.client.create(SUBJECT_ACCESS_REVIEWS, review)
        return bool(meta.status(answer).get("allowed"))

    def _taken(self, read: Csr) -> str:
        name = read.request.common_name.removeprefix(csr.NODE_PREFIX)
        node = self.nodes.get(name)
        if node is None or nodehealth.readiness(node) != "True":
            return ""
        return f"a node named {name} is Ready: only one that is not can be replaced"

    def _known(self) -> Known:
        kubernetes = self.services.get("default/kubernetes")
        addresses = {e for s in self.slices.by_index("service", "default/kubernetes")
                     for each in s.get("endpoints") or () for e in each.get("addresses") or ()}  # fmt: skip
        if kubernetes is not None:
            addresses |= set(kubernetes["spec"].get("clusterIPs") or ())
        return Known({meta.name(node): node for node in self.nodes.items()}, addresses)

    async def _decide(self, obj: meta.Object, kind: str, reason: str, message: str) -> None:
        log.info("decided request=%s type=%s reason=%s message=%s", meta.name(obj), kind, reason, message)
        condition = {"type": kind, "status": "True", "reason": reason, "message": message}
        status = {**meta.status(obj), "conditions": [*(meta.status(obj).get("conditions") or ()), condition]}
        await self.writer.update(CERTIFICATESIGNINGREQUESTS, {**obj, "status": status}, "approval")
