"""cgroup v1 `hugetlb`: how much of huge pages, by size as the kernel names it (2MB, 1GB)."""

from nodeagent.linux.cgroups.limits import Limits, Setting


def settings(limits: Limits) -> list[Setting]:
    return [(f"hugetlb.{size}.limit_in_bytes", str(value)) for size, value in limits.hugepages]
