"""How to start the zygote: the command line for a supervisor (the lab, systemd's unit, a test)."""

import os
import sys


def command(root_dir: str, state_dir: str, socket_path: str) -> list[str]:
    """argv of the service `wherry-runtime`. It must be started as root and outside of any container of ours, and its
    children must not be killed with it (systemd: KillMode=process)."""
    script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "zygote.py")
    interpreter = os.path.realpath(sys.executable)
    return [interpreter, "-I", "-S", script, "--root", root_dir, "--state", state_dir, "--socket", socket_path]
