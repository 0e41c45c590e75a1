"""kubectl's ways of operating what runs: rollouts, jobs, disruption budgets and draining, debugging, other inputs."""

import base64
import json
import warnings
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

pytestmark = [pytest.mark.e2e, pytest.mark.root]

IMAGE = "--image=busybox:1.35"
RUNNING = ("--", "sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done")


def test_rollouts(kubectl: Any, namespace: str) -> None:
    n = ("-n", namespace)
    status = ("rollout", "status", "deploy/web", *n, "--timeout=60s")
    kubectl("create", "deploy", "web", *n, IMAGE, *RUNNING)
    kubectl(*status)
    kubectl("rollout", "pause", "deploy/web", *n)
    kubectl("set", "env", "deploy/web", *n, "STEP=two")
    assert len(kubectl.json("get", "rs", *n)["items"]) == 1, "a paused deployment went on"
    kubectl("annotate", "deploy/web", *n, "kubernetes.io/change-cause=second")
    kubectl("rollout", "resume", "deploy/web", *n)
    kubectl(*status)
    kubectl("rollout", "restart", "deploy/web", *n)
    assert "successfully rolled out" in kubectl(*status)
    assert "STEP" in kubectl("rollout", "history", "deploy/web", *n, "--revision=2")
    assert "second" in kubectl("rollout", "history", "deploy/web", *n)
    kubectl("rollout", "undo", "deploy/web", *n, "--to-revision=1")
    kubectl(*status)
    assert "env" not in kubectl.json("get", "deploy", "web", *n)["spec"]["template"]["spec"]["containers"][0]
    kubectl("delete", "deploy", "web", *n, "--cascade=foreground", "--timeout=40s")
    assert kubectl("get", "rs,pods", *n, "-o", "name") == ""


def test_a_jobs_logs_are_its_own(kubectl: Any, namespace: str) -> None:
    n = ("-n", namespace)
    kubectl("run", "other", *n, IMAGE, "--", "sh", "-c", "echo of another; sleep 3600")
    kubectl("create", "job", "j", *n, IMAGE, "--", "echo", "of the job")
    kubectl("wait", "job/j", *n, "--for=condition=Complete", "--timeout=30s")
    assert kubectl("logs", "job/j", *n) == "of the job\n"
    assert "Succeeded" in kubectl("describe", "job", "j", *n)


def test_draining_respects_a_budget(cluster: Any, namespace: str, eventually: Any) -> None:
    """With one kubectl only: it asks again each five seconds."""
    kubectl, n = cluster.kubectl(), ("-n", namespace)
    try:
        kubectl("cordon", "node-1")
        kubectl("cordon", "node-2")
        kubectl("create", "deploy", "web", *n, IMAGE, "--replicas=2", *RUNNING)
        kubectl("create", "pdb", "web", *n, "--selector=app=web", "--min-available=2")
        kubectl("run", "bare", *n, IMAGE, *RUNNING)
        kubectl("rollout", "status", "deploy/web", *n, "--timeout=60s")
        kubectl("uncordon", "node-1")
        kubectl("uncordon", "node-2")
        eventually(
            "the budget is known", lambda: kubectl.json("get", "pdb", "web", *n)["status"]["currentHealthy"] == 2
        )
        drain = ("drain", "node-3", "--ignore-daemonsets", "--delete-emptydir-data", "--pod-selector=app=web")
        told = kubectl.run(*drain, "--timeout=2s")
        assert told.returncode and "violate the pod's disruption budget" in told.stderr
        refused = kubectl.run("drain", "node-3", "--ignore-daemonsets", "--pod-selector=run=bare")
        assert "declare no controller (use --force to override)" in refused.stderr
        kubectl("patch", "pdb", "web", *n, "-p", '{"spec":{"minAvailable":1}}')
        eventually("one may go", lambda: kubectl.json("get", "pdb", "web", *n)["status"]["disruptionsAllowed"] == 1)
        assert "node/node-3 drained" in kubectl(*drain, "--timeout=90s", timeout=100)
        where = kubectl("get", "pods", *n, "-l", "app=web", "-o", "jsonpath={.items[*].spec.nodeName}").split()
        assert "node-3" not in where
    finally:
        for node in ("node-1", "node-2", "node-3"):
            kubectl.run("uncordon", node)


def test_debugging_copies_and_nodes(kubectl: Any, namespace: str, eventually: Any) -> None:
    n = ("-n", namespace)
    kubectl("run", "app", *n, IMAGE, *RUNNING)
    kubectl("wait", "pod/app", *n, "--for=condition=Ready", "--timeout=30s")
    kubectl("debug", "app", *n, IMAGE, "--copy-to=copy", "--share-processes", "-c", "look", "--", "sleep", "3600")
    kubectl("wait", "pod/copy", *n, "--for=condition=Ready", "--timeout=30s")
    assert "trap 'exit 0' TERM" in kubectl("exec", "copy", *n, "-c", "look", "--", "ps")
    kubectl("debug", "node/node-2", *n, IMAGE, "--", "sh", "-c", "ls /host")
    name = kubectl("get", "pods", *n, "-o", "name").split()
    debugger = next(each for each in name if "node-debugger" in each)
    kubectl("wait", debugger, *n, "--for=jsonpath={.status.phase}=Succeeded", "--timeout=30s")
    assert kubectl.json("get", debugger, *n)["spec"]["nodeName"] == "node-2"
    assert {"etc", "usr"} <= set(kubectl("logs", debugger, *n).split())


def test_certificate_is_issued(kubectl: Any, namespace: str, tmp_path: Any, eventually: Any) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "jane")])
    asked = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, hashes.SHA256())
    name = f"{namespace}-jane"
    spec = {
        "request": base64.b64encode(asked.public_bytes(serialization.Encoding.PEM)).decode(),
        "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["client auth"], "expirationSeconds": 3600,
    }  # fmt: skip
    kind = {"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest"}
    kubectl("create", "-f", "-", stdin=json.dumps({**kind, "metadata": {"name": name}, "spec": spec}))
    kubectl("certificate", "approve", name)
    found = eventually("a certificate", lambda: kubectl.json("get", "csr", name)["status"].get("certificate"))
    (tmp_path / "jane.crt").write_bytes(base64.b64decode(found))
    (tmp_path / "jane.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    kubectl("delete", "csr", name)
    config = json.loads(kubectl("config", "view", "--raw", "-o", "json"))
    config["users"] = [{"name": config["users"][0]["name"], "user": {
        "client-certificate": str(tmp_path / "jane.crt"), "client-key": str(tmp_path / "jane.key")}}]  # fmt: skip
    (tmp_path / "config").write_text(json.dumps(config))
    jane = ("--kubeconfig", str(tmp_path / "config"))
    assert "jane" in kubectl("auth", "whoami", *jane)
    assert 'User "jane" cannot list' in kubectl.run("get", "pods", *jane).stderr


def test_python_client_runs_commands(cluster: Any, namespace: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own deprecations
        from kubernetes import client, config, watch
        from kubernetes.stream import stream
    kubectl = cluster.kubectl()
    with config.new_client_from_config(cluster.kubeconfig) as api:
        core = client.CoreV1Api(api)
        kubectl("run", "box", "-n", namespace, IMAGE, "--", "sh", "-c", "echo started; sleep 3600")
        watcher, ready = watch.Watch(), False
        for event in watcher.stream(core.list_namespaced_pod, namespace, timeout_seconds=30):
            if any(c.type == "Ready" and c.status == "True" for c in event["object"].status.conditions or ()):
                ready = True
                watcher.stop()
        assert ready
        assert core.read_namespaced_pod_log("box", namespace) == "started\n"
        api.rest_client.pool_manager.clear()  # it leaves its connections open
    with config.new_client_from_config(cluster.kubeconfig) as api:  # `stream` changes its client for good
        run = client.CoreV1Api(api).connect_get_namespaced_pod_exec
        options = {"stdin": True, "stdout": True, "stderr": True, "tty": False, "_preload_content": False}
        shell = stream(run, "box", namespace, command=["sh"], **options)
        shell.write_stdin("echo out; echo err >&2; exit 4\n")
        shell.run_forever(timeout=20)
        assert (shell.read_stdout(), shell.read_stderr(), shell.returncode) == ("out\n", "err\n", 4)
        shell.sock.shutdown()  # `close` does nothing once the other side has closed
        api.rest_client.pool_manager.clear()
