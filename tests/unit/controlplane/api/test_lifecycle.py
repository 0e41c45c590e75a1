"""What is told of API versions that go, in the words of Kubernetes."""

import pytest

from controlplane.api import definitions, lifecycle, resources


@pytest.mark.parametrize(
    ("served", "group", "version", "kind", "text"),
    [
        ("1.37", "", "v1", "ComponentStatus", "v1 ComponentStatus is deprecated in v1.19+"),
        ("1.37", "", "v1", "Endpoints",
         "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"),
        ("1.32", "", "v1", "Endpoints", ""),
        ("1.37", "apps", "v1", "Deployment", ""),
        ("1.37", "autoscaling", "v1", "HorizontalPodAutoscaler", ""),
        ("1.29", "flowcontrol.apiserver.k8s.io", "v1beta3", "FlowSchema",
         "flowcontrol.apiserver.k8s.io/v1beta3 FlowSchema is deprecated in v1.29+, unavailable in v1.32+; "
         "use flowcontrol.apiserver.k8s.io/v1 FlowSchema"),
        ("1.32", "networking.k8s.io", "v1beta1", "IPAddress", ""),
        ("1.35", "networking.k8s.io", "v1beta1", "IPAddress",
         "networking.k8s.io/v1beta1 IPAddress is deprecated in v1.34+, unavailable in v1.37+; "
         "use networking.k8s.io/v1 IPAddress"),
        ("1.34", "certificates.k8s.io", "v1alpha1", "ClusterTrustBundle",
         "certificates.k8s.io/v1alpha1 ClusterTrustBundle is deprecated in v1.34+, unavailable in v1.37+"),
    ],
)  # fmt: skip
def test_texts(served: str, group: str, version: str, kind: str, text: str) -> None:
    table = resources.builtin(definitions.load(served))
    resource = table.by_kind(group, version, kind)
    assert resource is not None
    assert lifecycle.warning(resource, table, served)[0] == text


def test_nothing_is_served_after_its_end() -> None:
    for served in ("1.29", "1.32", "1.35", "1.37"):
        table = resources.builtin(definitions.load(served))
        for resource in table.all():
            found = lifecycle.lifecycle(resource, table)
            assert found is None or not found.removed or int(served[2:]) < found.removed, resource
