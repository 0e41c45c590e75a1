"""What admission has to say beside yes and no: warnings for the client, annotations for the audit log.

The request that is being served is a context variable, because the registry, which runs admission, knows no requests.
"""

from contextvars import ContextVar
from typing import Protocol

from controlplane.apiserver.http import Request

REQUEST: ContextVar[Request | None] = ContextVar("request whose operation is admitted", default=None)


class Notes(Protocol):
    """Where they go."""

    def warn(self, text: str) -> None: ...
    def annotate(self, key: str, value: str) -> None: ...


class RequestNotes:
    """Into the request that is being served; nowhere if the server writes of its own accord."""

    def warn(self, text: str) -> None:
        request = REQUEST.get()
        if request is not None and text not in request.warnings:
            request.warnings.append(text)

    def annotate(self, key: str, value: str) -> None:
        request = REQUEST.get()
        if request is not None:
            request.annotations[key] = value
