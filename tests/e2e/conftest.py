"""A real three-node cluster for the end-to-end tests: `wherry up` once a session, `wherry down` at the end."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

BIN = Path(sys.executable).parent
KUBECTLS = {"1.37": BIN / "kubectl", "1.32": BIN.parent / "clients" / "kubectl-1.32"}
WHERRY = [sys.executable, "-m", "controlplane.cli.main"]


class Eventually:
    """`eventually("what", probe)`: the first true value of `probe()`; fails with the last one when time is up."""

    def __call__(self, what: str, probe: Callable[[], Any], seconds: float = 30.0) -> Any:
        deadline = time.monotonic() + seconds
        last: object = None
        while time.monotonic() < deadline:
            try:
                if value := probe():
                    return value
                last = value
            except (AssertionError, LookupError, subprocess.SubprocessError, OSError) as error:
                last = error
            time.sleep(0.1)
        raise AssertionError(f"not within {seconds} s: {what}; last: {last}")


@pytest.fixture(scope="session")
def eventually() -> Eventually:
    return Eventually()


@dataclass
class Kubectl:
    """A real kubectl of one version, as the cluster's admin."""

    binary: Path
    kubeconfig: str

    def __call__(self, *args: str, stdin: str | None = None, timeout: float = 60) -> str:
        done = self.run(*args, stdin=stdin, timeout=timeout)
        if done.returncode:
            raise AssertionError(f"kubectl {' '.join(args)}: exit {done.returncode}\n{done.stdout}{done.stderr}")
        return done.stdout

    def run(self, *args: str, stdin: str | None = None, timeout: float = 60) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(self.binary), *args], input=stdin, capture_output=True, text=True, timeout=timeout, env=self.env
        )

    def popen(self, *args: str, **kwargs: Any) -> "subprocess.Popen[str]":
        return subprocess.Popen([str(self.binary), *args], env=self.env, text=True, **kwargs)

    def json(self, *args: str) -> Any:
        return json.loads(self(*args, "-o", "json"))

    @property
    def env(self) -> dict[str, str]:
        return {**os.environ, "KUBECONFIG": self.kubeconfig, "KUBECACHEDIR": "/tmp/wherry-kubecache"}


@dataclass
class Cluster:
    """The running lab."""

    api: str
    kubeconfig: str

    def wherry(self, *args: str) -> str:
        done = subprocess.run([*WHERRY, *args], capture_output=True, text=True, timeout=180)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def status(self) -> Any:
        return json.loads(self.wherry("status", "-o", "json"))

    def pid(self, component: str, node: str) -> int:
        return next(
            int(p["pid"]) for p in self.status()["processes"] if p["component"] == component and p["node"] == node
        )

    def kubectl(self, version: str = "1.37") -> Kubectl:
        return Kubectl(KUBECTLS[version], self.kubeconfig)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    subprocess.run([*WHERRY, "down", "--purge"], capture_output=True, timeout=60)
    # Kubernetes' own patience with a lost node is a minute; a test need not wait that long to see that it ends.
    patience = {"WHERRY_NODE_MONITOR_GRACE_PERIOD_SECONDS": "6", "WHERRY_NODE_MONITOR_PERIOD_SECONDS": "1",
                "WHERRY_NODE_LEASE_DURATION_SECONDS": "4"}  # fmt: skip
    environ = {**os.environ, **patience}
    done = subprocess.run([*WHERRY, "up", "--nodes", "3"], capture_output=True, text=True, timeout=180, env=environ)
    assert done.returncode == 0, done.stdout + done.stderr
    status = json.loads(subprocess.run([*WHERRY, "status", "-o", "json"], capture_output=True, text=True).stdout)
    yield Cluster(status["api"], status["kubeconfig"])
    subprocess.run([*WHERRY, "down", "--purge"], capture_output=True, timeout=60)


@pytest.fixture(params=sorted(KUBECTLS))
def kubectl(cluster: Cluster, request: pytest.FixtureRequest) -> Kubectl:
    """Each test once with every kubectl."""
    return cluster.kubectl(request.param)


@pytest.fixture
def namespace(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """A namespace of the test's own."""
    kubectl = cluster.kubectl()
    letters = "".join(c if c.isalnum() else "-" for c in request.node.name.removeprefix("test_").lower())
    name = "t-" + letters[:40].strip("-")
    kubectl("create", "namespace", name)
    yield name
    kubectl.run("delete", "namespace", name, "--wait=false")
