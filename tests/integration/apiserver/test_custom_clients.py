"""Custom resources with the clients and frameworks that operators are made of."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
BIN = Path(sys.executable).parent
HELM = next((p for p in (BIN / "clients" / "helm-3", BIN.parent / "clients" / "helm-3") if p.exists()), None)


def definition(kind: str, group: str) -> Any:
    spec = {"type": "object", "properties": {"text": {"type": "string"}, "size": {"type": "integer", "default": 1}}}
    free = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    schema = {"type": "object", "properties": {"spec": spec, "status": free}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema},
               "subresources": {"status": {}}}  # fmt: skip
    plural = f"{kind.lower()}s"
    return {
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {"group": group, "scope": "Namespaced", "names": {"plural": plural, "kind": kind},
                 "versions": [version]},
    }  # fmt: skip


def until(condition: Callable[[], Any], seconds: float = 20) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "condition never came true"
        time.sleep(0.05)
    return found


def test_the_dynamic_client(server: Any, admin: Any, ns: str) -> None:
    from kubernetes import config, dynamic

    admin.ok("POST", CRDS, definition("Lamp", "dynamic.example.com"))
    with config.new_client_from_config(str(server.kubeconfig)) as api:
        lamps = dynamic.DynamicClient(api).resources.get(api_version="dynamic.example.com/v1", kind="Lamp")
        body = {
            "apiVersion": "dynamic.example.com/v1",
            "kind": "Lamp",
            "metadata": {"name": "l"},
            "spec": {"text": "a"},
        }
        assert lamps.create(body, namespace=ns).spec.size == 1
        changed = lamps.patch({"spec": {"text": "b"}}, "l", ns, content_type="application/merge-patch+json")
        assert (changed.spec.text, changed.metadata.generation) == ("b", 2)
        lamps.status.patch({"status": {"on": True}}, "l", ns, content_type="application/merge-patch+json")
        wanted = {**body, "spec": {"size": 3}}
        applied = lamps.server_side_apply(wanted, "l", ns, field_manager="me", force_conflicts=True)
        assert (applied.spec.size, applied.status.on) == (3, True)
        assert [each.metadata.name for each in lamps.get(namespace=ns).items] == ["l"]
        seen = lamps.watch(namespace=ns, timeout=5)
        assert next(iter(seen))["object"].spec.text == "b"
        seen.close()
        lamps.delete("l", ns)
        assert lamps.get(namespace=ns).items == []


async def test_lightkube(server: Any, admin: Any, ns: str) -> None:
    from lightkube import AsyncClient, KubeConfig
    from lightkube.generic_resource import create_namespaced_resource
    from lightkube.types import PatchType

    admin.ok("POST", CRDS, definition("Sofa", "lightkube.example.com"))
    sofa = create_namespaced_resource("lightkube.example.com", "v1", "Sofa", "sofas")
    client = AsyncClient(config=KubeConfig.from_file(server.kubeconfig), namespace=ns)
    try:
        made = await client.create(sofa(metadata={"name": "s"}, spec={"text": "soft"}))
        assert made.spec == {"text": "soft", "size": 1}
        changed = await client.patch(sofa, "s", {"spec": {"size": 2}}, patch_type=PatchType.MERGE)
        assert changed.spec["size"] == 2
        assert [each.metadata.name async for each in client.list(sofa)] == ["s"]
        async with asyncio.timeout(10):
            async for kind, each in client.watch(sofa):
                assert (kind, each.metadata.name) == ("ADDED", "s")
                break
        await client.delete(sofa, "s")
    finally:
        await client.close()


@pytest.mark.filterwarnings("ignore:Kubernetes version")  # newer than it knows
async def test_kr8s(server: Any, admin: Any, ns: str) -> None:
    import kr8s
    from kr8s.asyncio.objects import new_class

    admin.ok("POST", CRDS, definition("Desk", "kr8s.example.com"))
    api = await kr8s.asyncio.api(kubeconfig=str(server.kubeconfig), namespace=ns)
    desk = new_class(kind="Desk", version="kr8s.example.com/v1", plural="desks", namespaced=True, asyncio=True)
    made = await desk({"metadata": {"name": "d", "namespace": ns}, "spec": {"text": "wood"}}, api=api)
    await made.create()
    assert made.spec.size == 1
    await made.patch({"spec": {"size": 4}})
    assert [each.spec.size async for each in api.get("desks.kr8s.example.com", namespace=ns)] == [4]
    await made.delete()


@pytest.fixture
def operator(server: Any, admin: Any, ns: str, tmp_path: Path) -> Iterator[Path]:
    """A running kopf operator for Greetings in `ns`; its log."""
    admin("POST", CRDS, definition("Greeting", "demo.example.com"))
    log = tmp_path / "operator.log"
    command = [str(BIN / "kopf"), "run", "-n", ns, str(Path(__file__).with_name("operator_example.py"))]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env={**os.environ, "KUBECONFIG": str(server.kubeconfig)}, stdout=out, stderr=out
        )
    try:
        yield log
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def test_an_operator(operator: Path, admin: Any, ns: str) -> None:
    greetings, maps = f"/apis/demo.example.com/v1/namespaces/{ns}/greetings", f"/api/v1/namespaces/{ns}/configmaps"
    hello = {"apiVersion": "demo.example.com/v1", "kind": "Greeting", "metadata": {"name": "hello"}}
    admin.ok("POST", greetings, {**hello, "spec": {"text": "good morning"}})
    try:
        words = until(lambda: (a := admin("GET", f"{maps}/hello-words")).status == 200 and a.json)
        assert words["data"] == {"text": "good morning"}
        assert words["metadata"]["ownerReferences"][0]["kind"] == "Greeting"
        until(lambda: admin.ok("GET", f"{greetings}/hello").get("status", {}).get("ticks", 0) >= 2)
        shown = admin.ok("GET", f"{greetings}/hello")
        assert shown["status"]["create"] == {"made": "hello-words"}
        assert shown["metadata"]["finalizers"] == ["demo.example.com/kopf"]
        admin.ok("PATCH", f"{greetings}/hello", {"spec": {"text": "good day"}}, kind="application/merge-patch+json")
        until(lambda: admin.ok("GET", f"{maps}/hello-words")["data"]["text"] == "good day")
        admin.ok("DELETE", f"{greetings}/hello")
        until(lambda: admin("GET", f"{greetings}/hello").status == 404)
        assert admin("GET", f"{maps}/hello-farewell").status == 200
    except AssertionError:
        print(operator.read_text()[-4000:])
        raise


CHART = {
    "Chart.yaml": "apiVersion: v2\nname: lights\nversion: 0.1.0\n",
    "values.yaml": "text: bright\n",
    "crds/lights.yaml": """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: lights.helm.example.com}
spec:
  group: helm.example.com
  scope: Namespaced
  names: {plural: lights, kind: Light}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties: {spec: {type: object, properties: {text: {type: string}, size: {type: integer, default: 1}}}}
""",
    "templates/light.yaml": """
apiVersion: helm.example.com/v1
kind: Light
metadata: {name: {{ .Release.Name }}}
spec: {text: {{ .Values.text }}}
""",
}


@pytest.mark.skipif(HELM is None, reason="tests/clients.sh has not fetched helm")
def test_a_helm_chart_with_its_own_kinds(server: Any, admin: Any, ns: str, tmp_path: Path) -> None:
    for name, text in CHART.items():
        (tmp_path / "lights" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "lights" / name).write_text(text)
    environment = {**os.environ, "KUBECONFIG": str(server.kubeconfig), "HOME": str(tmp_path)}

    def helm(*arguments: str) -> str:
        done = subprocess.run([str(HELM), *arguments, "-n", ns], env=environment, capture_output=True, text=True,
                              timeout=60, check=False)  # fmt: skip
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)
        return done.stdout

    chart = str(tmp_path / "lights")
    assert "STATUS: deployed" in helm("install", "lamp", chart, "--wait")
    lights = f"/apis/helm.example.com/v1/namespaces/{ns}/lights"
    assert admin.ok("GET", f"{lights}/lamp")["spec"] == {"text": "bright", "size": 1}
    helm("upgrade", "lamp", chart, "--set", "text=dim")
    assert admin.ok("GET", f"{lights}/lamp")["spec"]["text"] == "dim"
    helm("rollback", "lamp", "1")
    assert admin.ok("GET", f"{lights}/lamp")["spec"]["text"] == "bright"
    helm("uninstall", "lamp")
    assert admin("GET", f"{lights}/lamp").status == 404
