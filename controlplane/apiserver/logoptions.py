"""What `GET pods/NAME/log` may ask for, checked before a node is asked: ValidatePodLogOptions of Kubernetes
(pkg/apis/core/validation)."""

from collections.abc import Mapping

from controlplane.api import status

PARAMETERS = ("follow", "previous", "sinceSeconds", "sinceTime", "timestamps", "tailLines", "limitBytes", "stream")
_STREAMS = ("All", "Stderr", "Stdout")


def chosen(query: Mapping[str, str], pod: str) -> dict[str, str]:
    """The parameters of `query` that are a log's. Raises StatusError: 400 for what is no number, 422 for what breaks a
    rule."""
    found = {name: query[name] for name in PARAMETERS if query.get(name)}
    tail, limit, since = (_number(found, name) for name in ("tailLines", "limitBytes", "sinceSeconds"))
    causes = []
    if tail is not None and tail < 0:
        causes.append(status.invalid_value("tailLines", tail, "must be greater than or equal to 0"))
    if limit is not None and limit < 1:
        causes.append(status.invalid_value("limitBytes", limit, "must be greater than 0"))
    if since is not None and "sinceTime" in found:
        detail = "at most one of `sinceTime` or `sinceSeconds` may be specified"
        causes.append(status.forbidden_field("", detail))
    elif since is not None and since < 1:
        causes.append(status.invalid_value("sinceSeconds", since, "must be greater than 0"))
    stream = found.get("stream", "All")
    if stream not in _STREAMS:
        causes.append(status.not_supported("stream", stream, _STREAMS))
    elif stream != "All" and tail is not None:
        detail = "`tailLines` and specific `stream` are mutually exclusive for now"
        causes.append(status.forbidden_field("", detail))
    if causes:
        raise status.invalid("", "PodLogOptions", pod, causes)
    return found


def _number(found: Mapping[str, str], name: str) -> int | None:
    text = found.get(name)
    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        raise status.bad_request(f'strconv.ParseInt: parsing "{text}": invalid syntax') from None
