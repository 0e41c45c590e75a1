"""The functions that Kubernetes adds to CEL. (thin for now)"""

from typing import Any


def extension(cel: Any) -> Any:
    """The CelExtension with all of them; `cel` is the module of the library."""
    return cel.CelExtension("kubernetes", [])
