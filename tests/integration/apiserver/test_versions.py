"""Older Kubernetes versions (`--kubernetes-version`), used by kubectls that are newer, and a store that lives longer
than the version it was written by."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MANIFEST = """
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: c, image: busybox, resources: {requests: {cpu: 100m}}}]}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  maxReplicas: 3
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}]
"""
# version -> (group/versions that it has, that it has not, a field of a pod that it does not know)
KNOWN: dict[str, tuple[set[str], set[str], str]] = {
    "1.29": ({"flowcontrol.apiserver.k8s.io/v1", "flowcontrol.apiserver.k8s.io/v1beta3"},
             {"resource.k8s.io/v1", "networking.k8s.io/v1beta1"}, "resources"),
    "1.32": ({"resource.k8s.io/v1beta1", "networking.k8s.io/v1beta1"},
             {"resource.k8s.io/v1", "flowcontrol.apiserver.k8s.io/v1beta3"}, "hostnameOverride"),
}  # fmt: skip


@pytest.mark.parametrize("version", KNOWN)
def test_an_older_version(version: str, fresh_server: Any, kubectls: list[Path], run: Callable[..., str]) -> None:
    server = fresh_server(kubernetes_version=version)
    there, gone, unknown = KNOWN[version]
    admin = server.connect()
    assert admin.ok("GET", "/version")["gitVersion"].startswith(f"v{version}.")
    with server.namespace("old") as ns:
        for binary in kubectls:
            versions = set(run(binary, server, "api-versions").split())
            assert there <= versions and not gone & versions
            assert f"Server Version: v{version}" in run(binary, server, "version")
            run(binary, server, "apply", "-n", ns, "-f", "-", stdin=MANIFEST)
            run(binary, server, "apply", "--server-side", "--force-conflicts", "-n", ns, "-f", "-", stdin=MANIFEST)
            assert "web" in run(binary, server, "get", "deploy,hpa,ev", "-n", ns)
            old = run(binary, server, "get", "horizontalpodautoscalers.v1.autoscaling", "web", "-n", ns, "-o", "json")
            assert json.loads(old)["spec"]["targetCPUUtilizationPercentage"] == 50
            assert "replicas" in run(binary, server, "explain", "deployment.spec")
            assert "Pod Template" in run(binary, server, "describe", "deploy", "web", "-n", ns)
            run(binary, server, "scale", "deploy", "web", "--replicas=2", "-n", ns)
            field = {"spec": {unknown: "x" if unknown != "resources" else {}}}
            told = run(
                binary, server, "patch", "deploy", "web", "-n", ns, "--type=merge", "-p",
                json.dumps({"spec": {"template": field}}),
            )  # fmt: skip
            assert f'unknown field "spec.template.spec.{unknown}"' in told
        pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}], unknown: "x"}}
        strict = admin("POST", f"/api/v1/namespaces/{ns}/pods?fieldValidation=Strict", pod)
        assert strict.status == 400 and unknown in strict.json["message"]


def test_a_store_outlives_the_version(fresh_server: Any) -> None:
    """What was written as a version that is gone comes back as one that is there."""
    server = fresh_server(kubernetes_version="1.29")
    admin = server.connect()
    policy = {
        "apiVersion": "admissionregistration.k8s.io/v1beta1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "p"},
        "spec": {"validations": [{"expression": "true"}],
                 "matchConstraints": {"resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"],
                                                         "operations": ["CREATE"], "resources": ["pods"]}]}},
    }  # fmt: skip
    before = admin.ok("POST", "/apis/admissionregistration.k8s.io/v1beta1/validatingadmissionpolicies", policy)
    server.stop()
    server.flag("kubernetes-version", "1.37")
    server.start()
    admin = server.connect()
    path = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies"
    after = admin.ok("GET", f"{path}/p")
    assert after["apiVersion"] == "admissionregistration.k8s.io/v1"
    assert (after["metadata"]["uid"], after["spec"]) == (before["metadata"]["uid"], before["spec"])
    [item] = admin.ok("GET", path)["items"]
    assert item["apiVersion"] == "admissionregistration.k8s.io/v1"
