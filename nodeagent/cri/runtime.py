"""`CriRuntime`: the agent's `Runtime`, done by any CRI runtime behind a socket (containerd, CRI-O, our own).

What kubelet does around the CRI is done here: the pods' cgroups are ours (the runtime puts its containers below them),
lists are completed by statuses (remembered: an exited container does not change), missing events are made up by asking.
Nothing is kept that the runtime does not know as well.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from controlplane import clock
from nodeagent.cri import configs, statuses, streams
from nodeagent.cri.client import CallFailed, Client, MissingThere
from nodeagent.cri.codec import Message
from nodeagent.cri.grpc.status import Code
from nodeagent.cri.podgroups import PodGroups
from nodeagent.cri.watch import News
from nodeagent.runtime.interface import (
    ContainerConfig,
    ContainerEvent,
    ContainerState,
    ContainerStatus,
    DiskUsage,
    ExecSession,
    LinuxResources,
    NotFound,
    RuntimeFailure,
    SandboxConfig,
    SandboxState,
    SandboxStatus,
    Stats,
)

log = logging.getLogger(__name__)

POLL_S = 1.0  # kubelet's own period of asking
_STATUS_S = 5.0
_MEMORY = "io.wherry.cri/sandbox"  # annotation: of a sandbox, what its containers need and no status tells
_STREAMS = "io.wherry.cri/streams"  # annotation: attach must name the streams that a container was made with
_CREATE, _SANDBOX = "CreateContainerError", "CreatePodSandboxError"


class CriRuntime:
    """`Runtime` over `client`. `cgroup_root`: the node's cgroup from the top of the hierarchies; empty: the top."""

    def __init__(self, client: Client, *, cgroup_root: str = "") -> None:
        self._client = client
        self._cgroup_root = cgroup_root
        self._groups = PodGroups(cgroup_root)
        self._news = News()
        self._watching: asyncio.Task[None] | None = None
        self._forwards: set[asyncio.Task[None]] = set()
        self._sandboxes: dict[str, SandboxStatus] = {}
        self._configs: dict[str, Message] = {}  # of our sandboxes: CreateContainer wants them again
        self._containers: dict[str, ContainerStatus] = {}
        self.name = ""

    # Life of the connection.

    async def start(self) -> None:
        version = await self._client.call("Version", {"version": "0.1.0"}, timeout_s=_STATUS_S)
        self.name = f"{version['runtime_name']}://{version['runtime_version']}"
        with contextlib.suppress(CallFailed):  # runtimes before this call existed are configured by hand
            config = await self._client.call("RuntimeConfig", timeout_s=_STATUS_S)
            if (config.get("linux") or {}).get("cgroup_driver") == "SYSTEMD" and "linux" in config:
                raise RuntimeFailure(f"{self.name} manages cgroups by systemd; only cgroupfs is supported")
        trouble = await self.status()
        if trouble:
            raise RuntimeFailure(trouble)
        await self._look_at_all()
        if self._watching is None:
            self._watching = asyncio.get_running_loop().create_task(self._watch())
        log.info("cri runtime=%s sandboxes=%d", self.name, len(self._sandboxes))

    async def close(self) -> None:
        tasks = [*self._forwards, *([self._watching] if self._watching else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._watching = None
        await self._client.close()

    async def status(self) -> str:
        return await self.condition("RuntimeReady")

    async def condition(self, kind: str) -> str:
        """What is wrong with RuntimeReady or NetworkReady; empty if nothing."""
        try:
            answer = await self._client.call("Status", timeout_s=_STATUS_S)
        except RuntimeFailure as failure:
            return str(failure)
        for condition in (answer.get("status") or {}).get("conditions", ()):
            if condition["type"] == kind:
                return "" if condition["status"] else f"{condition['reason']}: {condition['message']}"
        return f"the runtime does not say whether it is {kind}"

    def events(self) -> AsyncIterator[ContainerEvent]:
        return self._news.events()

    # Sandboxes.

    async def run_sandbox(self, config: SandboxConfig) -> SandboxStatus:
        identity = config.identity
        message = _with_memory(configs.sandbox_to_cri(config, self._cgroup_root), config.cgroup_parent)
        made = self._groups.make(config.cgroup_parent, config.resources)
        try:
            answer = await self._client.call(
                "RunPodSandbox", {"config": message, "runtime_handler": config.runtime_handler}, reason=_SANDBOX
            )
        except CallFailed as failure:
            if made:
                self._groups.remove(config.cgroup_parent)
            if failure.code is Code.ALREADY_EXISTS or "is reserved for" in str(failure):
                text = f"run_sandbox: attempt {identity.attempt} of pod {identity.uid} exists already"
                raise RuntimeFailure(text, _SANDBOX) from failure
            raise
        sandbox_id = answer["pod_sandbox_id"]
        status = await self._sandbox(sandbox_id)
        self._news.sandbox(sandbox_id, identity.uid, ready=True)
        return status

    async def stop_sandbox(self, sandbox_id: str) -> None:
        with contextlib.suppress(NotFound):
            await self._client.call("StopPodSandbox", {"pod_sandbox_id": sandbox_id})
            known = self._sandboxes.pop(sandbox_id, None)
            if known is not None:
                self._news.sandbox(sandbox_id, known.identity.uid, ready=False)

    async def remove_sandbox(self, sandbox_id: str) -> None:
        await self.stop_sandbox(sandbox_id)
        with contextlib.suppress(NotFound):
            await self._client.call("RemovePodSandbox", {"pod_sandbox_id": sandbox_id})
        for known in (self._sandboxes, self._configs):
            known.pop(sandbox_id, None)
        self._news.sandbox_gone(sandbox_id)
        await self._groups.sandbox_gone(sandbox_id)

    async def sandboxes(self) -> Sequence[SandboxStatus]:
        items = (await self._client.call("ListPodSandbox"))["items"]
        there = {item["id"] for item in items}
        for gone in self._sandboxes.keys() - there:
            del self._sandboxes[gone]
        found = []
        for item in items:
            known = self._sandboxes.get(item["id"])
            try:
                if known is None or known.state != item["state"]:
                    known = await self._sandbox(item["id"])
            except MissingThere:
                continue
            found.append(known)
        return found

    async def _sandbox(self, sandbox_id: str) -> SandboxStatus:
        answer = await self._client.call("PodSandboxStatus", {"pod_sandbox_id": sandbox_id, "verbose": True})
        status = statuses.sandbox_from_cri(answer["status"], statuses.netns_of(answer["info"]))
        kept = status.annotations.get(_MEMORY)
        if kept is not None and sandbox_id not in self._configs:
            config = self._configs[sandbox_id] = json.loads(kept)
            self._groups.belongs(sandbox_id, config.pop("group"))
        annotations = {name: value for name, value in status.annotations.items() if name != _MEMORY}
        status = dataclasses.replace(status, annotations=annotations)
        self._sandboxes[sandbox_id] = status
        return status

    # Containers.

    async def create_container(self, sandbox_id: str, config: ContainerConfig) -> str:
        sandbox = self._sandboxes.get(sandbox_id)
        try:
            if sandbox is None or sandbox.state is not SandboxState.READY:
                sandbox = await self._sandbox(sandbox_id)
        except MissingThere:
            sandbox = None
        if sandbox is None or sandbox.state is not SandboxState.READY:
            raise NotFound(f"create_container: no ready sandbox {sandbox_id!r}", _CREATE)
        image = await self._client.call("ImageStatus", {"image": {"image": config.image}}, reason=_CREATE)
        if "image" not in image:
            raise NotFound(f"create_container: no image {config.image!r}", _CREATE)
        message = self._configs.get(sandbox_id) or {}
        attached = ",".join(word for word in ("stdin", "tty") if getattr(config, word))
        config = dataclasses.replace(config, annotations={**config.annotations, _STREAMS: attached})
        request = {
            "pod_sandbox_id": sandbox_id,
            "config": configs.container_to_cri(config, message),
            "sandbox_config": message,
        }
        try:
            answer = await self._client.call("CreateContainer", request, reason=_CREATE)
        except CallFailed as failure:
            if failure.code is Code.ALREADY_EXISTS or "is reserved for" in str(failure):
                text = f"create_container: attempt {config.attempt} of {config.name} exists already"
                raise RuntimeFailure(text, _CREATE) from failure
            raise
        container_id: str = answer["container_id"]
        self._news.container(container_id, sandbox_id, ContainerState.CREATED)
        return container_id

    async def start_container(self, container_id: str) -> None:
        try:
            await self._client.call("StartContainer", {"container_id": container_id})
        finally:
            self._containers.pop(container_id, None)
            with contextlib.suppress(RuntimeFailure):
                status = await self.container_status(container_id)
                self._news.container(container_id, status.sandbox_id, status.state)

    async def stop_container(self, container_id: str, timeout_s: float) -> None:
        # The runtime's timeout is in whole seconds, and 0 means at once: a little too long is better than too short.
        seconds = max(0, int(-(-timeout_s // 1)))
        request = {"container_id": container_id, "timeout": seconds}
        with contextlib.suppress(NotFound):
            await self._client.call("StopContainer", request, timeout_s=seconds + 60)
            status = await self.container_status(container_id)
            self._news.container(container_id, status.sandbox_id, status.state)

    async def remove_container(self, container_id: str) -> None:
        await self.stop_container(container_id, 0)
        with contextlib.suppress(NotFound):
            await self._client.call("RemoveContainer", {"container_id": container_id})
        self._containers.pop(container_id, None)
        self._news.container_gone(container_id)

    async def containers(self, sandbox_id: str = "") -> Sequence[ContainerStatus]:
        request = {"filter": {"pod_sandbox_id": sandbox_id}} if sandbox_id else {}
        items = (await self._client.call("ListContainers", request))["containers"]
        if not sandbox_id:
            for gone in self._containers.keys() - {item["id"] for item in items}:
                del self._containers[gone]
        found = []
        for item in items:
            with contextlib.suppress(NotFound):
                found.append(await self._container(item))
        return found

    async def container_status(self, container_id: str) -> ContainerStatus:
        answer = await self._client.call("ListContainers", {"filter": {"id": container_id}})
        if not answer["containers"]:
            raise NotFound(f"container_status: no container {container_id!r}")
        return await self._container(answer["containers"][0])

    async def _container(self, item: Mapping[str, Any]) -> ContainerStatus:
        """The status of a container that was listed: asked for when its state has changed, which says all."""
        known = self._containers.get(item["id"])
        if known is not None and known.state == item["state"]:
            return known
        answer = await self._client.call("ContainerStatus", {"container_id": item["id"]})
        image = item["image_id"] or item["image_ref"]
        status = statuses.container_from_cri(answer["status"], item["pod_sandbox_id"], image)
        annotations = {name: value for name, value in status.annotations.items() if name != _STREAMS}
        status = dataclasses.replace(status, annotations=annotations)
        self._containers[status.id] = status
        return status

    # Resources.

    async def stats(self) -> Sequence[Stats]:
        now = clock.wall_time()
        ready = [s for s in await self.sandboxes() if s.state is SandboxState.READY]
        running = {c.id: c for c in await self.containers() if c.state is ContainerState.RUNNING}
        of_containers = []
        for entry in (await self._client.call("ListContainerStats"))["stats"]:
            container = running.get((entry.get("attributes") or {"id": ""})["id"])
            if container is not None:
                of_containers.append(statuses.stats_from_cri(entry, container.sandbox_id, container.id, now))
        of_sandboxes = []
        for sandbox in ready:
            inside = [s for s in of_containers if s.sandbox_id == sandbox.id]
            of_sandboxes.append(Stats(sandbox.id, "", now, self._groups.usage(sandbox.id, [s.usage for s in inside])))
        return [*of_sandboxes, *of_containers]

    async def disk_usage(self, container_id: str) -> DiskUsage:
        layer = (await self._stats_of(container_id)).get("writable_layer") or {}
        used, inodes = layer.get("used_bytes"), layer.get("inodes_used")
        return DiskUsage(used["value"] if used else 0, inodes["value"] if inodes else 0)

    async def _stats_of(self, container_id: str) -> Message:
        try:
            answer = await self._client.call("ContainerStats", {"container_id": container_id})
        except CallFailed:
            await self.container_status(container_id)  # NotFound, in whatever words the runtime said it
            raise
        stats: Message = answer.get("stats") or {}
        return stats

    async def update_resources(self, container_id: str, resources: LinuxResources) -> None:
        if resources.memory_limit_bytes > 0:
            used = statuses.usage_from_cri(await self._stats_of(container_id)).working_set_bytes
            if resources.memory_limit_bytes < used:
                message = f"cannot lower the memory limit to {resources.memory_limit_bytes}: {used} bytes are in use"
                raise RuntimeFailure(f"update_resources: {message}")
        request = {"container_id": container_id, "linux": configs.resources_to_cri(resources)}
        await self._client.call("UpdateContainerResources", request)

    async def update_sandbox_resources(self, sandbox_id: str, resources: LinuxResources) -> None:
        if sandbox_id not in self._sandboxes:
            await self._sandbox(sandbox_id)
        self._groups.update(sandbox_id, resources)

    async def set_group(self, path: str, resources: LinuxResources) -> None:
        self._groups.set(path, resources)

    # Streams.

    async def exec(self, container_id: str, command: Sequence[str], *, tty: bool, stdin: bool) -> ExecSession:
        request = {
            "container_id": container_id, "cmd": command, "tty": tty, "stdin": stdin, "stdout": True,
            "stderr": not tty,
        }  # fmt: skip
        try:
            url = (await self._client.call("Exec", request))["url"]
        except CallFailed:
            await self._must_run("exec", container_id)
            raise
        return await streams.session(url, stdin=stdin, tty=tty)

    async def attach(self, container_id: str) -> ExecSession:
        await self._must_run("attach", container_id)
        answer = await self._client.call("ContainerStatus", {"container_id": container_id})
        made = answer["status"]["annotations"].get(_STREAMS, "").split(",")
        stdin, tty = "stdin" in made, "tty" in made
        request = {"container_id": container_id, "stdin": stdin, "tty": tty, "stdout": True, "stderr": not tty}
        return await streams.session((await self._client.call("Attach", request))["url"], stdin=stdin, tty=tty)

    async def dial(self, sandbox_id: str, port: int) -> socket.socket:
        sandbox = self._sandboxes.get(sandbox_id)
        if sandbox is None or sandbox.state is not SandboxState.READY:
            raise NotFound(f"port_forward: sandbox {sandbox_id!r} is not running")
        answer = await self._client.call("PortForward", {"pod_sandbox_id": sandbox_id, "port": [port]})
        return await streams.forward(answer["url"], port, self._forwards)

    async def reopen_log(self, container_id: str) -> None:
        await self._client.call("ReopenContainerLog", {"container_id": container_id})

    async def _must_run(self, method: str, container_id: str) -> None:
        status = await self.container_status(container_id)
        if status.state is not ContainerState.RUNNING:
            raise RuntimeFailure(f"{method}: container {container_id} is not running")

    # News.

    async def _watch(self) -> None:
        """Hear of what happens, for as long as the runtime tells it; else ask."""
        told = True
        while True:
            try:
                if told:
                    async for event in self._client.stream("GetContainerEvents"):
                        await self._look(event["container_id"])
            except CallFailed as failure:
                told = failure.code is not Code.UNIMPLEMENTED
            with contextlib.suppress(RuntimeFailure):
                await self._look_at_all()
            await asyncio.sleep(POLL_S)

    async def _look_at_all(self) -> None:
        known = self._news.known()
        self._news.seen(await self.sandboxes(), await self.containers(), known)

    async def _look(self, subject: str) -> None:
        """Something has happened to this container or sandbox: see what."""
        with contextlib.suppress(RuntimeFailure):
            if subject in self._sandboxes:
                await self._look_at_all()
                return
            try:
                status = await self.container_status(subject)
                self._news.container(subject, status.sandbox_id, status.state)
            except NotFound:
                self._news.container_gone(subject)


def _with_memory(message: Message, group: str) -> Message:
    """A PodSandboxConfig that remembers what a restarted agent must know of it."""
    kept = {name: message[name] for name in ("metadata", "hostname", "log_directory")}
    linux = {name: message["linux"][name] for name in ("cgroup_parent", "security_context")}
    memory = json.dumps({**kept, "linux": linux, "group": group})
    return {**message, "annotations": {**message["annotations"], _MEMORY: memory}}
