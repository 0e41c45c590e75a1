"""apiserver_storage_objects and its kin: how much is stored of what. Counted when asked, without touching an object."""

from collections.abc import Iterator

from controlplane.api.resources import ResourceTable
from controlplane.apiserver.exposition import family
from controlplane.apiserver.registry.generic import Registry
from controlplane.store.cache import WatchCache


def storage_metrics(cache: WatchCache, table: ResourceTable, size_bytes: int) -> Iterator[str]:
    """Prometheus text. `size_bytes`: what the store takes on its disk."""
    stored = {}  # several versions are one object
    for resource in table.all():
        if "get" in resource.verbs and resource.storage_group == resource.group:
            stored[Registry.prefix(resource)] = resource
    counts = [(resource, cache.count(prefix)) for prefix, resource in sorted(stored.items())]
    yield from family(
        "apiserver_storage_objects", "gauge", "Number of stored objects at the time of last check split by kind.",
        (({"resource": resource.group_resource}, count) for resource, count in counts),
    )  # fmt: skip
    yield from family(
        "apiserver_resource_objects", "gauge", "Number of stored objects at the time of last check split by kind.",
        (({"group": resource.group, "resource": resource.plural}, count) for resource, count in counts),
    )  # fmt: skip
    yield from family(
        "apiserver_storage_revision", "gauge", "The revision that the watch cache has reached.",
        [({}, cache.revision)],
    )  # fmt: skip
    yield from family(
        "apiserver_storage_size_bytes", "gauge", "Size of the storage database file physically allocated in bytes.",
        [({"storage_cluster_id": "embedded"}, size_bytes)] if size_bytes else [],
    )  # fmt: skip
