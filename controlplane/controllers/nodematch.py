"""Whether a pod's node selector, node affinity and tolerations let it onto a node. Pure; what DaemonSets need to know.

The scheduler decides where pods go and knows much more; this answers only "would it be allowed", from the pod's spec.
"""

from collections.abc import Iterable

from controlplane.controllers import meta
from controlplane.controllers.tainteviction import tolerates


def selected(spec: meta.Object, node: meta.Object) -> bool:
    """Whether nodeName, nodeSelector and the required node affinity of a pod's spec fit `node`."""
    if spec.get("nodeName") and spec["nodeName"] != meta.name(node):
        return False
    if not (spec.get("nodeSelector") or {}).items() <= meta.labels(node).items():
        return False
    affinity = (spec.get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    if required is None:
        return True
    return any(_term_fits(term, node) for term in required.get("nodeSelectorTerms") or ())


def _term_fits(term: meta.Object, node: meta.Object) -> bool:
    expressions, fields = term.get("matchExpressions") or [], term.get("matchFields") or []
    if not expressions and not fields:
        return False  # an empty term matches nothing
    by_field = {"metadata.name": meta.name(node)}
    return all(_fits(e, meta.labels(node)) for e in expressions) and all(_fits(e, by_field) for e in fields)


def _fits(expression: meta.Object, values: dict[str, str]) -> bool:
    value, operator = values.get(expression["key"]), expression["operator"]
    wanted = expression.get("values") or []
    if operator == "Exists":
        return value is not None
    if operator == "DoesNotExist":
        return value is None
    if operator == "NotIn":
        return value not in wanted
    if value is None:
        return False
    if operator == "In":
        return value in wanted
    try:
        left, right = int(value), int(wanted[0])
    except (ValueError, IndexError):
        return False
    return left > right if operator == "Gt" else left < right


def untolerated(tolerations: Iterable[meta.Object], node: meta.Object, effects: Iterable[str]) -> meta.Object | None:
    """The first taint of `node` with one of `effects` that no toleration covers."""
    tolerations = list(tolerations)
    for taint in node["spec"].get("taints") or ():
        if taint["effect"] in effects and not any(tolerates(t, taint) for t in tolerations):
            return taint  # type: ignore[no-any-return]
    return None
