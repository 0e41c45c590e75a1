"""Defaults: what Kubernetes fills in."""

from collections.abc import Callable
from typing import Any

import pytest

Object = dict[str, Any]
Fill = Callable[[Object], Object]


def make(api_version: str, kind: str, **parts: Any) -> Object:
    return {"apiVersion": api_version, "kind": kind, "metadata": {"name": "a"}, **parts}


def test_a_minimal_pod_is_complete(filled: Fill) -> None:
    pod = filled(make("v1", "Pod", spec={"containers": [{"name": "a", "image": "busybox"}]}))
    assert pod["spec"] == {
        "containers": [
            {
                "name": "a",
                "image": "busybox",
                "imagePullPolicy": "Always",
                "resources": {},
                "terminationMessagePath": "/dev/termination-log",
                "terminationMessagePolicy": "File",
            }
        ],
        "dnsPolicy": "ClusterFirst",
        "enableServiceLinks": True,
        "restartPolicy": "Always",
        "schedulerName": "default-scheduler",
        "securityContext": {},
        "terminationGracePeriodSeconds": 30,
    }


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("busybox", "Always"),
        ("busybox:latest", "Always"),
        ("busybox:1.36", "IfNotPresent"),
        ("registry:5000/busybox", "Always"),
        ("registry:5000/busybox:1", "IfNotPresent"),
        ("busybox@sha256:0123", "IfNotPresent"),
    ],
)
def test_pull_policy_goes_by_the_tag(filled: Fill, image: str, policy: str) -> None:
    pod = filled(make("v1", "Pod", spec={"containers": [{"name": "a", "image": image}]}))
    assert pod["spec"]["containers"][0]["imagePullPolicy"] == policy


def test_what_a_client_says_stays(filled: Fill) -> None:
    spec = {
        "containers": [{"name": "a", "image": "b", "imagePullPolicy": "Never", "terminationMessagePath": "/x"}],
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 0,
        "enableServiceLinks": False,
        "dnsPolicy": "Default",
    }
    pod = filled(make("v1", "Pod", spec=spec))
    assert pod["spec"]["terminationGracePeriodSeconds"] == 0 and pod["spec"]["enableServiceLinks"] is False
    assert (pod["spec"]["restartPolicy"], pod["spec"]["dnsPolicy"]) == ("Never", "Default")
    assert pod["spec"]["containers"][0]["imagePullPolicy"] == "Never"


def test_containers_in_detail(filled: Fill) -> None:
    container = {
        "name": "a",
        "image": "b",
        "ports": [{"containerPort": 80}],
        "env": [
            {"name": "P", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "C", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
        ],
        "livenessProbe": {"httpGet": {"port": 80}},
        "readinessProbe": {"grpc": {"port": 80}, "periodSeconds": 3},
        "lifecycle": {"preStop": {"httpGet": {"port": 80, "path": "/bye"}}},
        "resources": {"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "500m"}},
    }
    pod = filled(make("v1", "Pod", spec={"hostNetwork": True, "containers": [container]}))
    got = pod["spec"]["containers"][0]
    assert got["ports"] == [{"containerPort": 80, "hostPort": 80, "protocol": "TCP"}]
    assert got["env"][0]["valueFrom"]["fieldRef"]["apiVersion"] == "v1"
    assert got["env"][1]["valueFrom"]["resourceFieldRef"]["divisor"] == "0"
    timing = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}
    assert got["livenessProbe"] == {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, **timing}
    assert got["readinessProbe"] == {"grpc": {"port": 80, "service": ""}, **timing, "periodSeconds": 3}
    assert got["lifecycle"]["preStop"]["httpGet"] == {"port": 80, "path": "/bye", "scheme": "HTTP"}
    assert got["resources"]["requests"] == {"cpu": "500m", "memory": "1Gi"}


def test_volumes(filled: Fill) -> None:
    volumes = [
        {"name": "e"},
        {"name": "s", "secret": {"secretName": "s"}},
        {"name": "c", "configMap": {"name": "c", "defaultMode": 256}},
        {"name": "h", "hostPath": {"path": "/"}},
        {"name": "i", "image": {"reference": "a:1"}},
        {
            "name": "p",
            "projected": {
                "sources": [
                    {"serviceAccountToken": {"path": "token"}},
                    {"downwardAPI": {"items": [{"path": "n", "fieldRef": {"fieldPath": "metadata.namespace"}}]}},
                ]
            },
        },
    ]
    pod = filled(make("v1", "Pod", spec={"containers": [{"name": "a", "image": "b"}], "volumes": volumes}))
    empty, secret, config, host, image, projected = pod["spec"]["volumes"]
    assert empty == {"name": "e", "emptyDir": {}}
    assert secret["secret"]["defaultMode"] == 420 and config["configMap"]["defaultMode"] == 256
    assert host["hostPath"] == {"path": "/", "type": ""}
    assert image["image"]["pullPolicy"] == "IfNotPresent"
    assert projected["projected"]["defaultMode"] == 420
    token, downward = projected["projected"]["sources"]
    assert token["serviceAccountToken"]["expirationSeconds"] == 3600
    assert downward["downwardAPI"]["items"][0]["fieldRef"]["apiVersion"] == "v1"


TEMPLATE = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "a", "image": "b"}]}}


def workload(kind: str, **spec: Any) -> Object:
    import copy

    return make(
        "apps/v1", kind, spec={"selector": {"matchLabels": {"a": "b"}}, "template": copy.deepcopy(TEMPLATE), **spec}
    )


def test_deployment(filled: Fill) -> None:
    spec = filled(workload("Deployment"))["spec"]
    assert (spec["replicas"], spec["revisionHistoryLimit"], spec["progressDeadlineSeconds"]) == (1, 10, 600)
    rolling = {"maxUnavailable": "25%", "maxSurge": "25%"}
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": rolling}
    assert spec["template"]["spec"]["restartPolicy"] == "Always"
    assert "enableServiceLinks" not in spec["template"]["spec"], "only pods get it"
    assert filled(workload("Deployment", strategy={"type": "Recreate"}))["spec"]["strategy"] == {"type": "Recreate"}
    assert filled(workload("Deployment", replicas=0))["spec"]["replicas"] == 0


def test_the_other_workloads(filled: Fill) -> None:
    assert filled(workload("ReplicaSet"))["spec"]["replicas"] == 1
    daemons = filled(workload("DaemonSet"))["spec"]
    rolling = {"maxUnavailable": 1, "maxSurge": 0}
    assert daemons["updateStrategy"] == {"type": "RollingUpdate", "rollingUpdate": rolling}
    stateful = filled(workload("StatefulSet", serviceName="s", volumeClaimTemplates=[{"metadata": {"name": "d"}}]))[
        "spec"
    ]
    assert stateful["podManagementPolicy"] == "OrderedReady"
    assert stateful["updateStrategy"]["rollingUpdate"]["partition"] == 0
    assert stateful["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    claim = stateful["volumeClaimTemplates"][0]
    assert (claim["kind"], claim["status"], claim["spec"]["volumeMode"]) == (
        "PersistentVolumeClaim",
        {"phase": "Pending"},
        "Filesystem",
    )


def test_jobs(filled: Fill) -> None:
    template = {"spec": {"restartPolicy": "Never", "containers": [{"name": "a", "image": "b"}]}}
    job = filled(make("batch/v1", "Job", spec={"template": template}))["spec"]
    assert (job["completions"], job["parallelism"], job["backoffLimit"], job["suspend"]) == (1, 1, 6, False)
    assert (job["completionMode"], job["podReplacementPolicy"]) == ("NonIndexed", "TerminatingOrFailed")
    parallel = filled(make("batch/v1", "Job", spec={"parallelism": 3, "template": template}))["spec"]
    assert "completions" not in parallel
    cron = filled(
        make("batch/v1", "CronJob", spec={"schedule": "* * * * *", "jobTemplate": {"spec": {"template": template}}})
    )
    assert (cron["spec"]["concurrencyPolicy"], cron["spec"]["failedJobsHistoryLimit"]) == ("Allow", 1)
    assert "backoffLimit" not in cron["spec"]["jobTemplate"]["spec"]


def test_services(filled: Fill) -> None:
    spec = filled(make("v1", "Service", spec={"ports": [{"port": 80}]}))["spec"]
    assert spec["ports"] == [{"port": 80, "protocol": "TCP", "targetPort": 80}]
    assert (spec["type"], spec["sessionAffinity"], spec["internalTrafficPolicy"]) == ("ClusterIP", "None", "Cluster")
    assert "externalTrafficPolicy" not in spec
    node_port = filled(make("v1", "Service", spec={"type": "NodePort", "sessionAffinity": "ClientIP", "ports": []}))[
        "spec"
    ]
    assert node_port["externalTrafficPolicy"] == "Cluster"
    assert node_port["sessionAffinityConfig"] == {"clientIP": {"timeoutSeconds": 10800}}
    external = filled(make("v1", "Service", spec={"type": "ExternalName", "externalName": "a.b"}))["spec"]
    assert "internalTrafficPolicy" not in external


def test_secrets_and_namespaces(filled: Fill) -> None:
    secret = filled(make("v1", "Secret", data={"a": "YQ==", "b": "Yg=="}, stringData={"a": "ä"}))
    assert secret["type"] == "Opaque" and secret["data"] == {"a": "w6Q=", "b": "Yg=="} and "stringData" not in secret
    namespace = filled(make("v1", "Namespace"))
    assert namespace["metadata"]["labels"] == {"kubernetes.io/metadata.name": "a"}
    assert namespace["status"] == {"phase": "Active"}


def test_some_others(filled: Fill) -> None:
    storage = filled(make("storage.k8s.io/v1", "StorageClass", provisioner="p"))
    assert (storage["reclaimPolicy"], storage["volumeBindingMode"]) == ("Delete", "Immediate")
    policy = filled(
        make("networking.k8s.io/v1", "NetworkPolicy", spec={"podSelector": {}, "egress": [{"ports": [{"port": 1}]}]})
    )
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert policy["spec"]["egress"] == [{"ports": [{"port": 1, "protocol": "TCP"}]}]
    role = {"kind": "Role", "name": "r"}
    binding = filled(
        make("rbac.authorization.k8s.io/v1", "RoleBinding", roleRef=role, subjects=[{"kind": "User", "name": "u"}])
    )
    assert binding["roleRef"]["apiGroup"] == binding["subjects"][0]["apiGroup"] == "rbac.authorization.k8s.io"
    volume = filled(make("v1", "PersistentVolume", spec={"hostPath": {"path": "/x"}}))
    assert volume["spec"]["persistentVolumeReclaimPolicy"] == "Retain" and volume["spec"]["volumeMode"] == "Filesystem"
    endpoints = filled(make("discovery.k8s.io/v1", "EndpointSlice", addressType="IPv4", ports=[{"port": 80}]))
    assert endpoints["ports"] == [{"port": 80, "name": "", "protocol": "TCP"}]
    limits = filled(
        make("v1", "LimitRange", spec={"limits": [{"type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "1"}}]})
    )
    assert limits["spec"]["limits"][0]["default"] == limits["spec"]["limits"][0]["defaultRequest"] == {"cpu": "2"}


def test_defaults_are_stable(filled: Fill) -> None:
    import copy

    for kind in ("Deployment", "DaemonSet", "StatefulSet", "ReplicaSet"):
        once = filled(workload(kind))
        assert filled(copy.deepcopy(once)) == once


def test_a_job_wears_the_labels_of_its_pods(filled: Callable[[Object], Object]) -> None:
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "j"}, "spec": {"template": template}}
    assert filled(job)["metadata"]["labels"] == {"a": "b"}


def test_a_request_for_devices_is_for_one(filled: Callable[[Object], Object]) -> None:
    exactly = {"name": "r", "exactly": {"deviceClassName": "d", "tolerations": [{"key": "k", "value": "v"}]}}
    several = {"name": "s", "firstAvailable": [{"name": "x", "deviceClassName": "d", "allocationMode": "All"}]}
    claim = {"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim", "metadata": {"name": "c"},
             "spec": {"devices": {"requests": [exactly, several]}}}  # fmt: skip
    first, second = filled(claim)["spec"]["devices"]["requests"]
    assert (first["exactly"]["allocationMode"], first["exactly"]["count"]) == ("ExactCount", 1)
    assert first["exactly"]["tolerations"][0]["operator"] == "Equal"
    assert "count" not in second["firstAvailable"][0]
