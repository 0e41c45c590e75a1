"""One request as an audit Event. Pure. Shape: k8s.io/apiserver/pkg/apis/audit/v1."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from controlplane import clock
from controlplane.api import wire
from controlplane.apiserver.audit.policy import NAMES, Decision, Level
from controlplane.apiserver.http import JSON, Request, Response, User
from controlplane.apiserver.requestinfo import RequestInfo

Object = dict[str, Any]
NOTHING = RequestInfo(False, "", "")


@dataclass(slots=True)
class Told:
    """What is kept of a request between its stages. `at`: when it came, seconds since the epoch."""

    id: str
    at: float
    decision: Decision
    user: User
    impersonated: User | None


def event(told: Told, request: Request, stage: str, response: Response | None = None) -> Object:
    """The Event of a stage."""
    info: RequestInfo = request.info or NOTHING
    level = told.decision.level
    query = f"?{request.query_string}" if request.query_string else ""
    made: Object = {
        "kind": "Event",
        "apiVersion": "audit.k8s.io/v1",
        "level": NAMES[level],
        "auditID": told.id,
        "stage": stage,
        "requestURI": request.path + query,
        "verb": info.verb or request.method.lower(),
        "user": _user(told.user),
        "sourceIPs": _sources(request),
        "userAgent": request.headers.get("User-Agent", ""),
        "requestReceivedTimestamp": clock.rfc3339_micro(told.at),
        "stageTimestamp": clock.rfc3339_micro(),
    }
    if told.impersonated is not None:
        made["impersonatedUser"] = _user(told.impersonated)
    if info.is_resource:
        made["objectRef"] = _reference(info)
    hide = told.decision.omit_managed_fields
    if level >= Level.REQUEST and request.body and info.is_resource:
        made["requestObject"] = _content(request.body, request.headers.get("Content-Type", JSON), hide)
    if response is not None:
        made["responseStatus"] = {"metadata": {}, "code": response.status}
        plain = response.stream is None and response.takeover is None
        if response.status >= 400 and plain:
            made["responseStatus"] |= _failure(response)
        elif level >= Level.REQUEST_RESPONSE and plain and info.is_resource:
            made["responseObject"] = _content(response.body, response.content_type, hide)
        allowed = response.status not in (401, 403)
        made["annotations"] = {
            "authorization.k8s.io/decision": "allow" if allowed else "forbid",
            **request.annotations,  # admission's
        }
    return made


def _user(user: User) -> Object:
    shown: Object = {"username": user.name}
    if user.uid:
        shown["uid"] = user.uid
    shown["groups"] = list(user.groups)
    if user.extra:
        shown["extra"] = {key: list(values) for key, values in user.extra.items()}
    return shown


def _sources(request: Request) -> list[str]:
    forwarded = [each.strip() for each in request.headers.get("X-Forwarded-For", "").split(",") if each.strip()]
    raw = request.transport_request
    return [*forwarded, *([raw.remote] if raw is not None and raw.remote else [])]


def _reference(info: RequestInfo) -> Object:
    fields = {
        "resource": info.resource, "namespace": info.namespace, "name": info.name, "apiGroup": info.group,
        "apiVersion": info.version, "subresource": info.subresource,
    }  # fmt: skip
    return {key: value for key, value in fields.items() if value}


def _failure(response: Response) -> Object:
    """reason and message of a Status that is an error."""
    try:
        status = msgspec.json.decode(response.body)
    except msgspec.DecodeError:
        return {}
    keys = ("status", "reason", "message", "details")
    return {key: status[key] for key in keys if status.get(key)} if isinstance(status, dict) else {}


def _content(body: bytes, content_type: str, hide: bool) -> Any:
    """A body as an object; what is none is told by its type and length."""
    try:
        if "protobuf" in content_type:
            content: Any = wire.decode(body)
        elif "yaml" in content_type and "json" not in content_type:
            import yaml

            content = yaml.safe_load(body)
        else:
            content = msgspec.json.decode(body)
    except Exception:  # whatever a client sent must not stop the log
        return {"unreadable": content_type, "bytes": len(body)}
    return _without_managers(content) if hide else content


def _without_managers(content: Any) -> Any:
    if not isinstance(content, dict):
        return content
    shown = dict(content)
    if isinstance(shown.get("metadata"), dict):
        shown["metadata"] = {k: v for k, v in shown["metadata"].items() if k != "managedFields"}
    if isinstance(shown.get("items"), list):
        shown["items"] = [_without_managers(item) for item in shown["items"]]
    return shown
