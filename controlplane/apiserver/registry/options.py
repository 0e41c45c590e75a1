"""ListOptions of a list or watch, read from the query and checked as Kubernetes checks them.

Source of the rules: kubernetes.io/docs/reference/using-api/api-concepts (resource versions, streaming lists); the
combinations that are refused are those of apimachinery's ValidateListOptions, in its words.
"""

from dataclasses import dataclass

from controlplane.api import status
from controlplane.api.status import Cause
from controlplane.apiserver.http import Request

EXACT = "Exact"
NOT_OLDER_THAN = "NotOlderThan"


@dataclass(frozen=True, slots=True)
class ListOptions:
    """`revision`: None if no resourceVersion is named, 0 for any. `initial`: sendInitialEvents, None if not given."""

    revision: int | None = None
    match: str = ""
    limit: int = 0
    token: str = ""
    timeout: int | None = None
    bookmarks: bool = False
    initial: bool | None = None

    @property
    def exact(self) -> int | None:
        """The revision that the answer must be of, if it must be of one."""
        if self.revision and (self.match == EXACT or (self.limit and not self.match)):
            return self.revision
        return None


_NOTHING = ListOptions()


def read(request: Request, *, watching: bool) -> ListOptions:
    """Raises StatusError 400 for what cannot be read, 422 for what does not go together."""
    if not request.query_string:
        return _NOTHING
    query = request.query
    initial = boolean(request, "sendInitialEvents")
    options = ListOptions(
        revision=_revision(query.get("resourceVersion", "")),
        match=query.get("resourceVersionMatch", ""),
        limit=max(integer(request, "limit") or 0, 0),
        token=query.get("continue", ""),
        timeout=integer(request, "timeoutSeconds"),
        bookmarks=boolean(request, "allowWatchBookmarks") or False,
        initial=initial,
    )
    causes = _watch_causes(options) if watching else _list_causes(options)
    if causes:
        raise status.invalid("meta.k8s.io", "ListOptions", "", causes)
    if options.token and options.revision and not watching:
        raise status.bad_request("specifying resource version is not allowed when using continue")
    return options


def integer(request: Request, name: str) -> int | None:
    """A number in the query, None if it is not there. Raises StatusError 400."""
    text = request.query.get(name, "") if request.query_string else ""
    if not text:
        return None
    if not text.isascii() or not text.removeprefix("-").isdigit():
        raise status.bad_request(f"strconv.ParseInt: parsing {status.quote(text)}: invalid syntax")
    value = int(text)
    if not -(1 << 63) <= value < 1 << 63:
        raise status.bad_request(f"strconv.ParseInt: parsing {status.quote(text)}: value out of range")
    return value


def boolean(request: Request, name: str) -> bool | None:
    """As Kubernetes reads them: there, and neither "false" nor "0"; an empty value is true."""
    value = request.query.get(name) if request.query_string else None
    return None if value is None else value.lower() not in ("false", "0")


def _revision(text: str) -> int | None:
    if not text:
        return None
    if text.isascii() and text.isdigit() and int(text) < 1 << 64:
        return int(text)
    trouble = "value out of range" if text.isascii() and text.isdigit() else "invalid syntax"
    cause = status.invalid_value(
        "resourceVersion", text, f"strconv.ParseUint: parsing {status.quote(text)}: {trouble}"
    )
    raise status.bad_request(f"invalid resource version: {cause}")


def _list_causes(options: ListOptions) -> list[Cause]:
    causes = []
    if options.match:
        where = "resourceVersionMatch"
        if options.revision is None:
            causes.append(status.forbidden_field(
                where, "resourceVersionMatch is forbidden unless resourceVersion is provided"
            ))  # fmt: skip
        if options.token:
            causes.append(status.forbidden_field(where, "resourceVersionMatch is forbidden when continue is provided"))
        if options.match not in (EXACT, NOT_OLDER_THAN):
            causes.append(status.not_supported(where, options.match, [EXACT, NOT_OLDER_THAN, ""]))
        if options.match == EXACT and options.revision == 0:
            causes.append(status.forbidden_field(
                where, 'resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
            ))  # fmt: skip
    if options.initial is not None:
        causes.append(status.forbidden_field("sendInitialEvents", "sendInitialEvents is forbidden for list"))
    return causes


def _watch_causes(options: ListOptions) -> list[Cause]:
    causes = []
    where, match = "resourceVersionMatch", options.match
    if options.initial is not None and match != NOT_OLDER_THAN:
        causes.append(status.forbidden_field(
            where, f"sendInitialEvents requires setting resourceVersionMatch to {NOT_OLDER_THAN}"
        ))  # fmt: skip
    if match:
        if options.initial is None:
            causes.append(status.forbidden_field(
                where, "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
            ))  # fmt: skip
        if match != NOT_OLDER_THAN:
            causes.append(status.not_supported(where, match, [NOT_OLDER_THAN]))
        if options.token:
            causes.append(status.forbidden_field(where, "resourceVersionMatch is forbidden when continue is provided"))
    return causes
