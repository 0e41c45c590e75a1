"""Node objects, read as peers: who they are, where they are, which pod CIDRs they hold. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from nodeagent.network.routes import Peer


class NodeInformer(Protocol):
    """What is used of `controlplane.client.informer.Informer` over Nodes."""

    def items(self) -> Iterable[dict[str, Any]]: ...

    def add_handler(
        self,
        *,
        added: Callable[[dict[str, Any]], None],
        updated: Callable[[dict[str, Any], dict[str, Any]], None],
        deleted: Callable[[dict[str, Any]], None],
    ) -> Any: ...


def peer(node: dict[str, Any]) -> Peer | None:
    """The Peer that a Node describes; None until it has an InternalIP. Its pod CIDRs may come later than that."""
    addresses = node.get("status", {}).get("addresses") or ()
    internal = next((a["address"] for a in addresses if a.get("type") == "InternalIP"), None)
    if internal is None:
        return None
    spec = node.get("spec", {})
    cidrs = spec.get("podCIDRs") or ([spec["podCIDR"]] if spec.get("podCIDR") else [])
    return Peer(node["metadata"]["name"], internal, tuple(cidrs))


def relevant(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether the change of a Node concerns routes. Heartbeats do not: they come every few seconds from every node."""
    return peer(old) != peer(new)
