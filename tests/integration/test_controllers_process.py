"""The controller manager as it is started: a process, a kubeconfig, client certificates over TLS; the API is a fake."""

import asyncio
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from controlplane.client.fake import FakeAPI
from pki import provision
from pki.layout import Layout


async def until(condition: Callable[[], Any], seconds: float = 15.0) -> Any:
    async with asyncio.timeout(seconds):
        while not (found := condition()):  # noqa: ASYNC110 - any condition, not one event
            await asyncio.sleep(0.01)
    return found


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[tuple[FakeAPI, Layout]]:
    """A fake API behind TLS that asks for client certificates, and the files of its control plane."""
    api = FakeAPI()

    async def handle(request: web.Request) -> web.StreamResponse:
        if "watch=true" not in request.raw_path:
            answer = await api.request(
                request.method, request.raw_path, await request.read(), content_type=request.content_type, timeout=5
            )
            return web.Response(status=answer.status, body=answer.body, content_type="application/json")
        stream = await api.stream(request.raw_path, timeout=5, silence=60)
        response = web.StreamResponse(status=stream.status)
        await response.prepare(request)
        try:
            while data := await stream.read():
                await response.write(data)
        except ConnectionError:
            pass
        finally:
            stream.close()
        return response

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.5)
    await runner.setup()
    layout = Layout.under(tmp_path)
    layout.ensure()
    now = datetime.now(UTC)
    ca = provision.authority(layout, now)
    # the port is known only once we listen, and the certificate does not depend on it
    provision.control_plane(layout, ca, "https://127.0.0.1:1", ["127.0.0.1"], now)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(layout.ca_cert))
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_cert_chain(layout.identity("apiserver"), layout.identity("apiserver"))
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    port = runner.addresses[0][1]
    kubeconfig = layout.kubeconfig("controllers")
    kubeconfig.write_text(kubeconfig.read_text(encoding="utf-8").replace("127.0.0.1:1", f"127.0.0.1:{port}"), "utf-8")
    yield api, layout
    await runner.cleanup()


async def test_the_process_works_until_it_is_told_to_stop(served: tuple[FakeAPI, Layout]) -> None:
    api, layout = served
    api.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "team"}, "status": {"phase": "Active"}})
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "controlplane.controllers",
        "--kubeconfig", str(layout.kubeconfig("controllers")),
        "--root-ca-file", str(layout.ca_cert),
        "--controllers", "*,-garbage-collector-controller",
    )  # fmt: skip
    try:
        await until(lambda: api.get("serviceaccounts", "default", "team"))
        published = await until(lambda: api.get("configmaps", "kube-root-ca.crt", "team"))
        assert published["data"]["ca.crt"] == layout.ca_cert.read_text(encoding="ascii")
        lease = api.get("leases", "kube-controller-manager", "kube-system", "coordination.k8s.io")
        assert lease is not None
        assert lease["spec"]["holderIdentity"]
        process.terminate()
        async with asyncio.timeout(10):
            assert await process.wait() == 0
        lease = api.get("leases", "kube-controller-manager", "kube-system", "coordination.k8s.io")
        assert lease is not None
        assert lease["spec"]["holderIdentity"] == "", "given back, so that the next one need not wait"
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_a_mistyped_setting_is_told(tmp_path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "controlplane.controllers", "--node-cidr-mask-size", "wide",
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, told = await process.communicate()
    assert process.returncode == 2
    assert b"--node-cidr-mask-size" in told
