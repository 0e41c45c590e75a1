"""Pulling by policy: what a pod is told, in kubelet's words."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence

import pytest

from controlplane import clock
from controlplane.client.fake import FakeAPI
from nodeagent.pods.images import ImageNotReady, Images
from nodeagent.pods.objects import Objects
from nodeagent.runtime.fake import FakeImages
from nodeagent.runtime.interface import Image, RegistryAuth, RuntimeFailure

POD = {"metadata": {"name": "p", "namespace": "ns"}, "spec": {"imagePullSecrets": [{"name": "s"}, {"name": "gone"}]}}


class World(FakeImages):
    """`Images` over an image service that takes note of credentials. `failure`: of the next pulls."""

    def __init__(self) -> None:
        super().__init__()
        self.api = FakeAPI()
        self.events: list[tuple[str, str, str]] = []
        self.sent: list[Sequence[RegistryAuth]] = []
        self.failure: RuntimeFailure | None = None
        self.images = Images(self, Objects(self.api.client()), lambda pod, *event: self.events.append(event))

    async def pull(self, reference: str, auth: Sequence[RegistryAuth] = ()) -> Image:
        self.sent.append(auth)
        if self.failure is not None:
            raise self.failure
        return await super().pull(reference, auth)

    async def ensure(self, image: str, policy: str = "") -> Image:
        container = {"name": "c", "image": image, **({"imagePullPolicy": policy} if policy else {})}
        return await self.images.ensure(POD, container, clock.wall_time())

    async def refused(self, image: str, policy: str = "") -> tuple[str, str]:
        self.events.clear()
        with pytest.raises(ImageNotReady) as caught:
            await self.ensure(image, policy)
        return caught.value.reason, str(caught.value)


@pytest.mark.parametrize("image", ["UPPER", "a b", "", "x:y:z", "http://r.io/x", "a@sha256:12"])
async def test_invalid_names(image: str) -> None:
    world = World()
    reason, message = await world.refused(image)
    assert reason == "InvalidImageName"
    assert message.startswith(f'Failed to apply default image tag "{image}": couldn\'t parse image name "{image}": ')
    assert world.events == [("Warning", "InspectFailed", message)]


async def test_policy_never() -> None:
    world = World()
    message = 'Container image "a:1" is not present with pull policy of Never'
    assert await world.refused("a:1", "Never") == ("ErrImageNeverPull", message)
    assert world.events == [("Warning", "ErrImageNeverPull", message)]
    world.add("a:1")
    await world.ensure("a:1", "Never")
    assert not world.sent


async def test_a_failure_then_back_off_with_its_reason() -> None:
    world = World()
    world.failure = RuntimeFailure("manifest unknown", "ErrImagePull")
    assert await world.refused("a:1") == ("ErrImagePull", "manifest unknown")
    assert world.events == [
        ("Normal", "Pulling", 'Pulling image "a:1"'),
        ("Warning", "Failed", 'Failed to pull image "a:1": manifest unknown'),
        ("Warning", "Failed", "Error: ErrImagePull"),
    ]
    backing_off = 'Back-off pulling image "a:1"'
    assert await world.refused("a:1") == ("ImagePullBackOff", f"{backing_off}: ErrImagePull: manifest unknown")
    assert world.events == [("Normal", "BackOff", backing_off), ("Warning", "Failed", "Error: ImagePullBackOff")]
    assert len(world.sent) == 1


async def test_a_registry_that_is_away() -> None:
    world = World()
    world.failure = RuntimeFailure("connection refused", "RegistryUnavailable")
    expected = "image pull failed for a:1 because the registry is unavailable: connection refused"
    assert await world.refused("a:1") == ("RegistryUnavailable", expected)


async def test_only_logins_for_the_image_are_used() -> None:
    world = World()
    auths = {"r.io/team": {"username": "team", "password": "x"}, "other.io": {"username": "other", "password": "x"}}
    text = base64.b64encode(json.dumps({"auths": auths}).encode()).decode()
    meta = {"name": "s", "namespace": "ns"}
    world.api.put({"apiVersion": "v1", "kind": "Secret", "metadata": meta, "data": {".dockerconfigjson": text}})
    for image in ("r.io/team/a:1", "r.io/b:1"):
        world.remote[image] = world.add(image)
        world.local.clear()
        await world.ensure(image)
    assert [[auth.username for auth in auths] for auths in world.sent] == [["team"], []]
    assert any(m.startswith('Successfully pulled image "r.io/b:1" in 0ms (0ms including') for _, _, m in world.events)
