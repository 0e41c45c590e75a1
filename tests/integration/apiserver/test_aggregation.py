"""An API that another server answers: it is discovered, reached with the user in headers, and missed when it goes."""

import http.server
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pki.authority import Authority
from pki.profiles import APISERVER

GROUP, VERSION = "metrics.example.com", "v1beta1"
SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"


def _own_address() -> str:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("10.255.255.255", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


class Extension:
    """A server of one group, with one resource; `seen` are the headers of its requests."""

    def __init__(self, root: Path) -> None:
        now = datetime.now(UTC)
        self.authority = Authority.create(now)
        pem = root / "extension.pem"
        pem.write_bytes(self.authority.issue(APISERVER, now, names=["ext.agg.svc"]).pem())
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        extension = self
        prefix = f"/apis/{GROUP}/{VERSION}"
        resource = {
            "name": "loads",
            "singularName": "load",
            "namespaced": False,
            "kind": "Load",
            "verbs": ["get", "list"],
        }
        documents = {
            prefix: {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": f"{GROUP}/{VERSION}",
                     "resources": [resource]},
            f"{prefix}/loads": {"kind": "LoadList", "apiVersion": f"{GROUP}/{VERSION}", "metadata": {}, "items": [
                {"kind": "Load", "apiVersion": f"{GROUP}/{VERSION}", "metadata": {"name": "node-1"}, "value": 3}]},
            "/openapi/v3": {"paths": {prefix[1:]: {"serverRelativeURL": f"/openapi/v3{prefix}?hash=ABC"}}},
            f"/openapi/v3{prefix}": {"openapi": "3.0.0", "info": {"title": "ext", "version": "1"}, "paths": {}},
        }  # fmt: skip

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                extension.seen.append((self.command, self.path, dict(self.headers.items())))
                document = documents.get(path)
                body = json.dumps(document or {"kind": "Status", "code": 404, "message": "nothing here"}).encode()
                self.send_response(200 if document else 404)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None: ...

        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        self._server = http.server.ThreadingHTTPServer(("0.0.0.0", 0), Handler)
        self._server.daemon_threads = True
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def extension(tmp_path: Path) -> Iterator[Extension]:
    made = Extension(tmp_path)
    yield made
    made.close()


def until(condition: Callable[[], Any], seconds: float = 15) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "condition never came true"
        time.sleep(0.05)
    return found


def available(admin: Any, name: str) -> dict[str, str]:
    conditions = admin.ok("GET", f"{SERVICES}/{name}").get("status", {}).get("conditions") or []
    found: dict[str, str] = next((c for c in conditions if c["type"] == "Available"), {})
    return found


def test_what_we_serve_has_apiservices_of_its_own(admin: Any) -> None:
    names = {each["metadata"]["name"] for each in admin.ok("GET", SERVICES)["items"]}
    assert {"v1.", "v1.apps", "v1.apiextensions.k8s.io"} <= names
    assert available(admin, "v1.apps")["reason"] == "Local"
    trusted = admin.ok("GET", "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication")["data"]
    assert trusted["requestheader-username-headers"] == '["X-Remote-User"]'
    assert "BEGIN CERTIFICATE" in trusted["requestheader-client-ca-file"]


def test_an_api_of_another_server(admin: Any, extension: Extension) -> None:
    import base64

    address = _own_address()
    if address.startswith("127."):
        pytest.skip("this machine has no address that a Service may have")
    name = f"{VERSION}.{GROUP}"
    bundle = base64.b64encode(extension.authority.pem()).decode()
    spec = {"group": GROUP, "version": VERSION, "groupPriorityMinimum": 100, "versionPriority": 100,
            "caBundle": bundle, "service": {"name": "ext", "namespace": "agg"}}  # fmt: skip
    admin.ok("POST", "/api/v1/namespaces", {"metadata": {"name": "agg"}})
    admin.ok("POST", SERVICES, {"metadata": {"name": name}, "spec": spec})
    until(lambda: available(admin, name).get("reason") == "ServiceNotFound")
    missing = admin("GET", f"/apis/{GROUP}/{VERSION}/loads")
    assert (missing.status, missing.json["message"]) == (503, "service unavailable")
    assert GROUP not in [g["name"] for g in admin.ok("GET", "/apis")["groups"]]
    admin.ok("POST", "/apis/discovery.k8s.io/v1/namespaces/agg/endpointslices", {
        "metadata": {"name": "ext-1", "labels": {"kubernetes.io/service-name": "ext"}}, "addressType": "IPv4",
        "endpoints": [{"addresses": [address], "conditions": {"ready": True}}],
        "ports": [{"port": extension.port}]})  # fmt: skip
    admin.ok("POST", "/api/v1/namespaces/agg/services", {
        "metadata": {"name": "ext"}, "spec": {"ports": [{"port": 443, "targetPort": extension.port}]}})  # fmt: skip
    listed = admin.ok("GET", f"/apis/{GROUP}/{VERSION}/loads?labelSelector=a%3Db")
    assert [each["value"] for each in listed["items"]] == [3]
    _, path, headers = extension.seen[-1]
    assert path.endswith("/loads?labelSelector=a%3Db")
    assert headers["X-Remote-User"] == "kubernetes-admin"
    assert "Authorization" not in headers
    forged = admin("GET", f"/apis/{GROUP}/{VERSION}/loads", X_Remote_User="somebody")
    assert forged.status == 200
    assert extension.seen[-1][2]["X-Remote-User"] == "kubernetes-admin"
    admin.ok(
        "PATCH", f"{SERVICES}/{name}", {"metadata": {"labels": {"look": "again"}}}, kind="application/merge-patch+json"
    )
    until(lambda: available(admin, name).get("status") == "True")
    assert GROUP in [g["name"] for g in admin.ok("GET", "/apis")["groups"]]
    aggregated = admin.ok("GET", "/apis", Accept="application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList")
    group = next(g for g in aggregated["items"] if g["metadata"]["name"] == GROUP)
    assert group["versions"][0]["resources"][0]["resource"] == "loads"
    assert admin.ok("GET", "/openapi/v3")["paths"][f"apis/{GROUP}/{VERSION}"]["serverRelativeURL"].endswith("hash=ABC")
    assert admin.ok("GET", f"/openapi/v3/apis/{GROUP}/{VERSION}")["info"]["title"] == "ext"
    assert admin.ok("GET", f"/apis/{GROUP}")["versions"][0]["version"] == VERSION
    admin.ok("DELETE", f"{SERVICES}/{name}")
    until(lambda: GROUP not in [g["name"] for g in admin.ok("GET", "/apis")["groups"]])
    assert admin("GET", f"/apis/{GROUP}/{VERSION}/loads").status == 404


def test_who_may_not_is_not_passed_on(server: Any, admin: Any) -> None:
    stranger = server.connect("")
    assert stranger("GET", f"/apis/{GROUP}/{VERSION}/loads").status in (401, 403)
