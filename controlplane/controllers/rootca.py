"""Root CA publisher: the cluster's CA certificate as ConfigMap `kube-root-ca.crt` in every namespace.

Every pod's service-account volume projects it. Only ConfigMaps of that name are watched, not all of them. A changed
certificate file is published after a restart or SIGHUP (manager.py).
"""

from pathlib import Path

from controlplane.client.resources import CONFIGMAPS, NAMESPACES
from controlplane.controllers import meta
from controlplane.controllers.reconcile import Context, Controller
from controlplane.controllers.serviceaccount import create_unless_there

NAME = "kube-root-ca.crt"


class RootCaPublisher(Controller):
    """See the module. Keys are namespaces."""

    name = "root-ca-certificate-publisher-controller"
    workers = 2

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.published = self.view(CONFIGMAPS, field_selector=f"metadata.name={NAME}")
        self.namespaces = self.watch(NAMESPACES)
        self.reload()
        self.published.add_handler(
            updated=lambda old, new: self.queue.add(meta.namespace(new)),
            deleted=lambda obj: self.queue.add(meta.namespace(obj)),
        )

    def reload(self) -> None:
        """Read the certificate again and look at every namespace."""
        path = self.config.root_ca_file
        self.data = {"ca.crt": Path(path).read_text(encoding="ascii")} if path else {}
        for namespace in self.namespaces.items():
            self.enqueue(namespace)

    async def reconcile(self, key: str) -> float | None:
        namespace = self.namespaces.get(key)
        if namespace is None or meta.is_deleting(namespace) or not self.data:
            return None
        current = self.published.get(f"{key}/{NAME}")
        if current is None:
            note = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints "
            note += "such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across "
            note += "distributions of Kubernetes clusters."
            metadata = {"name": NAME, "namespace": key, "annotations": {"kubernetes.io/description": note}}
            made = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": self.data}
            await create_unless_there(self, CONFIGMAPS, made)
        elif current.get("data") != self.data:
            await self.writer.update(CONFIGMAPS, {**current, "data": self.data})
        return None
