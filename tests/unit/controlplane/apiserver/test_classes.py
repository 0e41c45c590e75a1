"""Default classes of storage and ingresses; what a RuntimeClass means for its pods; growing claims."""

from typing import Any


async def test_default_classes(api: Any) -> None:
    path = await api.namespace("n")
    for name, default in (("old", "true"), ("plain", "false")):
        await api.ok("POST", "/apis/storage.k8s.io/v1/storageclasses", {
            "metadata": {"name": name, "annotations": {"storageclass.kubernetes.io/is-default-class": default}},
            "provisioner": "x.io/y"})  # fmt: skip
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    claim = {"metadata": {"name": "c"}, "spec": spec}
    assert (await api.ok("POST", f"{path}/persistentvolumeclaims", claim))["spec"]["storageClassName"] == "old"
    none = {"metadata": {"name": "none"}, "spec": {**spec, "storageClassName": ""}}
    assert (await api.ok("POST", f"{path}/persistentvolumeclaims", none))["spec"]["storageClassName"] == ""
    await api.ok("POST", "/apis/networking.k8s.io/v1/ingressclasses", {
        "metadata": {"name": "web", "annotations": {"ingressclass.kubernetes.io/is-default-class": "true"}},
        "spec": {"controller": "x.io/c"}})  # fmt: skip
    backend = {"service": {"name": "s", "port": {"number": 80}}}
    ingress = {"metadata": {"name": "i"}, "spec": {"defaultBackend": backend}}
    made = await api.ok("POST", "/apis/networking.k8s.io/v1/namespaces/n/ingresses", ingress)
    assert made["spec"]["ingressClassName"] == "web"


async def test_a_claim_grows_only_where_its_class_allows(api: Any) -> None:
    path = await api.namespace("n")
    await api.ok("POST", "/apis/storage.k8s.io/v1/storageclasses",
                 {"metadata": {"name": "fixed"}, "provisioner": "x.io/y"})  # fmt: skip
    asked = {"requests": {"storage": "1Gi"}}
    spec = {"accessModes": ["ReadWriteOnce"], "resources": asked, "storageClassName": "fixed"}
    await api.ok("POST", f"{path}/persistentvolumeclaims", {"metadata": {"name": "c"}, "spec": spec})
    bigger = {"spec": {"resources": {"requests": {"storage": "2Gi"}}}}
    kind = "application/merge-patch+json"
    answer = await api("PATCH", f"{path}/persistentvolumeclaims/c", bigger, kind=kind)
    assert "Only bound persistent volume claims can be expanded" in answer.body["message"]
    await api.ok("PATCH", f"{path}/persistentvolumeclaims/c/status", {"status": {"phase": "Bound"}}, kind=kind)
    answer = await api("PATCH", f"{path}/persistentvolumeclaims/c", bigger, kind=kind)
    assert answer.status == 403 and "must support resize" in answer.body["message"]
    await api.ok("PATCH", "/apis/storage.k8s.io/v1/storageclasses/fixed", {"allowVolumeExpansion": True}, kind=kind)
    await api.ok("PATCH", f"{path}/persistentvolumeclaims/c", bigger, kind=kind)


async def test_runtime_classes(api: Any) -> None:
    path = await api.namespace("n")
    await api.ok("POST", "/apis/node.k8s.io/v1/runtimeclasses", {
        "metadata": {"name": "vm"}, "handler": "vm", "overhead": {"podFixed": {"memory": "64Mi"}},
        "scheduling": {"nodeSelector": {"vm": "yes"}, "tolerations": [{"key": "vm", "operator": "Exists"}]},
    })  # fmt: skip
    container = [{"name": "a", "image": "b"}]
    made = await api.ok("POST", f"{path}/pods", {
        "metadata": {"name": "p"}, "spec": {"containers": container, "runtimeClassName": "vm"}})  # fmt: skip
    assert made["spec"]["overhead"] == {"memory": "64Mi"} and made["spec"]["nodeSelector"] == {"vm": "yes"}
    assert {"key": "vm", "operator": "Exists"} in made["spec"]["tolerations"]
    for spec, text in (
        ({"runtimeClassName": "no"}, 'pod rejected: RuntimeClass "no" not found'),
        ({"overhead": {"cpu": "1"}}, "pod rejected: Pod Overhead set without corresponding RuntimeClass"),
        ({"runtimeClassName": "vm", "nodeSelector": {"vm": "no"}}, "conflict: runtimeClass.scheduling.nodeSelector"),
    ):
        pod = {"metadata": {"name": "q"}, "spec": {"containers": container, **spec}}
        answer = await api("POST", f"{path}/pods", pod)
        assert answer.status == 403 and text in answer.body["message"]


async def test_pods_wear_the_zone_of_their_node(api: Any) -> None:
    path = await api.namespace("n")
    labels = {"topology.kubernetes.io/zone": "z", "topology.kubernetes.io/region": "r", "other": "x"}
    await api.ok("POST", "/api/v1/nodes", {"metadata": {"name": "node", "labels": labels}})
    container = [{"name": "a", "image": "b"}]
    await api.ok("POST", f"{path}/pods", {"metadata": {"name": "p"}, "spec": {"containers": container}})
    binding = {"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "node"}}
    await api.ok("POST", f"{path}/pods/p/binding", binding)
    bound = await api.ok("GET", f"{path}/pods/p")
    assert bound["metadata"]["labels"] == {key: labels[key] for key in labels if key != "other"}
