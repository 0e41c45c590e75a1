"""`python -m nodeagent.runtime`: become the zygote, at the usual paths. What systemd's unit starts: it need not know
where the project is installed, nor which Python the virtual environment has."""

import argparse
import os

from nodeagent.runtime.launch import command
from pki.layout import DEFAULT

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="nodeagent.runtime", description=__doc__)
    parser.add_argument("--root", default=str(DEFAULT.agent_root), help="containers' writable layers")
    parser.add_argument("--state", default=str(DEFAULT.runtime_state), help="what must not survive a reboot")
    parser.add_argument("--socket", default=str(DEFAULT.runtime_socket), help="where to listen")
    parser.add_argument("--cgroup", default="", help="where shims go, relative to the tops of the cgroup mounts")
    given = parser.parse_args()
    words = command(given.root, given.state, given.socket, given.cgroup)
    os.execv(words[0], words)
