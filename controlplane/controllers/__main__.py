"""`python -m controlplane.controllers`: the controller manager as a process."""

import sys

from controlplane.controllers.config import Config
from controlplane.controllers.manager import serve
from controlplane.daemon import main

sys.exit(main(Config, serve))
