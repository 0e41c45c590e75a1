"""Names of custom resources: first come, first served; and the conditions that tell of it.

`status_of` is pure: from a definition and the others of its group to the status that it should have. Reasons and
messages are those of apiextensions-apiserver (controller/status, apiapproval, nonstructuralschema).
"""

from collections.abc import Iterable
from typing import Any

from controlplane import clock

Object = dict[str, Any]
APPROVAL = "api-approved.kubernetes.io"
FINALIZER = "customresourcecleanup.apiextensions.k8s.io"


def condition(crd: Object, kind: str) -> Object | None:
    """The condition of this type, or None."""
    found: Object | None = next((c for c in crd.get("status", {}).get("conditions") or () if c["type"] == kind), None)
    return found


def is_true(crd: Object, kind: str) -> bool:
    """Whether a condition is there and True."""
    found = condition(crd, kind)
    return found is not None and found["status"] == "True"


def with_condition(conditions: list[Object], kind: str, state: bool, reason: str, message: str) -> list[Object]:
    """`conditions` with one set; its lastTransitionTime only changes with its status."""
    new = {"type": kind, "status": "True" if state else "False", "reason": reason, "message": message}
    result, found = [], False
    for old in conditions:
        if old["type"] != kind:
            result.append(old)
            continue
        found = True
        same = old["status"] == new["status"] and "lastTransitionTime" in old
        result.append({**new, "lastTransitionTime": old["lastTransitionTime"] if same else clock.rfc3339()})
    if not found:
        result.append({**new, "lastTransitionTime": clock.rfc3339()})
    return [_ordered(each) for each in result]


def _ordered(condition: Object) -> Object:
    keys = ("type", "status", "lastTransitionTime", "reason", "message")
    return {key: condition[key] for key in keys if key in condition}


def status_of(crd: Object, others: Iterable[Object]) -> Object:
    """The status of `crd`, given the other definitions of its group (with what they have been granted)."""
    spec, before = crd["spec"], crd.get("status") or {}
    wanted = spec["names"]
    resources: set[str] = set()
    kinds: set[str] = set()
    for other in others:
        names = other.get("status", {}).get("acceptedNames") or {}
        if not names.get("plural"):
            continue
        resources.update(
            each for each in (names["plural"], names.get("singular"), *names.get("shortNames", ())) if each
        )
        kinds.update(each for each in (names.get("kind"), names.get("listKind")) if each)
    accepted, problem = _accept(wanted, before.get("acceptedNames") or {}, resources, kinds)
    conditions = list(before.get("conditions") or ())
    established = any(c["type"] == "Established" and c["status"] == "True" for c in conditions)
    if problem is None:
        conditions = with_condition(conditions, "NamesAccepted", True, "NoConflicts", "no conflicts found")
        if not established:
            text = "the initial names have been accepted"
            conditions = with_condition(conditions, "Established", True, "InitialNamesAccepted", text)
    else:
        conditions = with_condition(conditions, "NamesAccepted", False, *problem)
        if not established:
            text = "not all names are accepted"
            conditions = with_condition(conditions, "Established", False, "NotAccepted", text)
    conditions = _approval(crd, conditions)
    conditions = _structural(crd, conditions)
    stored = list(before.get("storedVersions") or ())
    stored += [v["name"] for v in spec["versions"] if v.get("storage") and v.get("name", "") not in ("", *stored)]
    return {**before, "conditions": conditions, "acceptedNames": accepted, "storedVersions": stored}


def _accept(
    wanted: Object, before: Object, resources: set[str], kinds: set[str]
) -> tuple[Object, tuple[str, str] | None]:
    """The names that are granted, and (reason, message) of the last conflict, the one that Kubernetes tells."""
    accepted: Object = {**before}
    problem: tuple[str, str] | None = None
    for field, taken, reason in (
        ("plural", resources, "PluralConflict"), ("singular", resources, "SingularConflict"),
        ("shortNames", resources, "ShortNamesConflict"),
        ("kind", kinds, "KindConflict"), ("listKind", kinds, "ListKindConflict"),
    ):  # fmt: skip
        value = wanted.get(field)
        names = value if isinstance(value, list) else [value] if value else []
        if clashes := [name for name in names if name in taken]:
            problem = reason, ", ".join(f'"{name}" is already in use' for name in clashes)
        elif value:
            accepted[field] = value
        else:
            accepted.pop(field, None)
    if wanted.get("categories"):
        accepted["categories"] = list(wanted["categories"])
    else:
        accepted.pop("categories", None)
    return (accepted, problem) if problem else (dict(wanted), None)


def is_protected(group: str) -> bool:
    """Groups that belong to the Kubernetes community."""
    return group.endswith((".k8s.io", ".kubernetes.io")) or group in ("k8s.io", "kubernetes.io")


def _approval(crd: Object, conditions: list[Object]) -> list[Object]:
    kind = "KubernetesAPIApprovalPolicyConformant"
    if not is_protected(crd["spec"]["group"]):
        return [each for each in conditions if each["type"] != kind]
    value = (crd["metadata"].get("annotations") or {}).get(APPROVAL, "")
    if value.startswith("unapproved"):
        return with_condition(conditions, kind, False, "UnapprovedAnnotation", f'not approved: "{value}"')
    if value.startswith(("https://", "http://")):
        return with_condition(conditions, kind, True, "ApprovedAnnotation", f"approved in {value}")
    text = (
        f'protected groups must have approval annotation "{APPROVAL}", see '
        "https://github.com/kubernetes/enhancements/pull/1111"
    )
    return with_condition(conditions, kind, False, "MissingAnnotation" if not value else "InvalidAnnotation", text)


def _structural(crd: Object, conditions: list[Object]) -> list[Object]:
    """Only definitions that came from the days of v1beta1 can be without structural schemas."""
    if crd["spec"].get("preserveUnknownFields"):
        text = "spec.preserveUnknownFields: Invalid value: true: must be false"
        return with_condition(conditions, "NonStructuralSchema", True, "Violations", text)
    return [each for each in conditions if each["type"] != "NonStructuralSchema"]
