"""Streams in and out of real containers, by every kubectl, over WebSocket and over SPDY; images made on the spot."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.root]

N = ("-n", "t-streams")
POD = """
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: t-streams}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - {name: web, image: "busybox:1.35", command: [sh, -c, "echo served > /index.html; exec httpd -f -p 8080 -h /"]}
  - {name: shell, image: "busybox:1.35", stdin: true, tty: true, command: [sh]}
  - {name: crash, image: "busybox:1.35", command: [sh, -c, "echo 1 $HOSTNAME; echo bad >&2; sleep 0.5; exit 1"]}
"""
PROTOCOLS = {
    "websocket": {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "true", "KUBECTL_PORT_FORWARD_WEBSOCKETS": "true"},
    "spdy": {"KUBECTL_REMOTE_COMMAND_WEBSOCKETS": "false", "KUBECTL_PORT_FORWARD_WEBSOCKETS": "false"},
}


@pytest.fixture(scope="module")
def web(cluster: Any) -> Iterator[Any]:
    """A namespace with the pod."""
    kubectl = cluster.kubectl()
    kubectl("create", "namespace", N[1])
    kubectl("apply", "-f", "-", stdin=POD)
    kubectl("wait", "pod/web", *N, "--for=jsonpath={.status.containerStatuses[2].started}", "--timeout=20s")
    kubectl("wait", "pod/web", *N, "--for=jsonpath={.status.phase}=Running", "--timeout=20s")
    yield
    kubectl.run("delete", "namespace", N[1], "--wait=false")


@pytest.fixture(params=sorted(PROTOCOLS))
def client(kubectl: Any, web: Any, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A kubectl that speaks one of the protocols."""
    for name, value in PROTOCOLS[request.param].items():
        monkeypatch.setenv(name, value)
    return kubectl


def read_until(fd: int, text: bytes, seconds: float = 20) -> bytes:
    """What a terminal shows, until it has shown `text`."""
    seen, deadline = b"", time.monotonic() + seconds
    while text not in seen:
        left = deadline - time.monotonic()
        assert left > 0, seen
        if select.select([fd], [], [], left)[0]:
            seen += os.read(fd, 4096)
    return seen


def test_attach_to_a_shell_on_a_terminal(client: Any) -> None:
    ours, theirs = pty.openpty()
    process = client.popen("attach", "-it", "web", "-c", "shell", *N, stdin=theirs, stdout=theirs, stderr=theirs)
    try:
        time_limit = time.monotonic() + 20
        seen = b""
        while b"typed-42" not in seen:  # until kubectl listens, what is typed may get lost
            assert time.monotonic() < time_limit, seen
            os.write(ours, b"echo typed-$((6*7))\n")
            with contextlib.suppress(AssertionError):
                seen += read_until(ours, b"typed-42\r\n", 1)
    finally:
        process.kill()
        process.wait()
        os.close(theirs)
        os.close(ours)
    assert client("get", "pod", "web", *N, "-o", "jsonpath={.status.containerStatuses[1].ready}") == "true"


def test_run_with_input_removes_its_pod(client: Any) -> None:
    """`kubectl run --rm -i`: attach, stdinOnce, the container's exit code."""
    done = client.run(
        "run", "once", *N, "--rm", "-i", "--quiet", "--image=busybox:1.35", "--restart=Never", "--",
        "sh", "-c", "sleep 1; cat; exit 4", stdin="passed through\n",
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (4, "passed through\n"), done.stderr
    assert "not found" in client.run("get", "pod", "once", *N).stderr


def test_copy_of_a_folder_both_ways(client: Any, tmp_path: Path) -> None:
    (tmp_path / "in" / "deep").mkdir(parents=True)
    (tmp_path / "in" / "deep" / "large").write_bytes(os.urandom(5_000_000))
    (tmp_path / "in" / "small").write_text("x\n")
    client("exec", "web", "-c", "web", *N, "--", "rm", "-rf", "/copy")
    client("cp", "-c", "web", str(tmp_path / "in"), f"{N[1]}/web:/copy")
    client("cp", "-c", "web", f"{N[1]}/web:/copy", str(tmp_path / "out"))
    assert subprocess.run(["diff", "-r", str(tmp_path / "in"), str(tmp_path / "out")]).returncode == 0


def test_port_forward_to_a_pods_localhost(client: Any) -> None:
    process = client.popen(
        "port-forward", "pod/web", *N, ":8080", ":81", stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        ports: dict[int, int] = {}
        while len(ports) < 2:
            found = re.match(r"Forwarding from 127.0.0.1:(\d+) -> (\d+)", process.stdout.readline())
            if found:
                ports[int(found[2])] = int(found[1])
        for _ in range(5):
            with urllib.request.urlopen(f"http://127.0.0.1:{ports[8080]}/", timeout=10) as answer:
                assert answer.read() == b"served\n"
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{ports[81]}/", timeout=10)
        line = process.stderr.readline()
        assert "error forwarding port 81 to pod web_t-streams" in line or "error forwarding port 81" in line
    finally:
        process.kill()
        process.communicate()


def test_debug_with_an_ephemeral_container(client: Any) -> None:
    name = f"debug-{time.monotonic_ns()}"
    said = client(
        "debug", "web", *N, "-i", "-c", name, "--image=busybox:1.35", "--profile=general", "--", "sh", "-c",
        "sleep 1; hostname; wget -q -O - http://127.0.0.1:8080/", stdin="",
    )  # fmt: skip
    assert "web\nserved\n" in said


def test_logs_of_many_containers_and_of_the_last_instance(client: Any, eventually: Any) -> None:
    def restarted() -> bool:
        return int(client("get", "pod", "web", *N, "-o", "jsonpath={.status.containerStatuses[2].restartCount}")) > 0

    eventually("the container has crashed", restarted)
    everything = client("logs", "web", *N, "--all-containers", "--prefix", "--timestamps")
    assert re.search(r"^\[pod/web/crash\] 20\d\d-\S+Z 1 web$", everything, re.M)
    assert "1 web\n" in client("logs", "web", *N, "-c", "crash", "--previous")
    assert client("logs", "web", *N, "-c", "crash", "--limit-bytes=3") == "1 w"
    failed = client.run("logs", "web", *N, "-c", "web", "--previous")
    assert 'previous terminated container "web" in pod "web" not found' in failed.stderr
    raw = f"/api/v1/namespaces/{N[1]}/pods/web/log?container=crash&stream=Stderr"
    assert client("get", "--raw", raw) == "bad\n"


def test_an_image_made_on_the_spot_runs(cluster: Any, web: Any, tmp_path: Path) -> None:
    (tmp_path / "motd").write_text("made here\n")
    cluster.wherry("image", "build", str(tmp_path), "-t", "greeting:1", "--busybox", "--cmd", "cat /motd")
    kubectl = cluster.kubectl()
    kubectl("run", "greeting", *N, "--image=greeting:1", "--restart=Never")
    kubectl("wait", "pod/greeting", *N, "--for=jsonpath={.status.phase}=Succeeded", "--timeout=20s")
    assert kubectl("logs", "greeting", *N) == "made here\n"
    assert "docker.io/library/greeting:1" in cluster.wherry("image", "ls")
    kubectl("delete", "pod", "greeting", *N, "--timeout=20s")
    cluster.wherry("image", "rm", "greeting:1")
    assert "greeting" not in cluster.wherry("image", "ls")
