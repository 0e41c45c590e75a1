"""In which form an answer is wanted: the object itself, a Table, or only its metadata.

Decided by the Accept header once a request. The plain form is the stored bytes; the others are made from the decoded
object, for lists and watches alike.
"""

from dataclasses import dataclass
from typing import Any

from controlplane import clock
from controlplane.api import convert, status, tables
from controlplane.api.resources import Resource
from controlplane.apiserver.http import Request
from controlplane.apiserver.registry.codec import in_version, to_json
from controlplane.store.cache import Cached

Object = dict[str, Any]
_META = "meta.k8s.io"


@dataclass(frozen=True, slots=True)
class View:
    """`form`: "" for the object, "Table", "PartialObjectMetadata" or "PartialObjectMetadataList"."""

    resource: Resource
    form: str = ""
    version: str = "v1"
    include: str = "Metadata"  # for Tables: None, Metadata or Object
    yaml: bool = False

    @property
    def plain(self) -> bool:
        return not self.form

    def data(self, cached: Cached) -> bytes:
        """One object's bytes."""
        if self.plain:
            return in_version(cached, self.resource)
        return to_json(self.one(cached.object))

    def one(self, obj: Object, *, columns: bool = True) -> Object:
        """One object in this form; a Table on a watch carries its columns only in the first event."""
        if self.form == "Table":
            return self.table([obj], {"resourceVersion": obj["metadata"].get("resourceVersion", "")}, columns=columns)
        return self._partial(obj)

    def listing(self, objects: list[Object], metadata: Object) -> bytes:
        if self.form == "Table":
            return to_json(self.table(objects, metadata))
        items = [self._partial(obj) for obj in objects]
        return to_json({
            "kind": "PartialObjectMetadataList", "apiVersion": f"{_META}/{self.version}", "metadata": metadata,
            "items": items,
        })  # fmt: skip

    def table(self, objects: list[Object], metadata: Object, *, columns: bool = True) -> Object:
        now = clock.wall_time()
        rows = []
        for obj in objects:
            row: Object = {"cells": tables.cells(self.resource, obj, now)}
            if self.include == "Object":
                row["object"] = convert.convert(obj, self.resource.api_version)
            elif self.include != "None":
                row["object"] = self._partial(obj)
            rows.append(row)
        return {
            "kind": "Table",
            "apiVersion": f"{_META}/{self.version}",
            "metadata": metadata,
            "columnDefinitions": tables.columns(self.resource) if columns else [],
            "rows": rows,
        }

    def _partial(self, obj: Object) -> Object:
        return {
            "kind": "PartialObjectMetadata",
            "apiVersion": f"{_META}/{self.version}",
            "metadata": obj["metadata"],
        }


def of(request: Request, resource: Resource, *, listing: bool) -> View:
    """The first form in the Accept header that we can make. Raises StatusError 406 if there is none."""
    accept = request.headers.get("Accept", "")
    if not accept or accept == "application/json":
        return View(resource)
    for choice in accept.split(","):
        media, *parameters = [part.strip() for part in choice.split(";")]
        given = dict(p.partition("=")[::2] for p in parameters)
        if media not in ("application/json", "application/*", "*/*", "application/yaml"):
            continue
        form, group = given.get("as", ""), given.get("g", _META)
        if not form:
            return View(resource, yaml=media == "application/yaml")
        known = ("Table", "PartialObjectMetadataList" if listing else "PartialObjectMetadata", "PartialObjectMetadata")
        if group == _META and form in known and given.get("v", "v1") in ("v1", "v1beta1"):
            include = request.query.get("includeObject", "Metadata")
            return View(resource, form, given.get("v", "v1"), include)
    raise status.not_acceptable(
        ["application/json", "application/yaml", "application/json;as=Table;v=v1;g=meta.k8s.io"]
    )
