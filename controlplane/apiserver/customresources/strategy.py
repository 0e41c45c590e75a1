"""What happens to a CustomResourceDefinition when it is written: names, conditions, and the finalizer of its objects.

Names are decided before a definition is stored, so that it is established, and served, when its creator hears of it.
"""

from collections.abc import Callable, Iterable
from typing import Any

from controlplane.api.resources import Resource
from controlplane.apiserver.customresources import naming
from controlplane.apiserver.registry.strategy import Strategy

Object = dict[str, Any]


class DefinitionStrategy(Strategy):
    """`others(name)`: the stored definitions but this one. `sync` is called after each change."""

    def __init__(self, resource: Resource, others: Callable[[str], Iterable[Object]], sync: Callable[[], None]) -> None:
        super().__init__(resource)
        self._others = others
        self._sync = sync
        self._coming: dict[str, Object] = {}  # being stored at the moment: their names are taken too

    async def prepare_create(self, obj: Object) -> None:
        obj.pop("status", None)
        if _is_readable(obj):
            obj["status"] = naming.status_of(obj, self._rivals(obj))
            self._coming[obj["metadata"]["uid"]] = obj

    async def prepare_update(self, new: Object, old: Object) -> None:
        await super().prepare_update(new, old)
        if _is_readable(new) and not naming.is_true(old, "Terminating"):
            new["status"] = naming.status_of(new, self._rivals(new))
            self._coming[new["metadata"]["uid"]] = new

    def deleting(self, obj: Object) -> Object:
        meta = obj["metadata"]
        finalizers = list(meta.get("finalizers") or ())
        if naming.FINALIZER in finalizers:
            return obj
        state = obj.get("status") or {}
        text = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon"
        conditions = naming.with_condition(
            list(state.get("conditions") or ()), "Terminating", True, "InstanceDeletionPending", text
        )
        return {
            **obj,
            "metadata": {**meta, "finalizers": [*finalizers, naming.FINALIZER]},
            "status": {**state, "conditions": conditions},
        }

    async def created(self, obj: Object) -> None:
        self._done(obj)

    async def updated(self, new: Object, old: Object) -> None:
        self._done(new)

    async def deleted(self, obj: Object) -> None:
        self._sync()

    async def refused(self, obj: Object) -> None:
        self._coming.pop(obj["metadata"].get("uid", ""), None)

    def _done(self, obj: Object) -> None:
        self._coming.pop(obj["metadata"].get("uid", ""), None)
        self._sync()

    def _rivals(self, crd: Object) -> list[Object]:
        meta, group = crd["metadata"], crd["spec"]["group"]
        stored = self._others(meta.get("name", ""))
        coming = (each for uid, each in self._coming.items() if uid != meta["uid"])
        return [each for each in (*stored, *coming) if each["spec"]["group"] == group]


def _is_readable(obj: Object) -> bool:
    """Whether there is enough to decide about names; if not, validation refuses the object anyway."""
    spec = obj.get("spec") or {}
    return isinstance(spec.get("names"), dict) and isinstance(spec.get("group"), str) and bool(spec.get("versions"))
