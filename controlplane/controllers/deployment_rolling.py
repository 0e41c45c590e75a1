"""How large each ReplicaSet of a Deployment shall be: the arithmetic of rolling updates and scaling. Pure.

All functions take the Deployment, the new ReplicaSet (or None) and the old ones, and return `Sizes`: the ReplicaSets
to change and their wanted `spec.replicas`. The rules are Kubernetes' (pkg/controller/deployment/rolling.go, sync.go):
never more than replicas + maxSurge pods, never fewer than replicas - maxUnavailable available ones. One step a call:
the caller looks again when the pods have followed.
"""

import math
from collections.abc import Sequence

from controlplane.controllers import meta

DESIRED_REPLICAS = "deployment.kubernetes.io/desired-replicas"
MAX_REPLICAS = "deployment.kubernetes.io/max-replicas"

Sizes = list[tuple[meta.Object, int]]
"""(ReplicaSet, wanted spec.replicas), in the order in which they shall be written."""


def is_rolling(deployment: meta.Object) -> bool:
    return bool((deployment["spec"].get("strategy") or {}).get("type", "RollingUpdate") == "RollingUpdate")


def _fenceposts(deployment: meta.Object) -> tuple[int, int]:
    """(maxSurge, maxUnavailable) as numbers: surge rounds up, unavailable down, and they are never both 0."""
    rolling = (deployment["spec"].get("strategy") or {}).get("rollingUpdate") or {}
    replicas = meta.spec_replicas(deployment)
    surge = meta.scaled(rolling.get("maxSurge", "25%"), replicas, round_up=True)
    unavailable = meta.scaled(rolling.get("maxUnavailable", "25%"), replicas, round_up=False)
    if surge == 0 and unavailable == 0:
        unavailable = 1  # both percentages rounded to 0: without this no update could ever move
    return surge, unavailable


def max_surge(deployment: meta.Object) -> int:
    return _fenceposts(deployment)[0] if is_rolling(deployment) else 0


def max_unavailable(deployment: meta.Object) -> int:
    replicas = meta.spec_replicas(deployment)
    if not is_rolling(deployment) or replicas == 0:
        return 0
    return min(_fenceposts(deployment)[1], replicas)


def available(rs: meta.Object) -> int:
    return meta.status(rs).get("availableReplicas") or 0


def _wanted(sets: Sequence[meta.Object]) -> int:
    return sum(meta.spec_replicas(rs) for rs in sets)


def active(sets: Sequence[meta.Object]) -> list[meta.Object]:
    """Those with `spec.replicas` above 0."""
    return [rs for rs in sets if meta.spec_replicas(rs) > 0]


def _by_age(sets: Sequence[meta.Object]) -> list[meta.Object]:
    return sorted(sets, key=lambda rs: (meta.created(rs), meta.name(rs)))


def new_set_size(deployment: meta.Object, current: int, total: int) -> int:
    """The next size of the new ReplicaSet, which is `current`, when all sets together are `total`."""
    replicas = meta.spec_replicas(deployment)
    if not is_rolling(deployment):
        return replicas
    room = replicas + max_surge(deployment) - total
    return current if room <= 0 else current + max(min(room, replicas - current), 0)


def grow_new(deployment: meta.Object, new: meta.Object, old: Sequence[meta.Object]) -> Sizes:
    """First half of a rolling update: give the new ReplicaSet what surge allows (or take what is too much)."""
    replicas, current = meta.spec_replicas(deployment), meta.spec_replicas(new)
    if current == replicas:
        return []
    if current > replicas:
        return [(new, replicas)]
    size = new_set_size(deployment, current, current + _wanted(old))
    return [(new, size)] if size != current else []


def shrink_old(deployment: meta.Object, new: meta.Object, old: Sequence[meta.Object]) -> Sizes:
    """Second half: take from the old ReplicaSets what availability allows; pods that are not available go first,
    because they cost nothing."""
    old = _by_age(active(old))
    minimum = meta.spec_replicas(deployment) - max_unavailable(deployment)
    new_unavailable = meta.spec_replicas(new) - available(new)
    budget = _wanted(old) + meta.spec_replicas(new) - minimum - new_unavailable
    if not old or budget <= 0:
        return []
    sizes = {meta.name(rs): meta.spec_replicas(rs) for rs in old}
    for rs in old:
        unhealthy = max(sizes[meta.name(rs)] - available(rs), 0)
        taken = min(budget, unhealthy)
        sizes[meta.name(rs)] -= taken
        budget -= taken
    spare = available(new) + sum(available(rs) for rs in old) - minimum
    for rs in old:
        taken = min(sizes[meta.name(rs)], max(spare, 0))
        sizes[meta.name(rs)] -= taken
        spare -= taken
    return [(rs, sizes[meta.name(rs)]) for rs in old if sizes[meta.name(rs)] != meta.spec_replicas(rs)]


def recreate(deployment: meta.Object, new: meta.Object | None, old: Sequence[meta.Object], old_pods: bool) -> Sizes:
    """Strategy Recreate: all old ReplicaSets to 0; once their pods have gone (`old_pods` false), the new one to full
    size at once."""
    if active(old):
        return [(rs, 0) for rs in active(old)]
    replicas = meta.spec_replicas(deployment)
    if old_pods or new is None or meta.spec_replicas(new) == replicas:
        return []
    return [(new, replicas)]


def is_scaling(deployment: meta.Object, sets: Sequence[meta.Object]) -> bool:
    """Whether the Deployment was scaled since its ReplicaSets were last written: their annotation tells."""
    return any(
        (noted := _number(meta.annotations(rs).get(DESIRED_REPLICAS))) is not None
        and noted != meta.spec_replicas(deployment)
        for rs in active(sets)
    )


def rescale(deployment: meta.Object, new: meta.Object | None, old: Sequence[meta.Object]) -> Sizes:
    """Follow a change of `spec.replicas` without advancing the roll-out: proportionally, when several sets are active.
    Sets whose size stays are returned as well, since their annotations change (the caller drops true no-ops)."""
    replicas = meta.spec_replicas(deployment)
    sets = active([*old, *([new] if new else [])])
    if len(sets) <= 1:
        # the one active set, or the latest, takes everything
        only = sets[0] if sets else new or max(old, key=meta.created, default=None)
        return [(only, replicas)] if only is not None else []
    if new is not None and _is_saturated(deployment, new):
        return [(rs, 0) for rs in active(old)]
    if not is_rolling(deployment):
        return []
    to_add = (replicas + max_surge(deployment) if replicas > 0 else 0) - _wanted(sets)
    # what does not divide goes to the largest; of equals, growth goes to the newest and shrinking to the oldest
    newest_first = 1 if to_add <= 0 else -1
    sets.sort(key=lambda rs: (-meta.spec_replicas(rs), newest_first * meta.created(rs)))
    added, sizes = 0, []
    for rs in sets:
        share = _proportion(deployment, rs, to_add, added)
        added += share
        sizes.append(meta.spec_replicas(rs) + share)
    sizes[0] = max(sizes[0] + to_add - added, 0)
    return list(zip(sets, sizes, strict=True))


def _is_saturated(deployment: meta.Object, rs: meta.Object) -> bool:
    replicas = meta.spec_replicas(deployment)
    return (
        meta.spec_replicas(rs) == replicas
        and _number(meta.annotations(rs).get(DESIRED_REPLICAS)) == replicas
        and available(rs) == replicas
    )


def _proportion(deployment: meta.Object, rs: meta.Object, to_add: int, added: int) -> int:
    """The share of `rs` in `to_add` pods (negative: to remove), of which `added` are given out already."""
    size = meta.spec_replicas(rs)
    if size == 0 or to_add in (0, added):
        return 0
    fraction = _fraction(deployment, rs, size)
    rest = to_add - added
    return min(fraction, rest) if to_add > 0 else max(fraction, rest)


def _fraction(deployment: meta.Object, rs: meta.Object, size: int) -> int:
    replicas = meta.spec_replicas(deployment)
    if replicas == 0:
        return -size
    before = _number(meta.annotations(rs).get(MAX_REPLICAS)) or meta.status(deployment).get("replicas") or 0
    if before == 0:
        return 0
    new_size = size * (replicas + max_surge(deployment)) / before
    return math.floor(new_size + 0.5) - size


def _number(text: str | None) -> int | None:
    try:
        return int(text) if text is not None else None
    except ValueError:
        return None
