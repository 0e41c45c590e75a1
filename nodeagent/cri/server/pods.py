"""Sandboxes by CRI: run, stop, remove, status, list."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Mapping
from typing import Any

from controlplane import clock
from nodeagent.cri import configs, statuses
from nodeagent.cri.codec import Message
from nodeagent.cri.grpc.status import Code, GrpcError
from nodeagent.cri.server import memory
from nodeagent.cri.server.containers import Containers
from nodeagent.cri.server.filters import passes, plain
from nodeagent.runtime.interface import HANDLERS, Runtime, SandboxState, SandboxStatus

_CONFIG = "PodSandboxConfig"


class Pods:
    """`directory`: where the files are that a runtime gives to containers (resolv.conf), one directory a sandbox."""

    def __init__(self, runtime: Runtime, containers: Containers, directory: str) -> None:
        self._runtime, self._containers, self._directory = runtime, containers, directory

    async def find(self, sandbox_id: str) -> SandboxStatus:
        """Raises GrpcError (NOT_FOUND)."""
        found = [s for s in await self._runtime.sandboxes() if sandbox_id and s.id.startswith(sandbox_id)]
        if len(found) != 1:
            raise GrpcError(Code.NOT_FOUND, f'an error occurred when try to find sandbox "{sandbox_id}": not found')
        return found[0]

    async def run(self, request: Message) -> Message:
        given = request.get("config")
        if not given:
            raise ValueError("RunPodSandbox needs a config")
        handler = request["runtime_handler"]
        if handler not in HANDLERS:
            raise ValueError(f'failed to get sandbox runtime: no runtime for "{handler}" is configured')
        config = configs.sandbox_from_cri(given)
        annotations = memory.remember(config.annotations, _CONFIG, given)
        config = dataclasses.replace(config, annotations=annotations, runtime_handler=handler)
        status = await self._runtime.run_sandbox(config)
        try:
            write_files(os.path.join(self._directory, status.id), given, config.host_network)
        except OSError as error:
            await self._runtime.remove_sandbox(status.id)
            raise GrpcError(Code.UNKNOWN, f"run sandbox: {error}") from error
        return {"pod_sandbox_id": status.id}

    async def stop(self, request: Message) -> Message:
        with contextlib.suppress(GrpcError):  # idempotent: who is gone has stopped
            await self._runtime.stop_sandbox((await self.find(request["pod_sandbox_id"])).id)
        return {}

    async def remove(self, request: Message) -> Message:
        with contextlib.suppress(GrpcError):
            sandbox = await self.find(request["pod_sandbox_id"])
            await self._runtime.remove_sandbox(sandbox.id)
            shutil.rmtree(os.path.join(self._directory, sandbox.id), ignore_errors=True)
        return {}

    async def status(self, request: Message) -> Message:
        status = await self.find(request["pod_sandbox_id"])
        info = {}
        if request["verbose"]:
            config = memory.recall(status.annotations, _CONFIG) or {}
            known = {"sandboxID": status.id, "netns": status.netns_path, "config": plain(config)}
            if status.netns_path.startswith("/proc/"):
                known["pid"] = int(status.netns_path.split("/")[2])
            info["info"] = json.dumps(known)
        containers = [await self._containers.described(c) for c in await self._runtime.containers(status.id)]
        return {
            "status": self.described(status),
            "info": info,
            "containers_statuses": containers,
            "timestamp": statuses.nanoseconds(clock.wall_time()),
        }

    def described(self, status: SandboxStatus) -> Message:
        """A PodSandboxStatus."""
        return {
            **statuses.sandbox_to_cri(status),
            "annotations": memory.visible(status.annotations),
            "linux": {"namespaces": {"options": _namespaces(status)}},
        }

    async def list_all(self, request: Message) -> Message:
        return {"items": await self.listed(request.get("filter"))}

    async def listed(self, wanted: Mapping[str, Any] | None) -> list[Message]:
        """PodSandboxes that pass a PodSandboxFilter, the newest first."""
        found = []
        for status in sorted(await self._runtime.sandboxes(), key=lambda s: -s.created_at):
            item = {**statuses.sandbox_in_list(status), "annotations": memory.visible(status.annotations)}
            if passes(item, wanted):
                found.append(item)
        return found

    async def update_resources(self, request: Message) -> Message:
        sandbox = await self.find(request["pod_sandbox_id"])
        resources = request.get("resources")
        if resources:
            await self._runtime.update_sandbox_resources(sandbox.id, configs.resources_from_cri(resources))
        return {}

    async def sweep(self) -> None:
        """Remove the files of sandboxes that are gone."""
        there = {s.id for s in await self._runtime.sandboxes()}
        with contextlib.suppress(FileNotFoundError):
            for name in set(os.listdir(self._directory)) - there:
                shutil.rmtree(os.path.join(self._directory, name), ignore_errors=True)


def write_files(directory: str, config: Message, host_network: bool) -> None:
    """resolv.conf and hostname of a sandbox. Without a dns_config, resolv.conf is the node's. Raises OSError."""
    os.makedirs(directory, mode=0o755, exist_ok=True)
    dns = config.get("dns_config") or {}
    lines = []
    if dns.get("searches"):
        lines.append("search " + " ".join(dns["searches"]))
    lines += [f"nameserver {server}" for server in dns.get("servers") or ()]
    if dns.get("options"):
        lines.append("options " + " ".join(dns["options"]))
    text = "".join(f"{line}\n" for line in lines) or _read("/etc/resolv.conf")
    with open(os.path.join(directory, "resolv.conf"), "w", encoding="utf-8") as file:
        file.write(text)
    name = os.uname().nodename if host_network or not config["hostname"] else config["hostname"]
    with open(os.path.join(directory, "hostname"), "w", encoding="utf-8") as file:
        file.write(f"{name}\n")


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _namespaces(status: SandboxStatus) -> Message:
    given = memory.recall(status.annotations, _CONFIG)
    if given is not None:
        security = (given.get("linux") or {}).get("security_context") or {}
        options: Message = security.get("namespace_options") or {"network": "POD", "pid": "POD", "ipc": "POD"}
        return options
    node = status.state is SandboxState.READY and not status.netns_path
    return {"network": "NODE" if node else "POD", "pid": "CONTAINER", "ipc": "POD"}
