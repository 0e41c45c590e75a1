"""How to start the zygote: the command line for a supervisor (the lab, systemd's unit, a test)."""

import os
import sys


def command(root_dir: str, state_dir: str, socket_path: str, cgroup: str = "") -> list[str]:
    """argv of the service `wherry-runtime`. It must be started as root and outside of any container of ours, and its
    children must not be killed with it: `cgroup` is one to put them into, relative to the tops of the cgroup mounts."""
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "zygote.py")
    interpreter = os.path.realpath(sys.executable)
    words = [interpreter, "-I", "-S", script, "--root", root_dir, "--state", state_dir, "--socket", socket_path]
    return [*words, "--cgroup", cgroup] if cgroup else words
