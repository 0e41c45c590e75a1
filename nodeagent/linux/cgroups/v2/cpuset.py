"""cgroup v2 `cpuset`: which CPUs; an empty directory means its parent's."""

from nodeagent.linux.cgroups.limits import Limits, Setting


def settings(limits: Limits) -> list[Setting]:
    return [("cpuset.cpus", limits.cpuset_cpus)] if limits.cpuset_cpus else []
