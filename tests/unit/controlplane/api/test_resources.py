"""The table of REST resources, against the published paths (as the official Python client has them)."""

import re
from pathlib import Path

import pytest

from controlplane.api import definitions, resources


@pytest.fixture(scope="module")
def table() -> resources.ResourceTable:
    return resources.builtin(definitions.load())


def _published_paths() -> set[str]:
    client = pytest.importorskip("kubernetes.client")
    texts = [path.read_text() for path in (Path(client.__file__).parent / "api").glob("*_api.py")]
    paths = {path for text in texts for path in re.findall(r"'(/apis?/[^']+)'", text)}
    return {path for path in paths if not path.endswith("/") and "{path}" not in path and "{group}" not in path}


def _our_paths(table: resources.ResourceTable) -> set[str]:
    paths = set()
    for r in table.all():
        root = f"/apis/{r.group}/{r.version}" if r.group else f"/api/{r.version}"
        scoped = f"{root}/namespaces/{{namespace}}" if r.namespaced else root
        paths.add(f"{scoped}/{r.plural}")
        if r.verbs == ("create",):
            continue
        paths |= {f"{root}/{r.plural}", f"{scoped}/{r.plural}/{{name}}"}
        paths |= {f"{scoped}/{r.plural}/{{name}}/{name}" for name in r.subresources}
    return paths


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_paths_are_the_published_ones(table: resources.ResourceTable) -> None:
    assert _our_paths(table) == _published_paths()


@pytest.mark.parametrize("version", [v for v in definitions.versions() if int(v.split(".")[1]) >= 29])
def test_every_supported_version_makes_a_table(version: str) -> None:
    table = resources.builtin(definitions.load(version))
    assert table.find("", "v1", "pods") is not None
    assert table.find("apps", "v1", "deployments") is not None


def test_a_resource_knows_its_names(table: resources.ResourceTable) -> None:
    r = table.find("apps", "v1", "deployments")
    assert r is not None
    assert (r.kind, r.api_version, r.list_kind, r.singular) == ("Deployment", "apps/v1", "DeploymentList", "deployment")
    assert (r.group_resource, r.group_kind) == ("deployments.apps", "Deployment.apps")
    assert r.short_names == ("deploy",) and r.categories == ("all",) and r.namespaced
    scale = r.subresources["scale"]
    assert (scale.group, scale.version, scale.kind) == ("autoscaling", "v1", "Scale")
    assert scale.schema == "io.k8s.api.autoscaling.v1.Scale"
    assert table.for_object("apps/v1", "Deployment") is r is table.by_kind("apps", "v1", "Deployment")
    assert table.preferred("apps", "deployments") is r


def test_reviews_can_only_be_created(table: resources.ResourceTable) -> None:
    for group, plural in (
        ("authentication.k8s.io", "tokenreviews"),
        ("authentication.k8s.io", "selfsubjectreviews"),
        ("authorization.k8s.io", "selfsubjectaccessreviews"),
        ("authorization.k8s.io", "localsubjectaccessreviews"),
    ):
        r = table.find(group, "v1", plural)
        assert r is not None and r.verbs == ("create",) and not r.subresources
        assert r.namespaced == plural.startswith("local")


def test_order_of_groups_and_versions(table: resources.ResourceTable) -> None:
    assert table.groups()[:4] == ["", "apiregistration.k8s.io", "apps", "events.k8s.io"]
    assert table.versions("autoscaling") == ["v2", "v1"]
    assert table.versions("nowhere") == [] and table.resources("nowhere", "v1") == []
    some = ["v1alpha1", "foo1", "v2", "v1beta2", "v10", "v1beta10", "v1"]
    assert sorted(some, key=resources.version_order) == ["v10", "v2", "v1", "v1beta10", "v1beta2", "v1alpha1", "foo1"]


def test_storage_versions(table: resources.ResourceTable) -> None:
    event = table.find("events.k8s.io", "v1", "events")
    old_hpa = table.find("autoscaling", "v1", "horizontalpodautoscalers")
    assert event is not None and (event.storage_version, event.storage_group) == ("v1", "")
    assert old_hpa is not None and old_hpa.storage_version == "autoscaling/v2"


def test_with_added_and_without_make_new_tables(table: resources.ResourceTable) -> None:
    widget = resources.Resource(
        "example.com", "v1", "Widget", "widgets", "widget", True, resources.ALL_VERBS, "", "example.com/v1"
    )
    more = table.with_added([widget])
    assert more.find("example.com", "v1", "widgets") is widget
    assert more.groups()[-1] == "example.com"
    assert table.find("example.com", "v1", "widgets") is None
    assert more.without("example.com", "widgets").groups() == table.groups()
