"""Static pods: run from manifests in a directory of this node, with or without an API server.

The directory is looked at every `check_frequency_s`: a new or changed file becomes a pod of that content, a vanished
one ends its pod. A pod's identity (uid) is a hash of the node, the file's name and what it says, so that a change is
another pod and a restart of the agent is none. A file that cannot be used is told in the log, once for each content,
and its former pod goes on.

Not here: the API server's picture of a static pod (`mirror.py`). Source: kubelet's pkg/kubelet/config.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nodeagent.pods.model import CONFIG_HASH_ANNOTATION, CONFIG_SOURCE_ANNOTATION, Object
from nodeagent.pods.source import Sink

log = logging.getLogger(__name__)

_SUFFIXES = (".yaml", ".yml", ".json", ".manifest")
_LARGEST_FILE = 1 << 20
_ANY_NO_EXECUTE = {"operator": "Exists", "effect": "NoExecute"}  # taints evict through the API, which does not own it


class ManifestError(Exception):
    """A file that is no static pod; the message says why."""


@dataclass(slots=True)
class _File:
    stamp: tuple[int, int, int]  # inode, size, mtime in ns: as long as it is the same, the file is not read again
    pod: Object | None


class FileSource:
    """Tells `sink` the pods of `directory`. `scan` once before the other source has settled: what no source has named
    by then is an orphan."""

    def __init__(self, directory: str, node_name: str, sink: Sink, check_frequency_s: float) -> None:
        self._directory, self._node, self._sink, self._period = directory, node_name, sink, check_frequency_s
        self._files: dict[str, _File] = {}

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._period)
            self.scan()

    def scan(self) -> None:
        """Look at the directory now. A directory that is not there has no pods."""
        found: dict[str, tuple[int, int, int]] = {}
        try:
            with os.scandir(self._directory) as entries:
                for entry in entries:
                    if entry.name.startswith(".") or not entry.name.endswith(_SUFFIXES) or not entry.is_file():
                        continue
                    stat = entry.stat()
                    found[entry.name] = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        except FileNotFoundError:
            pass
        except OSError as error:
            log.warning("static_pods_unreadable directory=%s error=%s", self._directory, error)
            return
        for name in self._files.keys() - found.keys():
            self._end(self._files.pop(name).pod)
        for name in sorted(found):
            known = self._files.get(name)
            if known is None or known.stamp != found[name]:
                self._load(name, found[name], known.pod if known else None)

    def _load(self, name: str, stamp: tuple[int, int, int], before: Object | None) -> None:
        path = os.path.join(self._directory, name)
        try:
            if stamp[1] > _LARGEST_FILE:
                raise ManifestError(f"larger than {_LARGEST_FILE} bytes")
            with open(path, "rb") as file:
                pod = static_pod(file.read(), self._node, path)
            self._refuse_twin(name, pod)
        except FileNotFoundError:
            return
        except (OSError, ManifestError) as error:
            log.error("static_pod_unusable file=%s error=%s", path, error)
            self._files[name] = _File(stamp, before)
            return
        self._files[name] = _File(stamp, pod)
        if before is not None and before["metadata"]["uid"] == pod["metadata"]["uid"]:
            return
        self._end(before)
        log.info("static_pod file=%s pod=%s/%s", path, pod["metadata"]["namespace"], pod["metadata"]["name"])
        self._sink.put(pod)

    def _refuse_twin(self, name: str, pod: Object) -> None:
        own = pod["metadata"]["namespace"], pod["metadata"]["name"]
        for other, file in self._files.items():
            meta = file.pod["metadata"] if file.pod and other != name else None
            if meta and (meta["namespace"], meta["name"]) == own:
                raise ManifestError(f"{other} has the pod {own[0]}/{own[1]} already")

    def _end(self, pod: Object | None) -> None:
        if pod is not None:
            self._sink.removed(pod)


def static_pod(data: bytes, node_name: str, path: str) -> Object:
    """The pod of a manifest (YAML or JSON), checked and with defaults as the API server would set them, bound to
    `node_name` and named after it. Raises ManifestError."""
    obj = _decode(data)
    meta, spec = obj.setdefault("metadata", {}), obj.setdefault("spec", {})
    if not meta.get("name"):
        raise ManifestError("metadata.name: Required value")
    digest = hashlib.sha256(b"\0".join((node_name.encode(), os.path.basename(path).encode(), data))).hexdigest()[:32]
    # What a restart of the node's agent must not change is computed from the file; the rest is the node's.
    meta["uid"] = digest
    meta["name"] = f"{meta['name']}-{node_name}"
    meta.setdefault("namespace", "default")
    annotations = {CONFIG_HASH_ANNOTATION: digest, CONFIG_SOURCE_ANNOTATION: "file"}
    meta["annotations"] = {**(meta.get("annotations") or {}), **annotations}
    for field in ("creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "resourceVersion"):
        meta.pop(field, None)
    obj.pop("status", None)
    spec["nodeName"] = node_name
    tolerations = spec.get("tolerations") or []
    spec["tolerations"] = tolerations if _ANY_NO_EXECUTE in tolerations else [*tolerations, _ANY_NO_EXECUTE]
    for problem in unreachable(spec):
        raise ManifestError(f"a static pod cannot use the API server's {problem}")
    return _checked(obj)


def unreachable(spec: Object) -> Sequence[str]:
    """What of `spec` only the API server could give, and therefore no static pod may name."""
    found = []
    if spec.get("serviceAccountName") or spec.get("serviceAccount"):
        found.append("ServiceAccounts")
    for volume in spec.get("volumes") or ():
        sources = [volume, *((volume.get("projected") or {}).get("sources") or ())]
        for source in sources:
            for key in ("secret", "configMap", "persistentVolumeClaim", "ephemeral", "serviceAccountToken"):
                if source.get(key) is not None:
                    found.append(f"objects (volume {volume.get('name')}: {key})")
    if spec.get("resourceClaims"):
        found.append("ResourceClaims")
    for container in (*(spec.get("initContainers") or ()), *(spec.get("containers") or ())):
        for entry in container.get("envFrom") or ():
            found += [f"objects (envFrom: {key})" for key in ("configMapRef", "secretRef") if entry.get(key)]
        for entry in container.get("env") or ():
            source = entry.get("valueFrom") or {}
            found += [f"objects (env: {key})" for key in ("configMapKeyRef", "secretKeyRef") if source.get(key)]
    return found


def _decode(data: bytes) -> Object:
    import yaml  # nodes without static pods do not pay for it

    try:
        documents = [d for d in yaml.safe_load_all(data) if d is not None]
    except (yaml.YAMLError, RecursionError) as error:
        raise ManifestError(f"not YAML or JSON: {error}") from None
    if len(documents) != 1:
        raise ManifestError(f"{len(documents)} documents; a manifest holds one pod")
    obj: Any = documents[0]
    if not isinstance(obj, dict) or obj.get("kind") != "Pod" or obj.get("apiVersion") != "v1":
        raise ManifestError("not a v1 Pod")
    if not isinstance(obj.get("metadata") or {}, dict) or not isinstance(obj.get("spec") or {}, dict):
        raise ManifestError("metadata and spec must be objects")
    return obj


def _checked(obj: Object) -> Object:
    # The API's own rules. Their import costs some megabytes: only for nodes that have static pods.
    from controlplane.api import defaults, definitions, resources, validate, validation
    from controlplane.api.status import StatusError

    pods = resources.builtin(definitions.load()).find("", "v1", "pods")
    assert pods is not None
    try:
        obj, _ = validate.decode_checked(pods, obj, "Strict")
    except StatusError as error:
        raise ManifestError(error.message) from None
    defaults.apply(pods, obj)
    causes = validation.create(pods, obj)
    if causes:
        raise ManifestError("; ".join(f"{cause.field}: {cause.message}" for cause in causes))
    return obj
