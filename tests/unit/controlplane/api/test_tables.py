"""What kubectl get shows."""

from typing import Any

import pytest

from controlplane.api import definitions, resources, tables
from controlplane.api.tables.columns import duration

TABLE = resources.builtin(definitions.load())
NOW = 1_800_000_000.0  # 2027-01-15T08:00:00Z


def row(api_version: str, kind: str, wide: bool = False, **parts: Any) -> dict[str, Any]:
    resource = TABLE.for_object(api_version, kind)
    assert resource is not None
    obj = {"apiVersion": api_version, "kind": kind, **parts}
    obj["metadata"] = {"name": "a", "creationTimestamp": "2027-01-15T07:57:00Z"} | parts.get("metadata", {})
    columns = tables.columns(resource)
    cells = tables.cells(resource, obj, NOW)
    assert len(columns) == len(cells)
    return {c["name"]: cell for c, cell in zip(columns, cells, strict=True) if wide or c["priority"] == 0}


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "<unknown>"),
        (-5, "<invalid>"),
        (0, "0s"),
        (119, "119s"),
        (120, "2m"),
        (150, "2m30s"),
        (3600, "60m"),
        (4 * 3600 + 60, "4h1m"),
        (10 * 3600, "10h"),
        (3 * 86400 + 3600, "3d1h"),
        (20 * 86400, "20d"),
        (800 * 86400, "2y70d"),
        (9 * 365 * 86400, "9y"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert duration(seconds) == text


def container(name: str = "c", ready: bool = True, restarts: int = 0, **state: Any) -> dict[str, Any]:
    return {"name": name, "ready": ready, "restartCount": restarts, "state": state}


def pod(*statuses: dict[str, Any], phase: str = "Running", **parts: Any) -> dict[str, Any]:
    status = {"phase": phase, "containerStatuses": list(statuses)} | parts.pop("status", {})
    spec = {"containers": [{"name": each["name"]} for each in statuses] or [{"name": "c"}]} | parts.pop("spec", {})
    return row("v1", "Pod", spec=spec, status=status, **parts)


def test_pods() -> None:
    assert pod(container(running={})) == {
        "Name": "a",
        "Ready": "1/1",
        "Status": "Running",
        "Restarts": "0",
        "Age": "3m",
    }
    assert pod(phase="Pending")["Status"] == "Pending"
    waiting = container(ready=False, restarts=3, waiting={"reason": "CrashLoopBackOff"})
    waiting["lastState"] = {"terminated": {"finishedAt": "2027-01-15T07:59:00Z"}}
    shown = pod(waiting)
    assert (shown["Status"], shown["Ready"], shown["Restarts"]) == ("CrashLoopBackOff", "0/1", "3 (60s ago)")
    assert pod(container(ready=False, terminated={"exitCode": 3}), phase="Failed")["Status"] == "ExitCode:3"
    done = container(ready=False, terminated={"exitCode": 0, "reason": "Completed"})
    assert pod(done, phase="Succeeded")["Status"] == "Completed"
    assert pod(done, container("d", running={}))["Status"] == "NotReady"
    gone = {"deletionTimestamp": "2027-01-15T08:00:00Z"}
    assert pod(container(running={}), metadata=gone)["Status"] == "Terminating"
    assert pod(phase="Failed", status={"reason": "Evicted"})["Status"] == "Evicted"


def test_pods_that_initialize() -> None:
    spec = {"initContainers": [{"name": "i"}, {"name": "j"}]}
    first = {"name": "i", "state": {"running": {}}}
    assert pod(spec=spec, status={"initContainerStatuses": [first]}, phase="Pending")["Status"] == "Init:0/2"
    failed = {"name": "i", "state": {"terminated": {"exitCode": 1}}}
    assert pod(spec=spec, status={"initContainerStatuses": [failed]}, phase="Pending")["Status"] == "Init:ExitCode:1"
    pulling = {"name": "i", "state": {"waiting": {"reason": "ErrImagePull"}}}
    assert pod(spec=spec, status={"initContainerStatuses": [pulling]}, phase="Pending")["Status"] == "Init:ErrImagePull"


def test_wide_pods() -> None:
    shown = row("v1", "Pod", wide=True, spec={"nodeName": "n"}, status={"podIP": "10.0.0.1"})
    assert (shown["IP"], shown["Node"], shown["Nominated Node"]) == ("10.0.0.1", "n", "<none>")


def test_workloads() -> None:
    template = {"spec": {"containers": [{"name": "c", "image": "i"}]}}
    spec = {"replicas": 3, "selector": {"matchLabels": {"app": "x"}}, "template": template}
    status = {"readyReplicas": 2, "updatedReplicas": 3, "availableReplicas": 2}
    shown = row("apps/v1", "Deployment", wide=True, spec=spec, status=status)
    assert list(shown.values()) == ["a", "2/3", 3, 2, "3m", "c", "i", "app=x"]
    job = row(
        "batch/v1",
        "Job",
        spec={"completions": 1},
        status={
            "succeeded": 1,
            "startTime": "2027-01-15T07:58:00Z",
            "completionTime": "2027-01-15T07:58:10Z",
            "conditions": [{"type": "Complete", "status": "True"}],
        },
    )
    assert (job["Status"], job["Completions"], job["Duration"]) == ("Complete", "1/1", "10s")


def test_services_and_nodes() -> None:
    ports = [{"port": 80, "nodePort": 30080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]
    shown = row("v1", "Service", spec={"type": "NodePort", "clusterIP": "10.96.0.5", "ports": ports})
    assert shown == {
        "Name": "a",
        "Type": "NodePort",
        "Cluster-IP": "10.96.0.5",
        "External-IP": "<none>",
        "Port(s)": "80:30080/TCP,53/UDP",
        "Age": "3m",
    }
    node = row(
        "v1",
        "Node",
        metadata={"labels": {"node-role.kubernetes.io/control-plane": ""}},
        spec={"unschedulable": True},
        status={"conditions": [{"type": "Ready", "status": "True"}], "nodeInfo": {"kubeletVersion": "v1.37.0"}},
    )
    assert node["Status"] == "Ready,SchedulingDisabled"
    assert (node["Roles"], node["Version"]) == ("control-plane", "v1.37.0")


def test_events() -> None:
    about = {"kind": "Pod", "name": "p"}
    shown = row("v1", "Event", involvedObject=about, type="Normal", reason="Pulled", message="m\n", count=2, wide=True)
    assert (shown["Object"], shown["Message"], shown["Count"]) == ("pod/p", "m", 2)


def test_kinds_without_columns_show_name_and_when_they_were_made() -> None:
    assert row("v1", "LimitRange") == {"Name": "a", "Created At": "2027-01-15T07:57:00Z"}


def test_what_steers_the_api_itself() -> None:
    registration = "admissionregistration.k8s.io/v1"
    policy = row(registration, "ValidatingAdmissionPolicy", spec={"validations": [{}, {}]})
    assert (policy["Validations"], policy["ParamKind"]) == (2, "<unset>")
    ref = {"namespace": "n", "name": "p"}
    bound = row(registration, "ValidatingAdmissionPolicyBinding", spec={"policyName": "a", "paramRef": ref})
    assert (bound["PolicyName"], bound["ParamRef"]) == ("a", "n/p")
    limited = {"nominalConcurrencyShares": 5, "limitResponse": {"type": "Queue", "queuing": {"queues": 64}}}
    level = row("flowcontrol.apiserver.k8s.io/v1", "PriorityLevelConfiguration",
                spec={"type": "Limited", "limited": limited})  # fmt: skip
    assert (level["NominalConcurrencyShares"], level["Queues"], level["HandSize"]) == (5, 64, "<none>")


def test_devices_and_addresses() -> None:
    claim = row("resource.k8s.io/v1", "ResourceClaim", status={"allocation": {}, "reservedFor": [{"name": "p"}]})
    assert claim["State"] == "allocated,reserved"
    assert row("resource.k8s.io/v1", "ResourceClaim")["State"] == "pending"
    parent = {"resource": "services", "namespace": "default", "name": "kubernetes"}
    address = row("networking.k8s.io/v1", "IPAddress", spec={"parentRef": parent})
    assert address == {"Name": "a", "ParentRef": "services/default/kubernetes"}


@pytest.mark.parametrize("resource", TABLE.all(), ids=lambda r: f"{r.api_version}-{r.kind}")
def test_every_kind_has_a_row_even_when_nearly_empty(resource: resources.Resource) -> None:
    cells = tables.cells(resource, {"metadata": {}}, NOW)
    columns = tables.columns(resource)
    assert len(cells) == len(columns)
    assert all(column["type"] in ("string", "integer", "boolean", "date") for column in columns)
