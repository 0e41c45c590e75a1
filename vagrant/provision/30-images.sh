#!/usr/bin/env bash
# The example's image, as a proper OCI image made from Debian's busybox-static, where nodes find it when they start:
# the lab's, or this machine's if WHERRY_VENV is set. Then the first pod needs no registry.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

target=/var/lib/wherry/lab/images/busybox.tar
[ -z "${WHERRY_VENV:-}" ] || target=/var/lib/wherry/images/busybox.tar
if [ ! -e "$target" ] || [ /bin/busybox -nt "$target" ]; then
    mkdir -p "$(dirname "$target")"
    step "busybox image" "$venv/bin/python" -c "
from pathlib import Path
from nodeagent.images.build import busybox
busybox(Path('$target'))" ||
        fail "the busybox image could not be built" "is /bin/busybox there? apt-get install busybox-static"
fi
