"""Certificates that live for twelve seconds, on real daemons: everybody renews, nobody notices.

An API server, controllers and a scheduler as processes, a node agent (with a fake runtime) that joined by token. All
of their first certificates end during the test; a watch, requests from node and scheduler, and requests to the node
through the API server go on all the time.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509

from controlplane.client.resources import CONFIGMAPS, NODES
from controlplane.client.rest import Client, from_kubeconfig
from nodeagent.agent import Agent
from nodeagent.config import Config
from nodeagent.pods.volumes import places
from nodeagent.runtime.fake import FakeRuntime
from pki import profiles, requests
from pki.authority import Authority, Issued
from pki.keys import key_pem, load_key, new_key
from pki.provision import alternative_names

LIFE_S = 12
CONTROL_PLANE = (
    profiles.APISERVER, profiles.APISERVER_KUBELET_CLIENT, profiles.SCHEDULER, profiles.CONTROLLERS,
)  # fmt: skip


class Net:
    async def setup(self, pod_cidr: str, node_ip: str) -> None: ...

    async def retain(self, sandbox_ids: object) -> None: ...

    def follow(self, informer: object) -> None: ...

    async def close(self) -> None: ...


def shorten(plane: Any) -> None:
    """Replace what init made by certificates that end soon."""
    layout, now = plane.layout, datetime.now(UTC)
    ca = Authority.load(layout.ca_cert.read_bytes(), load_key(layout.ca_key))
    for profile in CONTROL_PLANE:
        path, key = layout.identity(profile.name), new_key()
        names = sorted(alternative_names(x509.load_pem_x509_certificate(path.read_bytes())))
        signed = ca.sign(
            key.public_key(), requests.name(profile.common_name), now, usages=profile.usages,
            alternatives=[requests.general_name(each) for each in names], lifetime=timedelta(seconds=LIFE_S),
        )  # fmt: skip
        path.write_bytes(Issued(signed, key_pem(key)).pem())


@contextlib.asynccontextmanager
async def agent_of(machine: Any, folder: Path) -> AsyncIterator[Agent]:
    layout = machine.layout
    serving = str(layout.identity("nodeagent-server"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    config = Config(
        kubeconfig=str(layout.kubeconfig("nodeagent")), node_name=machine.name, node_ip="127.0.0.1",
        root_dir=str(layout.agent_root), log_dir=str(folder / "logs"), address="127.0.0.1", port=port,
        tls_cert_file=serving, tls_private_key_file=serving, client_ca_file=str(layout.ca_cert),
        image_preload_dir="", static_pod_path="",
    )  # fmt: skip
    runtime, ready = FakeRuntime(), asyncio.Event()
    agent = Agent(config, from_kubeconfig(config.kubeconfig), runtime, runtime.images, Net())
    task = asyncio.create_task(agent.run(ready.set))
    try:
        async with asyncio.timeout(20):
            await ready.wait()
        yield agent
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        places.unmount(str(layout.agent_root / "memory"))


async def shown(port: int, ca: Path) -> x509.Certificate:
    context = ssl.create_default_context(cafile=str(ca))
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    der = writer.get_extra_info("ssl_object").getpeercert(True)
    writer.close()
    return x509.load_der_x509_certificate(der)


def ended(path: Path, first: bytes) -> bool:
    """Whether the certificate in `first` is over, and there is a good one in the file."""
    before, there = x509.load_pem_x509_certificate(first), x509.load_pem_x509_certificate(path.read_bytes())
    now = datetime.now(UTC)
    return before.not_valid_after_utc < now < there.not_valid_after_utc


async def test_everybody_renews_and_nobody_notices(
    planes: Callable[..., Any], machines: Callable[..., Any], tmp_path: Path
) -> None:
    plane = planes("--cluster-signing-duration-seconds", str(LIFE_S), before=shorten)
    plane.launch("scheduler", "controlplane.scheduler")
    machine = machines(on=plane)
    machine.join(plane.token())
    layout = plane.layout
    identities = [layout.identity(each.name) for each in CONTROL_PLANE]
    identities += [machine.layout.identity("nodeagent"), machine.layout.identity("nodeagent-server")]
    first = {path: path.read_bytes() for path in identities}
    admin = from_kubeconfig(str(layout.kubeconfig("admin")))
    seen: list[str] = []

    async def watch() -> None:
        async with contextlib.aclosing(admin.watch(CONFIGMAPS, "default", field_selector="metadata.name=beat")) as all:
            async for _, obj in all:
                seen.append((obj.get("data") or {}).get("n", ""))

    async def steadily(client: Client, work: Callable[[], Any]) -> None:
        while True:
            await work()
            await asyncio.sleep(0.1)

    async with agent_of(machine, tmp_path) as agent:
        name = machine.name
        async with asyncio.timeout(10):
            while not (await admin.list(NODES))["items"]:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        beats, made = iter(range(10_000)), {"metadata": {"name": "beat", "namespace": "default"}, "data": {"n": "-"}}
        await admin.create(CONFIGMAPS, {"apiVersion": "v1", "kind": "ConfigMap", **made})
        watching = asyncio.create_task(watch())
        as_scheduler = from_kubeconfig(str(layout.kubeconfig("scheduler")))
        serial = (await shown(agent.port, layout.ca_cert)).serial_number

        async def beat() -> None:
            await admin.patch(CONFIGMAPS, "beat", {"data": {"n": str(next(beats))}}, "default")

        goes_on = [
            asyncio.create_task(steadily(admin, beat)),
            asyncio.create_task(steadily(as_scheduler, lambda: as_scheduler.list(NODES))),
            asyncio.create_task(steadily(agent.client, lambda: agent.client.get(NODES, name))),
            asyncio.create_task(steadily(admin, lambda: admin.raw("GET", f"/api/v1/nodes/{name}/proxy/pods"))),
        ]
        async with asyncio.timeout(60):
            while not all(ended(path, pem) for path, pem in first.items()):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        for path, pem in first.items():
            old, new = (x509.load_pem_x509_certificate(each) for each in (pem, path.read_bytes()))
            assert old.subject == new.subject and old.public_key() != new.public_key()
            assert alternative_names(old) == alternative_names(new)
            assert path.stat().st_mode & 0o777 == 0o600
        assert (await shown(plane.port, layout.ca_cert)).serial_number != serial
        assert (await shown(agent.port, layout.ca_cert)).not_valid_after_utc > datetime.now(UTC)
        newcomer = from_kubeconfig(machine.layout.kubeconfig("nodeagent").as_posix())  # no kept connection
        assert await newcomer.get(NODES, name)
        last = str(next(beats) - 1)
        async with asyncio.timeout(10):
            while last not in seen:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        for task in goes_on:
            assert not task.done(), task
            task.cancel()
        watching.cancel()
        await asyncio.gather(watching, *goes_on, return_exceptions=True)
        numbers = [int(n) for n in seen if n != "-"]
        assert numbers == list(range(len(numbers))), "no event lost, in one watch"
        for client in (admin, as_scheduler, newcomer):
            await client.close()
    for daemon in ("scheduler", "controllers", "apiserver"):
        assert plane.processes[daemon].poll() is None
        assert "certificate_renewed" in plane.log(daemon)
