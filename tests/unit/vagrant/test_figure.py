"""vagrant/lab.svg shows the machines of the Vagrantfile's table and the units that vagrant/units installs."""

import runpy
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

VAGRANT = Path(__file__).resolve().parents[3] / "vagrant"
FIGURE = runpy.run_path(str(VAGRANT / "figure"))


def words(svg: str) -> str:
    return " ".join(
        element.text or "" for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("text")
    )


def test_the_figure_is_of_the_table():
    done = subprocess.run([sys.executable, VAGRANT / "figure", "--check"], check=False)
    assert done.returncode == 0, "the Vagrantfile's table has changed: run vagrant/figure"


def test_another_table_makes_another_figure():
    machines = FIGURE["table"]((VAGRANT.parent / "Vagrantfile").read_text())
    more = FIGURE["draw"]([*machines, FIGURE["Machine"]("node-9", "192.168.56.19", "4", "2048", "worker")])
    assert more != FIGURE["draw"](machines)
    assert "node-9" in words(more) and "192.168.56.19" in words(more) and "4 CPU, 2048 MiB" in words(more)


def test_every_unit_is_in_the_figure():
    shown = words((VAGRANT / "lab.svg").read_text())
    units = {path.stem for path in (VAGRANT / "units").glob("*.service")}
    assert units and {unit for unit in units if unit not in shown} == set()


def test_a_vagrantfile_without_table_is_an_error():
    with pytest.raises(SystemExit, match="no table"):
        FIGURE["table"]("Vagrant.configure")
