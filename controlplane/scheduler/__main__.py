"""`python -m controlplane.scheduler`."""

import sys

from controlplane import daemon
from controlplane.scheduler.config import Config, serve

if __name__ == "__main__":
    sys.exit(daemon.main(Config, serve))
