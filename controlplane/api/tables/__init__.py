"""Tables: what `kubectl get` shows, made by the server (meta.k8s.io/v1 Table).

`columns` are the headings of a resource, `cells` one object's row. A kind has a list of columns, each with the function
that takes its text from an object; kinds without one show their name and when they were made. Columns with priority 1
are shown with `-o wide`. The Table object around them is the API server's to make, custom resources' own columns too.
"""

from typing import Any

from controlplane.api.resources import Resource
from controlplane.api.tables import cluster, extensions, networking, pods, storage, workloads
from controlplane.api.tables.columns import GENERIC, Column

_BY_KIND: dict[tuple[str, str], tuple[Column, ...]] = {
    **pods.BY_KIND,
    **workloads.BY_KIND,
    **networking.BY_KIND,
    **storage.BY_KIND,
    **cluster.BY_KIND,
    **extensions.BY_KIND,
}


def _of(resource: Resource) -> tuple[Column, ...]:
    return _BY_KIND.get((resource.group, resource.kind), GENERIC)


def columns(resource: Resource) -> list[dict[str, Any]]:
    """The TableColumnDefinitions of a resource."""
    if resource.custom is not None:
        return resource.custom.columns()
    return [
        {
            "name": column.name,
            "type": column.type,
            "format": "name" if column.name == "Name" else "",
            "description": column.description or column.name,
            "priority": 1 if column.wide else 0,
        }
        for column in _of(resource)
    ]


def cells(resource: Resource, obj: dict[str, Any], now: float) -> list[Any]:
    """The row of an object, a cell a column. `now`: seconds since the epoch, for ages."""
    if resource.custom is not None:
        return resource.custom.cells(obj, now)
    return [column.cell(obj, now) for column in _of(resource)]
