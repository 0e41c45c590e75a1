"""Objects for the API's tests: from JSON to checked, defaulted, validated."""

from collections.abc import Callable
from typing import Any

import pytest

from controlplane.api import defaults, definitions, resources, validate, validation
from controlplane.api.status import Cause

TABLE = resources.builtin(definitions.load())
Object = dict[str, Any]


def _resource(obj: Object) -> resources.Resource:
    found = TABLE.for_object(obj["apiVersion"], obj["kind"])
    assert found is not None
    return found


@pytest.fixture
def filled() -> Callable[[Object], Object]:
    """An object as it would be stored: checked strictly and with its defaults."""

    def fill(obj: Object) -> Object:
        resource = _resource(obj)
        validate.decode_checked(resource, obj, "Strict")
        defaults.apply(resource, obj)
        return obj

    return fill


@pytest.fixture
def faults(filled: Callable[[Object], Object]) -> Callable[..., list[str]]:
    """What is wrong with a new object (or with `obj` in place of `old`), as texts."""

    def look(obj: Object, old: Object | None = None) -> list[str]:
        resource = _resource(obj)
        filled(obj)
        causes: list[Cause]
        if old is None:
            causes = validation.create(resource, obj)
        else:
            causes = validation.update(resource, obj, filled(old))
        return [str(cause) for cause in causes]

    return look
