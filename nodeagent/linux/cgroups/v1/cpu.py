"""cgroup v1 `cpu`: shares and CFS bandwidth."""

from nodeagent.linux.cgroups.limits import Limits, Setting


def settings(limits: Limits) -> list[Setting]:
    found: list[Setting] = []
    if limits.cpu_shares:
        found.append(("cpu.shares", str(max(2, min(limits.cpu_shares, 262144)))))
    if limits.cpu_quota_us:
        found.append(("cpu.cfs_period_us", str(limits.cpu_period_us)))
        found.append(("cpu.cfs_quota_us", str(limits.cpu_quota_us)))
    return found
