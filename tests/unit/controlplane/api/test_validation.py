"""Rules for values: what is refused, and in which words."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

Object = dict[str, Any]
Faults = Callable[..., list[str]]


def make(api_version: str, kind: str, **parts: Any) -> Object:
    meta = {"name": "a", "namespace": "default"} | parts.pop("metadata", {})
    return {"apiVersion": api_version, "kind": kind, "metadata": meta, **copy.deepcopy(parts)}


def pod(metadata: Object | None = None, container: Object | None = None, **spec: Any) -> Object:
    containers = [{"name": "a", "image": "b", **(container or {})}]
    return make("v1", "Pod", metadata=metadata or {}, spec={"containers": containers, **spec})


def deployment(labels: Object | None = None, **spec: Any) -> Object:
    template = {
        "metadata": {"labels": labels or {"app": "x"}},
        "spec": {"containers": [{"name": "a", "image": "b"}], **spec.pop("pod", {})},
    }
    return make("apps/v1", "Deployment", spec={"selector": {"matchLabels": {"app": "x"}}, "template": template, **spec})


def test_a_good_pod_has_no_faults(faults: Faults) -> None:
    assert faults(pod()) == []
    assert faults(deployment()) == []


@pytest.mark.parametrize(
    ("obj", "start"),
    [
        (pod({"name": ""}), "metadata.name: Required value: name or generateName is required"),
        (pod({"name": "A"}), 'metadata.name: Invalid value: "A": a lowercase RFC 1123 subdomain must consist of'),
        (pod({"namespace": ""}), "metadata.namespace: Required value"),
        (pod({"labels": {"-a": "b"}}), 'metadata.labels: Invalid value: "-a": name part must consist of'),
        (pod({"labels": {"a": "b c"}}), 'metadata.labels: Invalid value: "b c": a valid label must be an empty string'),
        (
            pod({"annotations": {"a": "x" * 262144}}),
            "metadata.annotations: Too long: may not be more than 262144 bytes",
        ),
        (pod({"finalizers": ["x"]}), 'metadata.finalizers: Invalid value: "x": name is neither a standard finalizer'),
        (
            pod({"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "", "uid": "u"}]}),
            'metadata.ownerReferences[0].name: Invalid value: "": must not be empty',
        ),
        (make("v1", "Pod", spec={"containers": []}), "spec.containers: Required value"),
        (pod(container={"name": ""}), "spec.containers[0].name: Required value"),
        (pod(container={"name": "A"}), 'spec.containers[0].name: Invalid value: "A": a lowercase RFC 1123 label'),
        (pod(container={"image": ""}), "spec.containers[0].image: Required value"),
        (pod(initContainers=[{"name": "a", "image": "b"}]), 'spec.initContainers[0].name: Duplicate value: "a"'),
        (
            pod(container={"imagePullPolicy": "Sometimes"}),
            'spec.containers[0].imagePullPolicy: Unsupported value: "Sometimes": '
            'supported values: "Always", "IfNotPresent", "Never"',
        ),
        (
            pod(container={"ports": [{"containerPort": 70000}]}),
            "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
        ),
        (
            pod(container={"ports": [{"containerPort": 1, "name": "x"}, {"containerPort": 2, "name": "x"}]}),
            'spec.containers[0].ports[1].name: Duplicate value: "x"',
        ),
        (
            pod(container={"volumeMounts": [{"name": "x", "mountPath": "/x"}]}),
            'spec.containers[0].volumeMounts[0].name: Not found: "x"',
        ),
        (pod(container={"env": [{"name": "A=B"}]}), 'spec.containers[0].env[0].name: Invalid value: "A=B": a valid'),
        (
            pod(container={"env": [{"name": "A", "valueFrom": {}}]}),
            'spec.containers[0].env[0].valueFrom: Invalid value: "": must specify one of: `fieldRef`',
        ),
        (
            pod(container={"resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}}),
            'spec.containers[0].resources.requests: Invalid value: "2": must be less than or equal to cpu limit of 1',
        ),
        (
            pod(container={"resources": {"limits": {"cpu": "-1"}}}),
            'spec.containers[0].resources.limits[cpu]: Invalid value: "-1": must be greater than or equal to 0',
        ),
        (
            pod(container={"resources": {"limits": {"frobs": "1"}}}),
            'spec.containers[0].resources.limits[frobs]: Invalid value: "frobs": must be a standard resource type',
        ),
        (
            pod(container={"livenessProbe": {}}),
            "spec.containers[0].livenessProbe: Required value: must specify a handler",
        ),
        (
            pod(container={"livenessProbe": {"tcpSocket": {"port": 80}, "successThreshold": 2}}),
            "spec.containers[0].livenessProbe.successThreshold: Invalid value: 2: must be 1",
        ),
        (
            pod(container={"securityContext": {"privileged": True, "allowPrivilegeEscalation": False}}),
            'spec.containers[0].securityContext: Invalid value: {"privileged":true,"allowPrivilegeEscalation":false}',
        ),
        (pod(restartPolicy="Sometimes"), 'spec.restartPolicy: Unsupported value: "Sometimes": supported values:'),
        (pod(dnsPolicy="None"), "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None"),
        (pod(nodeSelector={"a b": "c"}), 'spec.nodeSelector: Invalid value: "a b": name part must consist'),
        (
            pod(tolerations=[{"operator": "Equal"}]),
            'spec.tolerations[0].operator: Invalid value: "Equal": operator must be Exists when `key` is empty',
        ),
        (
            pod(affinity={"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": ""}]}}),
            "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0].topologyKey: Required value: "
            "can not be empty",
        ),
        (pod(volumes=[{"name": "a"}, {"name": "a"}]), 'spec.volumes[1].name: Duplicate value: "a"'),
        (
            pod(volumes=[{"name": "a", "emptyDir": {}, "hostPath": {"path": "/"}}]),
            "spec.volumes[0].hostPath: Forbidden: may not specify more than 1 volume type",
        ),
        (pod(volumes=[{"name": "a", "secret": {}}]), "spec.volumes[0].secret.secretName: Required value"),
        (
            pod(initContainers=[{"name": "i", "image": "b", "lifecycle": {"preStop": {"sleep": {"seconds": 1}}}}]),
            "spec.initContainers[0].lifecycle: Forbidden: may not be set for init containers without restartPolicy",
        ),
        (
            deployment({"app": "y"}),
            'spec.template.metadata.labels: Invalid value: {"app":"y"}: `selector` does not match',
        ),
        (deployment(selector={}), "spec.selector: Invalid value: {}: empty selector is invalid for deployment"),
        (deployment(replicas=-1), "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
        (
            deployment(strategy={"rollingUpdate": {"maxSurge": 0, "maxUnavailable": "0%"}}),
            'spec.strategy.rollingUpdate.maxUnavailable: Invalid value: "0%": may not be 0 when `maxSurge` is 0',
        ),
        (
            deployment(strategy={"type": "Recreate", "rollingUpdate": {}}),
            "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
        ),
        (
            deployment(pod={"restartPolicy": "Never"}),
            'spec.template.spec.restartPolicy: Unsupported value: "Never": supported values: "Always"',
        ),
        (
            make("batch/v1", "CronJob", spec={"schedule": "* *", "jobTemplate": {}}),
            'spec.schedule: Invalid value: "* *": expected exactly 5 fields, found 2: [* *]',
        ),
        (make("v1", "Service", spec={}), "spec.ports: Required value"),
        (make("v1", "Service", spec={"ports": [{"port": 1}, {"port": 2}]}), "spec.ports[0].name: Required value"),
        (
            make("v1", "Service", spec={"ports": [{"port": 1, "nodePort": 30000}]}),
            "spec.ports[0].nodePort: Forbidden: may not be used when `type` is 'ClusterIP'",
        ),
        (make("v1", "Service", spec={"type": "X", "ports": [{"port": 1}]}), 'spec.type: Unsupported value: "X"'),
        (make("v1", "ConfigMap", data={"a/b": ""}), 'data[a/b]: Invalid value: "a/b": a valid config key must consist'),
        (make("v1", "ConfigMap", data={"a": "x" * 1048577}), "[]: Too long: may not be more than 1048576 bytes"),
        (make("v1", "Secret", type="kubernetes.io/tls"), "data[tls.crt]: Required value"),
        (
            make(
                "rbac.authorization.k8s.io/v1", "Role", rules=[{"apiGroups": [""], "resources": ["pods"], "verbs": []}]
            ),
            "rules[0].verbs: Required value: verbs must contain at least one value",
        ),
        (
            make(
                "rbac.authorization.k8s.io/v1",
                "RoleBinding",
                roleRef={"kind": "Role", "name": "r"},
                subjects=[{"kind": "ServiceAccount", "name": "s"}],
            ),
            "subjects[0].namespace: Required value",
        ),
        (make("v1", "PersistentVolumeClaim", spec={}), "spec.accessModes: Required value: at least 1 access mode"),
        (
            make("policy/v1", "PodDisruptionBudget", spec={"minAvailable": 1, "maxUnavailable": 1}),
            'spec: Invalid value: {"minAvailable":1,"maxUnavailable":1}: minAvailable and maxUnavailable cannot',
        ),
        (
            make("coordination.k8s.io/v1", "Lease", spec={"leaseDurationSeconds": 0}),
            "spec.leaseDurationSeconds: Invalid value: 0",
        ),
        (
            make("networking.k8s.io/v1", "Ingress", spec={"rules": [{"http": {"paths": [{"path": "/"}]}}]}),
            "spec.rules[0].http.paths[0].pathType: Required value: pathType must be specified",
        ),
        (
            make("discovery.k8s.io/v1", "EndpointSlice", addressType="IPv4", endpoints=[{"addresses": ["::1"]}]),
            'endpoints[0].addresses[0]: Invalid value: "::1"',
        ),
        (
            make("autoscaling/v2", "HorizontalPodAutoscaler", spec={"maxReplicas": 0, "scaleTargetRef": {}}),
            "spec.maxReplicas: Invalid value: 0: must be greater than 0",
        ),
    ],
)
def test_refused(faults: Faults, obj: Object, start: str) -> None:
    found = faults(obj)
    assert any(text.startswith(start) for text in found), found


def cluster_scoped(api_version: str, kind: str, **parts: Any) -> Object:
    obj = make(api_version, kind, **parts)
    del obj["metadata"]["namespace"]
    return obj


def test_cluster_scoped_objects_have_no_namespace(faults: Faults) -> None:
    assert faults(make("v1", "Namespace")) == ["metadata.namespace: Forbidden: not allowed on this type"]
    assert faults(cluster_scoped("v1", "Namespace")) == []
    assert faults(cluster_scoped("scheduling.k8s.io/v1", "PriorityClass", value=2_000_000_000)) != []


def test_kinds_without_rules_need_what_their_schema_requires(faults: Faults) -> None:
    taint = cluster_scoped("resource.k8s.io/v1beta2", "DeviceTaintRule", spec={"taint": {"effect": "NoSchedule"}})
    assert faults(taint) == ["spec.taint.key: Required value"]


# --- updates


def stored(obj: Object) -> Object:
    obj["metadata"] |= {"uid": "u", "resourceVersion": "1", "creationTimestamp": "2026-01-01T00:00:00Z"}
    return obj


def test_metadata_that_does_not_change(faults: Faults) -> None:
    old = stored(pod())
    assert faults(pod(), old) == [], "what the server fills in may be left out"
    assert faults(pod({"uid": "v"}), old) == ['metadata.uid: Invalid value: "v": field is immutable']
    old["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    new = pod({"finalizers": ["a/b"], "deletionTimestamp": "2026-01-01T00:00:00Z"})
    assert faults(new, old) == [
        "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, "
        'found new finalizers ["a/b"]'
    ]


def test_what_a_pod_may_change(faults: Faults) -> None:
    old = pod(nodeSelector={"a": "b"}, activeDeadlineSeconds=10)
    base: Object = {"nodeSelector": {"a": "b"}, "activeDeadlineSeconds": 10}
    assert faults(pod(container={"image": "c", "imagePullPolicy": "Always"}, **base), copy.deepcopy(old)) == []
    assert faults(pod(**base | {"activeDeadlineSeconds": 5}), copy.deepcopy(old)) == []
    assert faults(pod(**base, tolerations=[{"key": "k", "operator": "Exists"}]), copy.deepcopy(old)) == []
    for change in (
        pod(**base | {"nodeSelector": {"a": "c"}}),
        pod(container={"args": ["x"]}, **base),
        pod(**base, nodeName="n"),
        pod(**base, terminationGracePeriodSeconds=1),
    ):
        assert [text.partition(" other")[0] for text in faults(change, copy.deepcopy(old))] == [
            "spec: Forbidden: pod updates may not change fields"
        ]
    longer = pod(**base | {"activeDeadlineSeconds": 20})
    assert "must be less than or equal to previous value" in faults(longer, copy.deepcopy(old))[0]


def test_selectors_and_other_fixed_fields(faults: Faults) -> None:
    new = deployment({"app": "y"}, selector={"matchLabels": {"app": "y"}})
    assert faults(new, deployment()) == [
        'spec.selector: Invalid value: {"matchLabels":{"app":"y"}}: field is immutable'
    ]
    assert faults(deployment(replicas=3), deployment()) == []
    data = make("v1", "ConfigMap", data={"a": "1"}, immutable=True)
    assert len(faults(make("v1", "ConfigMap", data={"a": "2"}), data)) == 2
    assert faults(make("v1", "Secret", type="x"), make("v1", "Secret")) == [
        'type: Invalid value: "x": field is immutable'
    ]
    claim: Object = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    old = make("v1", "PersistentVolumeClaim", spec=claim)
    bound = make("v1", "PersistentVolumeClaim", spec=claim | {"volumeName": "v"})
    assert faults(copy.deepcopy(bound), old) == []
    assert faults(make("v1", "PersistentVolumeClaim", spec=claim | {"volumeName": "w"}), bound) != []


def test_old_objects_are_not_locked_by_rules(faults: Faults) -> None:
    bad = make("v1", "ConfigMap", data={"a/b": "1"})
    relabelled = make("v1", "ConfigMap", data={"a/b": "1"}, metadata={"labels": {"x": "y"}})
    assert faults(relabelled, bad) == []
    relabelled["data"]["c"] = ""
    assert faults(relabelled, bad) != []


def test_a_stateful_sets_claims_are_volumes_of_its_pods(faults: Faults) -> None:
    claim_spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}
    claim = {"metadata": {"name": "data"}, "spec": claim_spec}
    mount = [{"name": "a", "image": "b", "volumeMounts": [{"name": "data", "mountPath": "/data"}]}]
    spec = deployment(pod={"containers": mount})["spec"] | {"serviceName": "s"}
    with_claim = make("apps/v1", "StatefulSet", spec=spec | {"volumeClaimTemplates": [claim]})
    assert faults(with_claim) == []
    with_claim["spec"]["template"]["spec"]["volumes"] = [{"name": "data", "emptyDir": {}}]  # the claim takes its place
    assert faults(with_claim) == []
    without = make("apps/v1", "StatefulSet", spec=spec)
    assert faults(without) == [], "as in Kubernetes, the spec is judged when pods are made of it"
