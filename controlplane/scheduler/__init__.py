"""The scheduler: gives each pod that has no node the node that suits it best. See README.md for the map.

`Config` and `serve` make the daemon; `python -m controlplane.scheduler` runs it.
"""

from controlplane.scheduler.config import Config, serve

__all__ = ["Config", "serve"]
