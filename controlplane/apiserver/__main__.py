"""`python -m controlplane.apiserver`."""

import sys

from controlplane.apiserver import garbage

garbage.hold()

from controlplane import daemon  # noqa: E402
from controlplane.apiserver.server import Config, serve  # noqa: E402

sys.exit(daemon.main(Config, serve))
