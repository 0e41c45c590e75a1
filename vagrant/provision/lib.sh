# What every provisioning step shares. Sourced, not run.
# A step changes something only where it has to, says what it did, and on failure says what to do.
#
# Settings of the steps, from the environment (`machine` sets them; without them it is the lab on this machine):
#   WHERRY_VENV      the virtual environment           WHERRY_OFFLINE   a folder made by `offline`: no network is used
#   WHERRY_SOURCE    a project folder, a wheel, or pypi; without it the project runs from its own folder

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
venv=${WHERRY_VENV:-$project/.venv}
offline=${WHERRY_OFFLINE:-}

say() { printf '\033[32m✓\033[0m %s\n' "$*"; }
note() { printf '\033[33m!\033[0m %s\n' "$*" >&2; }
fail() { # what, way out
    printf '\033[31m✗\033[0m %s\n  %s\n' "$1" "$2" >&2
    exit 1
}

# step NAME COMMAND...: run a command quietly; show how long it took, or its whole output if it failed.
step() {
    local name=$1 log start
    shift
    log=$(mktemp)
    start=$(date +%s%N)
    if "$@" >"$log" 2>&1; then
        printf '\033[32m✓\033[0m %-24s%6.2f s\n' "$name" "$((($(date +%s%N) - start) / 10000000))e-2"
        rm -f "$log"
    else
        cat "$log" >&2
        rm -f "$log"
        return 1
    fi
}

need_root() {
    [ "$(id -u)" = 0 ] || fail "not root" "packages, namespaces and cgroups need root: sudo $0 $*"
}

# put FILE: write standard input to FILE unless it says that already; true if it changed.
put() {
    local text
    text=$(cat)
    [ "$text" != "$(cat "$1" 2>/dev/null)" ] || return 1
    mkdir -p "$(dirname "$1")"
    printf '%s\n' "$text" >"$1.new"
    mv "$1.new" "$1"
}
