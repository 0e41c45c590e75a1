"""Who writes, and what each write does to metadata.managedFields: between requests and controlplane.api.apply.

A manager is named by the request's fieldManager or, for anything but an apply, by the program in its User-Agent. A
kind's fields come from the published definitions, a custom resource's from its structural schema, compiled again when
its definition changed. Rules about owning are in controlplane.api.apply.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from controlplane import clock
from controlplane.api import convert, status
from controlplane.api.apply import compile as compiled
from controlplane.api.apply import managers
from controlplane.api.apply.compile import Root
from controlplane.api.apply.entries import closed, same
from controlplane.api.apply.managers import Writer, same_shape
from controlplane.api.definitions import Definitions
from controlplane.api.resources import Resource
from controlplane.apiserver.http import Request

Object = dict[str, Any]
_MANAGER_LIMIT = 128
ITSELF = "kube-apiserver"
"""The manager of what the server writes of its own accord."""
_STATUS = ("status", "approval")


class Ownership:
    """The managedFields of every kind."""

    def __init__(self, definitions: Definitions) -> None:
        self._definitions = definitions
        self._roots: dict[tuple[str, str, str, str], tuple[object, Root]] = {}

    def root(self, resource: Resource, subresource: str) -> Root:
        """The fields of a kind, as a write to this subresource can own them."""
        side = "status" if subresource in _STATUS else ""
        key = (resource.group, resource.version, resource.kind, side)
        known = self._roots.get(key)
        if known is not None and known[0] is resource.custom:
            return known[1]
        if resource.custom is not None:
            root = compiled.of_structural(resource.custom.node.raw, side, has_status=resource.custom.has_status)
        else:
            has_status = "status" in resource.subresources
            root = compiled.of_definition(resource.schema, self._definitions, side, has_status=has_status)
        self._roots[key] = (resource.custom, root)
        return root

    def _versions(self, resource: Resource, subresource: str) -> managers.Versions:
        def version(name: str) -> tuple[Root, Callable[[Object], Object]] | None:
            group, _, short = name.rpartition("/")
            if resource.custom is not None:  # their versions differ in name, and in what their schemas prune
                return (self.root(resource, subresource), same_shape) if group == resource.group else None
            found = self._definitions.gvks().get((group, short, resource.kind))
            if found is None:
                return None
            if convert.same_shape(resource.kind, resource.api_version, name):
                return self.root(resource, subresource), same_shape
            side, has_status = "status" if subresource in _STATUS else "", "status" in resource.subresources
            root = compiled.of_definition(found, self._definitions, side, has_status=has_status)
            return root, lambda obj: convert.convert(obj, name)

        return version

    def created(self, resource: Resource, obj: Object, manager: str) -> None:
        """Say in a new object (with its defaults, before the server adds its own) who made it."""
        writer = Writer(manager, resource.api_version, "", _now())
        _set(obj["metadata"], managers.created(self.root(resource, ""), obj, writer))

    def updated(self, resource: Resource, new: Object, old: Object, manager: str, subresource: str) -> None:
        """Say in `new`, whose metadata is the caller's own, who made what differs."""
        writer = Writer(manager, resource.api_version, subresource, _now())
        root = self.root(resource, subresource)
        _set(new["metadata"], managers.updated(root, old, new, writer, self._versions(resource, subresource)))

    def applied(
        self, resource: Resource, live: Object | None, config: Object, manager: str, subresource: str, *, force: bool
    ) -> Object:
        """The object after an apply, with its owners; without defaults. Raises StatusError 400, 409, 500."""
        writer = Writer(manager, resource.api_version, subresource, _now())
        root = self.root(resource, subresource)
        new = managers.apply(root, live, config, writer, self._versions(resource, subresource), force=force)
        _set(new["metadata"], new["metadata"]["managedFields"])
        return new


_second: tuple[int, str] = (0, "")


def _now() -> str:
    """The time as entries have it; made once a second."""
    global _second
    second = int(clock.wall_time())
    if second != _second[0]:
        _second = second, clock.rfc3339(second)
    return _second[1]


def _set(metadata: Object, stored: Any) -> None:
    """Put owners into an object's metadata, which is the caller's own: entries, or what was stored before."""
    if stored:
        metadata["managedFields"] = stored if type(stored) is msgspec.Raw else closed(stored)
    else:
        metadata.pop("managedFields", None)


def unchanged(new: Object, old: Object) -> bool:
    """Whether two objects differ in nothing, or only in when somebody took what he had: then there is nothing to write.
    The order of fields does not count."""
    for key, value in new.items():
        if key != "metadata" and value != old.get(key):
            return False
    if len(new) != len(old) or _plain(new["metadata"]) != _plain(old["metadata"]):
        return False
    return same(new["metadata"].get("managedFields"), old["metadata"].get("managedFields"))


def _plain(metadata: Object) -> Object:
    return {key: value for key, value in metadata.items() if key not in ("managedFields", "resourceVersion")}


def field_manager(request: Request, options: str) -> str:
    """Who writes; `options` is the kind of the request's options, for errors. Raises StatusError 422."""
    if request.query_string and (given := request.query.get("fieldManager")):
        if causes := _complaints(given):
            raise status.invalid("meta.k8s.io", options, "", causes)
        return given
    return _program(request.headers.get("User-Agent", ""))


def check_patch_options(request: Request, kind: str) -> bool:
    """Whether an apply is forced. Raises StatusError 422 for an apply without a manager, and for force elsewhere."""
    query = request.query if request.query_string else {}
    causes = []
    if kind != "apply":
        if "force" in query:
            causes.append(status.forbidden_field("force", "may not be specified for non-apply patch"))
    elif not query.get("fieldManager"):
        causes.append(status.required("fieldManager", "is required for apply patch"))
    causes += _complaints(query.get("fieldManager", ""))
    if causes:
        raise status.invalid("meta.k8s.io", "PatchOptions", "", causes)
    return request.flag("force")


def _complaints(manager: str) -> list[status.Cause]:
    causes = []
    if len(manager.encode()) > _MANAGER_LIMIT:
        causes.append(status.too_long("fieldManager", _MANAGER_LIMIT))
    for at, char in enumerate(manager):
        if not char.isprintable():
            code = f"U+{ord(char):04X}"
            causes.append(status.invalid_value("fieldManager", manager, f"invalid character {code} (at position {at})"))
    return causes


_programs: dict[str, str] = {}


def _program(user_agent: str) -> str:
    """The part before the first slash, printable, of at most 128 bytes."""
    known = _programs.get(user_agent)
    if known is None:
        known = "".join(char for char in user_agent.partition("/")[0] if char.isprintable())
        known = known.encode()[:_MANAGER_LIMIT].decode(errors="ignore")
        if len(_programs) > 1_000:
            _programs.clear()
        _programs[user_agent] = known
    return known
