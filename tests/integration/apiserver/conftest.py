"""A real API server as a process of its own, real kubectls, and a bare HTTPS client that sees the connection."""

import base64
import http.client
import http.server
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from pki import provision
from pki.authority import Authority
from pki.layout import Layout
from pki.profiles import APISERVER

BIN = Path(sys.executable).parent
_PLACES = (BIN / "kubectl", BIN / "clients" / "kubectl-1.32", BIN.parent / "clients" / "kubectl-1.32")
KUBECTLS = [path for path in _PLACES if path.exists()]


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Connection:
    """One TLS connection that is kept: `reconnects` counts the times that the server closed it."""

    port: int
    context: ssl.SSLContext
    token: str = ""
    reconnects: int = -1
    _http: http.client.HTTPSConnection | None = field(default=None, repr=False)

    def __call__(
        self, method: str, path: str, body: Any = None, *, kind: str = "application/json", **headers: str
    ) -> Answer:
        """`body`: bytes as they are, anything else as JSON. Header names: underscores for dashes."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if data is not None:
            sent["Content-Type"] = kind
        if self.token:
            sent["Authorization"] = f"Bearer {self.token}"
        if self._http is None or self._http.sock is None:
            self._http = http.client.HTTPSConnection("127.0.0.1", self.port, context=self.context, timeout=20)
            self.reconnects += 1
        self._http.request(method, path, data, sent)
        got = self._http.getresponse()
        return Answer(got.status, {k.lower(): v for k, v in got.getheaders()}, got.read())

    def ok(self, method: str, path: str, body: Any = None, **more: str) -> Any:
        """The answer as JSON; fails the test if it is no success."""
        answer = self(method, path, body, **more)
        assert answer.status < 300, (method, path, answer.status, answer.body)
        return answer.json

    def watch(self, path: str, seconds: int = 10, **headers: str) -> "Watch":
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, context=self.context, timeout=seconds)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request("GET", path, headers=sent)
        return Watch(connection, connection.getresponse())

    def close(self) -> None:
        if self._http:
            self._http.close()


class Watch:
    """Events of an open watch, one `next()` at a time; times out with TimeoutError."""

    def __init__(self, connection: http.client.HTTPSConnection, response: http.client.HTTPResponse) -> None:
        self._connection, self.response = connection, response

    def next(self) -> Any:
        line = self.response.readline()
        return json.loads(line) if line else None

    def take(self, count: int) -> list[Any]:
        return [self.next() for _ in range(count)]

    def __enter__(self) -> "Watch":
        return self

    def __exit__(self, *_: object) -> None:
        self.response.close()
        self._connection.close()


class Server:
    """`python -m controlplane.apiserver` with certificates and a store of its own under `root`."""

    def __init__(self, root: Path, **flags: str) -> None:
        self.layout = Layout.under(root)
        self.log = root / "log"
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"https://127.0.0.1:{self.port}"
        now = datetime.now(UTC)
        self._ca = provision.authority(self.layout, now)
        provision.control_plane(self.layout, self._ca, self.url, ["127.0.0.1", "10.96.0.1"], now)
        layout = self.layout
        self._flags = {
            "advertise-address": "127.0.0.1", "bind-address": "127.0.0.1", "secure-port": str(self.port),
            "store": f"sqlite://{layout.store}",
            "tls-cert-file": str(layout.identity("apiserver")),
            "tls-private-key-file": str(layout.identity("apiserver")),
            "client-ca-file": str(layout.ca_cert),
            "service-account-signing-key-file": str(layout.service_account_key),
            "kubelet-client-certificate": str(layout.identity("apiserver-kubelet-client")),
            "kubelet-client-key": str(layout.identity("apiserver-kubelet-client")),
            "kubelet-certificate-authority": str(layout.ca_cert),
            **{name.replace("_", "-"): value for name, value in flags.items()},
        }  # fmt: skip
        self._process: subprocess.Popen[bytes] | None = None
        self._contexts: dict[str, ssl.SSLContext] = {}
        self._connections: list[Connection] = []
        self.kubeconfig = layout.kubeconfig("admin")

    def flag(self, name: str, value: str) -> None:
        """A setting for the next start."""
        self._flags[name] = value

    def start(self) -> None:
        arguments = [part for name, value in self._flags.items() for part in (f"--{name}", value)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "controlplane.apiserver", *arguments], stdout=log, stderr=log
            )
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            assert self._process.poll() is None, self.log.read_text()
            try:
                if self.connect()("GET", "/readyz").status == 200:
                    return
            except OSError:
                time.sleep(0.02)
        raise AssertionError(f"not ready: {self.log.read_text()}")

    def signal(self, number: int) -> None:
        assert self._process
        self._process.send_signal(number)

    def wait_for_log(self, text: str, times: int = 1) -> None:
        """Until the log has `text` so many times."""
        deadline = time.monotonic() + 10
        while self.log.read_text().count(text) < times:
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.02)

    def kill(self) -> None:
        assert self._process
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._drop()

    def stop(self) -> None:
        self._drop()
        if self._process and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
                raise

    def _drop(self) -> None:
        for connection in self._connections:
            connection.close()
        self._connections.clear()

    def connect(self, who: str = "admin", token: str = "") -> Connection:
        """A connection as the user of the kubeconfig `who`; "" shows no certificate."""
        made = Connection(self.port, self._context(who), token)
        self._connections.append(made)
        return made

    def node(self, name: str) -> Connection:
        """A connection with the certificate of the agent of node `name`."""
        layout = Layout.under(self.layout.etc.parent / name)
        provision.node(layout, self._ca, self.url, name, ["127.0.0.1"], datetime.now(UTC))
        from pki import profiles

        return self._as(layout.kubeconfig(profiles.NODEAGENT.name), name)

    def _as(self, kubeconfig: Path, who: str) -> Connection:
        self._contexts[who] = self._load(kubeconfig)
        return self.connect(who)

    def _context(self, who: str) -> ssl.SSLContext:
        if who not in self._contexts:
            if who:
                self._contexts[who] = self._load(self.layout.kubeconfig(who))
            else:
                self._contexts[who] = ssl.create_default_context(cafile=str(self.layout.ca_cert))
        return self._contexts[who]

    def _load(self, kubeconfig: Path) -> ssl.SSLContext:
        user = yaml.safe_load(kubeconfig.read_text())["users"][0]["user"]
        context = ssl.create_default_context(cafile=str(self.layout.ca_cert))
        if "client-certificate" in user:
            context.load_cert_chain(user["client-certificate"])
            return context
        with tempfile.NamedTemporaryFile() as pem:
            pem.write(base64.b64decode(user["client-certificate-data"]) + base64.b64decode(user["client-key-data"]))
            pem.flush()
            context.load_cert_chain(pem.name)
        return context

    @contextmanager
    def namespace(self, name: str) -> Iterator[str]:
        """A namespace with its default ServiceAccount; nobody removes it before the server goes."""
        admin = self.connect()
        admin.ok("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        admin.ok("POST", f"/api/v1/namespaces/{name}/serviceaccounts", {"metadata": {"name": "default"}})
        yield name


def _environment(binary: Path, server: Server) -> dict[str, str]:
    cache = server.log.parent / "cache" / binary.name
    return {**os.environ, "KUBECONFIG": str(server.kubeconfig), "KUBECACHEDIR": str(cache), "KUBECTL_KUBERC": "false"}


def run_kubectl(
    binary: Path, server: Server, *arguments: str, stdin: str = "", ok: bool = True, **environment: str
) -> str:
    """stdout, and stderr after it; fails the test on an exit code that was not expected."""
    done = subprocess.run(
        [str(binary), *arguments], env={**_environment(binary, server), **environment}, input=stdin,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode == 0) == ok, (arguments, done.returncode, done.stdout, done.stderr, _tail(server))
    assert "panic:" not in done.stderr
    return done.stdout + done.stderr


def _tail(server: Server) -> str:
    return server.log.read_text()[-2000:]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("apiserver"))
    made.start()
    try:
        yield made
        log = made.log.read_text()
        assert "request failed" not in log and "Traceback" not in log, log
    finally:
        made.stop()


@pytest.fixture
def admin(server: Server) -> Connection:
    return server.connect()


@pytest.fixture
def fresh_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Servers of a test's own, with flags: `fresh_server(history_seconds="1")`."""
    made: list[Server] = []

    def start(**flags: str) -> Server:
        server = Server(tmp_path / f"s{len(made)}", **flags)
        made.append(server)
        server.start()
        return server

    yield start
    for each in made:
        each.stop()


@pytest.fixture
def kubectls() -> list[Path]:
    return KUBECTLS


@pytest.fixture
def run() -> Callable[..., str]:
    """`run(binary, server, arguments…)`: a kubectl against a server of the test's own."""
    return run_kubectl


@pytest.fixture(params=KUBECTLS, ids=lambda path: path.name)
def binary(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


@pytest.fixture
def kubectl(binary: Path, server: Server) -> Callable[..., str]:
    def run(*arguments: str, stdin: str = "", ok: bool = True, **environment: str) -> str:
        return run_kubectl(binary, server, *arguments, stdin=stdin, ok=ok, **environment)

    return run


@pytest.fixture
def watching(binary: Path, server: Server) -> Iterator[Callable[..., Iterator[str]]]:
    """Start a kubectl that goes on by itself; gives its lines. A silent one is ended after 20 s."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> Iterator[str]:
        command = ["timeout", "20", str(binary), *arguments]
        process = subprocess.Popen(command, env=_environment(binary, server), stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout
        return process.stdout

    yield start
    for process in started:
        process.terminate()
        process.wait(10)
        assert process.stdout
        process.stdout.close()


_counter = iter(range(1, 10_000))


@pytest.fixture
def ns(server: Server) -> str:
    """A namespace of the test's own."""
    with server.namespace(f"t{next(_counter)}") as name:
        return name


class Hook:
    """An HTTPS server whose `answer` says what to respond to a review's request; `seen` are those it got."""

    def __init__(self, root: Path) -> None:
        now = datetime.now(UTC)
        authority = Authority.create(now)
        self.bundle = base64.b64encode(authority.pem()).decode()
        issued = authority.issue(APISERVER, now, names=["127.0.0.1", "hook.admission.svc"])
        pem = root / "hook.pem"
        pem.write_bytes(issued.pem())
        self.seen: list[Any] = []
        self.answer: Callable[[Any], Any] = lambda request: {"allowed": True}
        hook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                review = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                hook.seen.append(review["request"])
                response = {"uid": review["request"]["uid"], **hook.answer(review["request"])}
                body = json.dumps({**review, "request": None, "response": response}).encode()
                self.send_response(200)
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

    @property
    def client(self) -> Any:
        return {"url": f"https://127.0.0.1:{self.port}/review", "caBundle": self.bundle}

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def hook(tmp_path: Path) -> Iterator[Hook]:
    made = Hook(tmp_path)
    yield made
    made.close()
