#!/usr/bin/env bash
# Kernel modules and sysctls, now and at every boot. What the agent and the proxy need in their network namespace they
# set themselves (net.ipv4.ip_forward and its like); here is what only the machine can have.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

# module: what for. A kernel may have it built in, and a machine in a container cannot load any.
modules=(
    "overlay: containers' file systems"
    "vxlan: pods of nodes on other links"
    "nf_conntrack: Services"
    "ip_vs: Services in IPVS mode"
    "ip_vs_rr: IPVS round robin"
    "ip_vs_wrr: IPVS weighted round robin"
    "ip_vs_sh: IPVS source hashing"
    "ip_vs_lc: IPVS least connections"
    "dummy: IPVS addresses"
    "ip_set: IPVS's sets"
)
present() { [ -d "/sys/module/$1" ] || grep -qw "$1" /proc/filesystems; }

known=() loaded=()
for entry in "${modules[@]}"; do
    module=${entry%%:*}
    # At boot, too, but only what this machine has: an unknown name would fail systemd-modules-load.
    modprobe -qn "$module" 2>/dev/null && known+=("$module")
    present "$module" && continue
    if modprobe -q "$module" 2>/dev/null; then
        loaded+=("$module")
    fi
done
[ ${#loaded[@]} = 0 ] || say "loaded ${loaded[*]}"
grep -qw overlay /proc/filesystems ||
    fail "the kernel has no overlay file system" "containers need it: modprobe overlay, or another kernel"
if printf '%s\n' "# Written by Wherry." "${known[@]}" | put /etc/modules-load.d/wherry.conf; then
    say "wrote /etc/modules-load.d/wherry.conf"
fi

# Every container's processes watch files and hold keys of their own, as the same users of the same kernel.
sysctls=(
    "fs.inotify.max_user_instances = 8192"
    "fs.inotify.max_user_watches = 524288"
    "kernel.keys.maxkeys = 20000"
    "kernel.keys.maxbytes = 2000000"
)
if printf '%s\n' "# Written by Wherry." "${sysctls[@]}" | put /etc/sysctl.d/90-wherry.conf; then
    say "wrote /etc/sysctl.d/90-wherry.conf"
    sysctl() { # without procps
        local path=/proc/sys/${1//.//}
        [ "$(cat "$path" 2>/dev/null)" = "$2" ] || echo "$2" 2>/dev/null >"$path"
    }
    for entry in "${sysctls[@]}"; do
        sysctl "${entry%% = *}" "${entry##* = }" 2>/dev/null || note "cannot set ${entry%% = *}: in a container it is the host's"
    done
fi
