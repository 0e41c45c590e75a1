"""Names of images, as Docker and Kubernetes read them."""

from __future__ import annotations

import pytest

from nodeagent.images.references import InvalidName, Reference, image_id, parse

HEX = "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("text", "full"),
    [
        ("busybox", "docker.io/library/busybox:latest"),
        ("busybox:1.35", "docker.io/library/busybox:1.35"),
        ("library/busybox", "docker.io/library/busybox:latest"),
        ("docker.io/busybox", "docker.io/library/busybox:latest"),
        ("index.docker.io/library/busybox", "docker.io/library/busybox:latest"),
        ("user/app", "docker.io/user/app:latest"),
        ("quay.io/a/b/c:v1", "quay.io/a/b/c:v1"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app:x", "localhost:5000/app:x"),
        ("[::1]:5000/app", "[::1]:5000/app:latest"),
        ("registry:5000/app", "registry:5000/app:latest"),
        ("10.0.0.1/a_b/c__d/e-f.g", "10.0.0.1/a_b/c__d/e-f.g:latest"),
        (f"busybox@sha256:{HEX}", f"docker.io/library/busybox@sha256:{HEX}"),
        (f"busybox:1@sha256:{HEX}", f"docker.io/library/busybox:1@sha256:{HEX}"),
    ],
)
def test_normalised(text: str, full: str) -> None:
    assert str(parse(text)) == full
    assert str(parse(full)) == full


@pytest.mark.parametrize(
    "text",
    ["", "Busybox", "a//b", "/a", "a/", "a:", "a:b:c", "a@sha256:12", "-a", "a b", "../a", "quay.io/../a",
     "a:" + "x" * 129, "b" * 300, "quay.io:port/a", "a:t\n", "a/b\n", "ex_ample.com/a", f"a@md5:{HEX}"],
)  # fmt: skip
def test_invalid(text: str) -> None:
    with pytest.raises(InvalidName) as caught:
        parse(text)
    assert caught.value.reason == "InvalidImageName"


def test_parts() -> None:
    assert parse("quay.io/a/b:c") == Reference("quay.io", "a/b", "c")
    assert parse("quay.io/a/b:c").repository == "quay.io/a/b"
    assert image_id(HEX) == image_id(f"sha256:{HEX}") == f"sha256:{HEX}"
    assert image_id("busybox") == ""
