"""`python -m nodeagent.cri`: our runtime alone, for a kubelet that is not ours (or crictl). See standalone.py."""

import sys

from controlplane.daemon import main
from nodeagent.cri.standalone import Config, serve

if __name__ == "__main__":
    sys.exit(main(Config, serve))
