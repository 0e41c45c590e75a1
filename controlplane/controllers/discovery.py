"""Which resources the server serves now: for controllers that must look at all of them (garbage, namespaces).

Uses the aggregated form (one request for all groups) and takes each group's preferred version of a resource. It does
not poll: built-in resources do not change while a server runs, and CustomResourceDefinitions announce themselves.
"""

from dataclasses import dataclass
from typing import Any

from controlplane.api.status import StatusError
from controlplane.client.resources import ApiResource
from controlplane.client.rest import Client


@dataclass(frozen=True, slots=True)
class Served:
    """A resource and what can be done with it."""

    resource: ApiResource
    verbs: frozenset[str]

    def can(self, *verbs: str) -> bool:
        return self.verbs.issuperset(verbs)


async def served(client: Client) -> list[Served]:
    """Every resource, once, in its preferred version. Raises StatusError and Unreachable.

    Groups that could not be discovered (a broken aggregated API) raise too: to take them for absent would delete what
    their objects own."""
    core = await client.json("GET", "/api/v1")
    found = _resources("", "v1", core)
    groups = await client.json("GET", "/apis")
    for group in groups.get("groups") or ():
        seen: set[str] = set()
        preferred = (group.get("preferredVersion") or {}).get("version")
        versions = sorted((v["version"] for v in group["versions"]), key=lambda v: v != preferred)
        for version in versions:
            try:
                listed = await client.json("GET", f"/apis/{group['name']}/{version}")
            except StatusError as error:
                if error.code == 404:
                    continue  # gone since the groups were listed
                raise
            for entry in _resources(group["name"], version, listed):
                if entry.resource.plural not in seen:
                    seen.add(entry.resource.plural)
                    found.append(entry)
    return found


def _resources(group: str, version: str, listed: dict[str, Any]) -> list[Served]:
    result = []
    for entry in listed.get("resources") or ():
        if "/" not in entry["name"]:  # not a subresource
            resource = ApiResource(group, version, entry["name"], entry["kind"], bool(entry["namespaced"]))
            result.append(Served(resource, frozenset(entry.get("verbs") or ())))
    return result
