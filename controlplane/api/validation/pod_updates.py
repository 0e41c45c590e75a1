"""What may change of a pod: images, deadline, more tolerations, fewer gates; where to go, while it is still gated."""

from collections.abc import Mapping, Sequence
from typing import Any

from controlplane.api.status import Cause, forbidden_field, invalid_value
from controlplane.api.validation import annotations
from controlplane.api.validation.common import Object

Each = Mapping[str, Any]

_TEXT = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def pod(new: Object, old: Object) -> list[Cause]:
    """A pod in place of itself."""
    after, before = new.get("spec") or {}, old.get("spec") or {}
    causes: list[Cause] = []
    for kind in ("containers", "initContainers"):
        if len(after.get(kind) or ()) != len(before.get(kind) or ()):
            return [forbidden_field(f"spec.{kind}", "pod updates may not add or remove containers")]
    deadline, was = after.get("activeDeadlineSeconds"), before.get("activeDeadlineSeconds")
    if was is not None and (deadline is None or deadline > was):
        text = (
            "must be less than or equal to previous value"
            if deadline is not None
            else "must not update from a positive integer to nil value"
        )
        causes.append(invalid_value("spec.activeDeadlineSeconds", deadline, text))
    tolerated = after.get("tolerations") or ()
    if any(not _tolerates(tolerated, each) for each in before.get("tolerations") or ()):
        text = "existing toleration can not be modified except its tolerationSeconds"
        causes.append(forbidden_field("spec.tolerations", text))
    had = [gate.get("name", "") for gate in before.get("schedulingGates") or ()]
    for index, gate in enumerate(after.get("schedulingGates") or ()):
        if gate.get("name", "") not in had:
            text = f"only deletion is allowed, but found new scheduling gate '{gate.get('name', '')}'"
            causes.append(forbidden_field(f"spec.schedulingGates[{index}].name", text))
    munged = {**after, **{key: before.get(key) for key in ("activeDeadlineSeconds", "tolerations", "schedulingGates")}}
    if (before.get("terminationGracePeriodSeconds") or 0) < 0 and after.get("terminationGracePeriodSeconds") == 1:
        munged["terminationGracePeriodSeconds"] = before.get("terminationGracePeriodSeconds")
    if had:
        _directions(causes, munged, before)
    for kind in ("containers", "initContainers"):
        if kind in after:
            munged[kind] = [
                {**each, "image": was["image"]} if "image" in was else each
                for each, was in zip(after[kind] or (), before.get(kind) or (), strict=True)
            ]
    if {key: value for key, value in munged.items() if value is not None} != before:
        causes.append(forbidden_field("spec", _TEXT))
    return causes


def _tolerates(found: Sequence[Each], wanted: Each) -> bool:
    bare = {key: value for key, value in wanted.items() if key != "tolerationSeconds"}
    return any({key: value for key, value in each.items() if key != "tolerationSeconds"} == bare for each in found)


def _directions(causes: list[Cause], munged: dict[str, Any], before: Each) -> None:
    """A gated pod's node selector and node affinity may become narrower."""
    chosen, was = munged.get("nodeSelector") or {}, before.get("nodeSelector") or {}
    if any(chosen.get(key) != value for key, value in was.items()):
        text = "only additions to spec.nodeSelector are allowed (no mutations or deletions)"
        causes.append(invalid_value("spec.nodeSelector", chosen, text))
    munged["nodeSelector"] = before.get("nodeSelector")
    affinity, old = munged.get("affinity") or {}, before.get("affinity") or {}
    if affinity.get("nodeAffinity") == old.get("nodeAffinity"):
        return
    _terms(causes, affinity.get("nodeAffinity") or {}, old.get("nodeAffinity") or {})
    others = {key: value for key, value in affinity.items() if key != "nodeAffinity"}
    if "nodeAffinity" in old:
        others["nodeAffinity"] = old["nodeAffinity"]
    munged["affinity"] = others if others or "affinity" in before else None


def _terms(causes: list[Cause], new: Each, old: Each) -> None:
    field = "requiredDuringSchedulingIgnoredDuringExecution"
    path = f"spec.affinity.nodeAffinity.{field}.nodeSelectorTerms"
    before = (old.get(field) or {}).get("nodeSelectorTerms") or []
    after = (new.get(field) or {}).get("nodeSelectorTerms") or []
    if before and len(before) != len(after):
        text = "no additions/deletions to non-empty NodeSelectorTerms list are allowed"
        causes.append(invalid_value(path, after, text))
        return
    for index, (term, was) in enumerate(zip(after, before, strict=False)):
        if not _only_more(term, was):
            text = "only additions are allowed (no mutations or deletions)"
            causes.append(invalid_value(f"{path}[{index}]", term, text))


def _only_more(term: Each, was: Each) -> bool:
    parts = ("matchExpressions", "matchFields")
    if not any(was.get(part) for part in parts):
        return not any(term.get(part) for part in parts)
    return all((term.get(part) or [])[: len(was.get(part) or ())] == (was.get(part) or []) for part in parts)


def metadata(new: Each, old: Each) -> list[Cause]:
    """A pod's metadata: some annotations say what it is."""
    after, before = new.get("annotations") or {}, old.get("annotations") or {}
    return annotations.pod_changes(after, before) if after != before else []
