"""`python -m nodeagent`: the node agent as a daemon."""

import sys

from controlplane.daemon import main
from nodeagent.config import Config
from nodeagent.serve import serve

if __name__ == "__main__":
    sys.exit(main(Config, serve))
