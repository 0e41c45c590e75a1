"""A view shows our own writes until the cache has them."""

from typing import Any

from controlplane.controllers.view import View


class Cache:
    """An informer by hand."""

    def __init__(self) -> None:
        self.objects: dict[str, Any] = {}
        self.resource_version = ""
        self._handlers: dict[str, Any] = {}

    def get(self, key: str) -> Any:
        return self.objects.get(key)

    def items(self) -> list[Any]:
        return list(self.objects.values())

    def by_index(self, name: str, value: str) -> list[Any]:
        return [o for o in self.objects.values() if o["metadata"]["labels"]["app"] == value]

    def add_handler(self, **handlers: Any) -> None:
        self._handlers = handlers

    def show(self, obj: Any) -> None:
        old = self.objects.get("ns/" + obj["metadata"]["name"])
        self.objects["ns/" + obj["metadata"]["name"]] = obj
        self._handlers["added"](obj) if old is None else self._handlers["updated"](old, obj)
        self.resource_version = obj["metadata"]["resourceVersion"]

    def remove(self, obj: Any) -> None:
        self.objects.pop("ns/" + obj["metadata"]["name"], None)
        self._handlers["deleted"](obj)
        self.resource_version = obj["metadata"]["resourceVersion"]


def pod(name: str, version: int, app: str = "web", uid: str = "", **fields: Any) -> Any:
    metadata = {"name": name, "namespace": "ns", "uid": uid or name, "resourceVersion": str(version), **fields}
    return {"metadata": {**metadata, "labels": {"app": app}}}


def names(view: View) -> list[str]:
    return sorted(o["metadata"]["name"] for o in view.by_index("app", "web"))


def make() -> tuple[Cache, View]:
    cache = Cache()
    return cache, View(cache, {"app": lambda obj: [obj["metadata"]["labels"]["app"]]})


def test_a_created_object_is_there_before_its_event() -> None:
    cache, view = make()
    cache.show(pod("a", 5))
    view.wrote(pod("b", 6))
    view.wrote(pod("c", 7, app="other"))
    assert names(view) == ["a", "b"]
    assert view.get("ns/b") is not None
    cache.show(pod("b", 6))
    cache.show(pod("b", 8))
    assert view.get("ns/b")["metadata"]["resourceVersion"] == "8"  # type: ignore[index]


def test_an_event_that_overtook_the_answer_wins() -> None:
    cache, view = make()
    cache.show(pod("a", 9))
    view.wrote(pod("a", 8))
    assert view.get("ns/a")["metadata"]["resourceVersion"] == "9"  # type: ignore[index]


def test_what_was_created_and_deleted_meanwhile_does_not_haunt() -> None:
    cache, view = make()
    cache.show(pod("a", 6))
    cache.remove(pod("a", 7))
    view.wrote(pod("a", 6))
    assert names(view) == []
    view.wrote(pod("b", 8))
    cache.show(pod("c", 9))  # the informer is past revision 8 and has no b: it is gone again
    assert names(view) == ["c"]


def test_a_deleted_object_counts_as_deleting_at_once() -> None:
    cache, view = make()
    cache.show(pod("a", 5))
    view.deleted(cache.objects["ns/a"])
    assert "deletionTimestamp" in view.get("ns/a")["metadata"]  # type: ignore[index]
    cache.show(pod("a", 6))  # a status update from before the deletion
    assert "deletionTimestamp" in view.get("ns/a")["metadata"]  # type: ignore[index]
    cache.remove(pod("a", 7))
    view.deleted(pod("a", 6))  # the answer to our deletion comes after the event: nothing to remember
    assert not view._deleted
    cache.show(pod("a", 8, uid="another"))
    assert "deletionTimestamp" not in view.get("ns/a")["metadata"]  # type: ignore[index]
