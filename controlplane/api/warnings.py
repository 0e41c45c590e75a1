"""What an object does that is allowed and not wise: the texts of Warning headers on a write, in Kubernetes' words.

Only what one object says of itself. Warnings of the API version are lifecycle.py's, those of unknown and duplicate
fields validate.py's. Source: Kubernetes' API warnings (kubernetes.io/blog/2020/09/03/warnings).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from controlplane.api import quantity
from controlplane.api.resources import Resource

Object = Mapping[str, Any]

_LABELS = {
    "beta.kubernetes.io/arch": 'deprecated since v1.14; use "kubernetes.io/arch" instead',
    "beta.kubernetes.io/os": 'deprecated since v1.14; use "kubernetes.io/os" instead',
    "failure-domain.beta.kubernetes.io/region": 'deprecated since v1.17; use "topology.kubernetes.io/region" instead',
    "failure-domain.beta.kubernetes.io/zone": 'deprecated since v1.17; use "topology.kubernetes.io/zone" instead',
    "beta.kubernetes.io/instance-type": 'deprecated since v1.17; use "node.kubernetes.io/instance-type" instead',
}
_SECCOMP = 'non-functional in v1.27+; use the "seccompProfile" field instead'
_ANNOTATIONS = {
    "scheduler.alpha.kubernetes.io/critical-pod": 'non-functional in v1.16+; use the "priorityClassName" field instead',
    "seccomp.security.alpha.kubernetes.io/pod": _SECCOMP,
}
_APPARMOR = 'deprecated since v1.30; use the "appArmorProfile" field instead'
_ANNOTATED_CONTAINERS = {
    "container.seccomp.security.alpha.kubernetes.io/": _SECCOMP,
    "container.apparmor.security.beta.kubernetes.io/": _APPARMOR,
}
_VOLUMES = {
    "gitRepo": "deprecated in v1.11, and disabled by default in v1.33+",
    "scaleIO": "deprecated in v1.16, non-functional in v1.22+",
    "storageos": "deprecated in v1.22, non-functional in v1.25+",
    "glusterfs": "deprecated in v1.25, non-functional in v1.26+",
    "cephfs": "deprecated in v1.28, non-functional in v1.31+",
    "rbd": "deprecated in v1.28, non-functional in v1.31+",
}
_STORAGE_CLASS = "volume.beta.kubernetes.io/storage-class"
_INGRESS_CLASS = "kubernetes.io/ingress.class"


def known(resource: Resource) -> bool:
    """Whether there is anything to find in objects of this kind."""
    return (resource.group, resource.kind) in _BY_KIND


def of(resource: Resource, obj: Object) -> list[str]:
    """Warnings about a new or changed object that fits its schema."""
    find = _BY_KIND.get((resource.group, resource.kind))
    return list(find(obj)) if find is not None else []


def _pod(pod: Object, path: str = "") -> Iterator[str]:
    """`path`: of the template, with its dot; empty for a pod itself."""
    spec = pod.get("spec") or {}
    for key in (pod.get("metadata") or {}).get("annotations") or ():
        told = _ANNOTATIONS.get(key) or next((t for p, t in _ANNOTATED_CONTAINERS.items() if key.startswith(p)), "")
        if told:
            yield f"{path}metadata.annotations[{key}]: {told}"
    at = f"{path}spec"
    for key in spec.get("nodeSelector") or ():
        if key in _LABELS:
            yield f"{at}.nodeSelector[{key}]: {_LABELS[key]}"
    for index, constraint in enumerate(spec.get("topologySpreadConstraints") or ()):
        if (key := constraint.get("topologyKey")) in _LABELS:
            yield f"{at}.topologySpreadConstraints[{index}].topologyKey: {key} is {_LABELS[key]}"
    for index, volume in enumerate(spec.get("volumes") or ()):
        yield from (f"{at}.volumes[{index}].{kind}: {told}" for kind, told in _VOLUMES.items() if kind in volume)
    yield from _repeated(f"{at}.hostAliases", "ip", spec.get("hostAliases") or ())
    yield from _repeated(f"{at}.imagePullSecrets", "name", spec.get("imagePullSecrets") or ())
    if (grace := spec.get("terminationGracePeriodSeconds")) is not None and grace < 0:
        yield f"{at}.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"
    ports: dict[tuple[Any, ...], str] = {}
    for group in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(group) or ()):
            yield from _container(container, f"{at}.{group}[{index}]", ports if group == "containers" else {})


def _repeated(path: str, field: str, items: Iterable[Object]) -> Iterator[str]:
    seen = set()
    for index, item in enumerate(items):
        value = item.get(field) or ""
        if not value:
            yield f'{path}[{index}].{field}: invalid empty {field} ""'
        elif value in seen:
            yield f'{path}[{index}].{field}: duplicate {field} "{value}"'
        seen.add(value)


def _container(container: Object, path: str, ports: dict[tuple[Any, ...], str]) -> Iterator[str]:
    names = set()
    for index, variable in enumerate(container.get("env") or ()):
        name = variable.get("name")
        if name in names:
            yield f'{path}.env[{index}]: hides previous definition of "{name}", which may be dropped when using apply'
        names.add(name)
    for index, port in enumerate(container.get("ports") or ()):
        here = f"{path}.ports[{index}]"
        key = (port.get("containerPort"), port.get("protocol", "TCP"), port.get("hostPort"), port.get("hostIP"))
        if key in ports:
            yield f"{here}: duplicate port definition with {ports[key]}"
        ports.setdefault(key, here)
    resources = container.get("resources") or {}
    for kind in ("limits", "requests"):
        for name in ("memory", "ephemeral-storage"):
            amount = (resources.get(kind) or {}).get(name)
            if amount and quantity.of(amount).nano % 10**9:
                yield (f"{path}.resources.{kind}[{name}]: fractional byte value "
                       f'"{amount}" is invalid, must be an integer')  # fmt: skip


def _template(obj: Object) -> Iterator[str]:
    return _pod((obj.get("spec") or {}).get("template") or {}, "spec.template.")


def _cron_job(obj: Object) -> Iterator[str]:
    job = (obj.get("spec") or {}).get("jobTemplate") or {}
    return _pod((job.get("spec") or {}).get("template") or {}, "spec.jobTemplate.spec.template.")


def _pod_template(obj: Object) -> Iterator[str]:
    return _pod(obj.get("template") or {}, "template.")


def _storage_class(obj: Object) -> Iterator[str]:
    if _STORAGE_CLASS in ((obj.get("metadata") or {}).get("annotations") or {}):
        yield f'metadata.annotations[{_STORAGE_CLASS}]: deprecated since v1.8; use "storageClassName" attribute instead'


def _volume(obj: Object) -> Iterator[str]:
    yield from _storage_class(obj)
    if (obj.get("spec") or {}).get("persistentVolumeReclaimPolicy") == "Recycle":
        yield ("spec.persistentVolumeReclaimPolicy: The Recycle reclaim policy is deprecated. Instead, the recommended "
               "approach is to use dynamic provisioning.")  # fmt: skip


def _ingress(obj: Object) -> Iterator[str]:
    if _INGRESS_CLASS in ((obj.get("metadata") or {}).get("annotations") or {}):
        yield f"annotation \"{_INGRESS_CLASS}\" is deprecated, please use 'spec.ingressClassName' instead"


def _service(obj: Object) -> Iterator[str]:
    spec = obj.get("spec") or {}
    if spec.get("clusterIP") == "None" and spec.get("sessionAffinity", "None") != "None":
        yield "spec.SessionAffinity is ignored for headless services"


_BY_KIND: dict[tuple[str, str], Callable[[Object], Iterator[str]]] = {
    ("", "Pod"): _pod,
    ("", "PodTemplate"): _pod_template,
    ("", "ReplicationController"): _template,
    ("", "PersistentVolume"): _volume,
    ("", "PersistentVolumeClaim"): _storage_class,
    ("", "Service"): _service,
    ("apps", "DaemonSet"): _template,
    ("apps", "Deployment"): _template,
    ("apps", "ReplicaSet"): _template,
    ("apps", "StatefulSet"): _template,
    ("batch", "CronJob"): _cron_job,
    ("batch", "Job"): _template,
    ("networking.k8s.io", "Ingress"): _ingress,
}
