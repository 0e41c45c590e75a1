"""Objects of an older served version come to the stored version of this one, before anybody reads them.

A server that is started with another `--kubernetes-version` may find objects whose apiVersion it stores no more
(ValidatingAdmissionPolicy of 1.29 is v1beta1, of 1.37 v1), or serves no more at all. Answers are stored bytes, so they
must be right in the store. A look at the beginning of each object's bytes says whether there is anything to do, which
is 0.1 µs an object; what is written is converted as if somebody had read it in the new version and put it back.

What it is not: an upgrade of custom resources, whose stored version their definition names.
"""

import logging

import msgspec

from controlplane.api import convert
from controlplane.api.resources import Resource, ResourceTable
from controlplane.apiserver.registry.codec import encode
from controlplane.apiserver.registry.generic import Registry
from controlplane.store.cache import WatchCache
from controlplane.store.interface import Conflict, KeyMissing

log = logging.getLogger(__name__)


async def migrate(cache: WatchCache, table: ResourceTable) -> int:
    """How many objects were rewritten. Raises StoreError."""
    count = 0
    for resource in table.all():
        if resource.custom is not None or not resource.native:
            continue
        head = _head(resource)
        items, _ = cache.list(Registry.prefix(resource))
        for cached in items:
            if cached.data.startswith(head):
                continue
            obj = msgspec.json.decode(cached.data)
            if obj.get("kind") != resource.kind or obj.get("apiVersion") == resource.api_version:
                continue
            try:
                await cache.update(cached.key, encode(convert.convert(obj, resource.api_version)), cached.revision)
            except (Conflict, KeyMissing):
                continue  # another server's doing
            count += 1
    if count:
        log.info("migrated objects=%d", count)
    return count


def _head(resource: Resource) -> bytes:
    """How an object begins that `encode` wrote in the stored version."""
    return f'{{"kind":"{resource.kind}","apiVersion":"{resource.api_version}",'.encode()
