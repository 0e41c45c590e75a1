"""Services on Debian's own kernel, which has ip_vs: the behaviour suite in both modes, and what it costs.

Nothing is installed for it: the machine's root is ours (see machine.py). The same suite runs on Vagrant's machines by
tests/e2e/behaviour/services.py.
"""

import os
import shlex
import sys
from pathlib import Path

import pytest

from tests.e2e.behaviour import services
from tests.e2e.kernel import machine

pytestmark = [pytest.mark.slow, pytest.mark.root]
CACHE = Path(os.environ.get("WHERRY_TEST_CACHE", "/var/cache/wherry-tests"))


@pytest.fixture(scope="module")
def run():
    if reason := machine.missing():
        pytest.skip(reason)
    CACHE.mkdir(parents=True, exist_ok=True)
    return lambda command: machine.run(f"export PATH={shlex.quote(os.environ['PATH'])}; {command}", CACHE)


@pytest.mark.parametrize("mode", services.MODES)
def test_services_behave(run, mode):
    status, said = run(services.command(mode, str(services.PROJECT), sys.executable))
    assert status == 0, said[-6000:]
    print(mode, services.judge(mode, said))


def test_what_ten_thousand_services_cost_the_kernel(run):
    """Written in one go, in the VM: software emulation is some ten times slower than a machine."""
    bench = services.PROJECT / "tests/benchmarks/bench_modes.py"
    command = f"{sys.executable} {bench} --services 10000 --kernel"
    status, said = run(f"cd {services.PROJECT} && PYTHONPATH={services.PROJECT} {command}")
    assert status == 0 and "kernel, 10,000: all written" in said, said[-6000:]
    print(said.strip().splitlines()[-1])
