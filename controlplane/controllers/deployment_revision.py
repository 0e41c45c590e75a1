"""Revisions of a Deployment: which ReplicaSet is the new one, its manifest, its annotations, and the history. Pure.

A revision is a ReplicaSet; its number is an annotation, copied to the Deployment, which is what `kubectl rollout
history` and `undo` read. A roll-back is only a template that an older ReplicaSet has already: it is found, gets the
next number, and its old numbers go to `revision-history` (pkg/controller/deployment/util/deployment_util.go).
"""

from collections.abc import Sequence

from controlplane.controllers import meta
from controlplane.controllers.controllerref import new_ref
from controlplane.controllers.deployment_rolling import DESIRED_REPLICAS, MAX_REPLICAS, max_surge, new_set_size
from controlplane.controllers.template import POD_TEMPLATE_HASH, same_template, template_hash

REVISION = "deployment.kubernetes.io/revision"
REVISION_HISTORY = "deployment.kubernetes.io/revision-history"
_HISTORY_CHARACTERS = 2000
_NOT_COPIED = {
    "kubectl.kubernetes.io/last-applied-configuration", "deprecated.deployment.rollback.to",
    REVISION, REVISION_HISTORY, DESIRED_REPLICAS, MAX_REPLICAS,
}  # fmt: skip


def revision(obj: meta.Object) -> int:
    """The revision number noted on a ReplicaSet or Deployment; 0 if none is readable."""
    text = meta.annotations(obj).get(REVISION, "0")
    return int(text) if text.isdigit() else 0


def find_new(deployment: meta.Object, sets: Sequence[meta.Object]) -> meta.Object | None:
    """The ReplicaSet whose template is the Deployment's: the oldest, should there be several (a race long ago)."""
    template = deployment["spec"]["template"]
    matching = [rs for rs in sets if same_template(rs["spec"]["template"], template)]
    return min(matching, key=lambda rs: (meta.created(rs), meta.name(rs)), default=None)


def next_revision(old: Sequence[meta.Object]) -> int:
    return max(map(revision, old), default=0) + 1


def manifest(deployment: meta.Object, old: Sequence[meta.Object]) -> meta.Object:
    """The ReplicaSet for the Deployment's current template, with the first step of its size."""
    spec = deployment["spec"]
    template = spec["template"]
    digest = template_hash(template, meta.status(deployment).get("collisionCount"))
    template_meta = template.get("metadata") or {}
    pod_labels = {**(template_meta.get("labels") or {}), POD_TEMPLATE_HASH: digest}
    selector = {
        **spec["selector"],
        "matchLabels": {**(spec["selector"].get("matchLabels") or {}), POD_TEMPLATE_HASH: digest},
    }
    rs: meta.Object = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {
            "name": f"{meta.name(deployment)}-{digest}",
            "namespace": meta.namespace(deployment),
            "labels": pod_labels,
            "annotations": {k: v for k, v in meta.annotations(deployment).items() if k not in _NOT_COPIED},
            "ownerReferences": [new_ref("apps/v1", "Deployment", deployment)],
        },
        "spec": {
            "replicas": new_set_size(deployment, 0, sum(meta.spec_replicas(rs) for rs in old)),
            "minReadySeconds": spec.get("minReadySeconds", 0),
            "selector": selector,
            "template": {**template, "metadata": {**template_meta, "labels": pod_labels}},
        },
    }
    rs["metadata"]["annotations"] |= {REVISION: str(next_revision(old)), **size_annotations(deployment)}
    return rs


def size_annotations(deployment: meta.Object) -> dict[str, str]:
    """What every active ReplicaSet is told of the Deployment's size, for proportional scaling."""
    replicas = meta.spec_replicas(deployment)
    return {DESIRED_REPLICAS: str(replicas), MAX_REPLICAS: str(replicas + max_surge(deployment))}


def brought_up_to_date(deployment: meta.Object, rs: meta.Object, old: Sequence[meta.Object]) -> meta.Object:
    """The new ReplicaSet `rs` with the Deployment's annotations, the next revision number if it has not the highest
    (a roll-back), and minReadySeconds; `rs` itself if nothing changes."""
    notes = dict(meta.annotations(rs))
    notes |= {k: v for k, v in meta.annotations(deployment).items() if k not in _NOT_COPIED}
    number = next_revision(old)
    previous = notes.get(REVISION)
    if revision(rs) < number:
        notes[REVISION] = str(number)
        if previous is not None:
            notes[REVISION_HISTORY] = _appended(notes.get(REVISION_HISTORY, ""), previous)
    wait = deployment["spec"].get("minReadySeconds", 0)
    if notes != meta.annotations(rs):
        rs = meta.with_metadata(rs, annotations=notes)
    if (rs["spec"].get("minReadySeconds") or 0) != wait:
        rs = meta.with_spec(rs, minReadySeconds=wait)
    return rs


def _appended(history: str, number: str) -> str:
    """The comma-separated `history` with `number`, the oldest dropped where it would grow beyond bounds."""
    numbers = [*(n for n in history.split(",") if n), number]
    while len(",".join(numbers)) > _HISTORY_CHARACTERS:
        numbers.pop(0)
    return ",".join(numbers)


def superfluous(deployment: meta.Object, old: Sequence[meta.Object]) -> list[meta.Object]:
    """Old ReplicaSets beyond `revisionHistoryLimit` that may be deleted: empty and observed; lowest revisions first."""
    limit = deployment["spec"].get("revisionHistoryLimit")
    if limit is None:
        return []
    kept = sorted((rs for rs in old if not meta.is_deleting(rs)), key=lambda rs: (revision(rs), meta.created(rs)))
    return [
        rs for rs in kept[: max(len(kept) - limit, 0)]
        if not meta.spec_replicas(rs)
        and not meta.status(rs).get("replicas")
        and meta.generation(rs) <= (meta.status(rs).get("observedGeneration") or 0)
    ]  # fmt: skip
