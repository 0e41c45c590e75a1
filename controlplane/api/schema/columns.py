"""additionalPrinterColumns: the Table of a custom resource, as `kubectl get` shows it.

Source: k8s.io/apiextensions-apiserver/pkg/registry/customresource/tableconvertor.
"""

from typing import Any

import msgspec

from controlplane.api.schema import paths
from controlplane.api.tables.columns import NAME, duration, seconds_since

Object = dict[str, Any]
_AGE = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}


class Columns:
    """The columns of one served version. `columns` are its additionalPrinterColumns."""

    def __init__(self, columns: list[Object]) -> None:
        self._columns = [(each["type"], paths.compiled(each["jsonPath"])) for each in columns or [_AGE]]
        self.definitions: list[Object] = [
            {"name": "Name", "type": "string", "format": "name", "description": NAME.description, "priority": 0},
            *(_definition(each) for each in columns or [_AGE]),
        ]
        """TableColumnDefinitions."""

    def cells(self, obj: Object, now: float) -> list[Any]:
        """One object's row; None where it has nothing to show."""
        row: list[Any] = [obj["metadata"]["name"]]
        for kind, path in self._columns:
            row.append(_cell(kind, path.first(obj), now))
        return row


def _definition(column: Object) -> Object:
    text = column.get("description") or (
        f"Custom resource definition column (in JSONPath format): {column['jsonPath']}"
    )
    return {
        "name": column["name"],
        "type": column["type"],
        "format": column.get("format", ""),
        "description": text,
        "priority": column.get("priority", 0),
    }


def _cell(kind: str, value: Any, now: float) -> Any:
    if value is None:
        return None
    if kind == "string":
        return value if isinstance(value, str) else msgspec.json.encode(value).decode()
    if kind == "date":
        if not isinstance(value, str):
            return None
        age = seconds_since(value, now)
        return "<invalid>" if age is None else duration(age)
    if kind == "boolean":
        return value if isinstance(value, bool) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if kind == "integer" else value
