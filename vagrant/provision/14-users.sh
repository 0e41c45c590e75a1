#!/usr/bin/env bash
# A user for each daemon of the control plane, so that none can read another's keys (pki.owners says who owns what).
set -euo pipefail
. "$(dirname "$0")/lib.sh"

for user in wherry-apiserver wherry-scheduler wherry-controllers; do
    getent passwd "$user" >/dev/null && continue
    useradd --system --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin "$user" ||
        fail "cannot make user $user" "the line above is useradd's own"
    say "made user $user"
done
