"""cgroup v2 `memory`: the limit, and who was killed for it. As the kubelet does it, one process's excess kills the
whole container (memory.oom.group), so that no half of one goes on."""

from nodeagent.linux.cgroups.limits import Limits, Setting

OOM_FILE = "memory.events"


def settings(limits: Limits) -> list[Setting]:
    if not limits.memory_limit_bytes:
        return []
    size = str(limits.memory_limit_bytes) if limits.memory_limit_bytes > 0 else "max"
    return [("memory.max", size), ("memory.oom.group", "1")]
