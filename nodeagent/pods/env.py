"""The environment of a container: service variables, envFrom, env, and $(VAR) expansion. Pure but for the ConfigMaps
and Secrets that the caller has fetched.

Order and precedence are kubelet's (makeEnvironmentVariables): env wins over envFrom, both win over the variables of
services; $(VAR) in env sees what was defined before it, and in command and args everything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from controlplane.api import quantity
from nodeagent.pods.model import Object
from nodeagent.runtime.interface import RuntimeFailure

_REFERENCE = re.compile(r"\$(\$|\(([^)]*)\))")


@dataclass(frozen=True, slots=True)
class Sources:
    """What variables are made from. `config_maps` and `secrets`: data by object name, None for a missing object."""

    pod: Object
    host_ips: Sequence[str] = ()
    pod_ips: Sequence[str] = ()
    allocatable: Mapping[str, str] = field(default_factory=dict)
    services: Mapping[str, str] = field(default_factory=dict)
    config_maps: Mapping[str, Object | None] = field(default_factory=dict)
    secrets: Mapping[str, Object | None] = field(default_factory=dict)
    files: Mapping[tuple[str, str], Mapping[str, str] | None] = field(default_factory=dict)  # by (volume, path)


def config_error(message: str) -> RuntimeFailure:
    return RuntimeFailure(message, "CreateContainerConfigError")


def references(container: Object) -> tuple[set[str], set[str]]:
    """Names of the ConfigMaps and of the Secrets that the container's environment needs."""
    maps: set[str] = set()
    secrets: set[str] = set()
    for source in container.get("envFrom") or ():
        if ref := source.get("configMapRef"):
            maps.add(ref.get("name", ""))
        if ref := source.get("secretRef"):
            secrets.add(ref.get("name", ""))
    for entry in container.get("env") or ():
        source = entry.get("valueFrom") or {}
        if ref := source.get("configMapKeyRef"):
            maps.add(ref.get("name", ""))
        if ref := source.get("secretKeyRef"):
            secrets.add(ref.get("name", ""))
    return maps, secrets


def file_references(container: Object) -> set[tuple[str, str]]:
    """(volume, path) of the files that the container's environment needs."""
    sources = [(e.get("valueFrom") or {}).get("fileKeyRef") for e in container.get("env") or ()]
    return {(ref["volumeName"], ref["path"]) for ref in sources if ref}


def environment(container: Object, sources: Sources) -> dict[str, str]:
    """All variables in order. Raises RuntimeFailure (CreateContainerConfigError) for what is missing and not optional,
    in kubelet's words."""
    result: dict[str, str] = {}
    for source in container.get("envFrom") or ():
        prefix = source.get("prefix") or ""
        for key, value in _bulk(source, sources):
            name = prefix + key
            if name and "=" not in name and "\0" not in name:
                result[name] = value
    for entry in container.get("env") or ():
        if entry.get("valueFrom"):
            found = _value_from(entry["valueFrom"], container, sources)
            if found is not None:
                result[entry["name"]] = found
        else:
            scope = {**sources.services, **result}
            result[entry["name"]] = expand(entry.get("value") or "", scope)
    return {**{k: v for k, v in sources.services.items() if k not in result}, **result}


def expand(text: str, scope: Mapping[str, str]) -> str:
    """`$(NAME)` by its value, `$$` by `$`; an unknown name stays as written (as Kubernetes' expansion)."""
    if "$" not in text:
        return text

    def replace(match: re.Match[str]) -> str:
        if match[1] == "$":
            return "$"
        return scope.get(match[2], match[0])

    return _REFERENCE.sub(replace, text)


def _bulk(source: Object, sources: Sources) -> Iterable[tuple[str, str]]:
    for kind, ref, known in (
        ("configmap", source.get("configMapRef"), sources.config_maps),
        ("secret", source.get("secretRef"), sources.secrets),
    ):
        if not ref:
            continue
        found = known.get(ref.get("name", ""))
        if found is None:
            if ref.get("optional"):
                continue
            raise config_error(f'{kind} "{ref.get("name", "")}" not found')
        yield from sorted(texts(found).items())


def _value_from(source: Object, container: Object, sources: Sources) -> str | None:
    if ref := source.get("fieldRef"):
        return field_value(ref.get("fieldPath", ""), sources)
    if ref := source.get("resourceFieldRef"):
        return resource_value(ref, container, sources)
    if ref := source.get("fileKeyRef"):
        return _file_value(ref, container, sources)
    for kind, ref, known in (
        ("configmap", source.get("configMapKeyRef"), sources.config_maps),
        ("secret", source.get("secretKeyRef"), sources.secrets),
    ):
        if not ref:
            continue
        found = known.get(ref.get("name", ""))
        if found is None:
            if ref.get("optional"):
                return None
            raise config_error(f'{kind} "{ref.get("name", "")}" not found')
        value = texts(found).get(ref["key"])
        if value is None and not ref.get("optional"):
            where = f"{sources.pod['metadata'].get('namespace', '')}/{ref.get('name', '')}"
            title = "ConfigMap" if kind == "configmap" else "Secret"
            raise config_error(f"couldn't find key {ref['key']} in {title} {where}")
        return value
    return None


def _file_value(ref: Object, container: Object, sources: Sources) -> str | None:
    found = sources.files.get((ref["volumeName"], ref["path"]))
    if found is not None and ref["key"] in found:
        return found[ref["key"]]
    if ref.get("optional"):
        return None
    meta = sources.pod["metadata"]
    if found is None:
        where = f"pod {meta.get('namespace', '')}/{meta['name']}, container {container['name']}"
        raise config_error(
            f"couldn't parse env file {ref['path']} of volume {ref['volumeName']} ({where}): no such file"
        )
    raise config_error(f'environment variable key "{ref["key"]}" not found in file "{ref["path"]}"')


def texts(obj: Object) -> dict[str, str]:
    """The values of a ConfigMap or Secret as text (a Secret's are base64 on the wire)."""
    if obj.get("kind") == "Secret":
        return {k: v.decode("utf-8", "surrogateescape") for k, v in contents(obj).items()}
    return dict(obj.get("data") or {})


def contents(obj: Object) -> dict[str, bytes]:
    """The values of a ConfigMap or Secret as bytes."""
    from base64 import b64decode

    data: dict[str, str] = obj.get("data") or {}
    if obj.get("kind") == "Secret":
        return {k: b64decode(v) for k, v in data.items()}
    result = {k: v.encode() for k, v in data.items()}
    result.update({k: b64decode(v) for k, v in (obj.get("binaryData") or {}).items()})
    return result


_MAP_FIELD = re.compile(r"metadata\.(labels|annotations)\['(.*)'\]")


def field_value(path: str, sources: Sources) -> str:
    """The downward API's fields. Raises RuntimeFailure for a path that is not one."""
    pod = sources.pod
    meta, spec = pod["metadata"], pod["spec"]
    if match := _MAP_FIELD.fullmatch(path):
        return str((meta.get(match[1]) or {}).get(match[2], ""))
    if path in ("metadata.labels", "metadata.annotations"):
        return format_map(meta.get(path.partition(".")[2]) or {})
    simple = {
        "metadata.name": meta.get("name"),
        "metadata.namespace": meta.get("namespace"),
        "metadata.uid": meta.get("uid"),
        "spec.nodeName": spec.get("nodeName"),
        "spec.serviceAccountName": spec.get("serviceAccountName"),
        "status.hostIP": sources.host_ips[0] if sources.host_ips else "",
        "status.hostIPs": ",".join(sources.host_ips),
        "status.podIP": sources.pod_ips[0] if sources.pod_ips else "",
        "status.podIPs": ",".join(sources.pod_ips),
    }
    if path not in simple:
        raise config_error(f"unsupported fieldPath: {path}")
    return str(simple[path] or "")


def format_map(values: Mapping[str, str]) -> str:
    """Labels or annotations as the downward API writes them: key="escaped value", a line each, sorted."""
    import json

    return "\n".join(f"{k}={json.dumps(v, ensure_ascii=False)}" for k, v in sorted(values.items()))


_DEFAULTED = ("cpu", "memory", "ephemeral-storage")  # a missing limit of these is what the node has to give


def resource_value(ref: Object, container: Object, sources: Sources) -> str:
    """A resourceFieldRef, rounded up to its divisor. A missing limit is the pod's own, else what the node can allocate;
    a missing request is the limit that was given."""
    kind, _, name = ref.get("resource", "").partition(".")
    resources, whole = container.get("resources") or {}, sources.pod["spec"].get("resources") or {}
    value: Any = (resources.get(kind) or {}).get(name)
    if value is None and kind == "requests":
        value = (resources.get("limits") or {}).get(name)
    if value is None and kind == "limits":
        value = (whole.get("limits") or {}).get(name)
        if value is None and name in _DEFAULTED:
            value = sources.allocatable.get(name)
    divisor = quantity.of(ref.get("divisor") or "1")
    if divisor.nano == 0:
        divisor = quantity.of("1")
    return str(-(-quantity.of(value or "0").nano // divisor.nano))
