"""`python -m controlplane.apiserver`."""

import sys

from controlplane import daemon
from controlplane.apiserver.server import Config, serve

sys.exit(daemon.main(Config, serve))
