"""Every path of Wherry's under /etc, /var/lib and /run, once.

The same on a real node, under systemd and in a corner of the lab (which mounts its own directories there).
Configuration and what never changes is under /etc. Certificates that their holders renew are under /var/lib, a
directory for each holder, since whoever renews must be able to replace the file. Who owns what: pki.owners.
"""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Layout:
    """Paths below three roots: `etc` (identity), `data` (what must survive a reboot), `run` (what must not)."""

    etc: Path = Path("/etc/wherry")
    data: Path = Path("/var/lib/wherry")
    run: Path = Path("/run/wherry")

    @classmethod
    def under(cls, root: Path) -> "Layout":
        """The same tree below another root, e.g. a lab node's directory as seen from the host."""
        return cls(root / "etc", root / "data", root / "run")

    @property
    def pki(self) -> Path:
        return self.etc / "pki"

    @property
    def ca_cert(self) -> Path:
        return self.pki / "ca.crt"

    @property
    def ca_key(self) -> Path:
        return self.pki / "ca.key"

    @property
    def service_account_key(self) -> Path:
        """The key that signs service-account tokens (control plane only)."""
        return self.pki / "sa.key"

    @property
    def service_account_public_key(self) -> Path:
        return self.pki / "sa.pub"

    def kubeconfig(self, name: str) -> Path:
        """The kubeconfig of a component, e.g. `admin`, `scheduler`, `nodeagent`, `netproxy`."""
        return self.etc / f"{name}.conf"

    def config(self, name: str) -> Path:
        """A daemon's settings (its `--config`), e.g. `apiserver`."""
        return self.etc / f"{name}.yaml"

    @property
    def identities(self) -> Path:
        return self.data / "identity"

    def identity(self, name: str) -> Path:
        """The certificate and, in the same file, the key of a profile (pki.profiles), e.g. `apiserver`: replaced as
        one by whoever renews them."""
        return self.identities / HOLDERS.get(name, name) / f"{name}.pem"

    @property
    def store(self) -> Path:
        """The API server's SQLite database."""
        return self.data / "store" / "wherry.db"

    @property
    def agent_root(self) -> Path:
        """The node agent's data: pods' volumes, images, container layers."""
        return self.data / "node"

    @property
    def image_preload(self) -> Path:
        """Image archives found here are loaded when the agent starts (for machines without a registry)."""
        return self.data / "images"

    @property
    def registry_config(self) -> Path:
        """What the administrator says of single registries: <registry>/hosts.toml."""
        return self.etc / "registries"

    @property
    def static_pods(self) -> Path:
        """Manifests of pods that a node runs on its own account, without being told by the API server."""
        return self.etc / "manifests"

    @property
    def runtime_socket(self) -> Path:
        return self.run / "runtime.sock"

    @property
    def images_socket(self) -> Path:
        """Where the node agent answers `wherry image`; for root only. Not below `run`, which a lab's node keeps to
        itself."""
        return self.agent_root / "images.sock"

    @property
    def runtime_state(self) -> Path:
        return self.run / "runtime"

    def ensure(self) -> None:
        """Make the directories that daemons expect. Those that several users pass through are 0755, the others 0700."""
        for directory in (self.etc, self.pki, self.data, self.identities):
            directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        for directory in (self.store.parent, self.agent_root, self.image_preload, self.static_pods, self.run):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)


HOLDERS = {"apiserver-kubelet-client": "apiserver", "nodeagent-server": "nodeagent"}
"""Profile -> the component that holds it, where that is not its name."""

DEFAULT = Layout()
