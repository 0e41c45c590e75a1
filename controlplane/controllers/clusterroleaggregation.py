"""ClusterRole aggregation: a ClusterRole with an `aggregationRule` has the rules of all that its selectors match.

This is how `admin`, `edit` and `view` come to know of custom resources. `aggregated()` is pure: rules of the matching
roles in the order of their names, each once.
"""

from collections.abc import Iterable

from controlplane.api import selectors
from controlplane.client.resources import CLUSTERROLES
from controlplane.controllers import meta
from controlplane.controllers.reconcile import Context, Controller


def aggregated(role: meta.Object, others: Iterable[meta.Object]) -> list[meta.Object]:
    """The rules that `role` shall have, given all ClusterRoles."""
    wanted = [selectors.from_selector(s) for s in role["aggregationRule"].get("clusterRoleSelectors") or ()]
    rules: list[meta.Object] = []
    for other in sorted(others, key=meta.name):
        if meta.name(other) == meta.name(role) or not any(s.matches(meta.labels(other)) for s in wanted):
            continue
        for rule in other.get("rules") or ():
            if rule not in rules:
                rules.append(rule)
    return rules


class ClusterRoleAggregation(Controller):
    """See the module."""

    name = "clusterrole-aggregation-controller"
    workers = 1

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.roles = self.view(CLUSTERROLES)
        self.roles.add_handler(added=self._changed, updated=lambda old, new: self._changed(new), deleted=self._changed)

    def _changed(self, role: meta.Object) -> None:
        for each in self.roles.items():
            if each.get("aggregationRule"):
                self.enqueue(each)

    async def reconcile(self, key: str) -> float | None:
        role = self.roles.get(key)
        if role is None or not role.get("aggregationRule"):
            return None
        rules = aggregated(role, self.roles.items())
        if rules != (role.get("rules") or []):
            await self.writer.update(CLUSTERROLES, {**role, "rules": rules})
        return None
