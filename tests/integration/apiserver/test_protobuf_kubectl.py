"""Go clients read our protobuf: kubectl's typed clients (describe, events, rollout history) prefer it to JSON."""

import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Kubectl = Callable[..., str]

OBJECTS = """
apiVersion: v1
kind: Pod
metadata: {name: p, annotations: {note: "a\\nb"}, finalizers: [example.com/hold]}
spec:
  terminationGracePeriodSeconds: 7
  initContainers: [{name: i, image: busybox, command: [sh, -c, "true"]}]
  containers:
  - name: c
    image: busybox:1
    args: ["--flag"]
    env:
    - {name: PLAIN, value: x}
    - {name: FROM, valueFrom: {secretKeyRef: {name: s, key: k, optional: true}}}
    - {name: FIELD, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
    ports: [{name: http, containerPort: 80}]
    resources: {limits: {cpu: 1500m, memory: 1Gi}, requests: {cpu: 250m}}
    livenessProbe: {httpGet: {path: /live, port: http}, periodSeconds: 11}
    readinessProbe: {tcpSocket: {port: 80}, initialDelaySeconds: 3}
    volumeMounts: [{name: e, mountPath: /e}, {name: w, mountPath: /w, readOnly: true}]
  volumes:
  - {name: e, emptyDir: {sizeLimit: 5Mi}}
  - {name: w, projected: {sources: [{configMap: {name: cm, items: [{key: a, path: b}]}}]}}
  tolerations: [{key: k, operator: Exists, effect: NoExecute, tolerationSeconds: 60}]
  nodeSelector: {disk: ssd}
---
apiVersion: v1
kind: Service
metadata: {name: s}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: web}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: i}
spec:
  rules:
  - host: a.example
    http: {paths: [{path: /x, pathType: Prefix, backend: {service: {name: s, port: {number: 80}}}}]}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {name: b}
spec: {minAvailable: 50%, selector: {matchLabels: {app: web}}}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: h}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: d}
  minReplicas: 2
  maxReplicas: 5
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 55}}}]
---
apiVersion: v1
kind: Secret
metadata: {name: s}
stringData: {k: hello}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: vol}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 3Gi}}}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly}
spec:
  schedule: "*/5 * * * *"
  jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: c, image: busybox}]}}}}
---
apiVersion: v1
kind: ResourceQuota
metadata: {name: q}
spec: {hard: {requests.cpu: "4", pods: "10"}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: r}
rules: [{apiGroups: [apps], resources: [deployments], verbs: [get, list]}]
"""
SHOWN = {
    "pod/p": [
        "memory:  1Gi", "cpu:     1500m", "http-get http://:http/live delay=0s",
        "period=11s", "tcp-socket :80 delay=3s", "<set to the key 'k' in secret 's'>  Optional: true",
        "(v1:metadata.name)", "SizeLimit:  5Mi", "/w from w (ro)", "k:NoExecute op=Exists for 60s", "disk=ssd",
    ],
    "service/s": ["TargetPort:", "web/TCP", "Selector:", "app=web"],
    "ingress/i": ["a.example", "/x"],
    "pdb/b": ["Min available:", "50%"],
    "hpa/h": ["<unknown> / 55%", "Min replicas:", "Deployment/d"],
    "secret/s": ["k:  5 bytes"],
    "pvc/vol": ["Access Modes:", "VolumeMode:    Filesystem"],
    "cronjob/nightly": ["*/5 * * * *", "Starting Deadline Seconds:", "busybox"],
    "quota/q": ["Resource", "Hard"],
    "role/r": ["deployments.apps", "[get list]"],
}  # fmt: skip


def test_describe_shows_every_kind_of_value(kubectl: Kubectl, ns: str) -> None:
    kubectl("apply", "-n", ns, "-f", "-", stdin=OBJECTS)
    for what, texts in SHOWN.items():
        told = kubectl("describe", what, "-n", ns)
        missing = [text for text in texts if " ".join(text.split()) not in " ".join(told.split())]
        assert not missing, (what, told)
    spoken = kubectl("describe", "pod/p", "-n", ns, "-v=8")
    assert "Content-Type: application/vnd.kubernetes.protobuf" in spoken


def test_rollout_history_of_stored_revisions(kubectl: Kubectl, ns: str) -> None:
    meta = {"name": "ds-1", "labels": {"app": "d"}}
    kubectl("create", "deployment", "d", "--image=busybox:1", "-n", ns)
    assert "deployment.apps/d" in kubectl("rollout", "history", "deploy/d", "-n", ns)
    assert "busybox:1" in kubectl("describe", "deploy", meta["labels"]["app"], "-n", ns)


@pytest.mark.parametrize("count", [3])
def test_events_are_watched(server: Any, binary: Path, kubectl: Kubectl, ns: str, count: int) -> None:
    environment = {**os.environ, "KUBECONFIG": str(server.kubeconfig)}
    watcher = subprocess.Popen(
        [str(binary), "events", "--watch", "-n", ns], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip
    assert watcher.stdout
    guard = threading.Timer(30, watcher.kill)
    guard.start()
    try:
        admin, path = server.connect(), f"/api/v1/namespaces/{ns}/events"
        about = {"kind": "Pod", "namespace": ns, "name": "p"}
        seen: list[str] = []
        for i in range(count):
            event = {"metadata": {"name": f"e{i}"}, "involvedObject": about, "reason": f"Reason{i}", "type": "Normal",
                     "message": f"message {i}", "lastTimestamp": "2026-01-31T12:00:00Z"}  # fmt: skip
            admin.ok("POST", path, event)
        while not any(f"message {count - 1}" in line for line in seen):
            line = watcher.stdout.readline()
            assert line, seen
            seen.append(line)
        assert all(any(f"Reason{i}" in line for line in seen) for i in range(count))
    finally:
        guard.cancel()
        watcher.kill()
        watcher.wait()
        watcher.stdout.close()
