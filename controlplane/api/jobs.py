"""A Job's selector and its pods' labels, which the API server makes unless the user says `manualSelector: true`.

Everybody who asks a Job for its pods (`kubectl logs job/x`, `describe`, disruption budgets) goes by `spec.selector`.
Source: pkg/registry/batch/job/strategy.go, generateSelector. What is wrong with labels that the user had set to
something else is said by validation (`validation.workloads.job`).
"""

from typing import Any

CONTROLLER_UID = "batch.kubernetes.io/controller-uid"
UID_LABELS = ("controller-uid", CONTROLLER_UID)
NAME_LABELS = ("job-name", "batch.kubernetes.io/job-name")

Object = dict[str, Any]


def expected_labels(job: Object) -> dict[str, str]:
    """What the pods of `job` must wear."""
    meta = job.get("metadata") or {}
    name, uid = meta.get("name", ""), meta.get("uid", "")
    return {UID_LABELS[0]: uid, NAME_LABELS[0]: name, UID_LABELS[1]: uid, NAME_LABELS[1]: name}


def is_manual(job: Object) -> bool:
    """Whether the user cares for selector and labels."""
    return bool((job.get("spec") or {}).get("manualSelector"))


def generate_selector(job: Object) -> None:
    """Fill in what is missing; `job`, the writer's own, is changed in place."""
    if is_manual(job):
        return
    spec = job.setdefault("spec", {})
    template = dict(spec.get("template") or {})
    meta = dict(template.get("metadata") or {})
    meta["labels"] = {**expected_labels(job), **(meta.get("labels") or {})}
    spec["template"] = {**template, "metadata": meta}
    selector = spec.get("selector") or {}
    matched = {CONTROLLER_UID: job["metadata"]["uid"], **(selector.get("matchLabels") or {})}
    spec["selector"] = {**selector, "matchLabels": matched}


def forget_name(job: Object) -> None:
    """Take the name off again when a generated one was taken, before the next is tried."""
    meta = job["metadata"]
    if not meta.get("generateName") or is_manual(job):
        return
    labels = job["spec"]["template"]["metadata"]["labels"]
    for key in NAME_LABELS:
        if labels.get(key) == meta["name"]:
            del labels[key]
