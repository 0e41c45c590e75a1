"""cgroup v1 `pids`: how many tasks."""

from nodeagent.linux.cgroups.limits import Limits, Setting


def settings(limits: Limits) -> list[Setting]:
    return [("pids.max", str(limits.pids_limit) if limits.pids_limit > 0 else "max")] if limits.pids_limit else []
