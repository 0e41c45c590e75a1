"""Random objects made from the published schemas, right and wrong, of every kind: whatever comes, no 500."""

import random
from typing import Any

from controlplane.api import definitions, resources

ROUNDS = 400
MERGE = "application/merge-patch+json"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
CONNECT = ("proxy", "exec", "attach", "portforward", "log")
WRONG: list[Any] = [None, 0, -1, "", [], {}, "x", [{}], True, 1.5]
TEXTS = ["a", "x", "1", "TCP", "10.96.3.4", "100m", "Always", "a/b", "http", "*", "default", "IfNotPresent"]


class Maker:
    """Values that mostly fit a schema. The seed makes a failure repeatable."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.definitions = definitions.load()

    def value(self, schema: Any, depth: int) -> Any:
        chance = self.chance
        if "$ref" in schema:
            schema = self.definitions.resolve(schema)
        if chance.random() < 0.02:
            return chance.choice(WRONG)
        kind = schema.get("type")
        kind = kind[0] if isinstance(kind, list) else kind
        if kind == "object" or "properties" in schema:
            return self._fields(schema, depth)
        if kind == "array":
            return [self.value(schema.get("items", {}), depth - 1) for _ in range(chance.choice([0, 1, 1, 2]))]
        if kind == "integer":
            return chance.choice([0, 1, 80, -1, 2**31, 2**40])
        if kind == "boolean":
            return chance.choice([True, False])
        return chance.choice(TEXTS if kind == "string" else [1, "a", {}])

    def _fields(self, schema: Any, depth: int) -> dict[str, Any]:
        required = schema.get("required", ())
        return {
            name: self.value(field, depth - 1)
            for name, field in schema.get("properties", {}).items()
            if name in required or (depth > 0 and self.chance.random() < 0.35)
        }

    def object(self, resource: resources.Resource, name: str) -> dict[str, Any]:
        made = self.value({"$ref": f"#/$defs/{resource.schema}"}, 7)
        made = made if isinstance(made, dict) else {}
        return {**made, "kind": resource.kind, "apiVersion": resource.api_version, "metadata": {"name": name}}


def test_no_object_is_too_strange(server: Any, ns: str) -> None:
    maker = Maker(seed=20261121)
    table = resources.builtin(maker.definitions)
    every = [r for g in table.groups() for v in table.versions(g) for r in table.resources(g, v)]
    admin = server.connect()
    stored = set()

    def send(method: str, path: str, body: Any = None, **more: str) -> Any:
        answer = admin(method, path, body, **more)
        assert answer.status < 500, (method, path, body, answer.body)
        return answer

    for round_ in range(ROUNDS):
        resource = every[round_ % len(every)]
        group = f"/apis/{resource.group}" if resource.group else "/api"
        base = f"{group}/{resource.version}{f'/namespaces/{ns}' if resource.namespaced else ''}/{resource.plural}"
        name = f"random-{round_}"
        if send("POST", base, maker.object(resource, name)).status != 201:
            continue
        stored.add(resource.kind)
        one = f"{base}/{name}"
        send("PUT", one, maker.object(resource, name))
        send("PATCH", one, maker.object(resource, name), kind=MERGE)
        send("PATCH", one, maker.object(resource, name), kind="application/strategic-merge-patch+json")
        for sub in [sub for sub in resource.subresources if sub not in CONNECT]:
            for method, kind in (("PUT", "application/json"), ("PATCH", MERGE), ("POST", "application/json")):
                send(method, f"{one}/{sub}", maker.object(resource, name), kind=kind)
        for version in table.versions(resource.group):
            send("GET", base.replace(f"/{resource.version}", f"/{version}", 1), Accept=TABLE)
        send("DELETE", one)
    assert len(stored) > 20
    assert admin.reconnects == 0
