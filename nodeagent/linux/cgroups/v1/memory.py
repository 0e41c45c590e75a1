"""cgroup v1 `memory`: the limit, and who was killed for it."""

from nodeagent.linux.cgroups.limits import Limits, Setting

OOM_FILE = "memory.oom_control"


def settings(limits: Limits) -> list[Setting]:
    return [("memory.limit_in_bytes", str(limits.memory_limit_bytes))] if limits.memory_limit_bytes else []
