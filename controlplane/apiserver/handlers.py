"""From a verb on a resource to the registry: one small method a verb, one line a special subresource."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from controlplane.api import convert, lifecycle, status, warnings
from controlplane.api.resources import Resource, ResourceTable, Subresource
from controlplane.api.validate import check_body, decode_checked
from controlplane.apiserver import patches, reviews
from controlplane.apiserver.admission import notes
from controlplane.apiserver.authn import Authenticator
from controlplane.apiserver.authz.authorizer import Authorizer, refusal
from controlplane.apiserver.customresources import conversion
from controlplane.apiserver.http import Request, Response
from controlplane.apiserver.node_proxy import NodeProxy
from controlplane.apiserver.registry import components, listing, pods, scale, views, watching
from controlplane.apiserver.registry.codec import decode_body, object_in, to_json
from controlplane.apiserver.registry.deletion import DeleteOptions
from controlplane.apiserver.registry.fanout import Fanout
from controlplane.apiserver.registry.generic import Attributes, Registry, field_validation, is_dry_run
from controlplane.apiserver.registry.ownership import check_patch_options, field_manager
from controlplane.apiserver.registry.selection import selection
from controlplane.apiserver.requestinfo import RequestInfo
from controlplane.store.cache import Cached

Object = dict[str, Any]
_CONNECT = ("log", "exec", "attach", "portforward", "proxy")


class Handlers:
    def __init__(
        self, registry: Registry, table: ResourceTable, authn: Authenticator, authz: Authorizer, nodes: NodeProxy,
        deprecated: Callable[[str, str, str, str, str], None] = lambda *_: None,
    ) -> None:  # fmt: skip
        """`deprecated` is told of requests for versions that are on their way out: group, version, resource,
        subresource and the release that removes it."""
        self.registry = registry
        self._deprecated = deprecated
        self._going: dict[tuple[str, str, str], tuple[str, str]] = {}
        self.table = table
        self.fanout = Fanout(registry.cache)
        self._authn = authn
        self._authz = authz
        self._nodes = nodes
        self._verbs: dict[str, Callable[[Request, RequestInfo, Resource], Awaitable[Response]]] = {
            "get": self._get, "list": self._list, "watch": self._watch, "create": self._create,
            "update": self._update, "patch": self._patch, "delete": self._delete,
            "deletecollection": self._delete_collection,
        }  # fmt: skip

    @property
    def table(self) -> ResourceTable:
        """The resources that are served; set again when custom resources change them."""
        return self._table

    @table.setter
    def table(self, table: ResourceTable) -> None:
        self._table = table
        served = self.registry.definitions.version
        told = ((resource, lifecycle.warning(resource, table, served)) for resource in table.all())
        self._going = {(each.group, each.version, each.plural): text for each, text in told if text[0]}

    async def resource(self, request: Request) -> Response:
        """Raises StatusError 404 for a resource that there is not, 405 for a verb that it has not."""
        info: RequestInfo = request.info
        if request.method not in ("GET", "HEAD"):
            notes.REQUEST.set(request)
        resource = self.table.find(info.group, info.version, info.resource)
        if resource is None or (info.namespace and not resource.namespaced and info.resource != "namespaces"):
            raise status.not_found()
        if (told := self._going.get((info.group, info.version, info.resource))) is not None:
            request.warnings.append(told[0])
            self._deprecated(info.group, info.version, info.resource, info.subresource, told[1])
        if info.subresource:
            sub = resource.subresources.get(info.subresource)
            if sub is None:
                raise status.not_found()
            return await self._subresource(request, info, resource, sub)
        action = self._verbs.get(info.verb)
        # A new object is posted to the collection; one that exists is put or patched under its own name.
        misplaced = bool(info.name) == (info.verb == "create") if info.verb in ("create", "update", "patch") else False
        if action is None or info.verb not in resource.verbs or misplaced:
            raise status.method_not_allowed(resource.group_resource, info.verb)
        if resource.namespaced and not info.namespace and info.verb not in ("list", "watch"):
            if info.verb == "create" and not _is_review(resource):
                raise status.method_not_allowed(resource.group_resource, info.verb)
            if info.verb not in ("create",):
                raise status.not_found()
        return await action(request, info, resource)

    # --- objects --------------------------------------------------------------------------------------------------

    async def _get(self, request: Request, info: RequestInfo, resource: Resource) -> Response:
        view = views.of(request, resource)
        if resource.kind == "ComponentStatus" and not resource.group:
            for component in components.statuses(self.registry.cache):
                if component.key == info.name:
                    return _answer(view, component)
            raise status.not_found(resource.group_resource, info.name)
        if request.query_string:
            cached = await listing.find(self.registry, request, resource, info.namespace, info.name)
        else:
            cached = self.registry.find(resource, info.namespace, info.name)
        if resource.custom is not None:
            await conversion.prepare([cached], resource.custom)
        return _answer(view, cached)

    async def _list(self, request: Request, info: RequestInfo, resource: Resource) -> Response:
        if resource.kind == "ComponentStatus" and not resource.group:
            chosen = selection(request, resource)
            found = [each for each in components.statuses(self.registry.cache) if chosen.matches(each)]
            return await listing.answer(views.of(request, resource, listing=True), found, {})
        return await listing.list_objects(self.registry, request, resource, info.namespace)

    async def _watch(self, request: Request, info: RequestInfo, resource: Resource) -> Response:
        return await watching.watch_objects(self.registry, self.fanout, request, resource, info.namespace, info.name)

    async def _create(self, request: Request, info: RequestInfo, resource: Resource) -> Response:
        if _is_review(resource):
            obj = self.registry.decode(request, resource)
            answer = reviews.answer(resource.kind, obj, request.user, info, self._authn, self._authz)
            return Response(201, to_json(answer))
        if resource.kind == "Binding" and not resource.group:
            binding = self.registry.decode(request, resource)
            name = binding["metadata"].get("name", "")
            answer = await pods.bind(
                self.registry, self._pods(), info.namespace, name, binding, request.user, dry_run=is_dry_run(request)
            )
            return Response(201, to_json(answer))
        view = views.of(request, resource)
        obj = self.registry.decode(request, resource)
        manager = field_manager(request, "CreateOptions")
        made = await self.registry.create(
            resource, obj, info.namespace, request.user, manager=manager, dry_run=is_dry_run(request)
        )
        request.warnings += warnings.of(resource, obj)
        return await _written(view, made, 201)

    async def _update(self, request: Request, info: RequestInfo, resource: Resource) -> Response:
        return await self._put(request, info, resource, "")

    async def _put(self, request: Request, info: RequestInfo, resource: Resource, subresource: str) -> Response:
        obj = self.registry.decode(request, resource)
        view = views.of(request, resource)
        dry_run = is_dry_run(request)
        manager = field_manager(request, "UpdateOptions")
        strategy = self.registry.strategy(resource)
        if not obj["metadata"].get("name"):
            raise status.bad_request(
                f"the name of the object ({info.name} based on URL) was undeterminable: name must be provided"
            )
        key = self.registry.key(resource, info.namespace, info.name)
        if self.registry.cache.get(key) is None:
            if not strategy.allow_create_on_update or subresource:
                raise status.not_found(resource.group_resource, info.name)
            if obj["metadata"]["name"] != info.name:
                given = obj["metadata"]["name"]
                raise status.bad_request(
                    f"the name of the object ({given}) does not match the name on the URL ({info.name})"
                )
            self._check_may_create(request, info)
            made = await self.registry.create(
                resource, obj, info.namespace, request.user, manager=manager, dry_run=dry_run
            )
            return await _written(view, made, 201)

        if not strategy.allow_unconditional_update and not obj["metadata"].get("resourceVersion"):
            text = "Invalid value: 0x0: must be specified for an update"
            cause = status.Cause("FieldValueInvalid", "metadata.resourceVersion", text)
            raise status.invalid(resource.group, resource.kind, info.name, [cause])

        async def put(_: Object) -> Object:
            return obj

        cached = await self.registry.update(
            resource, info.namespace, info.name, request.user, put,
            subresource=subresource, manager=manager, dry_run=dry_run,
        )  # fmt: skip
        if not subresource:
            request.warnings += warnings.of(resource, obj)
        return await _written(view, cached)

    def _check_may_create(self, request: Request, info: RequestInfo) -> None:
        """Raises StatusError 403 if somebody makes an object by a PUT or an apply who may only change what is there."""
        wanted = replace(info, verb="create")
        if not self._authz.allows(request.user, wanted):
            raise refusal(request.user, wanted)

    async def _patch(self, request: Request, info: RequestInfo, resource: Resource) -> Response:
        return await self._patched(request, info, resource, "")

    async def _patched(self, request: Request, info: RequestInfo, resource: Resource, subresource: str) -> Response:
        kind, content = patches.parse(request, resource)
        force = check_patch_options(request, kind)
        if kind == "apply":
            return await self._apply(request, info, resource, subresource, content, force=force)
        manager = field_manager(request, "PatchOptions")
        view = views.of(request, resource)
        dry_run = is_dry_run(request)
        mode = field_validation(request)
        definitions = self.registry.definitions
        warned: list[str] = []

        async def change(old: Object) -> Object:
            result = patches.apply(kind, content, old, resource, resource.schema, definitions)
            try:
                checked, warned[:] = patches.checked(result, old, resource, subresource, mode, definitions)
            except status.StatusError as error:
                raise patches.unfit(kind, content, result, error) from None
            return checked

        cached = await self.registry.update(
            resource, info.namespace, info.name, request.user, change,
            subresource=subresource, manager=manager, dry_run=dry_run,
        )  # fmt: skip
        request.warnings += warned
        _advise(request, resource, subresource, cached)
        return await _written(view, cached)

    async def _apply(
        self, request: Request, info: RequestInfo, resource: Resource, subresource: str, config: Object, *, force: bool
    ) -> Response:
        """Server-side apply: of the object, or through a subresource of an object that is there."""
        registry, user, manager = self.registry, request.user, request.query["fieldManager"]
        view = views.of(request, resource)
        dry_run, mode = is_dry_run(request), field_validation(request)
        patches.check_applied(config, resource, info.name, info.namespace)
        warned: list[str] = []

        async def change(old: Object | None) -> Object:
            result = registry.ownership.applied(resource, old, config, manager, subresource, force=force)
            entries = result["metadata"].pop("managedFields", None)
            checked, warned[:] = decode_checked(resource, patches.own(result), mode, definitions=registry.definitions)
            if entries is not None:
                checked["metadata"]["managedFields"] = entries
            return checked

        if not subresource and registry.cache.get(registry.key(resource, info.namespace, info.name)) is None:
            self._check_may_create(request, info)
            uid = (config.get("metadata") or {}).get("uid")
            if uid:
                text = f"uid mismatch: the provided object specified uid {uid}, and no existing object was found"
                raise status.conflict(resource.group_resource, info.name, text)
            made = await registry.create(
                resource, patches.named(await change(None), info.name), info.namespace, user, manager=None,
                dry_run=dry_run,
            )  # fmt: skip
            request.warnings += warned
            _advise(request, resource, "", made)
            return await _written(view, made, 201)
        cached = await registry.update(
            resource, info.namespace, info.name, user, change, subresource=subresource, manager=None, dry_run=dry_run
        )
        request.warnings += warned
        _advise(request, resource, subresource, cached)
        return await _written(view, cached)

    async def _delete(self, request: Request, info: RequestInfo, resource: Resource) -> Response:
        options = self.registry.delete_options(request)
        obj, gone = await self.registry.delete(resource, info.namespace, info.name, request.user, options)
        if gone and (resource.kind != "Pod" or resource.group):
            details: Object = {"name": info.name, "kind": resource.plural, "uid": obj["metadata"]["uid"]}
            if resource.group:
                details["group"] = resource.group
            answer = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
            return Response(body=to_json(answer))
        return Response(body=to_json(convert.convert(obj, resource.api_version)))

    async def _delete_collection(self, request: Request, info: RequestInfo, resource: Resource) -> Response:
        options = self.registry.delete_options(request)
        chosen = selection(request, resource)
        items, revision = self.registry.cache.list(self.registry.prefix(resource, info.namespace))
        deleted = []
        for cached in [item for item in items if chosen.matches(item)]:
            meta = cached.object["metadata"]
            each = DeleteOptions(options.grace_period, meta["uid"], "", options.propagation, options.dry_run)
            try:
                obj, _ = await self.registry.delete(
                    resource, meta.get("namespace", ""), meta["name"], request.user, each
                )
            except status.StatusError as error:
                if error.code not in (404, 409):
                    raise
                continue
            deleted.append(obj if resource.native else convert.convert(obj, resource.api_version))
        metadata = {"resourceVersion": str(revision)}
        return Response(body=to_json({
            "kind": resource.list_kind, "apiVersion": resource.api_version, "metadata": metadata, "items": deleted,
        }))  # fmt: skip

    # --- subresources ---------------------------------------------------------------------------------------------

    async def _subresource(self, request: Request, info: RequestInfo, resource: Resource, sub: Subresource) -> Response:
        if sub.name in _CONNECT:
            await self.registry.admit_body(Attributes(
                "CONNECT", resource, sub.name, info.namespace, info.name, request.user, None, None, False
            ))  # fmt: skip
            return await self._nodes.connect(request, info)
        if info.verb not in sub.verbs:
            raise status.method_not_allowed(resource.group_resource, info.verb)
        if sub.name == "scale":
            return await self._scale(request, info, resource, sub)
        if info.verb == "get":
            return await self._get(request, info, resource)
        if info.verb == "create":
            body = self._body(request, sub)
            registry, user = self.registry, request.user
            if sub.name == "binding":
                answer = await pods.bind(
                    registry, resource, info.namespace, info.name, body, user, dry_run=is_dry_run(request)
                )
            elif sub.name == "eviction":
                answer = await pods.evict(
                    registry, resource, info.namespace, info.name, body, user, dry_run=is_dry_run(request)
                )
            elif sub.name == "token":
                await registry.admit_body(Attributes(
                    "CREATE", resource, "token", info.namespace, info.name, user, body, None, False
                ))  # fmt: skip
                answer = pods.issue_token(registry, self._authn.signer, info.namespace, info.name, body)
            else:
                raise status.not_found()
            return Response(201, to_json(answer))
        if info.verb == "update":
            return await self._put(request, info, resource, sub.name)
        return await self._patched(request, info, resource, sub.name)

    def _body(self, request: Request, sub: Subresource) -> Object:
        """The body of a subresource with a kind of its own. Raises StatusError 400."""
        decoded, _ = decode_body(request)
        body, warnings = check_body(
            sub.schema, sub.kind, sub.version, decoded, "Warn", definitions=self.registry.definitions
        )
        request.warnings += warnings
        body.setdefault("metadata", {})
        return body

    async def _scale(self, request: Request, info: RequestInfo, resource: Resource, sub: Subresource) -> Response:
        registry = self.registry
        if info.verb == "get":
            found = registry.find(resource, info.namespace, info.name)
            await conversion.prepare([found], resource.custom)
            return self._scaled(request, resource, sub, found)
        manager: str | None
        if info.verb == "update":
            manager = field_manager(request, "UpdateOptions")
            wanted = self._body(request, sub)

            async def change(old: Object) -> Object:
                return scale.write(old, wanted, resource)
        else:
            kind, content = patches.parse(request)
            force = check_patch_options(request, kind)
            manager = None if kind == "apply" else field_manager(request, "PatchOptions")

            async def change(old: Object) -> Object:
                if kind == "apply":
                    config = scale.applied(old, content, resource)
                    new = registry.ownership.applied(
                        resource, old, config, request.query["fieldManager"], "scale", force=force
                    )
                    return scale.write(new, scale.read(new, resource), resource)
                before = scale.read(old, resource)
                patched = patches.apply(kind, content, before, resource, sub.schema, registry.definitions)
                checked, _ = check_body(
                    sub.schema, sub.kind, sub.version, patched, "Warn", definitions=registry.definitions
                )
                return scale.write(old, checked, resource)

        cached = await registry.update(
            resource, info.namespace, info.name, request.user, change,
            subresource="scale", manager=manager, dry_run=is_dry_run(request),
        )  # fmt: skip
        await conversion.prepare([cached], resource.custom)
        return self._scaled(request, resource, sub, cached)

    def _scaled(self, request: Request, resource: Resource, sub: Subresource, cached: Cached) -> Response:
        """The Scale of an object, in the form that is wanted: `kubectl get --subresource=scale` asks for a Table."""
        shown = to_json(scale.read(object_in(cached, resource), resource))
        version = f"{sub.group}/{sub.version}"
        kind = Resource(sub.group, sub.version, sub.kind, "scales", "scale", True, (), sub.schema, version)
        return _answer(views.of(request, kind), Cached(cached.key, shown, cached.revision, cached.create_revision))

    def _pods(self) -> Resource:
        found = self.table.find("", "v1", "pods")
        assert found is not None
        return found


def _advise(request: Request, resource: Resource, subresource: str, cached: Cached) -> None:
    """Warn of what is allowed and not wise in an object that a patch made."""
    if not subresource and warnings.known(resource):
        request.warnings += warnings.of(resource, object_in(cached, resource))


def _answer(view: views.View, cached: Cached, code: int = 200) -> Response:
    return Response(code, view.body(cached), content_type=view.content_type)


async def _written(view: views.View, cached: Cached, code: int = 200) -> Response:
    """An object after a write."""
    if view.resource.custom is not None:
        await conversion.prepare([cached], view.resource.custom)
    return _answer(view, cached, code)


def _is_review(resource: Resource) -> bool:
    return resource.kind in reviews.KINDS and resource.custom is None
