"""Statuses, statistics and images, the CRI's to ours and back. Pure. The CRI counts nanoseconds, we seconds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from nodeagent.cri.codec import Message
from nodeagent.cri.configs import identity_from_cri, metadata_to_cri
from nodeagent.linux.cgroups.usage import Pressure, Usage
from nodeagent.runtime.interface import (
    ContainerState,
    ContainerStatus,
    Image,
    ImageConfig,
    SandboxState,
    SandboxStatus,
    Stats,
)

_NS = 1_000_000_000


def _seconds(nanoseconds: int) -> float:
    return nanoseconds / _NS if nanoseconds > 0 else 0.0  # Go's zero time is a large negative number


def nanoseconds(seconds: float) -> int:
    return int(seconds * 1_000_000) * 1000 if seconds > 0 else 0


# The CRI's to ours.


def sandbox_from_cri(status: Mapping[str, Any], netns_path: str) -> SandboxStatus:
    network = status.get("network") or {}
    ips = [network.get("ip", ""), *(more["ip"] for more in network.get("additional_ips") or ())]
    return SandboxStatus(
        status["id"], identity_from_cri(status["metadata"]), SandboxState(status["state"]),
        _seconds(status["created_at"]), tuple(ip for ip in ips if ip), netns_path, dict(status["labels"]),
        dict(status["annotations"]),
    )  # fmt: skip


def netns_of(info: Mapping[str, str]) -> str:
    """Where the sandbox's network namespace is, of the verbose status of containerd, CRI-O or ours; "" if unknown.
    The path of its process is preferred: the kernel's tables of that namespace are beside it."""
    try:
        known = msgspec.json.decode(info.get("info", "{}"))
        if pid := int(known.get("pid") or 0):
            return f"/proc/{pid}/ns/net"
        if "netns" in known:
            return str(known["netns"])
        spaces = known["runtimeSpec"]["linux"]["namespaces"]
        return next((str(n.get("path", "")) for n in spaces if n.get("type") == "network"), "")
    except (ValueError, KeyError, TypeError, AttributeError, msgspec.DecodeError):
        return ""


def container_from_cri(status: Mapping[str, Any], sandbox_id: str, image: str) -> ContainerStatus:
    """`image`: as the list of containers had it, for runtimes whose status has only a name."""
    state = ContainerState(status["state"])
    metadata = status.get("metadata") or {"name": "", "attempt": 0}
    started, finished = _seconds(status["started_at"]), _seconds(status["finished_at"])
    if 0 < finished < started:  # containerd notes a start when it is told of it, perhaps after the end
        started = finished
    return ContainerStatus(
        status["id"], sandbox_id, metadata["name"], metadata["attempt"], state,
        status["image_id"] or image or status["image_ref"], _seconds(status["created_at"]),
        started, finished, status["exit_code"],
        oom_killed=status["reason"] == "OOMKilled", reason=status["reason"], message=status["message"],
        log_path=status["log_path"], labels=dict(status["labels"]), annotations=dict(status["annotations"]),
    )  # fmt: skip


def usage_from_cri(stats: Mapping[str, Any]) -> Usage:
    """Of ContainerStats or LinuxPodSandboxStats."""
    cpu, memory, process = stats.get("cpu") or {}, stats.get("memory") or {}, stats.get("process") or {}
    used, available = _of(memory, "working_set_bytes"), _of(memory, "available_bytes")
    psi = {}
    for resource in ("cpu", "memory", "io"):
        data = (stats.get(resource) or {}).get("psi") or {}
        for kind in ("Some", "Full"):
            if data.get(kind):
                p = data[kind]
                psi[resource, kind.lower()] = Pressure(p["Avg10"], p["Avg60"], p["Avg300"], p["Total"] // 1000)
    return Usage(
        cpu_ns=_of(cpu, "usage_core_nano_seconds"), memory_bytes=_of(memory, "usage_bytes") or used,
        working_set_bytes=used, rss_bytes=_of(memory, "rss_bytes"), limit_bytes=used + available if available else 0,
        page_faults=_of(memory, "page_faults"), major_page_faults=_of(memory, "major_page_faults"),
        pids=_of(process, "process_count"), psi=psi,
    )  # fmt: skip


def stats_from_cri(stats: Mapping[str, Any], sandbox_id: str, container_id: str, now: float) -> Stats:
    at = (stats.get("cpu") or stats.get("memory") or {}).get("timestamp", 0)
    return Stats(sandbox_id, container_id, _seconds(at) or now, usage_from_cri(stats))


def _of(message: Mapping[str, Any], field: str) -> int:
    value = message.get(field)
    return int(value["value"]) if value else 0


def image_from_cri(image: Mapping[str, Any], info: Mapping[str, str] | None = None) -> Image:
    """`info`: of a verbose ImageStatus; with it, the image's own configuration is known, else only its user."""
    uid = image.get("uid")
    user = str(uid["value"]) if uid else image["username"]
    return Image(
        image["id"], (), _image_config((info or {}).get("info", ""), user), tuple(image["repo_tags"]),
        tuple(image["repo_digests"]), image["size"], image["pinned"],
    )  # fmt: skip


def _image_config(info: str, user: str) -> ImageConfig:
    try:
        found = (msgspec.json.decode(info) if info else {}).get("imageSpec", {}).get("config") or {}
        return ImageConfig(
            tuple(found.get("Entrypoint") or ()), tuple(found.get("Cmd") or ()), tuple(found.get("Env") or ()),
            found.get("WorkingDir") or "", found.get("User") or user, found.get("StopSignal") or "",
            tuple(found.get("Volumes") or ()),
        )  # fmt: skip
    except (AttributeError, TypeError, msgspec.DecodeError):
        return ImageConfig(user=user)


# Ours to the CRI's.


def sandbox_to_cri(status: SandboxStatus) -> Message:
    """A PodSandboxStatus."""
    return {
        **sandbox_in_list(status),
        "network": {
            "ip": status.ips[0] if status.ips else "",
            "additional_ips": [{"ip": ip} for ip in status.ips[1:]],
        },
    }


def sandbox_in_list(status: SandboxStatus) -> Message:
    """A PodSandbox."""
    return {
        "id": status.id,
        "metadata": metadata_to_cri(status.identity),
        "state": status.state.value,
        "created_at": nanoseconds(status.created_at),
        "labels": status.labels,
        "annotations": status.annotations,
    }


def container_to_cri(status: ContainerStatus, image: Mapping[str, Any], image_ref: str) -> Message:
    """A runtime.v1.ContainerStatus. `image`: an ImageSpec, `image_ref`: the image's name with digest, or its id."""
    return {
        "id": status.id,
        "metadata": {"name": status.name, "attempt": status.attempt},
        "state": status.state.value,
        "created_at": nanoseconds(status.created_at),
        "started_at": nanoseconds(status.started_at),
        "finished_at": nanoseconds(status.finished_at),
        "exit_code": status.exit_code,
        "image": image,
        "image_ref": image_ref,
        "image_id": status.image,
        "reason": status.reason,
        "message": status.message,
        "labels": status.labels,
        "annotations": status.annotations,
        "log_path": status.log_path,
    }


def usage_to_cri(usage: Usage, at: float) -> Message:
    """`cpu` and `memory` of ContainerStats and LinuxPodSandboxStats; with PSI where the kernel has it."""
    stamp = nanoseconds(at)
    limit = usage.limit_bytes
    return {
        "cpu": {
            "timestamp": stamp,
            "usage_core_nano_seconds": {"value": usage.cpu_ns},
            "psi": _psi(usage, "cpu"),
        },
        "memory": {
            "timestamp": stamp,
            "working_set_bytes": {"value": usage.working_set_bytes},
            "available_bytes": {"value": max(limit - usage.working_set_bytes, 0)} if limit else None,
            "usage_bytes": {"value": usage.memory_bytes},
            "rss_bytes": {"value": usage.rss_bytes},
            "page_faults": {"value": usage.page_faults},
            "major_page_faults": {"value": usage.major_page_faults},
            "psi": _psi(usage, "memory"),
        },
        "io": {"timestamp": stamp, "psi": _psi(usage, "io")} if ("io", "some") in usage.psi else None,
    }


def _psi(usage: Usage, resource: str) -> Message | None:
    found = {kind: usage.psi.get((resource, kind.lower())) for kind in ("Some", "Full")}
    data = {
        kind: {"Total": p.total_us * 1000, "Avg10": p.avg10, "Avg60": p.avg60, "Avg300": p.avg300}
        for kind, p in found.items()
        if p is not None
    }
    return data or None


def image_to_cri(image: Image) -> Message:
    user, name = image.config.user.partition(":")[0], ""
    uid = {"value": int(user)} if user.isdigit() else None
    if uid is None:
        name = user
    return {
        "id": image.id,
        "repo_tags": image.tags,
        "repo_digests": image.digests,
        "size": image.size_bytes,
        "uid": uid if uid or name else {"value": 0},
        "username": name,
        "spec": {"image": image.id},
        "pinned": image.pinned,
    }
