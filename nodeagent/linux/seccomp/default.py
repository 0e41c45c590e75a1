"""The RuntimeDefault profile: which system calls a container may make.

Equal in effect to the default of containerd and Docker, but said from the other side: what is *refused*, and which
capability lifts that. Everything else that the kernel had when this was written is allowed; what is newer does not
exist for a container (ENOSYS, so that libraries fall back). The reason is beside every group.
"""

from __future__ import annotations

from nodeagent.linux import capabilities
from nodeagent.linux.seccomp.bpf import ALLOW, Condition, Rules, errno_action

NEEDS: dict[str, tuple[str, ...]] = {
    "bpf": ("SYS_ADMIN", "BPF"),
    "perf_event_open": ("SYS_ADMIN", "PERFMON"),
    "syslog": ("SYS_ADMIN", "SYSLOG"),
    **dict.fromkeys(
        (
            # mounts and namespaces: the ways to another view of the system
            "mount", "umount", "umount2", "mount_setattr", "move_mount", "open_tree", "fsopen", "fsconfig", "fsmount",
            "fspick", "statmount", "listmount", "setns", "unshare", "sethostname", "setdomainname",
            # the whole system's: quotas, watching every file, the security modules
            "quotactl", "quotactl_fd", "fanotify_init", "lookup_dcookie", "lsm_get_self_attr", "lsm_set_self_attr",
            "lsm_list_modules",
        ),
        ("SYS_ADMIN",),
    ),
    "open_by_handle_at": ("DAC_READ_SEARCH",),  # opens files by inode number, from outside the root, too
    "reboot": ("SYS_BOOT",),
    "chroot": ("SYS_CHROOT",),
    **dict.fromkeys(("init_module", "finit_module", "delete_module"), ("SYS_MODULE",)),
    "acct": ("SYS_PACCT",),
    **dict.fromkeys(("kcmp", "pidfd_getfd", "process_madvise"), ("SYS_PTRACE",)),
    **dict.fromkeys(("iopl", "ioperm"), ("SYS_RAWIO",)),
    **dict.fromkeys(("settimeofday", "stime", "clock_settime", "clock_settime64"), ("SYS_TIME",)),
    "vhangup": ("SYS_TTY_CONFIG",),
    **dict.fromkeys(("get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"), ("SYS_NICE",)),
}  # fmt: skip
"""Refused without one of these capabilities."""

NEVER = frozenset((
    "add_key", "keyctl", "request_key",  # kernel keyrings are not namespaced
    "io_uring_setup", "io_uring_enter", "io_uring_register",  # too many ways around it, too many holes in it
    "userfaultfd",  # stops the kernel in the middle of a copy: a gift to exploits
    "kexec_load", "kexec_file_load", "swapon", "swapoff", "pivot_root", "migrate_pages", "move_pages", "nfsservctl",
    "_sysctl", "create_module", "query_module", "get_kernel_syms", "uselib", "ustat", "sysfs", "afs_syscall",
    "getpmsg", "putpmsg", "security", "tuxcall", "vserver", "vm86", "vm86old",
    # 32-bit calls of the last century
    "oldstat", "oldfstat", "oldlstat", "olduname", "oldolduname", "break", "stty", "gtty", "ftime", "prof", "profil",
    "lock", "mpx", "ulimit", "idle", "bdflush", "sgetmask", "ssetmask", "signal", "sigaction", "sigsuspend",
    "sigpending", "readdir", "nice",
))  # fmt: skip
"""Refused whatever the capabilities."""

_NAMESPACES = 0x7E020000  # CLONE_NEWNS, CGROUP, UTS, IPC, USER, PID, NET
_AF_VSOCK = 40
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)  # Linux, 32-bit Linux, each with old uname; asking


def rules(numbers: dict[str, int], bounding: int) -> Rules:
    """The profile for one architecture's `numbers` and a container whose bounding set is `bounding`."""
    has = set(capabilities.names(bounding))
    found: Rules = {}
    for name, number in numbers.items():
        allowed = name not in NEVER and (name not in NEEDS or bool(has & set(NEEDS[name])))
        if allowed:
            found[number] = [((), ALLOW)]
    found[numbers["personality"]] = [((Condition(0, "EQ", value),), ALLOW) for value in _PERSONALITIES]
    found[numbers["socket"]] = [((Condition(0, "NE", _AF_VSOCK),), ALLOW)]  # vsock talks to the hypervisor's host
    if "SYS_ADMIN" not in has:
        found[numbers["clone"]] = [((Condition(0, "MASKED_EQ", _NAMESPACES, 0),), ALLOW)]
        found[numbers["clone3"]] = [((), errno_action(38))]  # its flags are in memory, out of a filter's sight
    return found
