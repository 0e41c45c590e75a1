"""cgroup v1 `devices`: which device nodes may be opened. The rules are the ones containerd gives every container:
any node may be made (it is of no use), the harmless ones opened, and terminals."""

from collections.abc import Iterable

from nodeagent.linux.cgroups.limits import Setting

DEFAULT_RULES = (
    "c *:* m", "b *:* m",
    "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm",  # null zero full random urandom
    "c 5:0 rwm", "c 5:1 rwm", "c 5:2 rwm", "c 136:* rwm",  # tty console ptmx pts
)  # fmt: skip


def settings(rules: Iterable[str] = DEFAULT_RULES) -> list[Setting]:
    """Deny everything, then allow `rules` ("<c|b> <major>:<minor> <rwm>")."""
    return [("devices.deny", "a"), *[("devices.allow", rule) for rule in rules]]
