"""The log of one container of a pod: which instance is meant, and what to say when there is none.

Rules and messages: kubelet's `validateContainerLogStatus` (pkg/kubelet/kubelet_pods.go). A container that waits to be
restarted shows its last instance's log, with or without `previous`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from controlplane.api.status import StatusError, bad_request
from nodeagent.pods.worker import Worker
from nodeagent.runtime.interface import ContainerState, ContainerStatus, RuntimeFailure
from nodeagent.server import logs
from nodeagent.server.http import Request, Response
from nodeagent.server.loglines import LogOptions
from nodeagent.server.lookup import Lookup

_TEXT = "text/plain; charset=utf-8"
_ENDED = (ContainerState.EXITED, ContainerState.UNKNOWN)
_PULLING = {
    "ErrImagePull": "image can't be pulled",
    "ImagePullBackOff": "trying and failing to pull image",
}


@dataclass(frozen=True, slots=True)
class PodLogs:
    """The handler of /containerLogs/<namespace>/<pod>/<container>."""

    lookup: Lookup

    async def __call__(self, request: Request, rest: list[str]) -> Response:
        if len(rest) != 3:
            raise bad_request("expected /containerLogs/<namespace>/<pod>/<container>")
        namespace, pod, name = rest
        options = LogOptions.of(request)
        worker = self.lookup.pods.find(namespace, pod)
        if worker is None:
            raise StatusError(404, "NotFound", f'pod "{pod}" does not exist')
        if worker.want.container(name) is None:
            raise StatusError(404, "NotFound", f'container "{name}" not found in pod "{pod}"')
        container = await self._instance(worker, name, previous=options.previous)

        async def ended() -> bool:
            if not options.follow:
                return True
            try:
                now = await self.lookup.runtime.container_status(container.id)
            except RuntimeFailure:
                return True
            return now.state in _ENDED

        return Response(stream=logs.read(container.log_path, options, ended), content_type=_TEXT)

    async def _instance(self, worker: Worker, name: str, *, previous: bool) -> ContainerStatus:
        """Raises StatusError (400)."""
        found = await self.lookup.instances(worker, name)
        status = next((s for s in self._statuses(worker) if s["name"] == name), {})
        waiting = (status.get("state") or {}).get("waiting")
        pod = worker.want.name
        if previous:
            past = [c for c in found if c.state in _ENDED]
            if not waiting and found and found[0].state in _ENDED:
                past = past[1:]
            if not past:
                raise bad_request(f'previous terminated container "{name}" in pod "{pod}" not found')
            return past[0]
        started = [c for c in found if c.state is not ContainerState.CREATED]
        if started:
            return started[0]
        if waiting is None:
            raise bad_request(f'container "{name}" in pod "{pod}" is waiting to start - no logs yet')
        reason = waiting.get("reason", "ContainerCreating")
        raise bad_request(f'container "{name}" in pod "{pod}" is waiting to start: {_PULLING.get(reason, reason)}')

    def _statuses(self, worker: Worker) -> Iterator[dict[str, Any]]:
        status = self.lookup.pods.status(worker.want.uid) or {}
        for kind in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"):
            yield from status.get(kind) or ()
