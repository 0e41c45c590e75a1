"""What people do with kubectl, with every kubectl, against a real cluster: each command does what it says."""

import json
import re
import subprocess
import time

import pytest

pytestmark = [pytest.mark.e2e, pytest.mark.root]

SLEEPER = ["--image=busybox:1.35", "--restart=Never", "--", "sleep", "3600"]


def test_version_and_discovery(kubectl) -> None:  # type: ignore[no-untyped-def]
    assert "Server Version: v1.37" in kubectl("version")
    resources = kubectl("api-resources", "--no-headers")
    assert re.search(r"^deployments\s+deploy\s+apps/v1\s+true\s+Deployment$", resources, re.M)
    assert "apps/v1" in kubectl("api-versions").split()
    assert "replicas" in kubectl("explain", "deployment.spec")
    assert "restartPolicy" in kubectl("explain", "pod", "--recursive")


def test_nodes(kubectl) -> None:  # type: ignore[no-untyped-def]
    rows = [line.split() for line in kubectl("get", "nodes", "--no-headers").splitlines()]
    assert [(row[0], row[1]) for row in rows] == [(f"node-{i}", "Ready") for i in (1, 2, 3)]
    assert "wherry://" in kubectl("get", "nodes", "-o", "wide")
    described = kubectl("describe", "node", "node-2")
    assert "KubeletReady" in described
    assert "Allocatable:" in described


def test_run_logs_exec_describe_delete(kubectl, namespace: str) -> None:  # type: ignore[no-untyped-def]
    n = ("-n", namespace)
    kubectl("run", "talker", *n, "--image=busybox:1.35", "--restart=Never", "--",
            "sh", "-c", "i=0; while true; do echo line $i; i=$((i+1)); sleep 0.2; done")  # fmt: skip
    kubectl("wait", "pod/talker", *n, "--for=condition=Ready", "--timeout=20s")
    assert "Successfully assigned" in kubectl("describe", "pod", "talker", *n)
    with kubectl.popen("logs", "-f", "talker", *n, stdout=subprocess.PIPE) as follow:
        seen = [follow.stdout.readline().strip() for _ in range(5)]
        follow.kill()
    assert seen == [f"line {i}" for i in range(5)]
    assert kubectl("logs", "talker", *n, "--tail=1").startswith("line ")
    assert kubectl("exec", "talker", *n, "--", "hostname").strip() == "talker"
    assert kubectl("exec", "-i", "talker", *n, "--", "sh", "-c", "tr a-z A-Z", stdin="shout\n") == "SHOUT\n"
    failed = kubectl.run("exec", "talker", *n, "--", "sh", "-c", "echo oops >&2; exit 7")
    assert (failed.returncode, "oops" in failed.stderr) == (7, True)
    kubectl("delete", "pod", "talker", *n, "--grace-period=1", "--timeout=20s")
    gone = kubectl.run("get", "pod", "talker", *n)
    assert 'pods "talker" not found' in gone.stderr


def test_exec_with_a_terminal(kubectl, namespace: str) -> None:  # type: ignore[no-untyped-def]
    import os
    import pty

    n = ("-n", namespace)
    kubectl("run", "box", *n, *SLEEPER)
    kubectl("wait", "pod/box", *n, "--for=condition=Ready", "--timeout=20s")
    ours, theirs = pty.openpty()
    process = kubectl.popen("exec", "-it", "box", *n, "--", "sh", stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.write(ours, b"tty && echo sum=$((40+2)); exit 5\n")
    output = b""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            chunk = os.read(ours, 4096)
        except OSError:
            break
        if not chunk:
            break
        output += chunk
    os.close(ours)
    assert process.wait(20) == 5
    assert b"sum=42" in output
    assert b"/dev/" in output


def test_deployment_life(kubectl, namespace: str, eventually) -> None:  # type: ignore[no-untyped-def]
    n = ("-n", namespace)
    kubectl("create", "deployment", "web", *n, "--image=busybox:1.35", "--replicas=2", "--",
            "sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done")  # fmt: skip
    kubectl("rollout", "status", "deployment/web", *n, "--timeout=30s")
    kubectl("scale", "deployment/web", *n, "--replicas=4")
    eventually(
        "four replicas", lambda: kubectl.json("get", "deployment", "web", *n)["status"].get("readyReplicas") == 4
    )
    kubectl("set", "env", "deployment/web", *n, "COLOUR=green")
    kubectl("rollout", "status", "deployment/web", *n, "--timeout=60s")
    pods = kubectl.json("get", "pods", *n, "-l", "app=web", "--field-selector=status.phase=Running")["items"]
    live = [p for p in pods if "deletionTimestamp" not in p["metadata"]]
    assert all(p["spec"]["containers"][0]["env"] == [{"name": "COLOUR", "value": "green"}] for p in live)
    assert len(kubectl("rollout", "history", "deployment/web", *n).strip().splitlines()) == 4
    kubectl("rollout", "undo", "deployment/web", *n)
    kubectl("rollout", "status", "deployment/web", *n, "--timeout=60s")
    assert "env" not in kubectl.json("get", "deployment", "web", *n)["spec"]["template"]["spec"]["containers"][0]
    kubectl("delete", "deployment", "web", *n)
    eventually("garbage is collected", lambda: not kubectl.json("get", "pods,rs", *n, "-l", "app=web")["items"], 60)


def test_apply_label_annotate_patch(kubectl, namespace: str) -> None:  # type: ignore[no-untyped-def]
    n = ("-n", namespace)
    manifest = json.dumps(
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"a": "1"}}
    )
    assert "created" in kubectl("apply", *n, "-f", "-", stdin=manifest)
    assert "unchanged" in kubectl("apply", *n, "-f", "-", stdin=manifest)
    assert "configured" in kubectl("apply", *n, "-f", "-", stdin=manifest.replace('"a": "1"', '"b": "2"'))
    assert kubectl.json("get", "cm", "settings", *n)["data"] == {"b": "2"}
    kubectl("label", "cm", "settings", *n, "tier=gold")
    kubectl("annotate", "cm", "settings", *n, "note=hello")
    assert kubectl("get", "cm", *n, "-l", "tier=gold", "-o", "name").strip() == "configmap/settings"
    for kind, body in (
        ("merge", '{"data":{"c":"3"}}'),
        ("json", '[{"op":"add","path":"/data/d","value":"4"}]'),
        ("strategic", '{"data":{"b":null}}'),
    ):
        kubectl("patch", "cm", "settings", *n, "--type", kind, "-p", body)
    assert kubectl.json("get", "cm", "settings", *n)["data"] == {"c": "3", "d": "4"}
    typo = kubectl.run("create", *n, "-f", "-", stdin=manifest.replace('"data"', '"dada"').replace("settings", "x"))
    assert 'unknown field "dada"' in typo.stderr


def test_get_watch(kubectl, namespace: str) -> None:  # type: ignore[no-untyped-def]
    n = ("-n", namespace)
    with kubectl.popen("get", "cm", *n, "-w", "--no-headers", stdout=subprocess.PIPE) as watch:
        first = watch.stdout.readline()
        kubectl("create", "cm", "seen", *n, "--from-literal=a=b")
        second = watch.stdout.readline()
        watch.kill()
    assert "kube-root-ca.crt" in first
    assert second.split()[:2] == ["seen", "1"]
