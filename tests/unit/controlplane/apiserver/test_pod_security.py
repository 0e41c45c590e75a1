"""Pod security: a namespace's labels refuse pods, warn clients and tell the audit log, in Kubernetes' words."""

import json
from typing import Any

import pytest

PREFIX = "pod-security.kubernetes.io/"
HARDENED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsNonRoot": True,
            "seccompProfile": {"type": "RuntimeDefault"}}  # fmt: skip


async def namespace(api: Any, name: str, **labels: str) -> str:
    path: str = await api.namespace(name)
    wanted = {PREFIX + key.replace("_", "-"): value for key, value in labels.items()}
    await api.ok("PATCH", f"/api/v1/namespaces/{name}", {"metadata": {"labels": wanted}},
                 kind="application/merge-patch+json")  # fmt: skip
    return path


def pod(name: str = "p", context: Any = None, **spec: Any) -> Any:
    container = {"name": "a", "image": "b", **({"securityContext": context} if context else {})}
    return {"metadata": {"name": name}, "spec": {"containers": [container], **spec}}


async def test_restricted_refuses_with_everything_that_is_wrong(api: Any) -> None:
    path = await namespace(api, "r", enforce="restricted")
    answer = await api("POST", f"{path}/pods", pod())
    assert (answer.status, answer.body["reason"]) == (403, "Forbidden")
    assert answer.body["message"] == (
        'pods "p" is forbidden: violates PodSecurity "restricted:latest": allowPrivilegeEscalation != false (container '
        '"a" must set securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container "a" must '
        'set securityContext.capabilities.drop=["ALL"]), runAsNonRoot != true (pod or container "a" must set '
        'securityContext.runAsNonRoot=true), seccompProfile (pod or container "a" must set '
        'securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")'
    )
    assert (await api("POST", f"{path}/pods", pod(context=HARDENED))).status == 201


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"hostNetwork": True, "hostPID": True}, "host namespaces (hostNetwork=true, hostPID=true)"),
        ({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}, 'hostPath volumes (volume "v")'),
        ({"context": {"privileged": True}}, 'privileged (container "a" must not set securityContext.privileged=true)'),
        ({"context": {"capabilities": {"add": ["NET_ADMIN"]}}},
         'non-default capabilities (container "a" must not include "NET_ADMIN" in securityContext.capabilities.add)'),
        ({"securityContext": {"seccompProfile": {"type": "Unconfined"}}},
         'seccompProfile (pod must not set securityContext.seccompProfile.type to "Unconfined")'),
        ({"securityContext": {"sysctls": [{"name": "kernel.sem", "value": "1"}]}}, "forbidden sysctls (kernel.sem)"),
    ],
)  # fmt: skip
async def test_baseline(api: Any, wrong: Any, text: str) -> None:
    path = await namespace(api, "b", enforce="baseline", enforce_version="v1.31")
    answer = await api("POST", f"{path}/pods", pod(**wrong))
    assert answer.body["message"] == f'pods "p" is forbidden: violates PodSecurity "baseline:v1.31": {text}'
    assert (await api("POST", f"{path}/pods", pod("fine"))).status == 201


async def test_warnings_also_about_templates(api: Any) -> None:
    path = await namespace(api, "w", warn="baseline")
    answer = await api("POST", f"{path}/pods", pod(hostIPC=True))
    assert answer.status == 201
    told = 'would violate PodSecurity \\"baseline:latest\\": host namespaces (hostIPC=true)'
    assert told in answer.headers["Warning"]
    template = {"metadata": {"labels": {"a": "b"}}, "spec": pod(hostIPC=True)["spec"]}
    deployment = {"metadata": {"name": "d"}, "spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template}}
    answer = await api("POST", "/apis/apps/v1/namespaces/w/deployments", deployment)
    assert answer.status == 201 and "would violate PodSecurity" in answer.headers["Warning"]


async def test_labels_of_namespaces(api: Any) -> None:
    labels = {f"{PREFIX}enforce": "strict", f"{PREFIX}warn-version": "1.30"}
    answer = await api("POST", "/api/v1/namespaces", {"metadata": {"name": "x", "labels": labels}})
    assert answer.status == 422
    assert [cause["message"] for cause in answer.body["details"]["causes"]] == [
        'Invalid value: "strict": must be one of privileged, baseline, restricted',
        'Invalid value: "1.30": must be "latest" or "v1.x"',
    ]
    path = await api.namespace("later")
    await api.ok("POST", f"{path}/pods", pod(hostPID=True))
    change = {"metadata": {"labels": {f"{PREFIX}enforce": "baseline"}}}
    kind = {"Content-Type": "application/merge-patch+json"}
    response = await api.raw("PATCH", path, json.dumps(change).encode(), headers=kind)
    assert response.status == 200
    assert [value for key, value in response.headers.items() if key == "Warning"] == [
        '299 - "existing pods in namespace \\"later\\" violate the new PodSecurity enforce level '
        '\\"baseline:latest\\""',
        '299 - "p: host namespaces"',
    ]
