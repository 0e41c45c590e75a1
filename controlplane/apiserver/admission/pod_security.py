"""PodSecurity: the labels of a namespace say how careful its pods must be.

`pod-security.kubernetes.io/enforce` refuses pods, `warn` tells the client, `audit` the audit log; each names a level
(privileged, baseline, restricted) and, as `<mode>-version`, a version of the standards. Workloads are told about their
templates and never refused: it is their pods that are. The standards themselves: controlplane.api.podsecurity.
"""

import re
from collections.abc import Mapping
from typing import Any

from controlplane.api import podsecurity, status
from controlplane.apiserver.admission.notes import Notes, RequestNotes
from controlplane.apiserver.registry.generic import Attributes
from controlplane.store.cache import WatchCache

Object = Mapping[str, Any]

PREFIX = "pod-security.kubernetes.io/"
_MODES = ("enforce", "audit", "warn")
_IN_LABELS = PREFIX.encode()
_is_version = re.compile(r"latest|v1\.(0|[1-9][0-9]*)").fullmatch
_TEMPLATES = frozenset((
    ("", "podtemplates"), ("", "replicationcontrollers"), ("apps", "deployments"), ("apps", "replicasets"),
    ("apps", "daemonsets"), ("apps", "statefulsets"), ("batch", "jobs"), ("batch", "cronjobs"),
))  # fmt: skip
_MOST_PODS = 3000


class PodSecurity:
    def __init__(self, cache: WatchCache, notes: Notes | None = None) -> None:
        self._cache = cache
        self._notes = notes or RequestNotes()

    async def admit(self, a: Attributes) -> None:
        """Raises StatusError 403, 422."""
        if a.new is None or a.operation == "DELETE":
            return
        kind = (a.resource.group, a.resource.plural)
        if kind == ("", "namespaces") and not a.subresource:
            self._namespace(a, a.new)
        elif kind == ("", "pods") and a.subresource in ("", "ephemeralcontainers"):
            labels = self._labels(a.namespace)
            if labels and (a.old is None or _significant(a.new, a.old)):
                self._judge(a, labels, a.new.get("metadata") or {}, a.new.get("spec") or {}, _MODES)
        elif kind in _TEMPLATES and not a.subresource:
            labels = self._labels(a.namespace)
            template = _template(a.new) if labels else {}
            if template and (a.old is None or template != _template(a.old)):
                self._judge(a, labels, template.get("metadata") or {}, template.get("spec") or {}, ("audit", "warn"))

    def _labels(self, namespace: str) -> Object:
        """The namespace's labels if there are any about security (mostly there are none)."""
        cached = self._cache.get(f"core/namespaces/{namespace}")
        if cached is None or _IN_LABELS not in cached.data:
            return {}
        labels: Object = cached.object["metadata"].get("labels") or {}
        return labels

    def _judge(self, a: Attributes, labels: Object, meta: Object, spec: Object, modes: tuple[str, ...]) -> None:
        for mode in modes:
            level, policy = _policy(labels, mode)
            if mode == "enforce" and a.resource.plural == "pods":
                self._notes.annotate(f"{PREFIX}enforce-policy", policy)
            found = podsecurity.violations(level, meta, spec)
            if not found:
                continue
            if mode == "enforce":
                text = f'violates PodSecurity "{policy}": {found}'
                raise status.forbidden_object(a.resource.group_resource, a.name, text)
            text = f'would violate PodSecurity "{policy}": {found}'
            if mode == "audit":
                self._notes.annotate(f"{PREFIX}audit-violations", text)
            else:
                self._notes.warn(text)

    def _namespace(self, a: Attributes, new: Object) -> None:
        labels = new["metadata"].get("labels") or {}
        causes = []
        for mode in _MODES:
            level, version = labels.get(PREFIX + mode), labels.get(f"{PREFIX}{mode}-version")
            if level is not None and level not in podsecurity.LEVELS:
                text = f"must be one of {', '.join(podsecurity.LEVELS)}"
                causes.append(status.invalid_value(f"metadata.labels[{PREFIX}{mode}]", level, text))
            if version is not None and not _is_version(version):
                text = 'must be "latest" or "v1.x"'
                causes.append(status.invalid_value(f"metadata.labels[{PREFIX}{mode}-version]", version, text))
        if causes and (a.old is None or labels != (a.old["metadata"].get("labels") or {})):
            raise status.invalid("", "Namespace", a.name, causes)
        if a.old is not None:
            self._existing(a, labels, a.old["metadata"].get("labels") or {})

    def _existing(self, a: Attributes, labels: Object, before: Object) -> None:
        """Tell who makes a namespace stricter which of its pods would not be let in any more."""
        (level, policy), (was, _) = _policy(labels, "enforce"), _policy(before, "enforce")
        if podsecurity.LEVELS.index(level) <= podsecurity.LEVELS.index(was):
            return
        found: dict[str, list[str]] = {}
        for cached in self._cache.list(f"core/pods/{a.name}/")[0][:_MOST_PODS]:
            pod = cached.object
            text = podsecurity.violations(level, pod["metadata"], pod["spec"])
            if text:
                reasons = re.sub(r" \([^()]*\)", "", text)
                found.setdefault(reasons, []).append(pod["metadata"]["name"])
        if found:
            text = f'existing pods in namespace "{a.name}" violate the new PodSecurity enforce level "{policy}"'
            self._notes.warn(text)
        for reasons, names in found.items():
            others = f" (and {len(names) - 1} other pod{'s' if len(names) > 2 else ''})" if len(names) > 1 else ""
            self._notes.warn(f"{min(names)}{others}: {reasons}")


def _policy(labels: Object, mode: str) -> tuple[str, str]:
    """The level and how it is called; what cannot be read is the strictest when it forbids nothing but words."""
    level, version = labels.get(PREFIX + mode, "privileged"), labels.get(f"{PREFIX}{mode}-version", "latest")
    if level not in podsecurity.LEVELS:
        level = "restricted" if mode == "enforce" else "privileged"
    return level, f"{level}:{version if _is_version(version) else 'latest'}"


def _template(obj: Object) -> Object:
    spec = obj if obj.get("kind") == "PodTemplate" else obj.get("spec") or {}
    if "jobTemplate" in spec:
        spec = (spec["jobTemplate"] or {}).get("spec") or {}
    template: Object = spec.get("template") or {}
    return template


def _significant(new: Object, old: Object) -> bool:
    """Whether an update changes something that can matter: containers, and what may be changed of them."""
    after, before = new.get("spec") or {}, old.get("spec") or {}
    return any(
        after.get(kind) != before.get(kind) for kind in ("containers", "initContainers", "ephemeralContainers")
    ) or (new.get("metadata") or {}).get("annotations") != (old.get("metadata") or {}).get("annotations")
