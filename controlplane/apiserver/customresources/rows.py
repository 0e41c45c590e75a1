"""A CustomResourceDefinition as rows of the resource table: one for each served version."""

from types import MappingProxyType
from typing import Any

from controlplane.api.definitions import Definitions
from controlplane.api.resources import ALL_VERBS, Resource, Subresource
from controlplane.api.schema.kind import CustomKind
from controlplane.apiserver.customresources.conversion import WebhookConverter
from controlplane.apiserver.customresources.naming import is_true
from controlplane.apiserver.webhook_client import Caller

Object = dict[str, Any]
_OBJECT_VERBS = ("get", "patch", "update")
_SCALE = "io.k8s.api.autoscaling.v1.Scale"


def rows(crd: Object, definitions: Definitions, caller: Caller | None = None) -> list[Resource]:
    """The resources that `crd` brings; none before it is established."""
    if not is_true(crd, "Established"):
        return []
    spec, names = crd["spec"], crd["status"]["acceptedNames"]
    group = spec["group"]
    storage = next(v["name"] for v in spec["versions"] if v.get("storage"))
    made = [
        _row(crd, version, f"{group}/{storage}", names, definitions)
        for version in spec["versions"]
        if version["served"]
    ]
    kinds = [row.custom for row in made if row.custom is not None]
    webhook = (spec.get("conversion") or {}).get("webhook")
    for custom in kinds:
        custom.siblings = kinds
        if webhook and caller is not None:
            custom.converter = WebhookConverter(caller, webhook, names["kind"])
    return made


def schema_name(group: str, version: str, kind: str) -> str:
    """As Kubernetes names a custom kind's definition: com.example.stable.v1.CronTab."""
    return ".".join([*reversed(group.split(".")), version, kind])


def _row(crd: Object, version: Object, storage: str, names: Object, definitions: Definitions) -> Resource:
    spec = crd["spec"]
    group, kind = spec["group"], names["kind"]
    custom = CustomKind(
        group,
        kind,
        version,
        list_kind=names.get("listKind", ""),
        preserve=bool(spec.get("preserveUnknownFields")),
        definitions=definitions,
    )
    custom.terminating = is_true(crd, "Terminating") or "deletionTimestamp" in crd["metadata"]
    schema = schema_name(group, custom.version, kind)
    subresources = {}
    if custom.scale is not None:
        subresources["scale"] = Subresource("scale", _OBJECT_VERBS, "autoscaling", "v1", "Scale", _SCALE)
    if custom.has_status:
        subresources["status"] = Subresource("status", _OBJECT_VERBS, group, custom.version, kind, schema)
    return Resource(
        group=group,
        version=custom.version,
        kind=kind,
        plural=names["plural"],
        singular=names.get("singular") or kind.lower(),
        namespaced=spec["scope"] == "Namespaced",
        verbs=ALL_VERBS,
        schema=schema,
        storage_version=storage,
        short_names=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        subresources=MappingProxyType(subresources),
        custom=custom,
    )
