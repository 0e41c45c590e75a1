# What every provisioning step shares. Sourced, not run.
# A step changes something only where it has to, says what it did, and on failure says what to do.

project=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
venv=$project/.venv

say() { printf '\033[32m✓\033[0m %s\n' "$*"; }
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
