#!/usr/bin/env bash
# Wait until the cluster calls this machine's Node Ready: asked with the node's own identity. Argument: the Node's name.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

step "node $1 Ready" timeout "${WHERRY_PATIENCE:-300}" "$venv/bin/python" -I - "$1" <<'PYTHON' ||
import asyncio, sys
from controlplane.client import from_kubeconfig, resources
from controlplane.api.status import StatusError
from controlplane.client.errors import Unreachable

async def main(name):
    client, why = from_kubeconfig("/etc/wherry/nodeagent.conf", "wherry-provision"), ""
    while True:
        try:
            node = await client.get(resources.NODES, name)
            conditions = {c["type"]: c for c in node.get("status", {}).get("conditions", ())}
            if conditions.get("Ready", {}).get("status") == "True":
                return await client.close()
            told = conditions.get("Ready", {}).get("message", "it has said nothing yet")
        except (StatusError, Unreachable) as error:
            told = str(error)
        if told != why:
            why = told
            print(f"node {name} is not Ready: {why}", flush=True)
        await asyncio.sleep(0.2)

asyncio.run(main(sys.argv[1]))
PYTHON
    fail "node $1 does not become Ready" "journalctl -u wherry-nodeagent on this machine tells why"
