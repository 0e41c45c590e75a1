"""What is allowed and not wise, told in the words of Kubernetes."""

from typing import Any

import pytest

from controlplane.api import definitions, resources, warnings

TABLE = resources.builtin(definitions.load())


def told(api_version: str, kind: str, **fields: Any) -> list[str]:
    resource = TABLE.for_object(api_version, kind)
    assert resource is not None
    return warnings.of(resource, {"metadata": {"name": "a"}, **fields})


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ({"nodeSelector": {"beta.kubernetes.io/os": "linux"}},
         'spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead'),
        ({"containers": [{"env": [{"name": "A"}, {"name": "A"}]}]},
         'spec.containers[0].env[1]: hides previous definition of "A", which may be dropped when using apply'),
        ({"containers": [{"ports": [{"containerPort": 80}]}, {"ports": [{"containerPort": 80, "protocol": "TCP"}]}]},
         "spec.containers[1].ports[0]: duplicate port definition with spec.containers[0].ports[0]"),
        ({"containers": [{"resources": {"limits": {"memory": "100m"}}}]},
         'spec.containers[0].resources.limits[memory]: fractional byte value "100m" is invalid, must be an integer'),
        ({"volumes": [{"name": "v", "glusterfs": {}}]},
         "spec.volumes[0].glusterfs: deprecated in v1.25, non-functional in v1.26+"),
        ({"imagePullSecrets": [{"name": "s"}, {"name": "s"}]}, 'spec.imagePullSecrets[1].name: duplicate name "s"'),
        ({"imagePullSecrets": [{}]}, 'spec.imagePullSecrets[0].name: invalid empty name ""'),
        ({"terminationGracePeriodSeconds": -1},
         "spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"),
    ],
)  # fmt: skip
def test_pods_and_templates(spec: dict[str, Any], text: str) -> None:
    assert told("v1", "Pod", spec=spec) == [text]
    assert told("apps/v1", "Deployment", spec={"template": {"spec": spec}}) == [
        part if not part.startswith("spec.") else f"spec.template.{part}"
        for part in [text.replace("with spec.", "with spec.template.spec.")]
    ]


def test_others() -> None:
    assert told("v1", "Pod", spec={"containers": [{"name": "c", "resources": {"limits": {"memory": "1Gi"}}}]}) == []
    assert told("v1", "ConfigMap") == []
    annotated = {"name": "a", "annotations": {"kubernetes.io/ingress.class": "x"}}
    assert told("networking.k8s.io/v1", "Ingress", metadata=annotated) == [
        "annotation \"kubernetes.io/ingress.class\" is deprecated, please use 'spec.ingressClassName' instead"
    ]
    assert "Recycle" in told("v1", "PersistentVolume", spec={"persistentVolumeReclaimPolicy": "Recycle"})[0]
    old = {"name": "a", "annotations": {"container.apparmor.security.beta.kubernetes.io/c": "unconfined"}}
    assert told("v1", "Pod", metadata=old)[0].endswith(
        'deprecated since v1.30; use the "appArmorProfile" field instead'
    )
