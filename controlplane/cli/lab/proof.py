"""Deploy the example and prove that it serves: through its ClusterIP from inside a pod, through its NodePort on
every node, spread over all replicas.

The proof uses what a user has: the API over TLS, `exec` in a pod, plain HTTP to the nodes. It waits for conditions,
with a deadline, and says what was missing when it gives up.
"""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import yaml

from controlplane.api.status import StatusError
from controlplane.cli.lab import report
from controlplane.cli.lab.spec import Lab
from controlplane.client import credentials, resources
from controlplane.client.resources import ApiResource
from controlplane.client.rest import Client, from_kubeconfig

_DEADLINE_S = 60.0
_KINDS: dict[str, ApiResource] = {"Deployment": resources.DEPLOYMENTS, "Service": resources.SERVICES}

Say = Callable[[dict[str, Any]], None]


class NotProven(Exception):
    """Something of the example did not come true in time; the message says what."""


async def run(lab: Lab, example: Path, say: Say) -> None:
    """Raises NotProven."""
    objects = [o for o in yaml.safe_load_all(example.read_text()) if o]
    deployment = next(o for o in objects if o["kind"] == "Deployment")
    service = next(o for o in objects if o["kind"] == "Service")
    client = from_kubeconfig(str(lab.kubeconfig), user_agent="wherry-lab")
    clock = asyncio.get_running_loop().time
    try:
        start = clock()
        for obj in objects:
            await _apply(client, obj)
        pods = await _available(client, deployment)
        say({"step": "example deployed", "seconds": clock() - start})
        live = await client.get(resources.SERVICES, service["metadata"]["name"], service["metadata"]["namespace"])
        address, port = live["spec"]["clusterIP"], live["spec"]["ports"][0]
        start = clock()
        inside = await _everyone_answers(
            "the ClusterIP", len(pods), lambda: _from_a_pod(lab, pods[0], f"http://{address}:{port['port']}/")
        )
        say({"step": "ClusterIP answers", "seconds": clock() - start})
        start = clock()
        outside: dict[str, set[str]] = {}
        async with aiohttp.ClientSession() as session:
            for node in lab.nodes:
                url = f"http://{node.address}:{port['nodePort']}/"
                outside[url] = await _everyone_answers(url, len(pods), lambda u=url: _get(session, u))  # type: ignore[misc]
        say({"step": "NodePort answers", "seconds": clock() - start})
        nodes = (await client.list(resources.NODES))["items"]
    finally:
        await client.close()
    _show(nodes, pods, f"http://{address}:{port['port']}/", inside, outside)


async def _apply(client: Client, obj: dict[str, Any]) -> None:
    kind, meta = _KINDS[obj["kind"]], obj["metadata"]
    try:
        try:
            await client.patch(kind, meta["name"], obj, meta["namespace"], kind="strategic")
        except StatusError as error:
            if error.reason != "NotFound":
                raise
            await client.create(kind, obj, meta["namespace"])
    except StatusError as error:
        raise NotProven(f"{obj['kind']} {meta['name']}: {error.message}") from error


async def _available(client: Client, deployment: dict[str, Any]) -> list[dict[str, Any]]:
    """The Deployment's pods once all of them are Ready."""
    labels = ",".join(f"{k}={v}" for k, v in deployment["spec"]["selector"]["matchLabels"].items())
    namespace, wanted = deployment["metadata"]["namespace"], deployment["spec"]["replicas"]
    pods: list[dict[str, Any]] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DEADLINE_S):
            while True:
                listing = await client.list(resources.PODS, namespace, label_selector=labels)
                pods = [p for p in listing["items"] if "deletionTimestamp" not in p["metadata"]]
                if len(pods) == wanted and all(map(_ready, pods)):
                    return pods
                await asyncio.sleep(0.05)
    states = ", ".join(f"{p['metadata']['name']}: {_state(p)}" for p in pods) or "there are none"
    raise NotProven(f"the example's pods are not all Ready after {_DEADLINE_S:.0f} s ({states})")


def _ready(pod: dict[str, Any]) -> bool:
    return any(c["type"] == "Ready" and c["status"] == "True" for c in pod.get("status", {}).get("conditions", ()))


def _state(pod: dict[str, Any]) -> str:
    for status in pod.get("status", {}).get("containerStatuses", ()):
        if waiting := status.get("state", {}).get("waiting"):
            return f"{waiting.get('reason')} {waiting.get('message', '')}".strip()
    return str(pod.get("status", {}).get("phase", "Unknown"))


async def _everyone_answers(what: str, replicas: int, ask: Callable[[], Any]) -> set[str]:
    """Ask until every replica has answered once: the first answers of each, as text."""
    seen: set[str] = set()
    last: Exception | None = None
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DEADLINE_S):
            while len(seen) < replicas:
                try:
                    seen.update(await ask())
                except (aiohttp.ClientError, OSError, NotProven) as error:
                    last = error
                    await asyncio.sleep(0.05)
            return seen
    raise NotProven(f"{what}: {len(seen)} of {replicas} replicas answered in {_DEADLINE_S:.0f} s; last error: {last}")


async def _get(session: aiohttp.ClientSession, url: str) -> list[str]:
    # A connection each: the proxy chooses a replica per connection.
    async with session.get(url, headers={"Connection": "close"}, timeout=aiohttp.ClientTimeout(2)) as answer:
        return [(await answer.text()).strip()]


async def _from_a_pod(lab: Lab, pod: dict[str, Any], url: str) -> list[str]:
    """What `wget` in the pod prints for several requests: `kubectl exec` in fifteen lines."""
    meta = pod["metadata"]
    script = f"for i in 1 2 3 4 5 6 7 8; do wget -q -O - {url} || exit 1; done"
    query = [("command", word) for word in ("sh", "-c", script)] + [("stdout", "1"), ("stderr", "1")]
    target = f"{lab.api_url}/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/exec"
    output, trouble = b"", b""
    tls = credentials.from_kubeconfig(str(lab.kubeconfig)).tls()
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(target, params=query, ssl=tls or True, protocols=["v5.channel.k8s.io"]) as socket,
    ):
        async for message in socket:
            if message.type is aiohttp.WSMsgType.BINARY and message.data:
                if message.data[0] == 1:
                    output += message.data[1:]
                else:
                    trouble += message.data[1:]
    lines = output.decode().split("\n")
    answers = [line.strip() for line in lines if line.strip()]
    if not answers:
        raise NotProven(trouble.decode(errors="replace").strip() or "no output")
    return answers


def _show(
    nodes: list[dict[str, Any]], pods: list[dict[str, Any]], url: str, inside: set[str], outside: dict[str, set[str]]
) -> None:
    print()
    report.table("", ["NODE", "STATUS", "ADDRESS", "PODS", "VERSION"], [
        [
            n["metadata"]["name"],
            "Ready" if _ready(n) else "NotReady",
            next(a["address"] for a in n["status"]["addresses"] if a["type"] == "InternalIP"),
            n["spec"].get("podCIDR", ""),
            n["status"]["nodeInfo"]["kubeletVersion"],
        ]
        for n in nodes
    ])  # fmt: skip
    print()
    report.table("", ["POD", "STATUS", "ADDRESS", "NODE"], [
        [p["metadata"]["name"], p["status"]["phase"], p["status"].get("podIP", ""), p["spec"]["nodeName"]] for p in pods
    ])  # fmt: skip
    print(f"\nClusterIP {url} from inside pod {pods[0]['metadata']['name']}:")
    for line in sorted(inside):
        print(f"  {line}")
    for address, answers in outside.items():
        print(f"NodePort {address}:")
        for line in sorted(answers):
            print(f"  {line}")
