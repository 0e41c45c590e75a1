"""Rules for kinds other than pods: one broken rule a row, and the whole cause as Kubernetes words it."""

import copy
from collections.abc import Callable
from typing import Any

import pytest

Object = dict[str, Any]
Faults = Callable[..., list[str]]
Row = tuple[Object, list[str]]
TEMPLATE: Object = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
CHOSEN: Object = {"matchLabels": {"a": "b"}}


def make(api_version: str, kind: str, namespace: str = "default", **parts: Any) -> Object:
    meta = {"name": "x", **({"namespace": namespace} if namespace else {}), **parts.pop("metadata", {})}
    return {"apiVersion": api_version, "kind": kind, "metadata": meta, **copy.deepcopy(parts)}


def job(**spec: Any) -> Object:
    labels = {"batch.kubernetes.io/job-name": "x", "job-name": "x", "controller-uid": "u",
              "batch.kubernetes.io/controller-uid": "u"}  # fmt: skip
    pod = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]} | spec.pop("pod", {})
    wanted = {"selector": {"matchLabels": {"controller-uid": "u"}},
              "template": {"metadata": {"labels": labels}, "spec": pod}, **spec}  # fmt: skip
    return make("batch/v1", "Job", metadata={"uid": "u"}, spec=wanted)


def cron(schedule: str, **spec: Any) -> Object:
    pod = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}
    wanted = {"schedule": schedule, "jobTemplate": {"spec": {"template": {"spec": pod}}}, **spec}
    return make("batch/v1", "CronJob", spec=wanted)


def stateful(**spec: Any) -> Object:
    return make("apps/v1", "StatefulSet", spec={"selector": CHOSEN, "template": TEMPLATE, "serviceName": "s", **spec})


def service(**spec: Any) -> Object:
    return make("v1", "Service", spec={"ports": [{"port": 80}], **spec})


def autoscaler(*metrics: Object, **spec: Any) -> Object:
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}
    wanted = {"maxReplicas": 3, "scaleTargetRef": target, "metrics": list(metrics), **spec}
    return make("autoscaling/v2", "HorizontalPodAutoscaler", spec=wanted)


def ingress(path: str = "/", kind: str = "Prefix", **spec: Any) -> Object:
    backend = {"service": {"name": "s", "port": {"number": 80}}}
    rule = {"http": {"paths": [{"path": path, "pathType": kind, "backend": backend}]}}
    return make("networking.k8s.io/v1", "Ingress", spec={"rules": [rule], **spec})


def policy(port: Object | None = None, peer: Object | None = None) -> Object:
    rule = {**({"ports": [port]} if port else {}), **({"from": [peer]} if peer else {})}
    return make("networking.k8s.io/v1", "NetworkPolicy", spec={"podSelector": {}, "ingress": [rule]})


def volume(**spec: Any) -> Object:
    wanted = {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, **spec}
    return make("v1", "PersistentVolume", "", spec=wanted)


def limits(**item: Any) -> Object:
    return make("v1", "LimitRange", spec={"limits": [{"type": "Container", **item}]})


def quota(**spec: Any) -> Object:
    return make("v1", "ResourceQuota", spec=spec)


WORKLOADS: list[Row] = [
    (stateful(volumeClaimTemplates=[{"metadata": {"name": "d"}, "spec": {"accessModes": ["ReadWriteOnce"]}}],
              template={"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [
                  {"name": "c", "image": "i", "volumeMounts": [{"name": "d", "mountPath": "/d"}]}]}}), []),
    (stateful(podManagementPolicy="x"), [
        "spec.podManagementPolicy: Invalid value: \"x\": must be 'OrderedReady' or 'Parallel'"]),
    (stateful(updateStrategy={"type": "OnDelete", "rollingUpdate": {"partition": 1}}), [
        "spec.updateStrategy.rollingUpdate: Invalid value: {\"partition\":1}: only allowed for updateStrategy "
        "'RollingUpdate'"]),
    (stateful(selector={}), ["spec.selector: Invalid value: {}: empty selector is invalid for statefulset"]),
    (make("apps/v1", "DaemonSet", spec={"selector": CHOSEN, "template": {
        **TEMPLATE, "spec": {**TEMPLATE["spec"], "activeDeadlineSeconds": 1}}}), [
        "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in DaemonSet is not Supported"]),
    (make("policy/v1", "PodDisruptionBudget", spec={"minAvailable": "101%"}), [
        'spec.minAvailable: Invalid value: "101%": must not be greater than 100%']),
    (job(), []),
    (job(pod={"restartPolicy": "Always"}), [
        'spec.template.spec.restartPolicy: Required value: valid values: "OnFailure", "Never"']),
    (job(backoffLimitPerIndex=1), ["spec.backoffLimitPerIndex: Invalid value: 1: requires indexed completion mode"]),
    (job(completionMode="Indexed", completions=2, maxFailedIndexes=3, backoffLimitPerIndex=1), [
        "spec.maxFailedIndexes: Invalid value: 3: must be less than or equal to completions"]),
    (job(podFailurePolicy={"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [0, 2, 1]}}]}), [
        "spec.podFailurePolicy.rules[0].onExitCodes.values[0]: Invalid value: 0: must not be 0 for the In operator",
        "spec.podFailurePolicy.rules[0].onExitCodes.values: Invalid value: [0,2,1]: must be ordered"]),
    (job(completionMode="Indexed", completions=3, successPolicy={"rules": [{"succeededIndexes": "1-3"}]}), [
        'spec.successPolicy.rules[0].succeededIndexes: Invalid value: "1-3": error parsing succeededIndexes: too large '
        'index: "3"']),
    (cron("*/5 0-4,8 1 jan mon-fri"), []),
    (cron("@every 90s", timeZone="Europe/Berlin"), []),
    (cron("61 * * * *"), [
        'spec.schedule: Invalid value: "61 * * * *": end of range (61) above maximum (59): 61']),
    (cron("* * * * *", timeZone="Mars/Base"), [
        'spec.timeZone: Invalid value: "Mars/Base": unknown time zone Mars/Base']),
    (autoscaler({"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization"}}}), [
        "spec.metrics[0].resource.target.averageUtilization: Required value: must set either a target raw value or a "
        "target utilization"]),
    (autoscaler({"type": "Pods", "resource": {"name": "cpu", "target": {"type": "Value", "averageValue": "1"}}}), [
        "spec.metrics[0].pods: Required value: must populate information for the given metric source"]),
    (autoscaler(minReplicas=0), ["spec.minReplicas: Invalid value: 0: must be greater than or equal to 1"]),
    (autoscaler(behavior={"scaleUp": {"policies": [{"type": "Pods", "value": 0, "periodSeconds": 1801}]}}), [
        "spec.behavior.scaleUp.policies[0].value: Invalid value: 0: must be greater than zero",
        "spec.behavior.scaleUp.policies[0].periodSeconds: Invalid value: 1801: must be less than or equal to 1800"]),
]  # fmt: skip
NETWORK: list[Row] = [
    (service(externalIPs=["127.0.0.1"], externalTrafficPolicy="Cluster"), [
        'spec.externalIPs[0]: Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)']),
    (service(type="X"), [
        'spec.type: Unsupported value: "X": supported values: "ClusterIP", "ExternalName", "LoadBalancer", '
        '"NodePort"']),
    (service(ports=[{"port": 80, "protocol": "ICMP"}]), [
        'spec.ports[0].protocol: Unsupported value: "ICMP": supported values: "SCTP", "TCP", "UDP"']),
    (service(type="ExternalName", externalName="", ipFamilies=["IPv4"]), [
        "spec.ipFamilies: Forbidden: may not be set for ExternalName services", "spec.externalName: Required value"]),
    (service(loadBalancerSourceRanges=["1.2.3.4"]), [
        "spec.LoadBalancerSourceRanges: Forbidden: may only be used when `type` is 'LoadBalancer'",
        'spec.LoadBalancerSourceRanges[0]: Invalid value: "1.2.3.4": must be a valid CIDR value, (e.g. 10.9.8.0/24 or '
        "2001:db8::/64)"]),
    (service(loadBalancerClass="a/b"), [
        "spec.loadBalancerClass: Forbidden: may only be used when `type` is 'LoadBalancer'"]),
    (service(clusterIP="10.0.0.1", clusterIPs=["10.0.0.2"]), [
        'spec.clusterIPs: Invalid value: ["10.0.0.2"]: first value must match `clusterIP`']),
    (service(trafficDistribution="x"), [
        'spec.trafficDistribution: Unsupported value: "x": supported values: "PreferClose", "PreferSameNode", '
        '"PreferSameZone"']),
    (ingress("/a//b"), [
        "spec.rules[0].http.paths[0].path: Invalid value: \"/a//b\": must not contain '//'"]),
    (ingress("a", "Exact"), ['spec.rules[0].http.paths[0].path: Invalid value: "a": must be an absolute path']),
    (ingress(tls=[{"hosts": ["*.example.com"], "secretName": "s"}]), []),
    (make("networking.k8s.io/v1", "IngressClass", "", spec={"controller": "c"}), [
        'spec.controller: Invalid value: "c": must be a domain-prefixed path (such as "acme.io/foo")']),
    (make("networking.k8s.io/v1", "IngressClass", "", spec={"controller": "a.io/c", "parameters": {
        "kind": "K", "name": "n", "scope": "Namespace"}}), [
        "spec.parameters.namespace: Required value: `parameters.scope` is set to 'Namespace'"]),
    (policy({"port": "http", "endPort": 90}), [
        "spec.ingress[0].ports[0].endPort: Invalid value: 90: may not be specified when `port` is non-numeric"]),
    (policy(None, {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.0.0.0/8"]}}), [
        'spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: "10.0.0.0/8": must be a strict subset of `cidr`']),
    (make("discovery.k8s.io/v1", "EndpointSlice", addressType="IPv4", endpoints=[{"addresses": []}]), [
        "endpoints[0].addresses: Required value: must contain at least 1 address"]),
    (make("networking.k8s.io/v1", "IPAddress", "", metadata={"name": "10.0.0.01"}, spec={
        "parentRef": {"resource": "services", "name": "s"}}), [
        'metadata.name: Invalid value: "10.0.0.01": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)']),
]  # fmt: skip
STORAGE: list[Row] = [
    (volume(hostPath={"path": "/x"}), []),
    (volume(), ["spec: Required value: must specify a volume type"]),
    (volume(local={"path": "/x"}), ["spec.nodeAffinity: Required value: Local volume requires node affinity"]),
    (volume(hostPath={"path": "/"}, persistentVolumeReclaimPolicy="Recycle"), [
        "spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'"]),
    (volume(hostPath={"path": "/x"}, capacity={"storage": "0"}), [
        'spec.capacity[storage]: Invalid value: "0": must be greater than zero']),
    (make("v1", "PersistentVolumeClaim", spec={"accessModes": ["X"], "resources": {"requests": {"storage": "1"}}}), [
        'spec.accessModes: Unsupported value: "X": supported values: "ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", '
        '"ReadWriteOncePod"']),
    (make("v1", "PersistentVolumeClaim", spec={
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1"}},
        "dataSource": {"kind": "Pod", "name": "p"}}), [
        "spec.dataSource: Invalid value: \"Pod\": must be 'PersistentVolumeClaim' when referencing the default "
        "apiGroup"]),
    (make("storage.k8s.io/v1", "VolumeAttachment", "", spec={"attacher": "a", "nodeName": "n", "source": {}}), [
        "spec.source: Required value: must specify exactly one of inlineVolumeSpec and persistentVolumeName"]),
    (make("storage.k8s.io/v1", "CSIDriver", "", spec={"volumeLifecycleModes": ["x"]}), [
        'spec.volumeLifecycleModes: Unsupported value: "x": supported values: "Ephemeral", "Persistent"']),
    (make("storage.k8s.io/v1", "CSINode", "", spec={"drivers": [
        {"name": "d", "nodeID": "n", "topologyKeys": ["a", "a"]}]}), [
        'spec.drivers[0].topologyKeys: Duplicate value: "a"']),
    (make("storage.k8s.io/v1", "StorageClass", "", provisioner="a_b/", parameters={"": "x"}), [
        'provisioner: Invalid value: "a_b/": prefix part a lowercase RFC 1123 subdomain must consist of lower case '
        "alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. "
        "'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*"
        "[a-z0-9])?)*')",
        'provisioner: Invalid value: "a_b/": name part must be non-empty',
        'provisioner: Invalid value: "a_b/": name part must consist of alphanumeric characters, \'-\', \'_\' or \'.\', '
        "and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex "
        "used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
        'parameters: Invalid value: "": field can not be empty.']),
]  # fmt: skip
CONFIG: list[Row] = [
    (limits(max={"cpu": "1"}, min={"cpu": "2"}), [
        'spec.limits[0].min[cpu]: Invalid value: "2": min value 2 is greater than max value 1',
        'spec.limits[0].defaultRequest[cpu]: Invalid value: "1": min value 2 is greater than default request value 1',
        'spec.limits[0].default[cpu]: Invalid value: "2": min value 2 is greater than default value 1']),
    (limits(type="Pod", default={"cpu": "1"}), [
        "spec.limits[0].default: Forbidden: may not be specified when `type` is 'Pod'"]),
    (limits(type="PersistentVolumeClaim"), [
        "spec.limits[0].limits: Required value: either minimum or maximum storage value is required, but neither was "
        "provided"]),
    (quota(hard={"pods": "1", "requests.cpu": "1", "count/jobs.batch": "2", "requests.hugepages-2Mi": "4Mi"}), []),
    (quota(hard={"frobs": "1"}), [
        'spec.hard[frobs]: Invalid value: "frobs": must be a standard resource type or fully qualified',
        'spec.hard[frobs]: Invalid value: "frobs": must be a standard resource for quota']),
    (quota(hard={"services": "1"}, scopes=["BestEffort"]), [
        'spec.scopes: Invalid value: ["BestEffort"]: unsupported scope applied to resource']),
    (quota(scopeSelector={"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In"}]}), [
        "spec.scopeSelector.matchExpressions.values: Required value: must be at least one value when `operator` is "
        "'In' or 'NotIn' for scope selector"]),
    (make("v1", "Node", "", spec={"taints": [{"key": "k", "effect": "x"}]}), [
        'metadata.taints[0].effect: Unsupported value: "x": supported values: "NoSchedule", "PreferNoSchedule", '
        '"NoExecute"']),
    (make("node.k8s.io/v1", "RuntimeClass", "", handler="x", overhead={"podFixed": {"frobs": "1"}}), [
        'overhead.limits[frobs]: Invalid value: "frobs": must be a standard resource type or fully qualified',
        'overhead.limits[frobs]: Invalid value: "frobs": must be a standard resource for containers']),
    (make("v1", "Secret", type="kubernetes.io/dockerconfigjson", stringData={".dockerconfigjson": "[]"}), [
        'data[.dockerconfigjson]: Invalid value: "<secret contents redacted>": json: cannot unmarshal into Go value of '
        "type map"]),
    (make("flowcontrol.apiserver.k8s.io/v1", "PriorityLevelConfiguration", "", spec={"type": "x"}), [
        'spec.type: Unsupported value: "x": supported values: "Exempt", "Limited"']),
]  # fmt: skip


@pytest.mark.parametrize(("obj", "expected"), [*WORKLOADS, *NETWORK, *STORAGE, *CONFIG])
def test_kind(faults: Faults, obj: Object, expected: list[str]) -> None:
    assert faults(obj) == expected


def test_a_service_keeps_its_address(faults: Faults) -> None:
    old = service(clusterIP="10.0.0.1", clusterIPs=["10.0.0.1"], ipFamilies=["IPv4"])
    new = service(clusterIP="10.0.0.2", clusterIPs=["10.0.0.2"], ipFamilies=["IPv4"])
    assert faults(new, old) == ['spec.clusterIPs[0]: Invalid value: ["10.0.0.2"]: may not change once set']


def test_a_volume_keeps_its_source(faults: Faults) -> None:
    old, new = volume(hostPath={"path": "/x"}), volume(hostPath={"path": "/y"})
    assert faults(new, old) == [
        "spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation"
    ]


def test_where_a_suspended_jobs_pods_go_may_change(faults: Faults) -> None:
    old = job(suspend=True)
    assert faults(job(suspend=True, pod={"restartPolicy": "Never", "nodeSelector": {"a": "b"}}), old) == []
    changed = faults(job(suspend=True, pod={"restartPolicy": "OnFailure"}), job(suspend=True))
    assert len(changed) == 1 and changed[0].endswith("field is immutable")


def test_a_claim_grows_when_it_is_bound(faults: Faults) -> None:
    def claim(size: str, phase: str) -> Object:
        spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}, "volumeName": "v"}
        return make("v1", "PersistentVolumeClaim", spec=spec, status={"phase": phase, "capacity": {"storage": "1Gi"}})

    assert faults(claim("2Gi", "Bound"), claim("1Gi", "Bound")) == []
    assert faults(claim("2Gi", "Pending"), claim("1Gi", "Pending")) == [
        "spec: Forbidden: spec is immutable after creation except resources.requests and volumeAttributesClassName for "
        "bound claims"
    ]
    assert faults(claim("1Gi", "Bound"), claim("2Gi", "Bound")) == [
        "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"
    ]


def test_subjects_of_bindings_have_names(faults: Faults) -> None:
    binding = make("rbac.authorization.k8s.io/v1", "RoleBinding", roleRef={"kind": "Role", "name": "r"},
                   subjects=[{"kind": "User", "name": ""}])  # fmt: skip
    assert faults(binding) == [
        "subjects[0].name: Required value",
        'subjects[0].name: Invalid value: "": user name cannot be empty',
    ]
