"""The audit log of a real server: who did what, at which level, and never a secret's content at Metadata."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SECRET = "dG9wLXNlY3JldC1jb250ZW50"  # base64 of what must not be found in the log
POLICY = """
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  nonResourceURLs: ["/readyz*"]
- level: Metadata
  resources: [{group: "", resources: [secrets]}]
- level: RequestResponse
  omitManagedFields: true
  resources: [{group: "", resources: [configmaps]}]
- level: Request
  namespaces: [default]
- level: Metadata
  omitStages: [RequestReceived]
"""


@pytest.fixture
def audited(fresh_server: Callable[..., Any], tmp_path: Path) -> tuple[Any, Callable[[], list[Any]]]:
    """A server with the policy above, and what stops it and reads its log."""
    policy, log = tmp_path / "policy.yaml", tmp_path / "audit" / "audit.log"
    policy.write_text(POLICY)
    server = fresh_server(audit_log_path=str(log), audit_policy_file=str(policy))

    def told() -> list[Any]:
        server.stop()
        return [json.loads(line) for line in log.read_text().splitlines()]

    return server, told


def of(events: list[Any], resource: str, verb: str) -> list[Any]:
    return [e for e in events if e.get("objectRef", {}).get("resource") == resource and e["verb"] == verb]


def test_who_did_what(audited: Any) -> None:
    server, told = audited
    admin, nobody = server.connect(), server.connect("")
    base = "/api/v1/namespaces/default"
    admin.ok("POST", f"{base}/secrets", {"metadata": {"name": "s"}, "data": {"k": SECRET}})
    admin.ok("GET", f"{base}/secrets/s")
    made = admin("POST", f"{base}/configmaps", {"metadata": {"name": "c"}, "data": {"k": "v"}})
    assert nobody("DELETE", f"{base}/configmaps/c").status == 403
    assert server.connect("", token="nonsense")("GET", f"{base}/pods").status == 401
    assert admin("GET", f"{base}/pods/none", Audit_ID="my-own-id").status == 404
    admin.ok("GET", f"{base}/services", Impersonate_User="alice", Impersonate_Group="system:masters")
    with admin.watch(f"{base}/endpoints?watch=1"):
        pass
    events = told()
    text = json.dumps(events)
    assert SECRET not in text
    secret = of(events, "secrets", "create")[0]
    assert secret["level"] == "Metadata" and secret["user"]["username"] == "kubernetes-admin"
    assert secret["responseStatus"]["code"] == 201 and secret["stage"] == "ResponseComplete"
    assert secret["objectRef"] == {"resource": "secrets", "namespace": "default", "apiVersion": "v1"}
    assert secret["sourceIPs"] == ["127.0.0.1"] and "requestObject" not in secret
    configmap = of(events, "configmaps", "create")[0]
    assert configmap["requestObject"]["data"] == {"k": "v"}
    shown = configmap["responseObject"]["metadata"]
    assert shown["uid"] and "managedFields" not in shown
    assert made.headers["audit-id"] == configmap["auditID"]
    refused = of(events, "configmaps", "delete")[0]
    assert refused["user"]["username"] == "system:anonymous" and refused["responseStatus"]["reason"] == "Forbidden"
    assert refused["annotations"]["authorization.k8s.io/decision"] == "forbid"
    assert [e["responseStatus"]["code"] for e in of(events, "pods", "list")] == [401]
    assert of(events, "pods", "get")[0]["auditID"] == "my-own-id"
    acted = of(events, "services", "list")[0]
    assert (acted["user"]["username"], acted["impersonatedUser"]["username"]) == ("kubernetes-admin", "alice")
    assert [e["stage"] for e in of(events, "endpoints", "watch")] == ["ResponseStarted", "ResponseComplete"]
    assert not [e for e in events if e["requestURI"].startswith("/readyz")]
    assert all(e["stage"] != "RequestReceived" for e in events)


def test_a_changed_policy_is_read_on_reload_and_a_bad_one_is_not_taken(audited: Any, tmp_path: Path) -> None:
    server, told = audited
    policy, admin = tmp_path / "policy.yaml", server.connect()
    policy.write_text("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Nonsense}]")
    server.signal(signal.SIGHUP)
    admin.ok("GET", "/api/v1/namespaces/default/secrets")
    server.wait_for_log("reload_failed")
    policy.write_text(POLICY.replace("level: Metadata\n  resources", "level: None\n  resources"))
    server.signal(signal.SIGHUP)
    server.wait_for_log("reloaded parts=", 2)
    admin.ok("GET", "/api/v1/namespaces/default/secrets")
    assert len(of(told(), "secrets", "list")) == 1


def test_a_bad_policy_at_start_is_one_clear_line(fresh_server: Callable[..., Any], tmp_path: Path) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("kind: Policy\napiVersion: audit.k8s.io/v1\nrules: [{level: All}]\n")
    with pytest.raises(AssertionError, match=r"policy.yaml: rules\[0\].level: unsupported value 'All'"):
        fresh_server(audit_log_path=str(tmp_path / "log"), audit_policy_file=str(policy))
    assert not os.path.exists(tmp_path / "log")
