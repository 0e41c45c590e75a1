"""`python -m netproxy`: see server.py."""

import sys

from controlplane.daemon import main
from netproxy.server import Config, serve

if __name__ == "__main__":
    sys.exit(main(Config, serve))
