"""One lab for the whole slow lane: box, `vagrant up`; at the end `vagrant destroy`, which the last tests look at."""

import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.vagrant import box
from tests.e2e.vagrant import lab as labs


@contextmanager
def timed(lab: labs.Lab, what: str) -> Iterator[None]:
    start = time.monotonic()
    yield
    lab.seconds[what] = round(time.monotonic() - start, 1)


@pytest.fixture(scope="session")
def bare_lab() -> Iterator[labs.Lab]:
    """The hypervisor and the box, without machines. The timings stay in the cache, for vagrant/README.md."""
    if folder := os.environ.get("WHERRY_VAGRANT_LAB"):
        yield labs.kept(Path(folder))
        return
    start = time.monotonic()
    box.ensure()
    built = round(time.monotonic() - start, 1)
    # Not pytest's folder: it keeps the last three, and images are large.
    with tempfile.TemporaryDirectory(prefix="slow-lane-", dir=box.CACHE) as folder, labs.lab(Path(folder)) as lab:
        lab.seconds["box"] = built
        yield lab
        (box.CACHE / "slow-lane.json").write_text(json.dumps(lab.seconds, indent=1))
        (box.CACHE / "slow-lane-vagrant.log").write_text((lab.folder / "vagrant.log").read_text())


@pytest.fixture(scope="session")
def lab(bare_lab: labs.Lab) -> labs.Lab:
    """Three machines, up."""
    with timed(bare_lab, "vagrant up"):
        bare_lab.vagrant("up", timeout=1800)
    bare_lab.learn_ssh()
    return bare_lab


@pytest.fixture
def stopwatch(lab: labs.Lab):
    """`with stopwatch("what"):` for the timings in vagrant/README.md."""
    return lambda what: timed(lab, what)


@pytest.fixture
def eventually(eventually):
    """The one for all clusters, with the patience that software emulation asks for."""
    return lambda what, probe, seconds=180.0: eventually(what, probe, seconds)
