"""The collector of a server that has started: the young are looked at, the old are left alone. In its own process."""

import subprocess
import sys

PROGRAM = """
import gc
from controlplane.apiserver import garbage

class Node:
    pass

def cycle():
    node = Node()
    node.itself = node

garbage.hold()
assert not gc.isenabled()
garbage.settle()
assert gc.isenabled() and gc.get_freeze_count() > 1000
old = gc.get_stats()[2]["collections"]
kept = [[i] for i in range(300_000)]
for _ in range(20_000):
    cycle()
assert gc.get_stats()[2]["collections"] == old
left = sum(type(each) is Node for each in gc.get_objects())
assert left < 10_000, left
"""


def test_only_the_young_are_collected() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, timeout=60)
