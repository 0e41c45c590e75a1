"""Errors as the API states them: the `Status` object, and the field errors ("causes") inside it.

Every error that leaves the API server is a StatusError; the factories below use Kubernetes' own words, reasons and
codes (apimachinery pkg/api/errors and util/validation/field), because clients match on them. Nothing here decides
whether something is an error.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, NamedTuple

import msgspec

Details = dict[str, Any]
_NO_VALUE = object()


class Cause(NamedTuple):
    """One thing wrong with an object: a machine-readable reason, a message, and the field's path ("spec.replicas")."""

    reason: str
    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}" if self.field else self.message


def quote(text: str) -> str:
    """`text` in double quotes with escapes, as Go's %q prints it."""
    if text.isprintable():
        return msgspec.json.encode(text).decode()
    return '"' + "".join(map(_escaped, text)) + '"'


_ESCAPES = {'"': '\\"', "\\": "\\\\", **dict(zip("\a\b\f\n\r\t\v", (f"\\{c}" for c in "abfnrtv"), strict=True))}


def _escaped(char: str) -> str:
    if char in _ESCAPES:
        return _ESCAPES[char]
    if char.isprintable():
        return char
    number = ord(char)
    if number < 0x20 or number == 0x7F:
        return f"\\x{number:02x}"
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def show(value: Any) -> str:
    """A value as it appears in a field error: strings quoted, everything else as JSON."""
    return quote(value) if isinstance(value, str) else msgspec.json.encode(value).decode()


def required(field: str, detail: str = "") -> Cause:
    """The field must have a value."""
    return Cause("FieldValueRequired", field, _body("Required value", _NO_VALUE, detail))


def invalid_value(field: str, value: Any, detail: str) -> Cause:
    """The field's value breaks a rule."""
    return Cause("FieldValueInvalid", field, _body("Invalid value", value, detail))


def not_supported(field: str, value: Any, supported: Iterable[str]) -> Cause:
    """The field's value is not one of `supported`, which are named in the order given (a set: sorted)."""
    ordered = sorted(supported) if isinstance(supported, Set) else supported
    detail = "supported values: " + ", ".join(quote(each) for each in ordered)
    return Cause("FieldValueNotSupported", field, _body("Unsupported value", value, detail))


def duplicate(field: str, value: Any, detail: str = "") -> Cause:
    """The field's value must be unique and is not."""
    return Cause("FieldValueDuplicate", field, _body("Duplicate value", value, detail))


def forbidden_field(field: str, detail: str) -> Cause:
    """The field may not be set, or may not be changed."""
    return Cause("FieldValueForbidden", field, _body("Forbidden", _NO_VALUE, detail))


def too_long(field: str, limit: int) -> Cause:
    """The field's value has more than `limit` bytes."""
    unit = "byte" if limit == 1 else "bytes"
    return Cause("FieldValueTooLong", field, _body("Too long", _NO_VALUE, f"may not be more than {limit} {unit}"))


def too_many(field: str, count: int, limit: int) -> Cause:
    """The list or map has `count` items and may have `limit`."""
    unit = "item" if limit == 1 else "items"
    return Cause("FieldValueTooMany", field, _body("Too many", count, f"must have at most {limit} {unit}"))


def not_found_value(field: str, value: Any, detail: str = "") -> Cause:
    """The field's value names something that does not exist."""
    return Cause("FieldValueNotFound", field, _body("Not found", value, detail))


def type_invalid(field: str, value: Any, detail: str) -> Cause:
    """The field's value is of another type."""
    return Cause("FieldValueTypeInvalid", field, _body("Invalid value", value, detail))


def _body(what: str, value: Any, detail: str) -> str:
    shown = what if value is _NO_VALUE else f"{what}: {show(value)}"
    return f"{shown}: {detail}" if detail else shown


class StatusError(Exception):
    """An API error: what the server answers, and what a client raises when it gets that answer.

    `headers` are extra HTTP headers (Retry-After, WWW-Authenticate).
    """

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        details: Details | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details: Details = details or {}
        self.headers: Mapping[str, str] = headers or {}

    def to_dict(self) -> dict[str, Any]:
        """The v1 `Status` object."""
        status: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            status["reason"] = self.reason
        if self.details:
            status["details"] = self.details
        status["code"] = self.code
        return status

    @classmethod
    def from_dict(cls, status: Mapping[str, Any]) -> "StatusError":
        """The error that a v1 `Status` object states; missing parts become empty."""
        details = status.get("details")
        return cls(
            int(status.get("code") or 500),
            str(status.get("reason") or ""),
            str(status.get("message") or "unknown"),
            dict(details) if isinstance(details, Mapping) else None,
        )

    def __repr__(self) -> str:
        return f"StatusError({self.code}, {self.reason!r}, {self.message!r})"


def _split(group_resource: str) -> tuple[str, str]:
    resource, _, group = group_resource.partition(".")
    return resource, group


def _about(group_resource: str, name: str = "") -> Details:
    resource, group = _split(group_resource)
    details: Details = {}
    if name:
        details["name"] = name
    if group:
        details["group"] = group
    if resource:
        details["kind"] = resource
    return details


def _retry(details: Details, seconds: int) -> tuple[Details, dict[str, str]]:
    if seconds <= 0:
        return details, {}
    return details | {"retryAfterSeconds": seconds}, {"Retry-After": str(seconds)}


def bad_request(message: str) -> StatusError:
    """400: the request cannot be understood."""
    return StatusError(400, "BadRequest", message)


def unauthorized(message: str = "Unauthorized") -> StatusError:
    """401: nobody that we know."""
    return StatusError(401, "Unauthorized", message)


def forbidden(
    user: str,
    verb: str,
    resource: str = "",
    *,
    group: str = "",
    subresource: str = "",
    namespace: str = "",
    name: str = "",
    path: str = "",
    reason: str = "",
) -> StatusError:
    """403 for a user that may not `verb` a resource (plural), or a path outside the resources when `path` is given."""
    tail = f": {reason}" if reason else ""
    if path:
        return StatusError(403, "Forbidden", f"forbidden: User {quote(user)} cannot {verb} path {quote(path)}{tail}")
    whole = f"{resource}/{subresource}" if subresource else resource
    where = f"in the namespace {quote(namespace)}" if namespace else "at the cluster scope"
    text = f"User {quote(user)} cannot {verb} resource {quote(whole)} in API group {quote(group)} {where}{tail}"
    return forbidden_object(f"{resource}.{group}" if group else resource, name, text)


def forbidden_object(group_resource: str, name: str, message: str) -> StatusError:
    """403 for another reason than RBAC, such as an admission plugin's or a protected object's."""
    subject = f"{group_resource} {quote(name)}" if name else group_resource
    return StatusError(403, "Forbidden", f"{subject} is forbidden: {message}", _about(group_resource, name))


def not_found(group_resource: str = "", name: str = "") -> StatusError:
    """404 for an object; without arguments for a path that the server does not know."""
    if not group_resource:
        return StatusError(404, "NotFound", "the server could not find the requested resource")
    return StatusError(404, "NotFound", f"{group_resource} {quote(name)} not found", _about(group_resource, name))


def already_exists(group_resource: str, name: str) -> StatusError:
    """409 for a create of an object that exists."""
    message = f"{group_resource} {quote(name)} already exists"
    return StatusError(409, "AlreadyExists", message, _about(group_resource, name))


def generate_name_conflict(group_resource: str, name: str) -> StatusError:
    """409 for a create with generateName whose tries were all taken."""
    taken = f"{group_resource} {quote(name)} already exists"
    text = f"{taken}, the server was not able to generate a unique name for the object"
    details, headers = _retry(_about(group_resource, name), 1)
    return StatusError(409, "AlreadyExists", text, details, headers)


MODIFIED = "the object has been modified; please apply your changes to the latest version and try again"


def conflict(group_resource: str, name: str, message: str = MODIFIED) -> StatusError:
    """409 for a write that is based on an older version of the object (or breaks another precondition)."""
    text = f"Operation cannot be fulfilled on {group_resource} {quote(name)}: {message}"
    return StatusError(409, "Conflict", text, _about(group_resource, name))


def apply_conflict(message: str, causes: Sequence[Cause]) -> StatusError:
    """409 for a server-side apply of fields that others own."""
    return StatusError(409, "Conflict", message, {"causes": [_cause(cause) for cause in causes]})


def invalid(group: str, kind: str, name: str, causes: Sequence[Cause]) -> StatusError:
    """422 for an object that breaks rules; one cause a broken rule."""
    texts = list(dict.fromkeys(str(cause) for cause in causes))
    text = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    subject = f"{kind}.{group}" if group else kind
    details: Details = {"name": name} if name else {}
    if group:
        details["group"] = group
    details["kind"] = kind
    details["causes"] = [_cause(cause) for cause in causes]
    message = f"{subject} {quote(name)} is invalid: {text}" if texts else f"{subject} {quote(name)} is invalid"
    return StatusError(422, "Invalid", message, details)


def _cause(cause: Cause) -> dict[str, str]:
    return {"reason": cause.reason, "message": cause.message, "field": cause.field}


def expired(message: str = "The resourceVersion for the provided watch is too old.") -> StatusError:
    """410 for a resourceVersion or continue token that the server no longer knows."""
    return StatusError(410, "Expired", message)


def gone(message: str) -> StatusError:
    """410 for something that will not come back."""
    return StatusError(410, "Gone", message)


def method_not_allowed(group_resource: str, action: str) -> StatusError:
    """405 for a verb that the resource does not have."""
    message = f"{action} is not supported on resources of kind {quote(group_resource)}"
    return StatusError(405, "MethodNotAllowed", message, _about(group_resource))


def not_acceptable(accepted: Iterable[str] = ("application/json",)) -> StatusError:
    """406 when the client accepts none of the media types that the server can produce."""
    return StatusError(406, "NotAcceptable", "only the following media types are accepted: " + ", ".join(accepted))


def unsupported_media_type(accepted: Iterable[str] = ("application/json",)) -> StatusError:
    """415 for a body in a format that the server cannot read."""
    text = "the body of the request was in an unknown format - accepted media types include: " + ", ".join(accepted)
    return StatusError(415, "UnsupportedMediaType", text)


def too_large(message: str) -> StatusError:
    """413 for a body over the limit."""
    return StatusError(413, "RequestEntityTooLarge", f"Request entity too large: {message}")


def too_many_requests(message: str, retry_after: int = 1) -> StatusError:
    """429: come again in `retry_after` seconds."""
    details, headers = _retry({}, retry_after)
    return StatusError(429, "TooManyRequests", message, details, headers)


def timeout(message: str, retry_after: int = 0) -> StatusError:
    """504 for a request that took longer than it may."""
    details, headers = _retry({}, retry_after)
    return StatusError(504, "Timeout", f"Timeout: {message}", details, headers)


def server_timeout(group_resource: str, operation: str, retry_after: int = 0) -> StatusError:
    """500 for an operation that the server could not do now and that may be tried again."""
    text = f"The {operation} operation against {group_resource} could not be completed at this time, please try again."
    details, headers = _retry(_about(group_resource), retry_after)
    return StatusError(500, "ServerTimeout", text, details, headers)


def internal(message: str) -> StatusError:
    """500 for a fault of the server's own."""
    return StatusError(500, "InternalError", f"Internal error occurred: {message}", {"causes": [{"message": message}]})


def service_unavailable(message: str, retry_after: int = 0) -> StatusError:
    """503 while the server cannot work."""
    details, headers = _retry({}, retry_after)
    return StatusError(503, "ServiceUnavailable", message, details, headers)
