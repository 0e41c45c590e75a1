"""OpenAPI documents, v3 (one a group and version, found by their hash) and v2 (one whole), from the definitions.

What clients read in them: which fields a kind has (`kubectl explain`, validation), which operations take
`fieldValidation` (PATCH of each kind), and group-version-kind extensions. Made at the first request, kept as bytes.
"""

import hashlib
from collections.abc import Iterable
from typing import Any

from controlplane.api.definitions import LIST_META, OBJECT_META, Definitions
from controlplane.api.resources import Resource, ResourceTable
from controlplane.apiserver import openapi_custom, openapi_wire
from controlplane.apiserver.aggregation.availability import Published
from controlplane.apiserver.http import Request, Response
from controlplane.apiserver.registry.codec import to_json

Object = dict[str, Any]
_PATCH_TYPES = (
    "application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json",
    "application/strategic-merge-patch+json",
)  # fmt: skip
_QUERY = ("dryRun", "fieldManager", "fieldValidation", "pretty")


class OpenApi:
    """Set `table` again when custom resources change it."""

    def __init__(self, definitions: Definitions, table: ResourceTable) -> None:
        self._definitions = definitions
        self.table = table
        self.published: tuple[Published, ...] = ()
        """Aggregated APIs, whose documents others have: they are only listed here."""
        self._documents: dict[str, tuple[str, bytes, str]] = {}  # name -> hash of its sources, body, ETag

    def answer(self, request: Request) -> Response | None:
        """The answer to a path below /openapi; None if it is not one."""
        path = request.path.rstrip("/")
        if path == "/openapi/v3":
            return Response(body=self._index())
        if path == "/openapi/v2":
            accepted = request.headers.get("Accept", "")
            if any(kind in accepted for kind in openapi_wire.ACCEPTED):
                return self._served(request, "v2 protobuf", openapi_wire.CONTENT_TYPE)
            return self._served(request, "v2")
        if path.startswith("/openapi/v3/"):
            group_version = path.removeprefix("/openapi/v3/")
            if group_version in self._paths():
                return self._served(request, group_version)
        return None

    def _paths(self) -> dict[str, tuple[str, str]]:
        found = {}
        for group in self.table.groups():
            for version in self.table.versions(group):
                found[f"apis/{group}/{version}" if group else f"api/{version}"] = group, version
        return found

    def _index(self) -> bytes:
        # The hash in the URL lets clients keep a document for ever; it covers the table and the definitions.
        paths = {path: {"serverRelativeURL": f"/openapi/v3/{path}?hash={self._hash(path)}"} for path in self._paths()}
        for each in self.published:
            path = each.backend.path.lstrip("/")
            if each.openapi_hash:
                paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={each.openapi_hash}"}
        return to_json({"paths": paths})

    def _hash(self, path: str) -> str:
        group, version = self._paths()[path]
        return self._hash_of(self.table.resources(group, version))

    def _hash_of(self, resources: Iterable[Resource]) -> str:
        text = self._definitions.version + repr([
            (r.kind, r.plural, r.verbs, sorted(r.subresources), r.custom and r.custom.digest) for r in resources
        ])  # fmt: skip
        return hashlib.sha256(text.encode()).hexdigest().upper()

    def _custom(self) -> list[Resource]:
        return [resource for resource in self.table.all() if resource.custom is not None]

    def _made(self, name: str) -> bytes:
        if name == "v2":
            return to_json(self._v2())
        if name == "v2 protobuf":
            return openapi_wire.document(f"v{self._definitions.version}.0", self._v2()["definitions"])
        return to_json(self._v3(*self._paths()[name]))

    def _served(self, request: Request, name: str, kind: str = "application/json") -> Response:
        sources = self._hash_of(self._custom()) if name.startswith("v2") else self._hash(name)
        found = self._documents.get(name)
        if found is None or found[0] != sources:
            body = self._made(name)
            found = self._documents[name] = sources, body, '"' + hashlib.sha256(body).hexdigest().upper() + '"'
        _, body, etag = found
        headers = {"ETag": etag, "Vary": "Accept", "Cache-Control": "public"}
        if request.query.get("hash"):
            headers["Cache-Control"] = "public, immutable"
        if request.headers.get("If-None-Match") == etag:
            return Response(304, headers=headers)
        return Response(body=body, content_type=kind, headers=headers)

    # --- v3 -------------------------------------------------------------------------------------------------------

    def _v3(self, group: str, version: str) -> Object:
        resources = self.table.resources(group, version)
        names = {r.schema for r in resources if r.custom is None}
        names |= {s.schema for r in resources for s in r.subresources.values() if s.schema}
        names |= {n for n in (self._list_schema(r) for r in resources if r.custom is None) if n}
        own: Object = {}
        for resource in resources:
            if resource.custom is not None:
                own |= openapi_custom.schemas(resource, self._definitions)
                names |= {OBJECT_META, LIST_META}
        names.add("io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions")
        names.add("io.k8s.apimachinery.pkg.apis.meta.v1.Patch")
        names.add("io.k8s.apimachinery.pkg.apis.meta.v1.Status")
        schemas = {n: _rebased(self._definitions.schemas[n], "#/components/schemas/")
                   for n in sorted(self._definitions.closure(names))}  # fmt: skip
        schemas |= {n: _rebased(own[n], "#/components/schemas/") for n in own}
        paths: Object = {}
        for resource in resources:
            paths |= self._resource_paths(resource)
        return {
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": f"v{self._definitions.version}.0"},
            "paths": paths,
            "components": {"schemas": schemas},
        }

    def _list_schema(self, resource: Resource) -> str:
        if resource.custom is not None:
            return openapi_custom.list_name(resource)
        found = self._definitions.for_gvk(resource.group, resource.version, resource.list_kind)
        return found[0] if found else ""

    def _resource_paths(self, resource: Resource) -> Object:
        root = f"/apis/{resource.group}/{resource.version}" if resource.group else f"/api/{resource.version}"
        scope = root + ("/namespaces/{namespace}" if resource.namespaced else "") + f"/{resource.plural}"
        listed = self._list_schema(resource) or resource.schema
        collection: Object = {}
        if "list" in resource.verbs:
            collection["get"] = self._operation(resource, "list", answer=listed)
        if "create" in resource.verbs:
            collection["post"] = self._operation(resource, "post", resource.schema, writes=True)
        if "deletecollection" in resource.verbs:
            collection["delete"] = self._operation(resource, "deletecollection", answer="")
        paths: Object = {}
        if collection:
            paths[scope] = self._item(resource, collection, named=False)
        if resource.namespaced and "list" in resource.verbs:
            paths[f"{root}/{resource.plural}"] = {"get": self._operation(resource, "list", answer=listed)}
        if item := self._operations(resource, resource.schema, resource.verbs):
            paths[scope + "/{name}"] = self._item(resource, item, named=True)
        for sub in resource.subresources.values():
            if operations := self._operations(
                resource, sub.schema or resource.schema, sub.verbs, (sub.group, sub.version, sub.kind)
            ):
                paths[f"{scope}/{{name}}/{sub.name}"] = self._item(resource, operations, named=True)
        return paths

    def _operations(
        self, resource: Resource, schema: str, verbs: tuple[str, ...], gvk: tuple[str, str, str] | None = None
    ) -> Object:
        found: Object = {}
        for verb, method in (
            ("get", "get"),
            ("create", "post"),
            ("update", "put"),
            ("patch", "patch"),
            ("delete", "delete"),
        ):
            if verb in verbs and not (verb == "create" and gvk is None):
                found[method] = self._operation(
                    resource, method, schema if method in ("post", "put", "patch") else "", answer=schema,
                    writes=method not in ("get", "delete"), gvk=gvk,
                )  # fmt: skip
        return found

    def _item(self, resource: Resource, operations: Object, *, named: bool) -> Object:
        parameters = []
        for name in (["name"] if named else []) + (["namespace"] if resource.namespaced else []):
            parameters.append(
                {"name": name, "in": "path", "required": True, "schema": {"type": "string", "uniqueItems": True}}
            )
        return {**operations, "parameters": parameters} if parameters else operations

    def _operation(
        self, resource: Resource, action: str, body: str = "", *, answer: str | None = None, writes: bool = False,
        gvk: tuple[str, str, str] | None = None,
    ) -> Object:  # fmt: skip
        group, version, kind = gvk or (resource.group, resource.version, resource.kind)
        schema = {"$ref": f"#/components/schemas/{answer or resource.schema}"}
        operation: Object = {
            "tags": [f"{(resource.group.partition('.')[0] or 'core')}_{resource.version}"],
            "operationId": f"{action}{resource.group.title().replace('.', '')}{resource.version.title()}{kind}",
            "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": schema}}}},
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": {"group": group, "version": version, "kind": kind},
        }
        if writes:
            names = [*_QUERY, "force"] if action == "patch" else _QUERY
            operation["parameters"] = [
                {
                    "name": n,
                    "in": "query",
                    "schema": {"type": "boolean" if n == "force" else "string", "uniqueItems": True},
                }
                for n in names
            ]
        if action == "patch":
            patch = {"$ref": "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.Patch"}
            # kubectl apply looks here whether a kind has strategies for its lists.
            types = [t for t in _PATCH_TYPES if resource.custom is None or "strategic" not in t]
            operation["requestBody"] = {"content": {t: {"schema": patch} for t in types}, "required": True}
        elif body:
            content = {"schema": {"$ref": f"#/components/schemas/{body}"}}
            operation["requestBody"] = {"content": {"*/*": content}, "required": True}
        return operation

    # --- v2 -------------------------------------------------------------------------------------------------------

    def _v2(self) -> Object:
        own: Object = {}
        for resource in self._custom():
            own |= openapi_custom.schemas(resource, self._definitions, v2=True)
        return {
            "swagger": "2.0",
            "info": {"title": "Kubernetes", "version": f"v{self._definitions.version}.0"},
            "paths": {},
            "definitions": {
                **{n: _rebased(self._definitions.schemas[n], "#/definitions/") for n in self._definitions.schemas},
                **{n: _rebased(own[n], "#/definitions/") for n in own},
            },
        }


def _rebased(value: Any, root: str) -> Any:
    """A schema with its references below `root`."""
    if isinstance(value, dict):
        if "$ref" in value and isinstance(value["$ref"], str):
            reference = {"$ref": root + value["$ref"].rpartition("/")[2]}
            others = {k: _rebased(v, root) for k, v in value.items() if k != "$ref"}
            # OpenAPI 3.0 ignores what stands beside a reference: wrap it, as Kubernetes does.
            return (
                {**others, "allOf": [reference]}
                if others and root.startswith("#/components")
                else {**others, **reference}
            )
        return {k: _rebased(v, root) for k, v in value.items()}
    if isinstance(value, list):
        return [_rebased(v, root) for v in value]
    return value
