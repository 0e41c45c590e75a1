"""An operation as webhooks and expressions see it: the request of an AdmissionReview.

Source: k8s.io/api/admission/v1, and apiserver's plugin/webhook/request.
"""

from typing import Any

from controlplane import clock
from controlplane.api import convert
from controlplane.api.apply.entries import plain
from controlplane.api.resources import Resource
from controlplane.apiserver.http import User
from controlplane.apiserver.registry import scale
from controlplane.apiserver.registry.generic import Attributes

Object = dict[str, Any]


def request_of(a: Attributes, resource: Resource) -> Object:
    """Everything but the objects. `resource`: the version as which the operation is shown."""
    sub = resource.subresources.get(a.subresource) if a.subresource else None
    own = a.resource.subresources.get(a.subresource) if a.subresource else None
    shown: Object = {
        "uid": clock.new_uid(),
        "kind": _kind(resource, sub),
        "resource": {"group": resource.group, "version": resource.version, "resource": resource.plural},
        "requestKind": _kind(a.resource, own),
        "requestResource": {
            "group": a.resource.group, "version": a.resource.version, "resource": a.resource.plural
        },
        "operation": "CREATE" if a.subresource in ("binding", "eviction", "token") else a.operation,
        "userInfo": user_info(a.user),
        "dryRun": a.dry_run,
        "options": _options(a),
    }  # fmt: skip
    if a.subresource:
        shown["subResource"] = shown["requestSubResource"] = a.subresource
    if a.name:
        shown["name"] = a.name
    if a.namespace:
        shown["namespace"] = a.namespace
    return shown


def _kind(resource: Resource, sub: Any) -> Object:
    if sub is not None and sub.kind:
        return {"group": sub.group, "version": sub.version, "kind": sub.kind}
    return {"group": resource.group, "version": resource.version, "kind": resource.kind}


def _options(a: Attributes) -> Object:
    kind = {"CREATE": "CreateOptions", "UPDATE": "UpdateOptions", "DELETE": "DeleteOptions"}.get(a.operation)
    if kind is None:
        return {}
    options: Object = {"kind": kind, "apiVersion": "meta.k8s.io/v1"}
    if a.dry_run:
        options["dryRun"] = ["All"]
    return options


def user_info(user: User) -> Object:
    """authentication.k8s.io UserInfo."""
    info: Object = {"username": user.name, "groups": list(user.groups)}
    if user.uid:
        info["uid"] = user.uid
    if user.extra:
        info["extra"] = {key: list(values) for key, values in user.extra.items()}
    return info


def shown(obj: Object | None, a: Attributes, resource: Resource) -> Object | None:
    """An object of the operation as `resource`'s version; for /scale its Scale. Shared: do not change it."""
    if obj is None:
        return None
    if a.subresource == "scale":
        return scale.read(obj, a.resource)
    obj = plain(obj)
    if resource is a.resource or a.subresource in ("binding", "eviction", "token"):
        return obj
    return convert.convert(obj, resource.api_version)
