"""schemathesis writes requests from our own OpenAPI documents: no answer is our fault, every refusal is a Status.

Fully random names would never meet an object, so the documents' names are narrowed to two, in one namespace. What is
sent is the same in each run.
"""

import base64
import re
from pathlib import Path
from typing import Any

import pytest
import requests
import yaml
from hypothesis import HealthCheck, Phase, given, settings

schemathesis = pytest.importorskip("schemathesis")

GROUPS = {  # requests for each operation
    "apis/coordination.k8s.io/v1": 20,
    "apis/policy/v1": 12,
    "apis/scheduling.k8s.io/v1": 12,
    "apis/autoscaling/v1": 12,
    "apis/authorization.k8s.io/v1": 12,
    "apis/rbac.authorization.k8s.io/v1": 5,
    "apis/batch/v1": 3,
    "api/v1": 1,
}
STREAMS = re.compile(r"/watch/|/(proxy|exec|attach|portforward|log)\b")
MINE = ("labels", "annotations", "finalizers", "ownerReferences")
RULES = settings(
    deadline=None, derandomize=True, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)


def narrowed(document: Any) -> Any:
    for item in document["paths"].values():
        for parameter in item.get("parameters", ()):
            if parameter["name"] in ("namespace", "name"):
                choice = ["a", "b"] if parameter["name"] == "name" else ["default"]
                parameter["schema"] = {"type": "string", "enum": choice}
        for operation in item.values():
            content = operation.get("requestBody", {}).get("content", {}) if isinstance(operation, dict) else {}
            if "*/*" in content:
                content["application/json"] = content.pop("*/*")
    return document


def aim(case: Any) -> None:
    """The object that the path names, without what the server decides, and no watches."""
    if isinstance(case.body, dict) and case.method in ("POST", "PUT"):
        said = case.body.get("metadata")
        kept = {k: v for k, v in said.items() if k in MINE} if isinstance(said, dict) else {}
        case.body["metadata"] = {**kept, "name": (case.path_parameters or {}).get("name", "a")}
    for name in ("watch", "sendInitialEvents"):
        (case.query or {}).pop(name, None)


@pytest.mark.parametrize("group", GROUPS)
def test_requests_from_the_document(server: Any, admin: Any, group: str) -> None:
    admin("POST", "/api/v1/namespaces", {"metadata": {"name": "default"}})
    document = admin.ok("GET", admin.ok("GET", "/openapi/v3")["paths"][group]["serverRelativeURL"])
    user = str(server.layout.kubeconfig("admin").with_suffix(".pem"))
    pem(server.layout.kubeconfig("admin"), user)
    wrong: list[Any] = []
    answered = 0
    with requests.Session() as session:
        session.trust_env = False
        for found in schemathesis.openapi.from_dict(narrowed(document)).get_all_operations():
            operation = found.ok()
            if STREAMS.search(operation.path):
                continue

            @settings(RULES, max_examples=GROUPS[group])
            @given(case=operation.as_strategy())
            def ask(case: Any) -> None:
                nonlocal answered
                aim(case)
                answer = case.call(
                    base_url=server.url, session=session, timeout=20, verify=str(server.layout.ca_cert), cert=user
                )
                answered += answer.status_code < 300
                if answer.status_code >= 500 or (answer.status_code >= 400 and not is_status(answer)):
                    wrong.append((answer.status_code, answer.text[:300], case.as_curl_command()[:500]))

            ask()
    assert not wrong, wrong[:5]
    assert answered, "nothing that was sent made sense"


def is_status(answer: Any) -> bool:
    said = answer.json()
    return bool(said["kind"] == "Status" and said["code"] == answer.status_code and said["reason"] and said["message"])


def pem(kubeconfig: Any, path: str) -> None:
    """Certificate and key of a kubeconfig's user as one file, as `requests` reads them."""
    user = yaml.safe_load(kubeconfig.read_text())["users"][0]["user"]
    parts = (user["client-certificate-data"], user["client-key-data"])
    Path(path).write_bytes(b"".join(base64.b64decode(part) for part in parts))
