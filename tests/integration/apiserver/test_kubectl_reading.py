"""Real kubectl: everything that shows, waits and answers, against the server alone."""

import base64
import json
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

Kubectl = Callable[..., str]

MAPS = "".join(
    f"---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, labels: {{order: '{n}'}}}}\n"
    f"data: {{rank: '{n}'}}\n"
    for name, n in (("a", 3), ("b", 1), ("c", 2))
)
WIDGETS = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "widgets.reading.example.com"},
    "spec": {
        "group": "reading.example.com", "scope": "Namespaced", "names": {"plural": "widgets", "kind": "Widget"},
        "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {
            "type": "object", "description": "Widgets turn.", "properties": {"spec": {
                "type": "object", "required": ["speed"],
                "properties": {"speed": {"type": "integer", "description": "Turns a minute."},
                               "parts": {"type": "array", "items": {"type": "string"}}}}}}}}],
    },
}  # fmt: skip


@pytest.fixture
def maps(kubectl: Kubectl, ns: str) -> str:
    kubectl("create", "-n", ns, "-f", "-", stdin=MAPS)
    return ns


def test_forms_of_output(kubectl: Kubectl, maps: str) -> None:
    get = ("get", "cm", "-n", maps, "-o")
    assert kubectl(*get, "name").split() == ["configmap/a", "configmap/b", "configmap/c"]
    assert kubectl(*get, "jsonpath={.items[?(@.data.rank=='2')].metadata.name}") == "c"
    assert kubectl(*get, "jsonpath={range .items[*]}{.metadata.name}{'='}{.data.rank}{' '}{end}") == "a=3 b=1 c=2 "
    assert json.loads(kubectl(*get, "jsonpath-as-json={.items[*].data.rank}")) == ["3", "1", "2"]
    assert kubectl(*get, "go-template={{range .items}}{{.data.rank}}{{end}}") == "312"
    assert kubectl(*get, "custom-columns=N:.metadata.name,R:.data.rank").split() == [
        "N",
        "R",
        "a",
        "3",
        "b",
        "1",
        "c",
        "2",
    ]
    assert kubectl(*get, "yaml").startswith("apiVersion: v1\nitems:\n")
    assert [item["kind"] for item in json.loads(kubectl(*get, "json"))["items"]] == ["ConfigMap"] * 3
    assert "managedFields" not in kubectl(*get, "json")
    assert "managedFields" in kubectl(*get, "json", "--show-managed-fields")
    assert kubectl("get", "cm", "a", "-n", maps, "--server-print=false", "--no-headers").split()[0] == "a"
    assert kubectl("get", "cm", "-n", maps, "-L", "order", "--no-headers").split()[3::4] == ["3", "1", "2"]


def test_order_and_choice(kubectl: Kubectl, maps: str) -> None:
    def names(*how: str) -> list[str]:
        return [line.split()[0] for line in kubectl("get", "cm", "-n", maps, "--no-headers", *how).splitlines()]

    assert names("--sort-by=.data.rank") == ["b", "c", "a"]
    assert names("--sort-by={.metadata.labels.order}", "--chunk-size=1") == ["b", "c", "a"]
    assert names("--field-selector=metadata.name!=b", "-l", "order in (1,3)") == ["a"]
    assert names("-l", "order notin (1),order") == ["a", "c"]
    told = kubectl("get", "cm", "-n", maps, "-l", "order in (1", ok=False)
    assert "unable to parse requirement" in told
    assert "couldn't find any field" in kubectl("get", "cm", "-n", maps, "--sort-by=.x", "-o", "name", ok=False)
    assert "doesn't have a resource type" in kubectl("get", "nothing", "-n", maps, ok=False)


def test_wait_for_what_is_not_there_yet(kubectl: Kubectl, maps: str) -> None:
    with ThreadPoolExecutor(2) as beside:
        waiting = ("wait", "-n", maps, "--timeout=15s")
        comes = beside.submit(kubectl, *waiting, "cm/late", "--for=create")
        kubectl("create", "cm", "late", "-n", maps)
        assert "condition met" in comes.result()
        goes = beside.submit(kubectl, *waiting, "cm/late", "cm/a", "--for=delete")
        changes = beside.submit(kubectl, *waiting, "cm/b", "--for=jsonpath={.data.rank}=9")
        kubectl("patch", "cm", "b", "-n", maps, "-p", '{"data":{"rank":"9"}}')
        kubectl("delete", "cm", "late", "a", "-n", maps)
        assert changes.result() == "configmap/b condition met\n"
        goes.result()
    assert "timed out" in kubectl("wait", "-n", maps, "cm/b", "--for=delete", "--timeout=1s", ok=False)


def test_explain_of_everything_below(kubectl: Kubectl, admin: Any) -> None:
    admin("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", WIDGETS)
    told = kubectl("explain", "widgets", "--api-version=reading.example.com/v1", "--recursive")
    assert "Widgets turn." in told and "speed\t<integer> -required-" in told and "parts\t<[]string>" in told
    assert "Turns a minute." in kubectl("explain", "widgets.spec.speed")
    assert "topologySpreadConstraints" in kubectl("explain", "deployments", "--recursive")
    assert "rollingUpdate" in kubectl("explain", "ds.spec.updateStrategy", "--output=plaintext-openapiv2")


def test_every_kind_can_be_described(kubectl: Kubectl, admin: Any, maps: str) -> None:
    """`describe` decodes what it shows with types of its own: one list of each kind, some of them with objects."""
    kubectl("create", "sa", "s", "-n", maps)
    kubectl("create", "ingress", "i", "--rule=example.org/=a:80", "-n", maps)
    kubectl("create", "cronjob", "c", "--image=i", "--schedule=* * * * *", "-n", maps)
    kubectl("create", "pdb", "p", "--selector=a=b", "--min-available=1", "-n", maps)
    kubectl("create", "deployment", "d", "--image=i", "-n", maps)
    kubectl("autoscale", "deploy", "d", "--max=3", "-n", maps)
    kinds = kubectl("api-resources", "--verbs=list", "-o", "name", "--namespaced=true").split()
    assert len(kinds) > 30
    told = kubectl("describe", ",".join(kinds), "-n", maps)
    for part in (
        "Name:         a\n",
        "Default backend:",
        "Schedule:",
        "Min available:",
        "StrategyType:",
        "Min replicas:",
    ):
        assert part in told, part
    kubectl("describe", "clusterroles,priorityclasses,storageclasses,ingressclasses,csidrivers,crds,nodes,pv")


def test_dump(kubectl: Kubectl, maps: str, tmp_path: Path) -> None:
    kubectl("cluster-info", "dump", "--namespaces", maps, f"--output-directory={tmp_path}")
    assert (tmp_path / maps / "deployments.json").exists()
    assert json.loads((tmp_path / "nodes.json").read_text())["kind"] == "NodeList"


def test_metrics_are_not_there(kubectl: Kubectl) -> None:
    """Until somebody installs metrics-server: kubectl finds that out by discovery."""
    assert "Metrics API not available" in kubectl("top", "nodes", ok=False)


def test_proxy(kubectl: Kubectl, watching: Callable[..., Iterator[str]], maps: str, tmp_path: Path) -> None:
    started = next(watching("proxy", "--port=0", f"--www={tmp_path}"))
    port = int(started.split(":")[-1])
    url = f"http://127.0.0.1:{port}/api/v1/namespaces/{maps}/configmaps/a"
    with urllib.request.urlopen(url, timeout=10) as answer:
        assert json.load(answer)["data"] == {"rank": "3"}


def test_reconcile(kubectl: Kubectl, ns: str) -> None:
    def role(*verbs: str) -> str:
        meta = {"name": "r", "namespace": ns}
        rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": list(verbs)}]
        binding = {
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": meta,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"},
            "subjects": [{"kind": "User", "name": "jane", "apiGroup": "rbac.authorization.k8s.io"}],
        }  # fmt: skip
        made = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": meta, "rules": rules}
        return json.dumps({"apiVersion": "v1", "kind": "List", "items": [made, binding]})

    reconcile = ("auth", "reconcile", "-n", ns, "-f", "-")
    assert kubectl(*reconcile, stdin=role("get")).count("reconciliation required create") == 2
    kubectl(*reconcile, stdin=role("list"))
    can = ("auth", "can-i", "get", "pods", "--as=jane", "-n", ns)
    assert kubectl(*can).strip() == "yes"
    kubectl(*reconcile, "--remove-extra-permissions", stdin=role("list"))
    assert kubectl(*can, ok=False).strip() == "no"


@pytest.fixture(scope="module")
def request_pem() -> str:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "jane")])
    csr = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return base64.b64encode(csr.public_bytes(serialization.Encoding.PEM)).decode()


@pytest.mark.parametrize(("verb", "condition"), [("approve", "Approved"), ("deny", "Denied")])
def test_certificates(kubectl: Kubectl, ns: str, request_pem: str, verb: str, condition: str) -> None:
    spec = {"request": request_pem, "signerName": "example.org/own", "usages": ["client auth"]}
    wanted = {"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
              "metadata": {"name": ns}, "spec": spec}  # fmt: skip
    kubectl("create", "-f", "-", stdin=json.dumps(wanted))
    assert kubectl("get", "csr", ns, "--no-headers").split()[-1] == "Pending"
    kubectl("certificate", verb, ns)
    assert kubectl("get", "csr", ns, "--no-headers").split()[-1] == condition
    assert "kubernetes-admin" in kubectl("describe", "csr", ns)


def test_nodes_without_pods(kubectl: Kubectl, admin: Any, ns: str) -> None:
    admin.ok("POST", "/api/v1/nodes", {"metadata": {"name": ns}})
    kubectl("cordon", ns)
    assert "SchedulingDisabled" in kubectl("get", "node", ns)
    assert "drained" in kubectl("drain", ns, "--ignore-daemonsets")
    kubectl("uncordon", ns)
    kubectl("taint", "node", ns, "a=b:NoSchedule")
    assert "a=b:NoSchedule" in kubectl("describe", "node", ns)
    assert "already has a taint" in kubectl("taint", "node", ns, "a=c:NoSchedule", ok=False)
    assert kubectl("taint", "node", ns, "a=c:NoSchedule", "--overwrite").strip() == f"node/{ns} modified"
    assert kubectl("taint", "node", ns, "a:NoSchedule-").strip() == f"node/{ns} untainted"


def test_events(kubectl: Kubectl, admin: Any, maps: str) -> None:
    uid = admin.ok("GET", f"/api/v1/namespaces/{maps}/configmaps/a")["metadata"]["uid"]
    for name, kind in (("one", "Normal"), ("two", "Warning")):
        about = {"kind": "ConfigMap", "name": "a", "namespace": maps, "apiVersion": "v1", "uid": uid}
        event = {"metadata": {"name": name}, "involvedObject": about, "type": kind, "reason": f"R{name}",
                 "message": f"said {name}", "count": 1, "lastTimestamp": "2026-01-01T00:00:00Z"}  # fmt: skip
        admin.ok("POST", f"/api/v1/namespaces/{maps}/events", event)
    assert "said one" in kubectl("events", "-n", maps, "--for=configmap/a")
    assert "said one" not in kubectl("events", "-n", maps, "--types=Warning")
    assert "Rtwo" in kubectl("get", "ev", "-n", maps, "--field-selector=reason=Rtwo,involvedObject.name=a")
    assert "said two" in kubectl("describe", "cm", "a", "-n", maps)
