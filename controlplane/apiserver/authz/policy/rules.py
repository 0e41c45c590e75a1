"""The small notation in which the bootstrap policy is written: functions that make RBAC rules."""

from typing import Any

Object = dict[str, Any]

READ = ["get", "list", "watch"]
WRITE = ["create", "delete", "deletecollection", "patch", "update"]


def rule(verbs: list[str], groups: str, resources: str, names: list[str] | None = None) -> Object:
    """A rule from space-separated groups ("core" is the empty one) and resources."""
    made: Object = {
        "verbs": verbs,
        "apiGroups": ["" if g == "core" else g for g in groups.split()],
        "resources": resources.split(),
    }
    if names:
        made["resourceNames"] = names
    return made


def can(verbs: str, groups: str, resources: str, *names: str) -> Object:
    """As `rule`, with the verbs space-separated too."""
    return rule(verbs.split(), groups, resources, list(names))


def paths(*urls: str) -> Object:
    """A rule to get paths that are no resources."""
    return {"verbs": ["get"], "nonResourceURLs": list(urls)}


EVENTS = rule(["create", "patch", "update"], "core events.k8s.io", "events")
