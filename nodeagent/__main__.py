"""`python -m nodeagent`: the node agent as a daemon."""

import sys

from controlplane.daemon import main
from nodeagent.agent import serve
from nodeagent.config import Config

if __name__ == "__main__":
    sys.exit(main(Config, serve))
