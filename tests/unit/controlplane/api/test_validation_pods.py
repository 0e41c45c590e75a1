"""Rules for pods in detail: one broken rule a row, and the whole cause as Kubernetes words it."""

from collections.abc import Callable
from typing import Any

import pytest

Object = dict[str, Any]
Faults = Callable[..., list[str]]
C = "spec.containers[0]"


def pod(container: Object | None = None, metadata: Object | None = None, **spec: Any) -> Object:
    return {
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default", **(metadata or {})},
        "spec": {"containers": [{"name": "a", "image": "b", **(container or {})}], **spec},
    }  # fmt: skip


def env(**source: Any) -> Object:
    return pod({"env": [{"name": "A", "valueFrom": source}]})


def volume(**source: Any) -> Object:
    return pod(volumes=[{"name": "v", **source}])


def mounted(mount: Object | None = None, security: Object | None = None, **source: Any) -> Object:
    return pod({"volumeMounts": [{"name": "v", "mountPath": "/v", **(mount or {})}],
                **({"securityContext": security} if security else {})},
               volumes=[{"name": "v", **(source or {"emptyDir": {}})}])  # fmt: skip


DNS = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    "and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
ROWS: list[tuple[Object, list[str]]] = [
    (env(fieldRef={"fieldPath": "spec.nodeName"}), []),
    (env(fieldRef={"fieldPath": "metadata.labels['app']"}), []),
    (env(fieldRef={"fieldPath": "nonsense"}), [
        f'{C}.env[0].valueFrom.fieldRef.fieldPath: Invalid value: "nonsense": error converting fieldPath: field label '
        "not supported: nonsense"]),
    (env(fieldRef={"fieldPath": "status.phase"}), [
        f'{C}.env[0].valueFrom.fieldRef.fieldPath: Unsupported value: "status.phase": supported values: '
        '"metadata.name", "metadata.namespace", "metadata.uid", "spec.nodeName", "spec.serviceAccountName", '
        '"status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"']),
    (env(resourceFieldRef={"resource": "limits.frobs"}), [
        f'{C}.env[0].valueFrom.resourceFieldRef.resource: Unsupported value: "limits.frobs": supported values: '
        '"limits.cpu", "limits.ephemeral-storage", "limits.memory", "requests.cpu", "requests.ephemeral-storage", '
        '"requests.memory"']),
    (env(resourceFieldRef={"resource": "limits.cpu", "divisor": "2"}), [
        f'{C}.env[0].valueFrom.resourceFieldRef.divisor: Invalid value: "limits.cpu": only divisor\'s values 1m and 1 '
        "are supported with the cpu resource"]),
    (env(configMapKeyRef={"name": "C", "key": ""}), [
        f'{C}.env[0].valueFrom.configMapKeyRef.name: Invalid value: "C": {DNS}',
        f"{C}.env[0].valueFrom.configMapKeyRef.key: Required value"]),
    (pod({"env": [{"name": "A", "value": "x", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}), [
        f'{C}.env[0].valueFrom: Invalid value: "": may not be specified when `value` is not empty']),
    (pod({"envFrom": [{}]}), [
        f'{C}.envFrom: Invalid value: "": must specify one of: `configMapRef` or `secretRef`']),
    (mounted({"subPath": "../x"}), [f"{C}.volumeMounts.subPath: Invalid value: \"../x\": must not contain '..'"]),
    (mounted({"mountPropagation": "Bidirectional"}), [
        f"{C}.volumeMounts.mountPropagation: Forbidden: Bidirectional mount propagation is available only to "
        "privileged containers"]),
    (mounted({"mountPropagation": "Bidirectional"}, {"privileged": True}), []),
    (mounted({"recursiveReadOnly": "Enabled"}), [
        f"{C}.volumeMounts.recursiveReadOnly: Forbidden: may only be specified when readOnly is true"]),
    (pod({"volumeDevices": [{"name": "v", "devicePath": "/dev/x"}]}, volumes=[{"name": "v", "emptyDir": {}}]), [
        f'{C}.volumeDevices[0].name: Invalid value: "v": can only use volume source type of PersistentVolumeClaim or '
        "Ephemeral for block mode"]),
    (pod({"resources": {"limits": {"example.com/gpu": "1500m"}}}), [
        f'{C}.resources.limits[example.com/gpu]: Invalid value: "1500m": must be an integer',
        f'{C}.resources.requests[example.com/gpu]: Invalid value: "1500m": must be an integer']),
    (pod({"resources": {"requests": {"example.com/gpu": "1"}}}), [
        f"{C}.resources.limits: Required value: Limit must be set for non overcommitable resources"]),
    (pod({"resources": {"limits": {"hugepages-2Mi": "3Mi", "cpu": "1"}}}), [
        f'{C}.resources.limits[hugepages-2Mi]: Invalid value: "3Mi": 3Mi is not positive integer multiple of '
        "hugepages-2Mi",
        f'{C}.resources.requests[hugepages-2Mi]: Invalid value: "3Mi": 3Mi is not positive integer multiple of '
        "hugepages-2Mi"]),
    (pod({"resources": {"limits": {"hugepages-2Mi": "4Mi"}}}), [
        f"{C}.resources: Forbidden: HugePages require cpu or memory"]),
    (pod({"resources": {"limits": {"pods": "1"}}}), [
        f'{C}.resources.limits[pods]: Invalid value: "pods": must be a standard resource for containers',
        f'{C}.resources.requests[pods]: Invalid value: "pods": must be a standard resource for containers']),
    (pod({"resources": {"claims": [{"name": "d"}]}}), [
        f'{C}.resources.claims[0]: Not found: "d": must be one of the names in pod.spec.resourceClaims which is '
        "empty"]),
    (pod({"resizePolicy": [{"resourceName": "disk", "restartPolicy": "NotRequired"}]}), [
        f'{C}.resizePolicy: Unsupported value: "disk": supported values: "cpu", "memory"']),
    (pod({"lifecycle": {"preStop": {"sleep": {"seconds": 31}}}}), [
        f"{C}.lifecycle.preStop.sleep: Invalid value: 31: must be non-negative and less than "
        "terminationGracePeriodSeconds (30)"]),
    (pod({"livenessProbe": {"httpGet": {"port": 80, "httpHeaders": [{"name": "a b", "value": ""}]}}}), [
        f"{C}.livenessProbe.httpGet.httpHeaders: Invalid value: \"a b\": a valid HTTP header must consist of "
        "alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')"]),
    (pod({"securityContext": {"procMount": "Unmasked"}}), [
        f'{C}.securityContext.procMount: Invalid value: "Unmasked": `hostUsers` must be false to use `Unmasked`']),
    (pod({"securityContext": {"seccompProfile": {"type": "RuntimeDefault", "localhostProfile": "x"}}}), [
        f'{C}.securityContext.seccompProfile.localhostProfile: Invalid value: '
        '{"type":"RuntimeDefault","localhostProfile":"x"}: can only be set when seccomp type is Localhost']),
    (pod(securityContext={"appArmorProfile": {"type": "Localhost"}}), [
        "spec.securityContext.appArmorProfile.localhostProfile: Required value: must be set when AppArmor type is "
        "Localhost"]),
    (pod(securityContext={"sysctls": [{"name": "net.x", "value": "1"}]}, hostNetwork=True), [
        "spec.securityContext.sysctls[0].name: Invalid value: \"net.x\": may not be specified when 'hostNetwork' is "
        "true"]),
    (pod(securityContext={"windowsOptions": {}}, os={"name": "linux"}), [
        "spec.securityContext.windowsOptions: Forbidden: windows options cannot be set for a linux pod"]),
    (pod(securityContext={"runAsUser": 1}, os={"name": "windows"}), [
        "spec.securityContext.runAsUser: Forbidden: cannot be set for a windows pod"]),
    (pod(os={"name": "plan9"}), ['spec.os: Unsupported value: "plan9": supported values: "linux", "windows"']),
    (pod(hostUsers=False, hostNetwork=True), [
        "spec.hostNetwork: Forbidden: when `pod.Spec.HostUsers` is false"]),
    (pod(activeDeadlineSeconds=0), [
        "spec.activeDeadlineSeconds: Invalid value: 0: must be between 1 and 2147483647, inclusive"]),
    (pod(restartPolicy="x"), [
        'spec.restartPolicy: Unsupported value: "x": supported values: "Always", "OnFailure", "Never"']),
    (pod(readinessGates=[{"conditionType": ""}]), [
        'spec.readinessGates[0].conditionType: Invalid value: "": name part must be non-empty',
        'spec.readinessGates[0].conditionType: Invalid value: "": name part must consist of alphanumeric characters, '
        "'-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or "
        "'123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"]),
    (pod(dnsConfig={"nameservers": ["1.1.1.1"] * 4}), [
        'spec.dnsConfig.nameservers: Invalid value: ["1.1.1.1","1.1.1.1","1.1.1.1","1.1.1.1"]: must not have more than '
        "3 nameservers"]),
    (pod(dnsConfig={"searches": ["_tcp.example.com.", "."]}), []),
    (pod(resourceClaims=[{"name": "c"}]), [
        'spec.resourceClaims[0]: Invalid value: {"name":"c"}: must specify one of: `resourceClaimName`, '
        "`resourceClaimTemplateName`"]),
    (pod({"resources": {"requests": {"cpu": "2"}}}, resources={"requests": {"cpu": "1"}}), [
        'spec.resources.requests[cpu]: Invalid value: "1": must be greater than or equal to aggregate container '
        "requests of 2"]),
    (pod(schedulingGates=[{"name": "g"}], nodeName="n"), [
        "spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared"]),
    (pod(topologySpreadConstraints=[
        {"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "ScheduleAnyway", "minDomains": 1}]), [
        "spec.topologySpreadConstraints[0].minDomains: Invalid value: 1: can only use minDomains if "
        "whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway"]),
    (pod(tolerations=[{"key": "k", "operator": "Exists", "value": "x"}]), [
        "spec.tolerations[0].operator: Invalid value: \"x\": value must be empty when `operator` is 'Exists'"]),
    (pod(tolerations=[{"key": "k", "operator": "Exists", "effect": "x"}]), [
        'spec.tolerations[0].effect: Unsupported value: "x": supported values: "NoSchedule", "PreferNoSchedule", '
        '"NoExecute"']),
    (pod(affinity={"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchFields": [{"key": "metadata.labels", "operator": "In", "values": ["x"]}]}]}}}), [
        "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]."
        'matchFields[0].key: Invalid value: "metadata.labels": not a valid field selector key']),
    (volume(secret={"secretName": "s", "items": [{"key": "k", "path": "/x"}]}), [
        'spec.volumes[0].secret.items[0].path: Invalid value: "/x": must be a relative path']),
    (volume(projected={"sources": [{"secret": {"name": "s"}, "configMap": {"name": "c"}}]}), [
        "spec.volumes[0].projected.sources[0]: Forbidden: may not specify more than 1 volume type per source"]),
    (volume(hostPath={"path": "/x", "type": "Frob"}), [
        'spec.volumes[0].hostPath.type: Unsupported value: "Frob": supported values: "", "BlockDevice", "CharDevice", '
        '"Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket"']),
    (volume(csi={"driver": "a_b"}), [f'spec.volumes[0].csi.driver: Invalid value: "a_b": {DNS}']),
    (volume(iscsi={"targetPortal": "1.2.3.4", "iqn": "x", "lun": 300}), [
        'spec.volumes[0].iscsi.iqn: Invalid value: "x": must be valid format starting with iqn, eui, or naa',
        "spec.volumes[0].iscsi.lun: Invalid value: 300: must be between 0 and 255, inclusive"]),
    (volume(ephemeral={"volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"]}}}), [
        "spec.volumes[0].ephemeral.volumeClaimTemplate.spec.resources[storage]: Required value"]),
    (pod(metadata={"annotations": {"controller.kubernetes.io/pod-deletion-cost": "+1"}}), [
        'metadata.annotations[controller.kubernetes.io/pod-deletion-cost]: Invalid value: "+1": must be a 32bit '
        "integer"]),
    (pod(ephemeralContainers=[{"name": "e", "image": "b"}]), [
        "spec.ephemeralContainers: Forbidden: cannot be set on create"]),
]  # fmt: skip


@pytest.mark.parametrize(("obj", "expected"), ROWS)
def test_pod(faults: Faults, obj: Object, expected: list[str]) -> None:
    assert faults(obj) == expected


def test_what_a_gated_pod_may_change(faults: Faults) -> None:
    gate: Object = {"schedulingGates": [{"name": "g"}]}

    def affinity(*expressions: str) -> Object:
        term = {"matchExpressions": [{"key": key, "operator": "Exists"} for key in expressions]}
        return {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}}}

    assert faults(pod(nodeSelector={"a": "b"}, **gate), pod(**gate)) == []
    assert faults(pod(nodeSelector={"a": "c"}, **gate), pod(nodeSelector={"a": "b"}, **gate)) == [
        'spec.nodeSelector: Invalid value: {"a":"c"}: only additions to spec.nodeSelector are allowed (no mutations or '
        "deletions)"
    ]
    assert faults(pod(affinity=affinity("a"), **gate), pod(**gate)) == []
    assert faults(pod(affinity=affinity("a", "b"), **gate), pod(affinity=affinity("a"), **gate)) == []
    assert (
        "only additions are allowed"
        in faults(pod(affinity=affinity("b"), **gate), pod(affinity=affinity("a"), **gate))[0]
    )
    assert faults(pod(schedulingGates=[{"name": "h"}]), pod(**gate)) == [
        "spec.schedulingGates[0].name: Forbidden: only deletion is allowed, but found new scheduling gate 'h'"
    ]


def test_a_mirror_pod_stays_one(faults: Faults) -> None:
    mirror: Object = {"annotations": {"kubernetes.io/config.mirror": "x"}}
    assert faults(pod(metadata=mirror), pod()) == [
        "metadata.annotations[kubernetes.io/config.mirror]: Forbidden: may not add mirror pod annotation"
    ]


def test_a_normal_update_does_not_debug(faults: Faults) -> None:
    new = pod(ephemeralContainers=[{"name": "e", "image": "b"}])
    assert faults(new, pod())[0].startswith("spec: Forbidden: pod updates may not change fields other than")
