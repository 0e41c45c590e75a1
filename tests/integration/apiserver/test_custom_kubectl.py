"""What people do with custom resources and a real kubectl, in both versions."""

import json
from collections.abc import Callable

import pytest

Kubectl = Callable[..., str]

CRD = """
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: crontabs.%(group)s}
spec:
  group: %(group)s
  scope: Namespaced
  names: {plural: crontabs, singular: crontab, kind: CronTab, shortNames: [%(short)s], categories: [all]}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        properties:
          spec:
            type: object
            required: [cronSpec]
            x-kubernetes-validations:
            - {rule: 'self.replicas <= 5 || has(self.image)', message: many replicas need an image}
            properties:
              cronSpec: {type: string, pattern: '^(\\d+|\\*)(/\\d+)?(\\s+(\\d+|\\*)(/\\d+)?){4}$', description: When.}
              image: {type: string}
              replicas: {type: integer, minimum: 1, maximum: 10, default: 1}
              steps:
                type: array
                x-kubernetes-list-type: map
                x-kubernetes-list-map-keys: [name]
                items: {type: object, required: [name], properties: {name: {type: string}, run: {type: string}}}
          status:
            type: object
            properties: {replicas: {type: integer}, selector: {type: string}, phase: {type: string}}
    subresources:
      status: {}
      scale:
        {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas, labelSelectorPath: .status.selector}
    selectableFields: [{jsonPath: .spec.image}]
    additionalPrinterColumns:
    - {name: Spec, type: string, jsonPath: .spec.cronSpec}
    - {name: Replicas, type: integer, jsonPath: .spec.replicas}
    - {name: Phase, type: string, jsonPath: .status.phase, priority: 1}
    - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
"""
OBJECT = """
---
apiVersion: %(group)s/v1
kind: CronTab
metadata: {name: %(name)s}
spec: {cronSpec: "* * * * */5", image: busybox, steps: [{name: a, run: x}]}
"""


@pytest.fixture
def names(binary: object, ns: str) -> dict[str, str]:
    """A group of this test's own: kubectl caches discovery by server."""
    return {"group": f"{ns}.example.com", "short": f"ct{ns[-4:]}", "name": "my-tab"}


def test_a_day_with_a_custom_resource(kubectl: Kubectl, ns: str, names: dict[str, str]) -> None:
    both = CRD % names + OBJECT % names
    # As everywhere: kubectl knows its kinds before it creates any, so it takes a second round.
    assert "ensure CRDs are installed first" in kubectl("apply", "-n", ns, "-f", "-", stdin=both, ok=False)
    kubectl("apply", "-n", ns, "-f", "-", stdin=both)
    crd, kind, group = f"crd/crontabs.{names['group']}", f"crontabs.{names['group']}", names["group"]
    kubectl("wait", "--for", "condition=Established", crd, "--timeout=5s")
    wide = kubectl("get", names["short"], "-n", ns, "-o", "wide").splitlines()
    assert wide[0].split() == ["NAME", "SPEC", "REPLICAS", "PHASE", "AGE"]
    assert wide[1].split()[:7] == ["my-tab", "*", "*", "*", "*", "*/5", "1"]
    assert "my-tab" in kubectl("get", "all", "-n", ns)
    explained = kubectl("explain", f"{kind}.spec", "--recursive")
    for text in ("cronSpec\t<string> -required-", "replicas\t<integer>", "run\t<string>"):
        assert text in explained
    assert "When." in kubectl("explain", f"{kind}.spec.cronSpec")
    assert names["short"] in kubectl("api-resources", "--api-group", group)


def test_apply_and_patch(kubectl: Kubectl, ns: str, names: dict[str, str]) -> None:
    kubectl("apply", "-f", "-", stdin=CRD % names)
    made = OBJECT % names
    kubectl("apply", "-n", ns, "-f", "-", stdin=made)
    assert "unchanged" in kubectl("apply", "-n", ns, "-f", "-", stdin=made)
    changed = made.replace("image: busybox, ", "")
    assert "configured" in kubectl("apply", "-n", ns, "-f", "-", stdin=changed)
    kind = f"crontabs.{names['group']}"
    shown = json.loads(kubectl("get", kind, "my-tab", "-n", ns, "-o", "json"))
    assert shown["spec"] == {"cronSpec": "* * * * */5", "replicas": 1, "steps": [{"name": "a", "run": "x"}]}
    kubectl("patch", kind, "my-tab", "-n", ns, "--type=json", "-p", '[{"op":"add","path":"/spec/image","value":"i"}]')
    kubectl(
        "patch", kind, "my-tab", "-n", ns, "--type=merge", "--subresource=status", "-p", '{"status":{"phase":"On"}}'
    )
    kubectl("wait", f"{kind}/my-tab", "-n", ns, "--for", "jsonpath={.status.phase}=On", "--timeout=5s")
    kubectl("scale", f"{kind}/my-tab", "-n", ns, "--replicas=3")
    assert kubectl("get", kind, "-n", ns, "--field-selector", "spec.image=i", "-o", "name").endswith("/my-tab\n")
    kubectl("label", kind, "my-tab", "-n", ns, "a=b")
    strange = kubectl("patch", kind, "my-tab", "-n", ns, "--type=strategic", "-p", "{}", ok=False)
    assert "strategic-merge-patch+json is not supported" in strange
    kubectl("delete", kind, "my-tab", "-n", ns)


def test_what_is_wrong_is_said(kubectl: Kubectl, ns: str, names: dict[str, str]) -> None:
    kubectl("apply", "-f", "-", stdin=CRD % names)
    made = OBJECT % names
    said = kubectl("apply", "-n", ns, "-f", "-", stdin=made.replace("image:", "imagee:"), ok=False)
    assert 'strict decoding error: unknown field "spec.imagee"' in said
    said = kubectl("create", "-n", ns, "-f", "-", stdin=made.replace("* * * * */5", "* *"), ok=False)
    assert "spec.cronSpec in body should match" in said
    said = kubectl("create", "-n", ns, "-f", "-", stdin=made.replace("image: busybox", "replicas: 6"), ok=False)
    assert 'spec: Invalid value: "object": many replicas need an image' in said


def test_server_side_apply_owns_list_items(kubectl: Kubectl, ns: str, names: dict[str, str]) -> None:
    kubectl("apply", "-f", "-", stdin=CRD % names)
    made = OBJECT % names
    kubectl("apply", "-n", ns, "--server-side", "-f", "-", stdin=made)
    other = made.replace("steps: [{name: a, run: x}]", "steps: [{name: b, run: z}]").replace("image: busybox, ", "")
    kubectl("apply", "-n", ns, "--server-side", "--field-manager=other", "-f", "-", stdin=other)
    kind = f"crontabs.{names['group']}"
    assert kubectl("get", kind, "my-tab", "-n", ns, "-o", "jsonpath={.spec.steps[*].name}") == "a b"
    clash = other.replace('cronSpec: "* * * * */5"', 'cronSpec: "1 * * * *"')
    said = kubectl("apply", "-n", ns, "--server-side", "--field-manager=other", "-f", "-", stdin=clash, ok=False)
    assert 'conflict with "kubectl": .spec.cronSpec' in said
    kubectl("delete", f"crd/crontabs.{names['group']}")
    assert "the server doesn't have a resource type" in kubectl("get", kind, "-n", ns, ok=False)
