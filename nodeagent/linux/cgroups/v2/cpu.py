"""cgroup v2 `cpu`: weight and bandwidth."""

from nodeagent.linux.cgroups.limits import Limits, Setting


def weight(shares: int) -> int:
    """CFS shares (2…262144) as a weight (1…10000), by the formula of the kubelet and the OCI runtimes."""
    return 1 + (max(2, min(shares, 262144)) - 2) * 9999 // 262142


def settings(limits: Limits) -> list[Setting]:
    found: list[Setting] = []
    if limits.cpu_shares:
        found.append(("cpu.weight", str(weight(limits.cpu_shares))))
    if limits.cpu_quota_us:
        quota = str(limits.cpu_quota_us) if limits.cpu_quota_us > 0 else "max"
        found.append(("cpu.max", f"{quota} {limits.cpu_period_us}"))
    return found
