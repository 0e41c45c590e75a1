"""Who writes, and what each write does to metadata.managedFields: between requests and controlplane.api.apply.

A manager is named by the request's fieldManager or, for anything but an apply, by the program in its User-Agent. Custom
resources are told to `define` with their structural schema; published kinds need no telling. Rules about owning are in
controlplane.api.apply.
"""

from collections.abc import Callable, Mapping
from typing import Any

from controlplane import clock
from controlplane.api import convert, status
from controlplane.api.apply import compile as compiled
from controlplane.api.apply import managers
from controlplane.api.apply.compile import Root
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
        self._roots: dict[tuple[str, str, str, str], Root] = {}
        self._custom: dict[tuple[str, str, str], tuple[Mapping[str, Any], bool]] = {}

    def define(self, group: str, version: str, kind: str, schema: Mapping[str, Any], *, has_status: bool) -> None:
        """A version of a custom resource with its schema (openAPIV3Schema; {} if there is none). Replaces the old."""
        self._custom[group, version, kind] = schema, has_status
        self._forget(group, version, kind)

    def undefine(self, group: str, version: str, kind: str) -> None:
        self._custom.pop((group, version, kind), None)
        self._forget(group, version, kind)

    def _forget(self, group: str, version: str, kind: str) -> None:
        for key in [key for key in self._roots if key[:3] == (group, version, kind)]:
            del self._roots[key]

    def root(self, resource: Resource, subresource: str) -> Root:
        """The fields of a kind, as a write to this subresource can own them."""
        side = "status" if subresource in _STATUS else ""
        key = (resource.group, resource.version, resource.kind, side)
        found = self._roots.get(key)
        if found is None:
            custom = self._custom.get(key[:3])
            if custom is not None:
                found = compiled.of_structural(custom[0], side, has_status=custom[1])
            else:
                found = compiled.of_definition(
                    resource.schema, self._definitions, side, has_status="status" in resource.subresources
                )
            self._roots[key] = found
        return found

    def _versions(self, resource: Resource, subresource: str) -> managers.Versions:
        def version(name: str) -> tuple[Root, Callable[[Object], Object]] | None:
            group, _, short = name.rpartition("/")
            key = (group, short, resource.kind)
            if key not in self._custom and key not in self._definitions.gvks():
                return None
            if key in self._custom or convert.same_shape(resource.kind, resource.api_version, name):
                return self.root(resource, subresource), same_shape
            side, has_status = "status" if subresource in _STATUS else "", "status" in resource.subresources
            root = compiled.of_definition(
                self._definitions.gvks()[key], self._definitions, side, has_status=has_status
            )  # fmt: skip
            return root, lambda obj: convert.convert(obj, name)

        return version

    def created(self, resource: Resource, obj: Object, manager: str) -> None:
        """Say in a new object (with its defaults, before the server adds its own) who made it."""
        writer = Writer(manager, resource.api_version, "", clock.rfc3339())
        _set(obj["metadata"], managers.created(self.root(resource, ""), obj, writer))

    def updated(self, resource: Resource, new: Object, old: Object, manager: str, subresource: str) -> None:
        """Say in `new`, whose metadata is the caller's own, who made what differs."""
        writer = Writer(manager, resource.api_version, subresource, clock.rfc3339())
        root = self.root(resource, subresource)
        _set(new["metadata"], managers.updated(root, old, new, writer, self._versions(resource, subresource)))

    def applied(
        self, resource: Resource, live: Object | None, config: Object, manager: str, subresource: str, *, force: bool
    ) -> Object:
        """The object after an apply, with its owners; without defaults. Raises StatusError 400, 409, 500."""
        writer = Writer(manager, resource.api_version, subresource, clock.rfc3339())
        root = self.root(resource, subresource)
        return managers.apply(root, live, config, writer, self._versions(resource, subresource), force=force)


def _set(metadata: Object, entries: list[managers.Entry]) -> None:
    if entries:
        metadata["managedFields"] = entries
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
    after, before = new["metadata"].get("managedFields") or [], old["metadata"].get("managedFields") or []
    if len(after) != len(before):
        return False
    times = [_without_time(entry) for entry in before]
    return all(_without_time(entry) in times for entry in after)


def _plain(metadata: Object) -> Object:
    return {key: value for key, value in metadata.items() if key not in ("managedFields", "resourceVersion")}


def _without_time(entry: managers.Entry) -> managers.Entry:
    return {key: value for key, value in entry.items() if key != "time"}


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
