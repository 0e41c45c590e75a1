"""Discovery: which groups, versions and resources there are, in the old form (a document each) and the aggregated one.

Documents are made from the resource table when it changes and served as bytes with an ETag.
"""

import hashlib
from typing import Any

from controlplane.api.resources import Resource, ResourceTable
from controlplane.apiserver.aggregation.availability import Published
from controlplane.apiserver.http import Request, Response
from controlplane.apiserver.registry.codec import to_json

Object = dict[str, Any]
_AGGREGATED = "APIGroupDiscoveryList"


class Discovery:
    """`server_address` is what /api tells old clients. Set `table` again when custom resources change it."""

    def __init__(self, table: ResourceTable, server_address: str) -> None:
        self._address = server_address
        self.table = table
        self._cache: dict[tuple[ResourceTable, str], tuple[bytes, str]] = {}
        self._published: tuple[Published, ...] = ()

    def publish(self, published: tuple[Published, ...]) -> None:
        """Show these aggregated APIs beside our own."""
        self._published = published
        self._cache.clear()

    def answer(self, request: Request) -> Response | None:
        """The answer to a discovery path; None if it is not one."""
        parts = [p for p in request.path.split("/") if p]
        if not parts or parts[0] not in ("api", "apis"):
            return None
        form = _form(request) if len(parts) == 1 else ""
        key = (self.table, f"{request.path.rstrip('/')}#{form}")
        found = self._cache.get(key)
        if found is None:
            document = self._document(parts, form)
            if document is None:
                return None
            body = to_json(document)
            if len(self._cache) > 500 or any(table is not self.table for table, _ in self._cache):
                self._cache.clear()
            found = self._cache[key] = body, '"' + hashlib.sha256(body).hexdigest().upper() + '"'
        body, etag = found
        kind = f"application/json;g=apidiscovery.k8s.io;v={form};as={_AGGREGATED}" if form else "application/json"
        headers = {"ETag": etag, "Vary": "Accept", "Cache-Control": "public"} if form else None
        if form and request.headers.get("If-None-Match") == etag:
            return Response(304, content_type=kind, headers=headers)
        return Response(body=body, content_type=kind, headers=headers)

    def _document(self, parts: list[str], form: str) -> Object | None:
        core = parts[0] == "api"
        if len(parts) == 1:
            if form:
                return self._aggregated(core, form)
            return self._versions() if core else {"kind": "APIGroupList", "apiVersion": "v1", "groups": [
                self._group(g) for g in self._groups() if g
            ]}  # fmt: skip
        if core:
            return self._resources("", parts[1]) if len(parts) == 2 else None
        if parts[1] not in self._groups():
            return None
        if len(parts) == 2:
            return {"kind": "APIGroup", "apiVersion": "v1", **self._group(parts[1])}
        return self._resources(parts[1], parts[2]) if len(parts) == 3 else None

    def _versions(self) -> Object:
        addresses = [{"clientCIDR": "0.0.0.0/0", "serverAddress": self._address}]
        return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": addresses}

    def _group(self, group: str) -> Object:
        names = [*self.table.versions(group), *(p.backend.version for p in self._published if p.backend.group == group)]
        versions = [{"groupVersion": f"{group}/{v}", "version": v} for v in names]
        return {"name": group, "versions": versions, "preferredVersion": versions[0]}

    def _groups(self) -> list[str]:
        return list(dict.fromkeys([*self.table.groups(), *(each.backend.group for each in self._published)]))

    def _resources(self, group: str, version: str) -> Object | None:
        resources = self.table.resources(group, version)
        if not resources:
            return None
        rows: list[Object] = []
        for resource in resources:
            row: Object = {
                "name": resource.plural,
                "singularName": resource.singular,
                "namespaced": resource.namespaced,
                "kind": resource.kind,
                "verbs": _verbs(resource),
            }
            if resource.short_names:
                row["shortNames"] = list(resource.short_names)
            if resource.categories:
                row["categories"] = list(resource.categories)
            rows.append(row)
            for sub in resource.subresources.values():
                entry: Object = {
                    "name": f"{resource.plural}/{sub.name}",
                    "singularName": "",
                    "namespaced": resource.namespaced,
                    "kind": sub.kind,
                    "verbs": list(sub.verbs),
                }
                if (sub.group, sub.version) != (group, version):
                    entry |= {"group": sub.group, "version": sub.version}
                rows.append(entry)
        api_version = f"{group}/{version}" if group else version
        return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": api_version, "resources": rows}

    def _aggregated(self, core: bool, form: str) -> Object:
        groups = [g for g in self._groups() if (g == "") == core]
        items = []
        for group in groups:
            versions = [
                {
                    "version": version,
                    "freshness": "Current",
                    "resources": [_entry(r) for r in self.table.resources(group, version)],
                }
                for version in self.table.versions(group)
            ]
            versions += [_aggregated_version(each) for each in self._published if each.backend.group == group]
            metadata: Object = {"creationTimestamp": None}
            if group:
                metadata["name"] = group
            items.append({"metadata": metadata, "versions": versions})
        return {"kind": _AGGREGATED, "apiVersion": f"apidiscovery.k8s.io/{form}", "metadata": {}, "items": items}


def _entry(resource: Resource) -> Object:
    entry: Object = {
        "resource": resource.plural,
        "responseKind": {"group": resource.group, "version": resource.version, "kind": resource.kind},
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": resource.singular,
        "verbs": _verbs(resource),
    }
    if resource.short_names:
        entry["shortNames"] = list(resource.short_names)
    if resource.categories:
        entry["categories"] = list(resource.categories)
    if resource.subresources:
        entry["subresources"] = [
            {
                "subresource": sub.name,
                "responseKind": {"group": sub.group, "version": sub.version, "kind": sub.kind},
                "verbs": list(sub.verbs),
            }
            for sub in resource.subresources.values()
        ]
    return entry


def _aggregated_version(published: Published) -> Object:
    """An aggregated API's version, made of its own list of resources."""
    backend = published.backend
    entries: dict[str, Object] = {}
    for each in published.resources:
        name, _, sub = str(each.get("name", "")).partition("/")
        kind = {"group": each.get("group") or backend.group, "version": each.get("version") or backend.version,
                "kind": each.get("kind", "")}  # fmt: skip
        if sub:
            entry = {"subresource": sub, "responseKind": kind, "verbs": each.get("verbs") or []}
            entries.setdefault(name, {}).setdefault("subresources", []).append(entry)
            continue
        entry = entries.setdefault(name, {})
        entry |= {
            "resource": name,
            "responseKind": kind,
            "scope": "Namespaced" if each.get("namespaced") else "Cluster",
            "singularResource": each.get("singularName") or "",
            "verbs": each.get("verbs") or [],
        }
        for key in ("shortNames", "categories"):
            if each.get(key):
                entry[key] = each[key]
    return {"version": backend.version, "freshness": "Current", "resources": list(entries.values())}


def _verbs(resource: Resource) -> list[str]:
    if resource.custom is not None and resource.custom.terminating:
        return [verb for verb in resource.verbs if verb not in ("create", "patch", "update")]
    return list(resource.verbs)


def _form(request: Request) -> str:
    """v2, v2beta1, or "" for the old form: the first that the client would take."""
    for choice in request.headers.get("Accept", "").split(","):
        given = dict(part.strip().partition("=")[::2] for part in choice.split(";"))
        if given.get("as") == _AGGREGATED and given.get("g") == "apidiscovery.k8s.io":
            if given.get("v") in ("v2", "v2beta1"):
                return given["v"]
        elif choice.strip().startswith(("application/json", "*/*")):
            return ""
    return ""
