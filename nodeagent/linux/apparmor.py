"""AppArmor, where the kernel has it: whether it is enabled, and which profiles are loaded.

A process asks for a profile by writing `exec <profile>` to its own attribute file before execve; that step is
runtime/plan.py's. Loading profiles is the administrator's work (`apparmor_parser`), as with Kubernetes.
"""

from __future__ import annotations

EXEC_ATTRIBUTES = ("/proc/self/attr/apparmor/exec", "/proc/self/attr/exec")  # since Linux 5.8, and before
DEFAULT_PROFILE = "wherry-default"
"""What appArmorProfile RuntimeDefault means, if the administrator has loaded a profile of this name."""

_ENABLED = "/sys/module/apparmor/parameters/enabled"
_PROFILES = "/sys/kernel/security/apparmor/profiles"


def enabled() -> bool:
    try:
        with open(_ENABLED, encoding="ascii") as file:
            return file.read(1) == "Y"
    except OSError:
        return False


def profiles() -> set[str]:
    """The names of the loaded profiles; empty where they cannot be read."""
    try:
        with open(_PROFILES, encoding="utf-8", errors="replace") as file:
            return {line.rpartition(" (")[0] for line in file if " (" in line}
    except OSError:
        return set()
