#!/usr/bin/env bash
# The project in a virtual environment of its own, with the system's Python, and `wherry` on the PATH.
# Argument: the extras to install with it (lab, dev). Done again only when pyproject.toml or the extras change.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

extras=${1:-lab}
python=/usr/bin/python3
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "Python $("$python" -V) is too old" "Wherry needs 3.11: use Debian 12 or newer, or Ubuntu 24.04"

stamp=$venv/.installed-$extras
digest=$(sha256sum "$project/pyproject.toml" | cut -d' ' -f1)
if [ "$(cat "$stamp" 2>/dev/null)" != "$digest" ]; then
    [ -x "$venv/bin/python" ] || step "virtual environment" "$python" -m venv "$venv" ||
        fail "cannot make $venv" "remove it and run this again"
    step "project and libraries" "$venv/bin/python" -m pip install --disable-pip-version-check -q -e "$project[$extras]" ||
        fail "pip could not install the project" "the lines above are pip's own; check this machine's network"
    # Byte code now, not at the first start.
    "$venv/bin/python" -m compileall -q "$project"/{controlplane,nodeagent,netproxy,pki} "$venv/lib" >/dev/null 2>&1 || true
    echo "$digest" >"$stamp"
fi

mkdir -p /usr/local/bin
[ "$(readlink /usr/local/bin/wherry)" = "$venv/bin/wherry" ] || ln -sfn "$venv/bin/wherry" /usr/local/bin/wherry
command -v kubectl >/dev/null || [ ! -x "$venv/bin/kubectl" ] || ln -sfn "$venv/bin/kubectl" /usr/local/bin/kubectl
