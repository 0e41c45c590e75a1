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

# What is started as root by `su` has a user's PATH, in which neither dpkg nor we find our tools.
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

# at_work NAME: until it is killed, tell a terminal each second how long NAME takes, a log after 5 s and then each 30 s.
# It ends with this script in any case, and what it waits with holds no pipe open.
at_work() {
    local second=0
    while sleep 1 >/dev/null 2>&1 && kill -0 $$ 2>/dev/null; do
        second=$((second + 1))
        if [ -t 1 ]; then
            printf '\r… %-24s%6d s ' "$1" "$second"
        elif [ $((second % 30)) = 5 ]; then
            printf '… %-24s at work since %d s\n' "$1" "$second"
        fi
    done
}

# step NAME COMMAND...: run a command quietly; show how long it took, or its whole output if it failed.
# Bash does not end a function at its first failure here (`set -e` is off in a condition): use || return.
step() {
    local name=$1 log start teller failed=
    shift
    log=$(mktemp)
    start=$(date +%s%N)
    at_work "$name" &
    teller=$!
    "$@" >"$log" 2>&1 || failed=yes
    kill "$teller" 2>/dev/null || true
    wait "$teller" 2>/dev/null || true
    [ ! -t 1 ] || printf '\r\033[K'
    if [ -z "$failed" ]; then
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
