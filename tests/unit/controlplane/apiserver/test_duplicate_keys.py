"""Keys that a body has twice: told, or refused, in JSON, YAML and every kind of patch."""

from typing import Any

import pytest

CMS = "/api/v1/namespaces/default/configmaps"
TWICE = b'{"metadata":{"name":"a"},"data":{"k":"1","k":"2"}}'
YAML = b"metadata: {name: a}\ndata:\n  k: '1'\n  l: [{k: 1}, {k: 1}]\n  k: '2'\n"
MERGE, STRATEGIC = "application/merge-patch+json", "application/strategic-merge-patch+json"


async def send(api: Any, method: str, path: str, body: bytes, kind: str, mode: str) -> tuple[int, str, str]:
    query = f"fieldValidation={mode}&fieldManager=m&dryRun=All"
    response = await api.raw(method, f"{path}?{query}", body, headers={"Content-Type": kind})
    return response.status, (response.headers or {}).get("Warning", ""), response.body.decode()


@pytest.mark.parametrize(
    ("body", "kind", "told"),
    [
        (TWICE, "application/json", 'duplicate field \\"data.k\\"'),
        (TWICE, "application/yaml", 'duplicate field \\"data.k\\"'),
        (YAML.replace(b"  l: [{k: 1}, {k: 1}]\n", b""), "application/yaml", 'line 4: key \\"k\\" already set in map'),
    ],
)
async def test_objects(api: Any, body: bytes, kind: str, told: str) -> None:
    code, warning, _ = await send(api, "POST", CMS, body, kind, "Warn")
    assert (code, warning) == (201, f'299 - "{told}"')
    code, warning, answer = await send(api, "POST", CMS, body, kind, "Strict")
    assert (code, warning) == (400, "")
    assert "strict decoding error: " + told in answer
    assert (await send(api, "POST", CMS, body, kind, "Ignore"))[:2] == (201, "")


@pytest.mark.parametrize("kind", [MERGE, STRATEGIC, "application/apply-patch+yaml"])
async def test_patches(api: Any, kind: str) -> None:
    await api.ok("POST", CMS, {"metadata": {"name": "a"}})
    body = TWICE.replace(b"{", b'{"apiVersion":"v1","kind":"ConfigMap",', 1)
    code, warning, _ = await send(api, "PATCH", f"{CMS}/a", body, kind, "Warn")
    assert (code, warning) == (200, '299 - "duplicate field \\"data.k\\""')
    code, _, answer = await send(api, "PATCH", f"{CMS}/a", body, kind, "Strict")
    assert code == (400 if "apply" in kind else 422)
    assert 'duplicate field \\"data.k\\"' in answer
    assert (await send(api, "PATCH", f"{CMS}/a", body, kind, "Ignore"))[:2] == (200, "")


def test_only_keys_of_one_mapping_count() -> None:
    from controlplane.apiserver.registry import yaml_body

    value, repeated = yaml_body.decode(YAML)
    assert value["data"] == {"k": "2", "l": [{"k": 1}, {"k": 1}]}
    assert repeated == ['line 5: key "k" already set in map']
    assert yaml_body.decode(b"a: k\nb: k\nk: a\nc: {a: a, b: a}\nd: [a, a]")[1] == []
    assert yaml_body.decode(b"? a\n: 2\n? a\n: {a: 1}\n")[1] == ['line 3: key "a" already set in map']
