"""Certificates on virtual time: the real API server in this process, the certificate controllers, and who asks them."""

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from multidict import CIMultiDict, CIMultiDictProxy

from controlplane import clock
from controlplane.api.status import StatusError
from controlplane.apiserver.http import Request, User
from controlplane.apiserver.server import ApiServer
from controlplane.apiserver.server import Config as ServerConfig
from controlplane.cli.machine import tokens
from controlplane.client.certificates import (
    CLIENT_SIGNER,
    KUBELET_CLIENT_SIGNER,
    KUBELET_SERVING_SIGNER,
    CertificateNotIssued,
    CertificateRefused,
    Rotation,
    Wanted,
    request_certificate,
)
from controlplane.client.inprocess import InProcessTransport
from controlplane.client.resources import CERTIFICATESIGNINGREQUESTS, CONFIGMAPS, NODES, SECRETS
from controlplane.client.rest import Client
from controlplane.controllers import csrcleaner, manager
from controlplane.controllers.config import Config
from pki import provision
from pki.keys import key_pem, new_key
from pki.layout import Layout
from pki.tokens import verify_detached

DAY, LIFE = 86_400.0, 4 * 3600.0
OURS = [
    "bootstrap-signer-controller", "token-cleaner-controller", "certificatesigningrequest-approving-controller",
    "certificatesigningrequest-signing-controller", "certificatesigningrequest-cleaner-controller",
]  # fmt: skip
SERVING = ("digital signature", "server auth")


def now() -> datetime:
    return datetime.fromtimestamp(clock.wall_time(), UTC)


class Cluster:
    def __init__(self, server: ApiServer, layout: Layout) -> None:
        self.server, self.layout = server, layout
        self.admin = self.client("kubernetes-admin", "system:masters")

    def client(self, name: str, *groups: str, peer: str = "", token: str = "") -> Client:
        extra = {"wherry.internal/peer-address": (peer,)} if peer else {}
        user = None if token else User(name, (*groups, "system:authenticated"), extra=extra)

        def make(method: str, path: str, query: str, headers: Mapping[str, str], body: bytes) -> Request:
            more = {"Authorization": f"Bearer {token}"} if token else {}
            return Request(method, path, query, CIMultiDictProxy(CIMultiDict({**headers, **more})), body, peer=user)

        return Client(InProcessTransport(self.server.handle, make))

    def node(self, name: str, peer: str = "") -> Client:
        return self.client(f"system:node:{name}", "system:nodes", peer=peer)

    async def token(self, *, single: bool = True, ttl_s: float = DAY) -> tuple[str, Client]:
        made = await tokens.create(self.admin, ttl_s=ttl_s, single=single)
        return made, self.client("", token=made)

    async def requests(self) -> list[dict[str, Any]]:
        return list((await self.admin.list(CERTIFICATESIGNINGREQUESTS))["items"])

    async def add_node(self, name: str, *addresses: str, ready: str = "True") -> None:
        made = await self.admin.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}})
        status = {
            "addresses": [{"type": "InternalIP", "address": a} for a in addresses],
            "conditions": [{"type": "Ready", "status": ready}],
        }
        await self.admin.update(NODES, {**made, "status": status}, subresource="status")


@contextlib.asynccontextmanager
async def started(folder: Path, **settings: Any) -> AsyncIterator[Cluster]:
    layout = Layout.under(folder)
    ca = provision.authority(layout, now())
    provision.control_plane(layout, ca, "https://192.0.2.1:6443", (), now())
    kubelet = str(layout.identity("apiserver-kubelet-client"))
    server = ApiServer(
        ServerConfig(
            "192.0.2.1", store="memory:", service_account_signing_key_file=str(layout.service_account_key),
            kubelet_client_certificate=kubelet, kubelet_client_key=kubelet,
            kubelet_certificate_authority=str(layout.ca_cert),
        )
    )  # fmt: skip
    await server.start()
    cluster = Cluster(server, layout)
    config = Config(
        kubeconfig=str(layout.kubeconfig("controllers")), root_ca_file=str(layout.ca_cert), controllers=OURS,
        cluster_signing_cert_file=str(layout.ca_cert), cluster_signing_key_file=str(layout.ca_key), **settings,
    )  # fmt: skip
    ready = asyncio.Event()
    client = cluster.client("system:kube-controller-manager")
    task = asyncio.create_task(manager.run(client, config, lambda _: ready.set()))
    try:
        await ready.wait()
        yield cluster
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await client.close()
        await server.stop()


Work = Callable[..., Any]


@pytest.fixture
def play(virtual: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Callable[..., None]:
    """Run `work(cluster)` on virtual time; no controller may fail in an unexpected way."""

    def run(work: Work, **settings: Any) -> None:
        async def main() -> None:
            async with started(tmp_path, **settings) as cluster:
                await work(cluster)

        virtual(main())
        assert "Traceback" not in caplog.text and not [r for r in caplog.records if r.exc_info], caplog.text

    return run


def certificate(pem: bytes) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem)


async def ask(client: Client, wanted: Wanted, seconds: float = 20.0, **more: Any) -> x509.Certificate:
    return certificate(await request_certificate(client, wanted, new_key(), deadline_s=seconds, **more))


def node_client(name: str) -> Wanted:
    return Wanted(KUBELET_CLIENT_SIGNER, f"system:node:{name}", ("system:nodes",))


def node_serving(name: str, *names: str) -> Wanted:
    return Wanted(KUBELET_SERVING_SIGNER, f"system:node:{name}", ("system:nodes",), SERVING, names)


def test_a_token_lets_one_machine_in(play: Any) -> None:
    async def work(cluster: Cluster) -> None:
        _, bootstrap = await cluster.token()
        made = await ask(bootstrap, node_client("n1"))
        made.verify_directly_issued_by(certificate(cluster.layout.ca_cert.read_bytes()))
        assert made.not_valid_after_utc - now() > timedelta(days=364)
        with pytest.raises(Exception, match="was already used for system:node:n1"):
            await ask(bootstrap, node_client("n2"))
        [request] = await cluster.requests()
        assert request["status"]["conditions"][0]["reason"] == "AutoApproved"
        assert (await tokens.listing(cluster.admin))[0].state == "used"

    play(work)


def test_of_two_with_one_token_one_is_signed(play: Any) -> None:
    async def work(cluster: Cluster) -> None:
        for round in range(5):
            _, bootstrap = await cluster.token()
            both = [ask(bootstrap, node_client(f"n{round}-{i}")) for i in range(4)]
            got = await asyncio.gather(*both, return_exceptions=True)
            assert sum(isinstance(each, x509.Certificate) for each in got) == 1, got
            for each in got:
                if not isinstance(each, x509.Certificate):
                    assert "already used" in str(each)

    play(work)


def test_a_signer_that_died_after_taking_the_token_goes_on(play: Any) -> None:
    from controlplane.controllers import bootstraptokens

    async def work(cluster: Cluster) -> None:
        token, _ = await cluster.token()
        identifier = token.partition(".")[0]
        take = bootstraptokens.take
        assert await take(cluster.admin, identifier, "csr-1/u1", "system:node:n1") == ""
        assert await take(cluster.admin, identifier, "csr-1/u1", "system:node:n1") == "", "its own"
        assert "already used for system:node:n1" in await take(cluster.admin, identifier, "csr-1/u2", "system:node:n1")
        await tokens.delete(cluster.admin, identifier)
        assert "was deleted" in await take(cluster.admin, identifier, "csr-1/u1", "system:node:n1")

    play(work)


def test_a_node_renews_itself_and_nobody_else(play: Any) -> None:
    async def work(cluster: Cluster) -> None:
        node = cluster.node("n1")
        assert (await ask(node, node_client("n1"))).subject.rfc4514_string() == "CN=system:node:n1,O=system:nodes"
        for other in (node_client("n2"), node_serving("n2", "n2")):
            with pytest.raises(StatusError, match="can only create a node CSR with CN=system:node:n1"):
                await ask(node, other, 5)
        for other in (
            Wanted(KUBELET_CLIENT_SIGNER, "system:node:n1", ("system:nodes",), names=("n1",)),
            Wanted(CLIENT_SIGNER, "kubernetes-admin"),
            Wanted(CLIENT_SIGNER, "system:kube-controller-manager"),
        ):
            with pytest.raises(CertificateNotIssued, match="approved"):
                await ask(node, other, 5)

    play(work)


def test_the_proxy_gets_its_identity_from_its_node_and_then_renews_it(play: Any) -> None:
    async def work(cluster: Cluster) -> None:
        wanted = Wanted(CLIENT_SIGNER, "system:kube-proxy")
        made = await ask(cluster.node("n1"), wanted)
        assert made.subject.rfc4514_string() == "CN=system:kube-proxy"
        for name in ("system:kube-proxy", "system:kube-scheduler", "system:kube-controller-manager"):
            assert await ask(cluster.client(name), Wanted(CLIENT_SIGNER, name))
        with pytest.raises(CertificateNotIssued):
            await ask(cluster.client("system:kube-proxy"), Wanted(CLIENT_SIGNER, "system:kube-scheduler"), 5)

    play(work)


@pytest.mark.parametrize(
    ("node", "names", "peer", "ok"),
    [
        ("n1", ("n1", "10.0.0.1"), "", True),  # what its Node says
        ("n1", ("n1", "10.0.0.7"), "10.0.0.7", True),  # where it asks from
        ("n1", ("n1",), "", True),
        ("n1", ("n1", "10.0.0.7"), "", False),
        ("n1", ("n2", "10.0.0.1"), "", False),
        ("n1", ("kubernetes.default.svc", "10.0.0.1"), "", False),
        ("new", ("new", "10.0.0.7"), "", True),  # a Node will say so
        ("new", ("new", "10.0.0.2"), "", False),  # another node's
        ("new", ("new", "10.0.0.2"), "10.0.0.2", True),  # … whose address it has got
        ("new", ("new", "192.0.2.1"), "", False),  # the API server's
        ("new", ("new", "192.0.2.1"), "192.0.2.1", True),  # … on its machine
        ("new", ("new", "10.96.0.1"), "", False),
        ("new", ("new", "127.0.0.1"), "", False),
        ("kubernetes", ("kubernetes",), "", False),
    ],
)
def test_names_of_a_serving_certificate(play: Any, node: str, names: tuple[str, ...], peer: str, ok: bool) -> None:
    async def work(cluster: Cluster) -> None:
        await cluster.add_node("n1", "10.0.0.1")
        await cluster.add_node("n2", "10.0.0.2")
        asked = ask(cluster.node(node, peer), node_serving(node, *names), 5)
        if ok:
            assert provision.alternative_names(await asked) == set(names)
        else:
            with pytest.raises(CertificateNotIssued, match="approved"):
                await asked

    play(work)


def test_a_person_may_approve_what_no_rule_does(play: Any) -> None:
    async def work(cluster: Cluster) -> None:
        jane = cluster.admin
        wanted = Wanted(CLIENT_SIGNER, "jane", ("developers",))
        asking = asyncio.create_task(ask(jane, wanted, 600, lifetime_s=7200))
        while not (found := await cluster.requests()):  # noqa: ASYNC110
            await asyncio.sleep(1)
        await asyncio.sleep(60)
        assert not asking.done()
        yes = {"type": "Approved", "status": "True", "reason": "Jane"}
        await cluster.admin.update(
            CERTIFICATESIGNINGREQUESTS, {**found[0], "status": {"conditions": [yes]}}, subresource="approval"
        )
        made = await asking
        assert timedelta(hours=1.9) < made.not_valid_after_utc - now() < timedelta(hours=2.1)

    play(work)


def test_what_a_signer_must_not_sign_fails_for_good(play: Any) -> None:
    async def work(cluster: Cluster) -> None:
        wanted = Wanted(KUBELET_CLIENT_SIGNER, "jane", ("developers",))
        asking = asyncio.create_task(ask(cluster.admin, wanted, 600))
        while not (found := await cluster.requests()):  # noqa: ASYNC110
            await asyncio.sleep(1)
        yes = {"type": "Approved", "status": "True", "reason": "Carelessness"}
        await cluster.admin.update(
            CERTIFICATESIGNINGREQUESTS, {**found[0], "status": {"conditions": [yes]}}, subresource="approval"
        )
        with pytest.raises(CertificateRefused, match="organization is not system:nodes") as refused:
            await asking
        assert refused.value.reason == "SignerValidationFailure"

    play(work)


def test_a_ready_node_is_not_replaced(play: Any) -> None:
    async def work(cluster: Cluster) -> None:
        await cluster.add_node("n1")
        _, bootstrap = await cluster.token()
        with pytest.raises(CertificateRefused, match="a node named n1 is Ready") as refused:
            await ask(bootstrap, node_client("n1"))
        assert refused.value.reason == "NodeIsReady"
        assert (await tokens.listing(cluster.admin))[0].state == "good"
        await cluster.add_node("n2", ready="Unknown")
        assert await ask(bootstrap, node_client("n2"))

    play(work)


def test_a_rule_is_switched_off_by_taking_the_permission(play: Any) -> None:
    async def work(cluster: Cluster) -> None:
        path = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/wherry:node-autoapprove-bootstrap"
        await cluster.admin.json("DELETE", path)
        _, bootstrap = await cluster.token()
        with pytest.raises(CertificateNotIssued):
            await ask(bootstrap, node_client("n1"), 5)

    play(work)


def test_cluster_info_is_published_and_signed(play: Any) -> None:
    async def work(cluster: Cluster) -> None:
        async def info() -> dict[str, str]:
            await asyncio.sleep(1)
            anonymous = cluster.client("system:anonymous", "system:unauthenticated")
            return dict((await anonymous.get(CONFIGMAPS, "cluster-info", "kube-public"))["data"])

        assert json.loads((await info())["kubeconfig"])["clusters"][0]["cluster"]["server"] == "https://192.0.2.1:6443"
        token, _ = await cluster.token(ttl_s=3600)
        identifier, _, secret = token.partition(".")
        signed = await info()
        signature = signed[f"jws-kubeconfig-{identifier}"]
        assert verify_detached(signed["kubeconfig"].encode(), signature, identifier, secret)
        assert not verify_detached(signed["kubeconfig"].encode() + b" ", signature, identifier, secret)
        assert not verify_detached(signed["kubeconfig"].encode(), signature, identifier, "0" * 16)
        await cluster.admin.patch(CONFIGMAPS, "cluster-info", {"data": {"kubeconfig": "forged"}}, "kube-public")
        assert (await info())["kubeconfig"] == signed["kubeconfig"]
        await cluster.admin.delete(CONFIGMAPS, "cluster-info", "kube-public")
        assert await info() == signed
        await asyncio.sleep(3600)
        assert f"jws-kubeconfig-{identifier}" not in await info(), "it has expired"

    play(work)


def test_expired_tokens_go_after_a_while(play: Any) -> None:
    async def work(cluster: Cluster) -> None:
        await cluster.token(ttl_s=600)
        eternal, _ = await cluster.token(ttl_s=0)
        await asyncio.sleep(600 + 3000)
        assert sorted(t.state for t in await tokens.listing(cluster.admin)) == ["expired", "good"]
        await asyncio.sleep(700)
        [left] = await tokens.listing(cluster.admin)
        assert left.id == eternal.partition(".")[0]
        assert (await cluster.admin.list(SECRETS, "kube-system"))["items"]

    play(work)


def test_old_requests_go(play: Any) -> None:
    async def work(cluster: Cluster) -> None:
        await ask(cluster.node("n1"), node_client("n1"))
        with pytest.raises(CertificateNotIssued):
            await ask(cluster.admin, Wanted(CLIENT_SIGNER, "jane", ("developers",)), 5)
        assert len(await cluster.requests()) == 2
        await asyncio.sleep(csrcleaner.DECIDED_S + 60)
        assert [r for r in await cluster.requests() if r.get("status", {}).get("certificate")] == []
        assert len(await cluster.requests()) == 1
        await asyncio.sleep(csrcleaner.PENDING_S)
        assert await cluster.requests() == []

    play(work)


def test_a_daemon_renews_for_ever(play: Any, tmp_path: Path) -> None:
    """Certificates of four hours, over a day: always valid, renewed at 70 to 90 % of its life, each time a new key."""

    async def work(cluster: Cluster) -> None:
        path, node = tmp_path / "agent.pem", cluster.node("n1")
        key = new_key()
        first = await request_certificate(node, node_client("n1"), key, deadline_s=20)
        path.write_bytes(first + key_pem(key))
        renewals: list[float] = []
        rotation = Rotation(node, path, renewed=lambda: renewals.append(clock.wall_time()))
        task = asyncio.create_task(rotation.run())
        keys = set()
        before = clock.wall_time()
        for _ in range(144):
            await asyncio.sleep(600)
            there = certificate(path.read_bytes())
            assert there.not_valid_before_utc < now() < there.not_valid_after_utc
            assert there.subject.rfc4514_string() == "CN=system:node:n1,O=system:nodes"
            keys.add(there.public_key().public_numbers())  # type: ignore[union-attr]
        task.cancel()
        gaps = [b - a for a, b in zip([before, *renewals], renewals, strict=False)]
        assert all(0.69 * LIFE < gap < 0.91 * LIFE for gap in gaps), gaps
        assert max(gaps) - min(gaps) > 0.05 * LIFE, "not all daemons at once"
        assert len(keys) == len(renewals) + 1 >= 6

    play(work, cluster_signing_duration_seconds=LIFE)


def test_a_long_outage_of_the_signer_is_survived(play: Any, tmp_path: Path) -> None:
    async def work(cluster: Cluster) -> None:
        path, node = tmp_path / "agent.pem", cluster.node("n1")
        key = new_key()
        path.write_bytes(await request_certificate(node, node_client("n1"), key, deadline_s=20) + key_pem(key))
        cluster.layout.ca_key.rename(cluster.layout.ca_key.with_suffix(".away"))
        task = asyncio.create_task(Rotation(node, path).run())
        await asyncio.sleep(0.97 * LIFE)
        assert certificate(path.read_bytes()).public_key() == key.public_key(), "nothing could be done yet"
        cluster.layout.ca_key.with_suffix(".away").rename(cluster.layout.ca_key)
        await asyncio.sleep(0.029 * LIFE)
        there = certificate(path.read_bytes())
        assert there.not_valid_after_utc > now() + timedelta(hours=2)
        task.cancel()

    play(work, cluster_signing_duration_seconds=LIFE)


def test_a_serving_certificate_that_lacks_a_name_is_renewed_at_once(play: Any, tmp_path: Path) -> None:
    async def work(cluster: Cluster) -> None:
        path, told = tmp_path / "serving.pem", asyncio.Event()
        node = cluster.node("n1", "10.0.0.1")
        for address in ("10.0.0.1", "10.0.0.9"):
            told.clear()
            moved = cluster.node("n1", address)
            rotation = Rotation(moved, path, node_serving("n1", "n1", address), renewed=told.set)
            task = asyncio.create_task(rotation.run())
            async with asyncio.timeout(30):
                await told.wait()
            assert provision.alternative_names(certificate(path.read_bytes())) == {"n1", address}
            task.cancel()
        await node.close()
        assert path.stat().st_mode & 0o777 == 0o600

    play(work)


def test_the_request_of_an_earlier_run_is_found_again(play: Any) -> None:
    async def work(cluster: Cluster) -> None:
        key = new_key()
        one, two = [
            await request_certificate(cluster.node("n1"), node_client("n1"), key, deadline_s=20) for _ in range(2)
        ]
        assert one == two and len(await cluster.requests()) == 1
        assert base64.b64decode((await cluster.requests())[0]["status"]["certificate"]) == one

    play(work)
