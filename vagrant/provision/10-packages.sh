#!/usr/bin/env bash
# Debian packages. Arguments: more packages, e.g. what the tests need. Does nothing when all are installed.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

wanted=(python3 python3-venv iproute2 iptables busybox-static ca-certificates "$@")
missing=()
for package in "${wanted[@]}"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
[ ${#missing[@]} = 0 ] && exit 0

install() { apt-get install -y --no-install-recommends "${missing[@]}"; }
export DEBIAN_FRONTEND=noninteractive
if ! step "packages" install; then
    step "package lists" apt-get update || fail "apt-get update failed" "check this machine's network and /etc/apt/sources.list"
    step "packages" install || fail "cannot install ${missing[*]}" "the lines above are apt's own"
fi
