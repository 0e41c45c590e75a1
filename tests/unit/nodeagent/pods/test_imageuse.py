"""Which images somebody uses."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from nodeagent.pods.images import Images
from nodeagent.pods.imageuse import ImageUse
from nodeagent.pods.objects import Objects
from nodeagent.runtime.fake import FakeImages


async def test_containers_volumes_and_what_was_just_handed_out() -> None:
    service = FakeImages()
    ids = {name: service.add(name).id for name in ("ran:1", "mounted:1", "asked:1", "idle:1")}

    async def containers() -> list[Any]:
        return [SimpleNamespace(image=ids["ran:1"])]

    volumes = [{"name": "v", "image": {"reference": "mounted:1"}}, {"name": "w", "image": {"reference": "UPPER"}}]
    pod = {"metadata": {"name": "p"}, "spec": {"volumes": [*volumes, {"name": "e", "emptyDir": {}}]}}
    objects: Any = Objects.__new__(Objects)
    images = Images(service, objects, lambda *event: None)
    runtime: Any = SimpleNamespace(containers=containers)
    pods: Any = SimpleNamespace(pods=lambda: [pod])
    use = ImageUse(runtime, pods, images)
    assert await use() == await use.now() == {ids["ran:1"], ids["mounted:1"]}
    await images.ensure(pod, {"name": "c", "image": "asked:1"}, 0.0)
    assert await use() == {ids["ran:1"], ids["mounted:1"], ids["asked:1"]}
    assert await use.now() == {ids["ran:1"], ids["mounted:1"]}
