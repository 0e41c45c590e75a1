"""Answers in protobuf, for clients that prefer it: objects, lists, watches, errors, and what has no message."""

import asyncio
from contextlib import aclosing
from typing import Any

import pytest

from controlplane.api import wire
from controlplane.api.wire import decoder
from controlplane.api.wire.reader import fields

CMS = "/api/v1/namespaces/default/configmaps"
PROTOBUF = "application/vnd.kubernetes.protobuf"
AS_GO = {"Accept": f"{PROTOBUF},application/json"}
MANAGED = {"headers": {"User-Agent": "test"}}  # a manager without a name is not told, and cannot be compared
META = ",".join(f"{kind};as=PartialObjectMetadata;g=meta.k8s.io;v=v1" for kind in (PROTOBUF, "application/json"))


async def get(api: Any, path: str, accept: str = AS_GO["Accept"]) -> Any:
    response = await api.raw("GET", path, headers={"Accept": accept})
    assert response.content_type == PROTOBUF, response.body
    return wire.decode(response.body)


def parts(data: bytes) -> list[tuple[int, bytes]]:
    """A message's fields that have a length."""
    return [(number, data[at:end]) for number, wire_type, at, end in fields(data, 0, len(data)) if wire_type == 2]


def items(body: bytes, kind: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Metadata and items of a list, each item decoded as if it came alone."""
    raw = dict(parts(body[4:]))[2]
    metadata: dict[str, Any] = {}
    found = []
    for number, content in parts(raw):
        if number == 1:
            metadata = decoder.message("meta.v1.ListMeta")(content, 0, len(content), 0)
        else:
            found.append(wire.decode(wire.envelope("v1", kind, content)))
    return metadata, found


async def test_an_object_and_a_list(api: Any) -> None:
    made = await api.ok("POST", CMS, {"metadata": {"name": "a", "labels": {"x": "y"}}, "data": {"k": "v"}}, **MANAGED)
    assert await get(api, f"{CMS}/a") == made
    response = await api.raw("GET", CMS, headers=AS_GO)
    assert response.content_type == PROTOBUF
    metadata, found = items(response.body, "ConfigMap")
    assert found == [made]
    assert metadata == {"resourceVersion": made["metadata"]["resourceVersion"]}


async def test_writes_answer_in_protobuf_too(api: Any) -> None:
    body = wire.encode({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "p"}, "data": {"k": "v"}})
    headers = {**AS_GO, "Content-Type": PROTOBUF}
    response = await api.raw("POST", CMS, body, headers=headers)
    assert (response.status, response.content_type) == (201, PROTOBUF)
    obj = wire.decode(response.body)
    assert obj["data"] == {"k": "v"}
    response = await api.raw("PUT", f"{CMS}/p", wire.encode({**obj, "data": {"k": "w"}}), headers=headers)
    assert wire.decode(response.body)["data"] == {"k": "w"}
    response = await api.raw("DELETE", f"{CMS}/p", headers=AS_GO)
    assert wire.decode(response.body)["status"] == "Success"
    await api.raw("POST", CMS, body, headers=headers)
    response = await api.raw("DELETE", CMS, headers=AS_GO)
    assert [each["metadata"]["name"] for each in items(response.body, "ConfigMap")[1]] == ["p"]


async def test_errors_reviews_and_discovery(api: Any) -> None:
    missing = await get(api, f"{CMS}/none")
    assert (missing["kind"], missing["code"], missing["reason"]) == ("Status", 404, "NotFound")
    review = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
              "spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}}  # fmt: skip
    response = await api.raw("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", wire.encode(review),
                             headers={**AS_GO, "Content-Type": PROTOBUF})  # fmt: skip
    assert wire.decode(response.body)["status"]["allowed"] is True
    groups = await get(api, "/apis")
    assert "apps" in [group["name"] for group in groups["groups"]]


async def frames(api: Any, path: str, count: int, accept: str = AS_GO["Accept"]) -> list[tuple[str, dict[str, Any]]]:
    response = await api.raw("GET", path, headers={"Accept": accept})
    assert response.content_type == f"{PROTOBUF};stream=watch"
    rest, found = b"", []
    async with asyncio.timeout(5), aclosing(response.stream) as stream:
        async for piece in stream:
            rest += piece
            while len(rest) >= 4 and len(rest) >= 4 + (size := int.from_bytes(rest[:4], "big")):
                event = dict(parts(rest[4 : 4 + size]))
                found.append((event[1].decode(), wire.decode(dict(parts(event[2]))[1])))
                rest = rest[4 + size :]
            if len(found) >= count:
                return found
    return found


async def members(api: Any, count: int) -> None:
    """Until so many watches have joined their groups: a few turns of the loop."""
    for _ in range(50):
        if api.server.handlers.fanout.members >= count:
            return
        await asyncio.sleep(0)
    raise AssertionError("the watches do not begin")


async def test_a_watch(api: Any) -> None:
    first = await api.ok("POST", CMS, {"metadata": {"name": "a"}})
    query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=5"
    watching = asyncio.create_task(frames(api, f"{CMS}?{query}", 4))
    await members(api, 1)
    second = await api.ok("PATCH", f"{CMS}/a", {"data": {"k": "v"}}, kind="application/merge-patch+json")
    await api.ok("DELETE", f"{CMS}/a")
    (_, state), (kind, bookmark), changed, (gone, last) = await watching
    assert state == first
    assert kind == "BOOKMARK"
    assert bookmark == {
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"resourceVersion": first["metadata"]["resourceVersion"],
                     "annotations": {"k8s.io/initial-events-end": "true"}},
    }  # fmt: skip
    assert changed == ("MODIFIED", second)
    assert gone == "DELETED"
    assert last["data"] == {"k": "v"}
    assert int(last["metadata"]["resourceVersion"]) > int(second["metadata"]["resourceVersion"])


async def test_an_event_is_encoded_once_for_all_groups(api: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    encode = wire.message
    monkeypatch.setattr(wire, "message", lambda name, obj: made.append(name) or encode(name, obj))
    selections = [f"{CMS}?watch=1", f"{CMS}?watch=1&labelSelector=x%3Dy", "/api/v1/configmaps?watch=1"]
    watches = [asyncio.create_task(frames(api, path, 1)) for path in selections]
    await members(api, 3)
    made.clear()
    await api.ok("POST", CMS, {"metadata": {"name": "a", "labels": {"x": "y"}}})
    for watch in watches:
        assert (await watch)[0][1]["metadata"]["name"] == "a"
    assert made == ["core.v1.ConfigMap"]


async def test_a_watch_that_is_too_old_says_so(api: Any) -> None:
    await api.ok("POST", CMS, {"metadata": {"name": "a"}})
    api.server.cache._window_start = api.server.cache.revision
    [(kind, told)] = await frames(api, f"{CMS}?watch=1&resourceVersion=1", 1)
    assert (kind, told["code"], told["reason"]) == ("ERROR", 410, "Expired")


async def test_only_metadata(api: Any) -> None:
    made = await api.ok("POST", CMS, {"metadata": {"name": "a", "labels": {"x": "y"}}, "data": {"k": "v"}}, **MANAGED)
    one = await get(api, f"{CMS}/a", META)
    assert one == {"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": made["metadata"]}
    response = await api.raw("GET", CMS, headers={"Accept": META.replace("Metadata;", "MetadataList;")})
    body = wire.decode(response.body)
    assert (body["kind"], body["items"]) == ("PartialObjectMetadataList", [{"metadata": made["metadata"]}])
    old = META.replace("Metadata;", "MetadataList;").replace("v=v1", "v=v1beta1")
    assert wire.decode((await api.raw("GET", CMS, headers={"Accept": old})).body)["items"] == body["items"]
    [(kind, seen)] = await frames(api, f"{CMS}?watch=1", 1, META)
    assert (kind, seen["kind"], seen["metadata"]["name"]) == ("ADDED", "PartialObjectMetadata", "a")


async def test_other_versions_of_an_object(api: Any) -> None:
    about = {"kind": "Pod", "namespace": "default", "name": "p"}
    event = {"metadata": {"name": "e"}, "involvedObject": about, "reason": "x", "type": "Normal", "message": "m"}
    await api.ok("POST", "/api/v1/namespaces/default/events", event)
    path = "/apis/events.k8s.io/v1/namespaces/default/events/e"
    for _ in range(2):
        assert (await get(api, path))["note"] == "m"
        assert (await get(api, "/api/v1/namespaces/default/events/e"))["message"] == "m"


async def test_what_cannot_be_protobuf(api: Any) -> None:
    table = f"{PROTOBUF};as=Table;v=v1;g=meta.k8s.io"
    assert (await api("GET", CMS, headers={"Accept": table})).status == 406
    fallback = await api.raw("GET", CMS, headers={"Accept": f"{table},application/json;as=Table;v=v1;g=meta.k8s.io"})
    assert b'"kind":"Table"' in fallback.body
    old = await api.raw("GET", CMS, headers={"Accept": "application/yaml;stream=watch"})
    assert old.status == 200
    watch = await api("GET", f"{CMS}?watch=1", headers={"Accept": "application/yaml"})
    assert watch.status == 406
    assert b"application/yaml" not in watch.body, "which is YAML itself: an error is no stream"
