"""APIServices that we serve ourselves are available from the beginning."""

from typing import Any

from controlplane import clock
from controlplane.apiserver.registry.strategy import Strategy

Object = dict[str, Any]


class APIServiceStrategy(Strategy):
    async def prepare_create(self, obj: Object) -> None:
        obj["status"] = {}
        if not (obj.get("spec") or {}).get("service"):
            message = "Local APIServices are always available"
            obj["status"] = {"conditions": [
                {"lastTransitionTime": clock.rfc3339(), "message": message, "reason": "Local", "status": "True",
                 "type": "Available"}
            ]}  # fmt: skip
