"""The part of joining that a token opens: the first certificate of a node, as system:bootstrap:<id>."""

import asyncio
from collections.abc import Callable

from controlplane.api.status import StatusError
from controlplane.cli.machine.discovery import Cluster
from controlplane.cli.machine.trouble import Trouble
from controlplane.client import certificates
from controlplane.client.certificates import CertificateNotIssued, Wanted
from controlplane.client.credentials import Credentials
from controlplane.client.errors import Unreachable
from controlplane.client.https import HttpsTransport
from controlplane.client.resources import CERTIFICATESIGNINGREQUESTS, LEASES, NODES
from controlplane.client.rest import Client
from pki.keys import PrivateKey

_NEW_TOKEN = "wherry token create --print-join-command, on the control plane, makes a new one"
_LOOK_S = 1.0
_SILENT_S = 90.0
"""For how long a node that says nothing may still be called Ready (the controllers' grace period and some more)."""


class Admission:
    """One attempt to be let in."""

    def __init__(self, cluster: Cluster, token: str, node: str, approval_s: float) -> None:
        credentials = Credentials(cluster.server, ca_data=cluster.ca, token=token)
        self._client = Client(HttpsTransport(credentials, user_agent="wherry-join", connections=2), timeout=10.0)
        self._node, self._approval_s = node, approval_s

    async def certificate(self, wanted: Wanted, key: PrivateKey, say: Callable[[str], None]) -> bytes:
        """The agent's certificate (PEM). Raises Trouble, CertificateRefused."""
        try:
            if not await self._asked_before(wanted, key):
                await self._await_free_name(say)
            say("asking for the node's certificate")
            return await certificates.request_certificate(self._client, wanted, key, deadline_s=self._approval_s)
        except CertificateNotIssued as error:
            raise Trouble(
                f"timed out: {error}",
                f"kubectl certificate approve {error.name} lets it in, if the controllers do not; then join again",
            ) from error
        except StatusError as error:
            raise _explained(error) from error
        except Unreachable as error:
            raise Trouble(f"cannot reach the API server any more: {error}", "the same command again goes on") from error
        finally:
            await self._client.close()

    async def _asked_before(self, wanted: Wanted, key: PrivateKey) -> bool:
        """Whether an earlier run, which did not come to its end, sent the request already."""
        try:
            await self._client.get(CERTIFICATESIGNINGREQUESTS, certificates.request_name(wanted, key))
        except StatusError as error:
            if error.code == 404:
                return False
            raise
        return True

    async def _await_free_name(self, say: Callable[[str], None]) -> None:
        """Return when no node of this name is Ready. One that has just died is still called so: its Lease tells."""
        beat, told, loop = "", False, asyncio.get_running_loop()
        until = loop.time() + _SILENT_S
        while await self._is_ready():
            now = await self._heartbeat()
            if (beat and now != beat) or loop.time() > until:
                raise Trouble(
                    f"a node named {self._node} is Ready: it is another machine, or this one still runs its agent",
                    f"choose another --node-name, or stop that agent, or: kubectl delete node {self._node}",
                )
            beat = now or beat
            if not told:
                say(f"a node named {self._node} was Ready a moment ago: waiting whether it still is")
                told = True
            await asyncio.sleep(_LOOK_S)

    async def _is_ready(self) -> bool:
        try:
            node = await self._client.get(NODES, self._node)
        except StatusError as error:
            if error.code == 404:
                return False
            raise
        conditions = (node.get("status") or {}).get("conditions") or ()
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

    async def _heartbeat(self) -> str:
        try:
            lease = await self._client.get(LEASES, self._node, "kube-node-lease")
        except StatusError as error:
            if error.code == 404:
                return ""
            raise
        return str((lease.get("spec") or {}).get("renewTime") or "")


def _explained(error: StatusError) -> Trouble:
    """What the server's refusal means to somebody who joins a machine."""
    text = str(error).removeprefix("Unauthorized: ")
    reasons = {cause.get("reason") for cause in (error.details or {}).get("causes") or ()}
    if "BootstrapTokenExpired" in reasons:
        return Trouble(f"expired token: {text}", _NEW_TOKEN)
    if "BootstrapTokenAlreadyUsed" in reasons:
        return Trouble(f"used token: {text}", _NEW_TOKEN)
    if error.code == 401:
        return Trouble(f"unknown token: {text}", f"mistyped, or deleted? {_NEW_TOKEN}")
    if error.code == 403:
        return Trouble(f"the token opens nothing here: {error}", "its groups lack system:node-bootstrapper's rights")
    return Trouble(f"the API server refused: {error}")
