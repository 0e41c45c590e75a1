"""One registry for every kind: create, update, patch, delete of objects in the store.

Each write is: decode → structure → defaults → admission → strategy → validation → encode → store. Reads come from the
watch cache and are bytes. An update is a loop around compare-and-set: when somebody else was faster and the client
named no resourceVersion, it starts again from the newer object.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from controlplane import clock
from controlplane.api import convert, defaults, names, status, validation
from controlplane.api.definitions import Definitions
from controlplane.api.resources import Resource
from controlplane.api.validate import check_body, decode_checked
from controlplane.apiserver.customresources import conversion
from controlplane.apiserver.http import Request, User
from controlplane.apiserver.registry import deletion
from controlplane.apiserver.registry import strategy as strategies
from controlplane.apiserver.registry.codec import decode_body, encode, object_in
from controlplane.apiserver.registry.deletion import DeleteOptions
from controlplane.apiserver.registry.ownership import ITSELF, Ownership, unchanged
from controlplane.store.cache import Cached, WatchCache
from controlplane.store.interface import Conflict, KeyExists, KeyMissing, splice

Object = dict[str, Any]
Update = Callable[[Object], Awaitable[Object]]
"""From the current object (shared: do not change it) to the wanted one."""

_RETRIES = 20
_GENERATED_NAME_LIMIT = 63 - 5


@dataclass(frozen=True, slots=True)
class Attributes:
    """What an admission plugin sees of a write. `new` is None for a delete, `old` for a create."""

    operation: str  # CREATE, UPDATE, DELETE
    resource: Resource
    subresource: str
    namespace: str
    name: str
    user: User
    new: Object | None
    old: Object | None
    dry_run: bool


Admit = Callable[[Attributes], Awaitable[None]]


class Registry:
    """All resources. `admit` is the chain of admission plugins; it may change `new` of a create or update."""

    def __init__(self, cache: WatchCache, definitions: Definitions, admit: Admit) -> None:
        self.cache = cache
        self.definitions = definitions
        self.admit = admit
        self.review: Admit | None = None
        """What looks at an object last, before it is stored: configured policies and webhooks."""
        self.ownership = Ownership(definitions)
        self._strategies: dict[Resource, strategies.Strategy] = {}

    # --- small things ---------------------------------------------------------------------------------------------

    def strategy(self, resource: Resource) -> strategies.Strategy:
        found = self._strategies.get(resource)
        if found is None:
            found = self._strategies[resource] = strategies.of(resource)
        return found

    def set_strategy(self, resource: Resource, strategy: strategies.Strategy) -> None:
        self._strategies[resource] = strategy

    def forget(self, resource: Resource) -> None:
        """A resource that is no longer served."""
        self._strategies.pop(resource, None)

    @staticmethod
    def prefix(resource: Resource, namespace: str = "") -> str:
        group = resource.storage_group or "core"
        return f"{group}/{resource.plural}/{namespace}/" if namespace else f"{group}/{resource.plural}/"

    def key(self, resource: Resource, namespace: str, name: str) -> str:
        return self.prefix(resource, namespace if resource.namespaced else "") + name

    def find(self, resource: Resource, namespace: str, name: str) -> Cached:
        """Raises StatusError 404."""
        cached = self.cache.get(self.key(resource, namespace, name))
        if cached is None:
            raise status.not_found(resource.group_resource, name)
        return cached

    async def admit_body(self, attributes: Attributes) -> None:
        """The whole of admission, for what is not stored: deletions, connections, bodies of subresources."""
        await self.admit(attributes)
        if self.review is not None:
            await self.review(attributes)

    # --- create ---------------------------------------------------------------------------------------------------

    def decode(self, request: Request, resource: Resource) -> Object:
        """The body as an object of `resource` that fits its schema; warnings go to the request."""
        body, duplicates = decode_body(request)
        if isinstance(body, dict):
            _check_kind(body, resource)
        obj, warnings = decode_checked(
            resource, body, field_validation(request), definitions=self.definitions, duplicates=duplicates
        )
        request.warnings += warnings
        obj["kind"], obj["apiVersion"] = resource.kind, resource.api_version
        if not isinstance(obj.setdefault("metadata", {}), dict):
            obj["metadata"] = {}
        return obj

    async def create(
        self,
        resource: Resource,
        obj: Object,
        namespace: str,
        user: User,
        *,
        manager: str | None = ITSELF,
        dry_run: bool = False,
    ) -> Cached:
        """Store a new object. `manager` owns what it has; None if `obj` says itself who owns it (an apply).
        Raises StatusError 400, 403, 409, 422."""
        meta = _new_metadata(obj, resource, namespace)
        generated = not meta.get("name") and bool(meta.get("generateName"))
        kind_strategy = self.strategy(resource)
        if resource.custom is not None or resource.kind not in strategies.WITHOUT_GENERATION:
            meta["generation"] = 1
        for attempt in range(8):
            if generated:
                meta["name"] = meta["generateName"][:_GENERATED_NAME_LIMIT] + clock.name_suffix()
            defaults.apply(resource, obj)
            if manager is not None and not attempt:
                self.ownership.created(resource, obj, manager)
            attributes = Attributes("CREATE", resource, "", namespace, meta.get("name", ""), user, obj, None, dry_run)
            await self.admit(attributes)
            await kind_strategy.prepare_create(obj)
            try:
                if causes := validation.create(resource, obj):
                    raise status.invalid(resource.group, resource.kind, meta.get("name", ""), causes)
                if self.review is not None:
                    await self.review(attributes)
                key = self.key(resource, namespace, meta["name"])
                value = await conversion.value_of(resource, key, obj) if resource.custom else _value(resource, obj)
                if dry_run:
                    if self.cache.get(key) is not None:
                        raise status.already_exists(resource.group_resource, meta["name"])
                    await kind_strategy.refused(obj)
                    return Cached(key, value, 0, 0)
                cached = await self.cache.create(key, value)
            except KeyExists:
                await kind_strategy.refused(obj)
                if not generated:
                    raise status.already_exists(resource.group_resource, meta["name"]) from None
                if attempt == 7:
                    raise status.generate_name_conflict(resource.group_resource, meta["name"]) from None
                continue
            except BaseException:
                await kind_strategy.refused(obj)
                raise
            await kind_strategy.created(obj)
            return cached
        raise AssertionError("unreachable")

    # --- update ---------------------------------------------------------------------------------------------------

    async def update(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        user: User,
        change: Update,
        *,
        subresource: str = "",
        manager: str | None = ITSELF,
        dry_run: bool = False,
    ) -> Cached:
        """Replace an object by what `change` makes of it. `manager` becomes the owner of what differs; None if the new
        object says itself who owns what (an apply). Raises StatusError 404, 409, 422 and what `change` raises."""
        key = self.key(resource, namespace, name)
        for _ in range(_RETRIES):
            current = self.cache.get(key)
            if current is None:
                raise status.not_found(resource.group_resource, name)
            if resource.custom is not None:
                await conversion.prepare([current], resource.custom)
            old = object_in(current, resource)
            new = await change(old)
            new = {**new, "metadata": dict(new["metadata"])}  # it may share structure with `old`, which is everybody's
            kind_strategy = self.strategy(resource)
            try:
                await self._prepare(resource, new, old, name, namespace, user, subresource, manager, dry_run)
                written = await self._replace(resource, current, old, new, dry_run=dry_run)
            except Conflict:
                await kind_strategy.refused(new)
                continue
            except KeyMissing:
                await kind_strategy.refused(new)
                raise status.not_found(resource.group_resource, name) from None
            except BaseException:
                await kind_strategy.refused(new)
                raise
            if dry_run:
                await kind_strategy.refused(new)
            else:
                await kind_strategy.updated(new, old)
            return written
        raise status.conflict(resource.group_resource, name)

    async def _replace(self, resource: Resource, current: Cached, old: Object, new: Object, *, dry_run: bool) -> Cached:
        """Write `new` over `current`, or remove it if it was only waiting for its last finalizer. Raises Conflict."""
        if unchanged(new, old) and not self.strategy(resource).finished(new):
            return current
        value = await conversion.value_of(resource, current.key, new) if resource.custom else _value(resource, new)
        as_written = Cached(current.key, splice(value, current.revision), current.revision, current.create_revision)
        if self.strategy(resource).finished(new):
            if not dry_run:
                await self._remove(resource, current, old)
            return as_written
        if dry_run or as_written.data == current.data:
            return as_written
        return await self.cache.update(current.key, value, current.revision)

    async def _prepare(
        self, resource: Resource, new: Object, old: Object, name: str, namespace: str, user: User,
        subresource: str, manager: str | None, dry_run: bool,
    ) -> None:  # fmt: skip
        meta, before = new["metadata"], old["metadata"]
        wanted = meta.get("resourceVersion")
        if wanted and wanted != before["resourceVersion"]:
            raise status.conflict(resource.group_resource, name)
        if meta.get("uid") and meta["uid"] != before["uid"]:
            message = f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: {before['uid']}"
            raise status.conflict(resource.group_resource, name, message)
        if meta.get("name", name) != name:
            raise status.bad_request(
                f"the name of the object ({meta['name']}) does not match the name on the URL ({name})"
            )
        if resource.namespaced and meta.get("namespace", namespace) not in (namespace, ""):
            raise status.bad_request(
                "the namespace of the provided object does not match the namespace sent on the request"
            )
        for key in ("name", "namespace", "uid", "creationTimestamp", "generateName", "deletionTimestamp",
                    "deletionGracePeriodSeconds", "generation", "selfLink"):  # fmt: skip
            if key in before:
                meta[key] = before[key]
            else:
                meta.pop(key, None)
        kind_strategy = self.strategy(resource)
        if subresource == "status":
            self._track(resource, new, old, manager, subresource)
            kind_strategy.prepare_status_update(new, old)
        elif subresource == "":
            defaults.apply(resource, new)
            self._track(resource, new, old, manager, subresource)
            await kind_strategy.prepare_update(new, old)
        else:
            kind_strategy.prepare_subresource_update(subresource, new, old)
            self._track(resource, new, old, manager, subresource)
        attributes = Attributes("UPDATE", resource, subresource, namespace, name, user, new, old, dry_run)
        await self.admit(attributes)
        if (
            "generation" in before
            and subresource not in ("status", "binding")
            and kind_strategy.generation_changed(new, old)
        ):
            meta["generation"] = before["generation"] + 1
        validated = subresource == "" or resource.custom is not None
        if not validated and "deletionTimestamp" in before:
            added = [name for name in meta.get("finalizers") or () if name not in (before.get("finalizers") or ())]
            if added:
                text = "no new finalizers can be added if the object is being deleted, found new finalizers "
                cause = status.forbidden_field("metadata.finalizers", text + status.show(added))
                raise status.invalid(resource.group, resource.kind, name, [cause])
        if validated and (causes := validation.update(resource, new, old)):
            raise status.invalid(resource.group, resource.kind, name, causes)
        if self.review is not None:
            await self.review(attributes)

    def _track(self, resource: Resource, new: Object, old: Object, manager: str | None, subresource: str) -> None:
        if manager is not None:
            self.ownership.updated(resource, new, old, manager, subresource)

    # --- delete ---------------------------------------------------------------------------------------------------

    async def delete(
        self, resource: Resource, namespace: str, name: str, user: User, options: DeleteOptions
    ) -> tuple[Object, bool]:
        """Delete, or mark for deletion. Returns the object as it was last and whether it is gone."""
        key = self.key(resource, namespace, name)
        for _ in range(_RETRIES):
            current = self.find(resource, namespace, name)
            old = self.strategy(resource).deleting(current.object)
            deletion.check_preconditions(resource, old, options)
            attributes = Attributes("DELETE", resource, "", namespace, name, user, None, old, options.dry_run)
            await self.admit_body(attributes)
            new = deletion.marked(self.strategy(resource), old, options)
            try:
                if new is None:
                    if not options.dry_run:
                        await self._remove(resource, current, old)
                    return old, True
                if options.dry_run or new is old:
                    return new, False
                value = await conversion.value_of(resource, key, new) if resource.custom else encode(new)
                cached = await self.cache.update(key, value, current.revision)
            except (Conflict, KeyMissing):
                continue
            return cached.object, False
        raise status.conflict(resource.group_resource, name)

    async def _remove(self, resource: Resource, current: Cached, old: Object) -> None:
        await self.cache.delete(current.key, current.revision)
        await self.strategy(resource).deleted(old)

    def delete_options(self, request: Request) -> DeleteOptions:
        """From the body and, where it says nothing, the query."""
        body: Object = {}
        if request.body:
            decoded, _ = decode_body(request)
            name = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"
            if isinstance(decoded, dict):
                decoded.pop("kind", None)
                decoded.pop("apiVersion", None)
            body, _ = check_body(name, "DeleteOptions", "v1", decoded, "Ignore", definitions=self.definitions)
        query = request.query
        grace = body.get("gracePeriodSeconds", query.get("gracePeriodSeconds"))
        try:
            seconds = None if grace is None else int(grace)
        except ValueError:
            raise status.bad_request(f"invalid gracePeriodSeconds: {grace!r}") from None
        orphan = body.get("orphanDependents")
        if orphan is None and "orphanDependents" in query:
            orphan = request.flag("orphanDependents")
        propagation = deletion.propagation(body.get("propagationPolicy") or query.get("propagationPolicy", ""), orphan)
        preconditions = body.get("preconditions", {})
        return DeleteOptions(
            seconds,
            preconditions.get("uid", ""),
            preconditions.get("resourceVersion", ""),
            propagation,
            is_dry_run(request, body),
        )


def _value(resource: Resource, obj: Object) -> bytes:
    """A built-in object's bytes, in the version that is stored."""
    native = resource.storage_version == resource.api_version
    return encode(obj if native else convert.convert(obj, resource.storage_version))


def field_validation(request: Request) -> str:
    """What is done about unknown and duplicate fields: Ignore, Warn or Strict. Raises StatusError 422."""
    mode = request.query.get("fieldValidation", "") if request.query_string else ""
    if mode not in ("", "Ignore", "Warn", "Strict"):
        cause = status.not_supported("fieldValidation", mode, ["Ignore", "Warn", "Strict"])
        raise status.invalid("meta.k8s.io", "CreateOptions", "", [cause])
    return mode or "Warn"


def is_dry_run(request: Request, body: Object | None = None) -> bool:
    """Raises StatusError 400 for a directive other than All."""
    asked = (body or {}).get("dryRun") or (request.query_lists.get("dryRun", []) if request.query_string else [])
    if any(value != "All" for value in asked):
        raise status.bad_request(f"Invalid value for dryRun: {asked}")
    return bool(asked)


def _check_kind(body: Object, resource: Resource) -> None:
    kind, version = body.get("kind", resource.kind), body.get("apiVersion", resource.api_version)
    if (kind, version) != (resource.kind, resource.api_version):
        raise status.bad_request(
            f'{kind} in version "{version}" cannot be handled as a {resource.kind}: the object provided is not of '
            f'the expected kind {resource.kind} in version "{resource.api_version}"'
        )


def _new_metadata(obj: Object, resource: Resource, namespace: str) -> Object:
    meta: Object = obj["metadata"]
    if meta.get("resourceVersion") not in (None, "", "0"):
        raise status.bad_request("resourceVersion should not be set on objects to be created")
    if resource.namespaced:
        if meta.setdefault("namespace", namespace) != namespace:
            if meta["namespace"]:
                raise status.bad_request(
                    "the namespace of the provided object does not match the namespace sent on the request"
                )
            meta["namespace"] = namespace
    else:
        meta.pop("namespace", None)
    for key in ("resourceVersion", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"):
        meta.pop(key, None)
    if not meta.get("name"):
        meta.pop("name", None)
        if not meta.get("generateName") and not names.name_errors(resource.kind, "x"):
            raise status.invalid(resource.group, resource.kind, "", [
                status.required("metadata.name", "name or generateName is required")
            ])  # fmt: skip
    meta["uid"] = clock.new_uid()
    meta["creationTimestamp"] = clock.rfc3339()
    return meta
