"""Which login is for which image: kubelet's rules."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from nodeagent.images import credentials, references


def secret(entries: dict[str, Any], kind: str = ".dockerconfigjson") -> dict[str, str]:
    document = {"auths": entries} if kind == ".dockerconfigjson" else entries
    return {kind: base64.b64encode(json.dumps(document).encode()).decode()}


def users(image: str, *registries: str, kind: str = ".dockerconfigjson") -> list[str]:
    """Who would be logged in for `image`, when each registry's user is called like its key."""
    keyring = credentials.of_secret(secret({r: {"username": r, "password": "p"} for r in registries}, kind))
    return [auth.username for auth in credentials.lookup(keyring, references.parse(image))]


@pytest.mark.parametrize(
    ("image", "registry", "matches"),
    [
        ("r.io/team/web:1", "r.io", True),
        ("r.io/team/web:1", "https://r.io", True),
        ("r.io/team/web:1", "https://r.io/v1/", True),
        ("r.io/team/web:1", "http://r.io/v2/", True),
        ("r.io/team/web:1", "r.io/team", True),
        ("r.io/team/web:1", "r.io/team/web", True),
        ("r.io/team/web:1", "r.io/other", False),
        ("r.io:5000/web", "r.io:5000", True),
        ("r.io:5000/web", "r.io", False),
        ("r.io/web", "r.io:443", False),
        ("eu.gcr.io/p/web", "*.gcr.io", True),
        ("eu.gcr.io/p/web", "*.*.io", True),
        ("a.eu.gcr.io/p/web", "*.gcr.io", False),
        ("gcr.io/p/web", "*.gcr.io", False),
        ("busybox", "https://index.docker.io/v1/", True),
        ("user/web", "index.docker.io", True),
        ("docker.io/user/web", "docker.io", True),
        ("r.io/web", "https://index.docker.io/v1/", False),
    ],
)
def test_registries_match_by_parts(image: str, registry: str, matches: bool) -> None:
    assert users(image, registry) == ([registry] if matches else [])
    assert users(image, registry, kind=".dockercfg") == ([registry] if matches else [])


def test_the_more_special_comes_first_and_all_are_tried() -> None:
    assert users("r.io/team/web", "r.io", "r.io/team", "*.io") == ["r.io/team", "r.io", "*.io"]


def test_forms_of_a_login() -> None:
    auth = base64.b64encode(b"me:pass:word").decode()
    entries = {"a": {"auth": auth}, "b": {"username": "u", "password": "p", "auth": auth}, "c": {"registrytoken": "t"}}
    keyring = dict(credentials.of_secret(secret(entries)))
    assert (keyring["a"].username, keyring["a"].password) == ("me", "pass:word")
    assert (keyring["b"].username, keyring["b"].password) == ("u", "p")
    assert keyring["c"].token == "t"
    assert credentials.of_secret({}) == []


@pytest.mark.parametrize(
    "data",
    [
        {".dockerconfigjson": "%%%"},
        {".dockerconfigjson": base64.b64encode(b"{").decode()},
        {".dockerconfigjson": base64.b64encode(b'{"auths": [1]}').decode()},
        {".dockercfg": base64.b64encode(b'{"r.io": "x"}').decode()},
        secret({"r.io": {"auth": "not base64!"}}),
    ],
)
def test_nonsense(data: dict[str, str]) -> None:
    with pytest.raises(ValueError):
        credentials.lookup(credentials.of_secret(data), references.parse("r.io/a"))
