#!/usr/bin/env bash
# The project in a virtual environment of its own, with the system's Python, and `wherry` on the PATH.
# Argument: the extras to install with it (lab, dev). Done again only when what is to be installed has changed.
#
# Without WHERRY_SOURCE the environment runs the project's folder itself (lab, tests); with it, a copy of what that is.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

extras=${1:-}
source=${WHERRY_SOURCE:-}
python=/usr/bin/python3
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "Python $("$python" -V) is too old" "Wherry needs 3.11: use Debian 12 or newer, or Ubuntu 24.04"

packages=(controlplane nodeagent netproxy pki)
with=${extras:+[$extras]}
case $source in
"")
    what=(-e "$project$with")
    digest=$(sha256sum "$project/pyproject.toml") # and its path: a clone that was moved is installed anew
    ;;
pypi)
    what=("wherry$with")
    digest=pypi
    ;;
*.whl)
    [ -f "$source" ] || fail "no wheel $source" "build one: vagrant/provision/offline DIR puts it into DIR/wheels"
    what=("$source$with")
    digest=$(sha256sum "$source" | cut -d' ' -f1)
    ;;
*)
    [ -f "$source/pyproject.toml" ] || fail "no project in $source" "--source is the project's folder, a wheel, or pypi"
    what=("$source$with")
    digest=$(cd "$source" && find pyproject.toml "${packages[@]}" -type f ! -name '*.pyc' -print0 | sort -z |
        xargs -0 sha256sum | sha256sum | cut -d' ' -f1)
    ;;
esac

install() {
    local pip=("$venv/bin/python" -m pip --disable-pip-version-check install -q)
    [ -z "$offline" ] || pip+=(--no-index --find-links "$offline/wheels")
    "${pip[@]}" "${what[@]}" || return
    # pip takes the same version for the same thing; we know better.
    [ -z "$source" ] || [ ! -e "$stamp" ] || "${pip[@]}" --force-reinstall --no-deps "${what[@]}"
}

stamp=$venv/.installed-${extras:-node}
if [ "$(cat "$stamp" 2>/dev/null)" != "$digest" ] || [ ! -x "$venv/bin/wherry" ]; then
    # Without pip it was interrupted, or the system's Python is another one since.
    "$venv/bin/python" -m pip --version >/dev/null 2>&1 ||
        step "virtual environment" "$python" -m venv --clear "$venv" || fail "cannot make $venv" "remove it and run this again"
    step "project and libraries" install ||
        fail "pip could not install the project" "the lines above are pip's own; check this machine's network"
    # Byte code now, not at the first start. Without it all works, slower.
    if [ -z "$source" ]; then
        (cd "$project" && step "byte code" "$venv/bin/python" -m compileall -q "${packages[@]}" "$venv/lib") ||
            note "not everything was compiled; first starts are slower"
    fi
    echo "$digest" >"$stamp"
fi

mkdir -p /usr/local/bin
[ "$(readlink /usr/local/bin/wherry)" = "$venv/bin/wherry" ] || ln -sfn "$venv/bin/wherry" /usr/local/bin/wherry
if ! command -v kubectl >/dev/null; then
    if [ -x "$venv/bin/kubectl" ]; then
        ln -sfn "$venv/bin/kubectl" /usr/local/bin/kubectl
    elif [ -n "$extras" ]; then
        note "no kubectl on this machine: see https://kubernetes.io/docs/tasks/tools/"
    fi
fi
