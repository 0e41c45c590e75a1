"""Who has which names, and what a definition's conditions say of it."""

from typing import Any

from controlplane.apiserver.customresources.naming import status_of


def crd(plural: str, kind: str, group: str = "example.com", **names: Any) -> Any:
    wanted = {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List", **names}
    return {"metadata": {"name": f"{plural}.{group}"}, "spec": {
        "group": group, "names": wanted, "versions": [{"name": "v1", "served": True, "storage": True}]}}  # fmt: skip


def granted(definition: Any, *others: Any) -> Any:
    return {**definition, "status": status_of(definition, others)}


def conditions(definition: Any) -> dict[str, tuple[str, str, str]]:
    return {c["type"]: (c["status"], c["reason"], c["message"]) for c in definition["status"]["conditions"]}


def test_names_that_nobody_has_are_granted() -> None:
    made = granted(crd("hats", "Hat", shortNames=["h"], categories=["all"]))
    assert made["status"]["acceptedNames"] == made["spec"]["names"]
    assert made["status"]["storedVersions"] == ["v1"]
    assert conditions(made) == {
        "NamesAccepted": ("True", "NoConflicts", "no conflicts found"),
        "Established": ("True", "InitialNamesAccepted", "the initial names have been accepted"),
    }


def test_the_second_gets_what_is_left() -> None:
    first = granted(crd("hats", "Hat", shortNames=["h"]))
    second = granted(crd("helmets", "Hat", singular="helmet", shortNames=["h", "hm"]), first)
    assert second["status"]["acceptedNames"] == {"plural": "helmets", "singular": "helmet"}
    assert conditions(second) == {
        "NamesAccepted": ("False", "ListKindConflict", '"HatList" is already in use'),
        "Established": ("False", "NotAccepted", "not all names are accepted"),
    }


def test_what_is_established_stays_so() -> None:
    first, other = granted(crd("hats", "Hat")), granted(crd("caps", "Cap"))
    other["spec"]["names"] = {**other["spec"]["names"], "shortNames": ["hat"]}
    after = granted(other, first)
    assert conditions(after)["Established"][0] == "True"
    assert conditions(after)["NamesAccepted"] == ("False", "ShortNamesConflict", '"hat" is already in use')
    assert after["status"]["acceptedNames"]["kind"] == "Cap"


def test_a_condition_keeps_its_time_until_it_turns() -> None:
    made = granted(crd("hats", "Hat"))
    for condition in made["status"]["conditions"]:
        condition["lastTransitionTime"] = "2020-01-01T00:00:00Z"
    assert granted(made)["status"] == made["status"]


def test_protected_groups_and_old_definitions_are_told() -> None:
    approved = crd("hats", "Hat", group="x.k8s.io")
    approved["metadata"]["annotations"] = {"api-approved.kubernetes.io": "https://github.com/kubernetes/x/pull/1"}
    told = conditions(granted(approved))["KubernetesAPIApprovalPolicyConformant"]
    assert told == ("True", "ApprovedAnnotation", "approved in https://github.com/kubernetes/x/pull/1")
    old = crd("hats", "Hat")
    old["spec"]["preserveUnknownFields"] = True
    assert conditions(granted(old))["NonStructuralSchema"][0] == "True"
