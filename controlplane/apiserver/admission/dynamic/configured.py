"""What is configured: webhooks and policies, compiled when they change.

The store's cache tells of changes in the moment they are written; they are looked for before each use, which costs
nothing while there are none.
"""

from collections.abc import Sequence

from controlplane.apiserver.admission.dynamic import bound, webhooks
from controlplane.apiserver.admission.dynamic.matching import GROUP
from controlplane.store.broadcaster import Overflow
from controlplane.store.cache import WatchCache


class Configured:
    """`mutating`, `validating`: webhooks in the order of their configurations' names; `bound`, `changing`:
    validating and mutating policies."""

    def __init__(self, cache: WatchCache) -> None:
        self._cache = cache
        self._watcher = cache.subscribe(f"{GROUP}/")
        self.mutating: Sequence[webhooks.Hook] = ()
        self.validating: Sequence[webhooks.Hook] = ()
        self.bound: Sequence[bound.Policy] = ()
        self.changing: Sequence[bound.Policy] = ()
        self._read()

    def refresh(self) -> None:
        """Take notice of what was written since the last time."""
        try:
            if not self._watcher.take():
                return
        except Overflow:
            self._watcher.close()
            self._watcher = self._cache.subscribe(f"{GROUP}/")
        self._read()

    def close(self) -> None:
        self._watcher.close()

    def _read(self) -> None:
        def objects(plural: str) -> list[webhooks.Object]:
            return [cached.object for cached in self._cache.list(f"{GROUP}/{plural}/")[0]]

        self.mutating = [h for c in objects("mutatingwebhookconfigurations") for h in webhooks.compiled(c)]
        self.validating = [h for c in objects("validatingwebhookconfigurations") for h in webhooks.compiled(c)]
        self.bound = bound.compiled(
            objects("validatingadmissionpolicies"), objects("validatingadmissionpolicybindings")
        )
        self.changing = bound.compiled(objects("mutatingadmissionpolicies"), objects("mutatingadmissionpolicybindings"))
