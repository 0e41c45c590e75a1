"""What IPVS mode needs of the kernel: found out at start, with what to do, and set as it needs it.

There is no silent fallback to iptables mode: somebody who asked for IPVS would find out much later, from slow packets.
"""

from __future__ import annotations

import contextlib
import os
import subprocess

from netproxy import sysctl
from netproxy.backend import BackendError
from netproxy.ipvs.kernel import LinuxKernel, ipvs_family
from netproxy.ipvs.sets import SETS
from netproxy.ipvs.state import Key, Options

_PROBE = Key("127.0.0.1", 1, "TCP")
_OTHERWISE = "or choose --proxy-mode iptables"


def check(scheduler: str) -> None:
    """Raises BackendError naming the kernel module that is missing and what helps."""
    try:
        ipvs_family()
    except BackendError as error:
        said = _modprobe("ip_vs")
        try:
            ipvs_family()
        except BackendError:
            raise _missing("ip_vs", said or str(error), "CONFIG_IP_VS") from None
    kernel = LinuxKernel()
    try:
        try:
            kernel.open()
        except BackendError as error:
            raise _missing("dummy", _modprobe("dummy") or str(error), "CONFIG_DUMMY") from None
        with contextlib.suppress(BackendError):  # left by one that was killed here
            kernel.remove_server(_PROBE)
            kernel.flush()
        try:
            kernel.add_server(_PROBE, Options(scheduler))
            kernel.flush()
        except BackendError as error:
            option = f"CONFIG_IP_VS_{scheduler.upper()}"
            raise _missing(f"ip_vs_{scheduler}", str(error), option, "another --ipvs-scheduler") from None
        kernel.remove_server(_PROBE)
        kernel.flush()
        for kind in dict.fromkeys(SETS.values()):
            _check_set(kind)
    finally:
        kernel.close()


def _check_set(kind: str) -> None:
    from pyroute2 import IPSet
    from pyroute2.netlink.exceptions import NetlinkError

    module = "ip_set_" + kind.replace(":", "_").replace(",", "")
    try:
        with IPSet() as sets:
            sets.get_supported_revisions(kind)
    except (NetlinkError, OSError) as error:
        raise _missing(module, str(error), "CONFIG_" + module.upper()) from None


def _missing(module: str, said: str, option: str, instead: str = "") -> BackendError:
    release = os.uname().release
    return BackendError(
        f"IPVS mode needs the kernel module {module}, which kernel {release} does not give us ({said}): "
        f"`modprobe {module}`; if there is none, take a kernel built with {option} (Debian: linux-image-amd64, Ubuntu: "
        f"linux-modules-extra-{release}), {instead + ' ' if instead else ''}{_OTHERWISE}"
    )


def _modprobe(module: str) -> str:
    """What modprobe said against it; empty if nothing."""
    try:
        done = subprocess.run(["modprobe", module], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"modprobe: {error}"
    return done.stderr.strip()


def tune(*, strict_arp: bool) -> None:
    """The kernel's settings for IPVS in this network namespace. Raises BackendError."""
    # Masquerading and the forgetting of UDP flows (conntrack.py) need to know IPVS's connections.
    sysctl.write("net/ipv4/vs/conntrack", "1")
    # A connection to a destination that is gone ends at once, not when it is idle.
    sysctl.write("net/ipv4/vs/expire_nodest_conn", "1")
    # A client's affinity to a destination that is leaving ends when it next connects.
    sysctl.write("net/ipv4/vs/expire_quiescent_template", "1")
    # Before 5.9 a reused source port cost a second's delay unless this was off (and leaving pods got new connections).
    release = tuple(int(n) for n in os.uname().release.split("-")[0].split(".")[:2])
    sysctl.write("net/ipv4/vs/conn_reuse_mode", "1" if release >= (5, 9) else "0")
    sysctl.write("net/ipv4/ip_forward", "1")
    if strict_arp:
        # Else this machine answers at its other interfaces for the addresses on kube-ipvs0.
        sysctl.write("net/ipv4/conf/all/arp_ignore", "1")
        sysctl.write("net/ipv4/conf/all/arp_announce", "2")
