#!/usr/bin/env bash
# This machine becomes a node: HOST:PORT --token T --discovery-token-ca-cert-hash sha256:… and further arguments of
# `wherry join`. It makes its keys itself and has them certified; nothing secret is copied but the token. Starts nothing.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

"$venv/bin/wherry" join "$@" ||
    fail "wherry join failed" "its own words are above; a new token: wherry token create --print-join-command"
