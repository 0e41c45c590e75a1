"""What a URL asks for: verb, resource, namespace, name, subresource. Kubernetes' RequestInfo, from path and method.

/api/v1/namespaces/default/pods/web-0/log   →  get pods/log web-0 in default
/apis/apps/v1/deployments?watch=1           →  watch deployments.apps everywhere
/version                                    →  get path /version
"""

import re
from dataclasses import dataclass

from controlplane.apiserver.http import Request

_VERBS = {"POST": "create", "GET": "get", "HEAD": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
_OF_NAMESPACES = ("status", "finalize")
_ONE = re.compile(r"(?:^|,)metadata\.name==?([^,]+)")


@dataclass(slots=True)
class RequestInfo:
    """`is_resource` false means that only `path` and `verb` count."""

    is_resource: bool
    path: str
    verb: str
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    field_selector: str = ""  # of a list, watch or deletecollection
    rest: str = ""  # what follows the subresource: the path given to a proxy


def parse(request: Request) -> RequestInfo:
    """Never fails: what is no resource path is a path."""
    path, method = request.path, request.method
    parts = path.split("/")
    if len(parts) > 3 and parts[1] == "api" and parts[2]:
        group, version, rest = "", parts[2], parts[3:]
    elif len(parts) > 4 and parts[1] == "apis" and parts[3]:
        group, version, rest = parts[2], parts[3], parts[4:]
    else:
        return RequestInfo(False, path, method.lower())
    if rest and not rest[-1] and len(rest) <= 4:
        rest = rest[:-1]
    watching = len(rest) > 1 and rest[0] == "watch" and method == "GET"  # /api/v1/watch/pods, as it was before ?watch=1
    if watching:
        rest = rest[1:]
    if not rest:
        return RequestInfo(False, path, method.lower())
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 1:
        namespace = rest[1]
        if len(rest) > 2 and rest[2] not in _OF_NAMESPACES:
            rest = rest[2:]
    resource = rest[0]
    name = rest[1] if len(rest) > 1 else ""
    subresource = rest[2] if len(rest) > 2 else ""
    verb = _VERBS.get(method, method.lower())
    if not name:
        if verb == "get":
            verb = "watch" if request.query_string and request.flag("watch") else "list"
        elif verb == "delete":
            verb = "deletecollection"
    elif verb == "get" and request.query_string and not subresource and request.flag("watch"):
        verb = "watch"
    if watching:
        verb = "watch"
    info = RequestInfo(True, path, verb, group, version, resource, subresource, namespace, name)
    if len(rest) > 3:
        info.rest = "/".join(rest[3:])
    if not name and "fieldSelector" in request.query_string:
        info.field_selector = request.query.get("fieldSelector", "")
        # A list of one named object may be allowed by resourceNames, as in Kubernetes.
        if verb in ("list", "watch") and (one := _ONE.search(info.field_selector)):
            info.name = one.group(1)
    return info
