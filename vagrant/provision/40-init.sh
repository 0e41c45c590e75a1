#!/usr/bin/env bash
# The cluster's identity and settings on its control-plane machine. Arguments: those of `wherry init`. Starts nothing.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

"$venv/bin/wherry" init "$@" || fail "wherry init failed" "its own words are above; what is there already is kept"
