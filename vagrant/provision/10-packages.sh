#!/usr/bin/env bash
# Debian packages. Arguments: more packages, e.g. what the tests need. Does nothing when all are installed.
# With WHERRY_OFFLINE they come from its debs/ alone. `--list` prints what a machine needs.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

wanted=(python3 python3-venv iproute2 iptables kmod busybox-static ca-certificates)
if [ "${1:-}" = --list ]; then
    printf '%s\n' "${wanted[@]}"
    exit
fi
wanted+=("$@")
missing=()
for package in "${wanted[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
[ ${#missing[@]} = 0 ] && exit 0

export DEBIAN_FRONTEND=noninteractive
options=()
if [ -n "$offline" ]; then
    [ -f "$offline/debs/Packages" ] ||
        fail "$offline has no debs/Packages" "make the folder with vagrant/provision/offline, on a machine of this release"
    # apt with lists of its own, so that the machine's are as they were. The index is not signed: who gave us the folder
    # gave us the provisioning scripts, too.
    scratch=$(mktemp -d)
    trap 'rm -rf "$scratch"' EXIT
    mkdir -p "$scratch/lists/partial"
    echo "deb [trusted=yes] file:$offline/debs ./" >"$scratch/sources.list"
    options=(-o "Dir::Etc::SourceList=$scratch/sources.list" -o Dir::Etc::SourceParts=/dev/null
        -o "Dir::State::Lists=$scratch/lists" -o APT::Sandbox::User=root -o Acquire::Languages=none)
    step "package lists" apt-get "${options[@]}" update || fail "apt-get cannot read $offline/debs" "the lines above are apt's own"
fi
install() { apt-get "${options[@]}" install -y --no-install-recommends "${missing[@]}"; }
# Where there are no lists yet (a minimal machine), apt's complaints would frighten; it says so without doing anything.
if [ -z "$offline" ] && ! apt-get -s install --no-install-recommends "${missing[@]}" >/dev/null 2>&1; then
    step "package lists" apt-get update || fail "apt-get update failed" "check this machine's network and /etc/apt/sources.list"
fi
if ! step "packages" install; then
    [ -z "$offline" ] ||
        fail "cannot install ${missing[*]} from $offline" "the folder is of another release, or older than this list"
    note "once more, with fresh package lists"
    step "package lists" apt-get update || fail "apt-get update failed" "check this machine's network and /etc/apt/sources.list"
    step "packages" install || fail "cannot install ${missing[*]}" "the lines above are apt's own"
fi
say "installed ${missing[*]}"
