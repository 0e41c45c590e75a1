"""kube-system/extension-apiserver-authentication: how servers of aggregated APIs know who asks.

They read there which CA signed our client certificate, which name it has, and in which headers we say who the user is;
and the CA of users' own certificates. Our certificate is the one that we show to node agents: its name is ours alone.
"""

import json
from pathlib import Path
from typing import Any

from pki.profiles import APISERVER_KUBELET_CLIENT

Object = dict[str, Any]
NAME, NAMESPACE = "extension-apiserver-authentication", "kube-system"


def config_map(client_ca_file: str) -> Object | None:
    """The ConfigMap; None if there is no CA to speak of."""
    try:
        authority = Path(client_ca_file).read_text()
    except OSError:
        return None
    return {
        "kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": NAME, "namespace": NAMESPACE},
        "data": {
            "client-ca-file": authority,
            "requestheader-client-ca-file": authority,
            "requestheader-allowed-names": json.dumps([APISERVER_KUBELET_CLIENT.common_name]),
            "requestheader-username-headers": json.dumps(["X-Remote-User"]),
            "requestheader-uid-headers": json.dumps(["X-Remote-Uid"]),
            "requestheader-group-headers": json.dumps(["X-Remote-Group"]),
            "requestheader-extra-headers-prefix": json.dumps(["X-Remote-Extra-"]),
        },
    }  # fmt: skip
