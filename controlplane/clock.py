"""Wall time and chance: the only two places where the project learns what it cannot compute.

Waiting goes through the event loop's clock (`asyncio.sleep`, `loop.time`), which a test can replace by a virtual one.
What is left is here: `wall_time()` for timestamps that people and other machines read, and `chance` for every random
choice. `install()` replaces either, so that a whole cluster can run in one process on virtual time with a seeded
generator. It is not a scheduler and does not wait.
"""

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime

_wall: Callable[[], float] = time.time

chance: random.Random = random.Random()
"""Every random choice (names, UIDs, jitter, ties) draws from this object. Never for keys: those are the pki's."""


def wall_time() -> float:
    """Seconds since the Unix epoch."""
    return _wall()


def install(wall: Callable[[], float] | None = None, seed: int | None = None) -> None:
    """Replace the wall clock and/or seed `chance`. For tests, simulations, and after a fork (a child must reseed)."""
    global _wall
    if wall is not None:
        _wall = wall
    chance.seed(seed)


def rfc3339(seconds: float | None = None) -> str:
    """`seconds` (default: now) as Kubernetes' `metav1.Time`: UTC, whole seconds, e.g. `2026-01-31T12:00:00Z`."""
    t = time.gmtime(wall_time() if seconds is None else seconds)
    return f"{t[0]:04d}-{t[1]:02d}-{t[2]:02d}T{t[3]:02d}:{t[4]:02d}:{t[5]:02d}Z"


def rfc3339_micro(seconds: float | None = None) -> str:
    """`seconds` (default: now) as Kubernetes' `metav1.MicroTime`: UTC with six decimals."""
    s = wall_time() if seconds is None else seconds
    micro = int(s * 1_000_000)
    return f"{rfc3339(micro // 1_000_000)[:-1]}.{micro % 1_000_000:06d}Z"


def parse_rfc3339(text: str) -> float:
    """Seconds since the epoch of a `Time` or `MicroTime`. Raises ValueError if `text` is neither."""
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def new_uid() -> str:
    """A random version-4 UUID as text, drawn from `chance`."""
    b = chance.getrandbits(128)
    b = (b & ~(0xF000 << 64) & ~(0xC000 << 48)) | (0x4000 << 64) | (0x8000 << 48)
    h = f"{b:032x}"
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"


def name_suffix(length: int = 5) -> str:
    """A random name suffix from Kubernetes' alphabet, without vowels and look-alikes (apimachinery util/rand)."""
    return "".join(chance.choices(_SUFFIX, k=length))
