"""The bootstrap policy as data: well-formed, free of contradictions, and complete against the names clients know."""

from collections import Counter
from typing import Any

import pytest

from controlplane.apiserver.authz import policy

OBJECTS = policy.objects()
ROLES = [obj for obj in OBJECTS if obj["kind"].endswith("Role")]
BINDINGS = [obj for obj in OBJECTS if obj["kind"].endswith("Binding")]


def _name(obj: dict[str, Any]) -> str:
    meta = obj["metadata"]
    return f"{obj['kind']} {meta.get('namespace', '')}/{meta['name']}"


@pytest.mark.parametrize("role", ROLES, ids=_name)
def test_rules_are_well_formed(role: dict[str, Any]) -> None:
    assert role["rules"]
    for rule in role["rules"]:
        assert rule["verbs"] and len(set(rule["verbs"])) == len(rule["verbs"])
        if "nonResourceURLs" in rule:
            assert set(rule) == {"verbs", "nonResourceURLs"} and role["kind"] == "ClusterRole"
            assert all(path == "*" or path.startswith("/") for path in rule["nonResourceURLs"])
        else:
            assert set(rule) - {"resourceNames"} == {"verbs", "apiGroups", "resources"}
            assert rule["apiGroups"] and rule["resources"] and "core" not in rule["apiGroups"]


def test_names_are_unique() -> None:
    assert [name for name, count in Counter(map(_name, OBJECTS)).items() if count > 1] == []


@pytest.mark.parametrize("binding", BINDINGS, ids=_name)
def test_every_binding_has_its_role_and_subjects(binding: dict[str, Any]) -> None:
    ref, namespace = binding["roleRef"], binding["metadata"].get("namespace", "")
    at = namespace if ref["kind"] == "Role" else ""
    assert f"{ref['kind']} {at}/{ref['name']}" in set(map(_name, ROLES))
    for subject in binding["subjects"]:
        assert ("namespace" in subject) == (subject["kind"] == "ServiceAccount")


def test_controllers_are_bound_to_accounts_of_their_name() -> None:
    bound = {obj["metadata"]["name"]: obj for obj in BINDINGS if obj["kind"] == "ClusterRoleBinding"}
    names = [obj["metadata"]["name"] for obj in ROLES if obj["kind"] == "ClusterRole"]
    controllers = [name for name in names if name.startswith("system:controller:")]
    assert len(controllers) >= 35
    for name in controllers:
        account = name.removeprefix("system:controller:")
        assert bound[name]["roleRef"]["name"] == name
        assert bound[name]["subjects"] == [{"kind": "ServiceAccount", "name": account, "namespace": "kube-system"}]


def test_namespaced_ones_are_in_system_namespaces() -> None:
    found = {obj["metadata"].get("namespace") for obj in OBJECTS if not obj["kind"].startswith("Cluster")}
    assert found == {"kube-system", "kube-public", "kube-node-lease"}
