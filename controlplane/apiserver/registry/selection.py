"""Which objects a list or watch is about: by labels, fields, namespace and name, and as of which revision."""

import asyncio
from dataclasses import dataclass

from controlplane.api import status
from controlplane.api.resources import Resource
from controlplane.api.selectors import EVERYTHING, FieldRequirement, FieldSelector, LabelSelector, parse_labels
from controlplane.apiserver.http import Request
from controlplane.apiserver.registry import fields
from controlplane.store.cache import Cached, WatchCache

_FUTURE_WAIT_S = 3.0


@dataclass(frozen=True, slots=True)
class Selection:
    """Which objects of a resource: by labels and fields."""

    labels: LabelSelector
    fields: FieldSelector
    name: str = ""  # when the fields say exactly one name

    @property
    def everything(self) -> bool:
        return self.labels.empty and self.fields.empty

    def matches(self, cached: Cached) -> bool:
        if not self.labels.empty and not self.labels.matches(cached.labels):
            return False
        if self.fields.empty:
            return True
        if self.name:
            if cached.key.rpartition("/")[2] != self.name:
                return False
            if len(self.fields.requirements) == 1:
                return True
        return self.fields.matches(fields.values(self.fields, cached.object))


EVERYTHING_SELECTED = Selection(EVERYTHING, FieldSelector())


def selection(request: Request, resource: Resource, name: str = "") -> Selection:
    """From labelSelector and fieldSelector, and from the path if it names an object. Raises StatusError 400."""
    chosen = _asked(request, resource)
    if not name or chosen.name == name:
        return chosen
    # Authorisation was for this one object: the rest of the collection must never be seen through it.
    requirements = (FieldRequirement("metadata.name", "=", name), *chosen.fields.requirements)
    return Selection(chosen.labels, FieldSelector(requirements), name)


def _asked(request: Request, resource: Resource) -> Selection:
    if not request.query_string:
        return EVERYTHING_SELECTED
    by_labels, by_fields = request.query.get("labelSelector", ""), request.query.get("fieldSelector", "")
    if not by_labels and not by_fields:
        return EVERYTHING_SELECTED
    try:
        labels = parse_labels(by_labels) if by_labels else EVERYTHING
    except ValueError as error:
        raise status.bad_request(f"unable to parse requirement: {error}") from None
    chosen = fields.parse(resource, by_fields) if by_fields else FieldSelector()
    return Selection(labels, chosen, chosen.exact("metadata.name") or "")


async def wait_for(cache: WatchCache, revision: int) -> None:
    """Until the cache has reached `revision`. Raises StatusError 504 if it does not come."""
    if cache.revision >= revision:
        return
    try:
        async with asyncio.timeout(_FUTURE_WAIT_S):
            await cache.reached(revision)
    except TimeoutError:
        error = status.timeout(f"Too large resource version: {revision}, current: {cache.revision}", retry_after=1)
        error.details = {**error.details, "causes": [
            {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
        ]}  # fmt: skip
        raise error from None


def single_key(prefix: str, chosen: Selection, namespace: str, resource: Resource) -> str:
    """The key of the only object that can be selected, if the selection is nothing but its name."""
    if not chosen.name or not chosen.labels.empty or len(chosen.fields.requirements) != 1:
        return ""
    return prefix + chosen.name if namespace or not resource.namespaced else ""


def state(cache: WatchCache, prefix: str) -> tuple[list[Cached], int]:
    if prefix.endswith("/"):
        return cache.list(prefix)
    one = cache.get(prefix)
    return [one] if one is not None else [], cache.revision
