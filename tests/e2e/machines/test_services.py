"""The machines do what they are for: units active, tight, and the example served from each of them."""

import zipfile

import pytest

from tests.e2e.machines import root
from tests.e2e.machines.fleet import until
from tests.e2e.machines.site import Site, fingerprint

pytestmark = [pytest.mark.e2e, pytest.mark.root]

# systemd's own figure for how much of the machine a service could reach: 0 nothing, 10 all. What each may have at most.
EXPOSURE = {
    "apiserver": 2.0, "scheduler": 2.0, "controllers": 2.0, "netproxy": 4.0, "pods": 4.0, "nodeagent": 7.0,
}  # fmt: skip


def test_every_unit_is_active_and_none_has_failed(whole: Site) -> None:
    for machine in whole.machines:
        assert machine.run("systemctl", "is-system-running", check=False).strip() == "running"
        states = machine.run("systemctl", "is-active", *whole.units(machine), check=False).split()
        assert set(states) == {"active"}, (machine.name, states)
        enabled = machine.run("systemctl", "is-enabled", *whole.units(machine)).split()
        assert set(enabled) == {"enabled"}


def test_units_are_sound_and_without_ordering_cycles(whole: Site) -> None:
    done = whole.n1.result("systemd-analyze", "verify", *whole.units(whole.n1))
    assert done.returncode == 0, done.stderr
    assert "cycle" not in whole.n1.run("journalctl", "--boot", "--no-pager", "--identifier=systemd").lower()


@pytest.mark.parametrize("daemon", sorted(EXPOSURE))
def test_a_unit_can_reach_no_more_than_it_needs(whole: Site, daemon: str) -> None:
    unit = f"wherry-{daemon}.service"
    last = whole.n1.run("systemd-analyze", "security", "--no-pager", unit).splitlines()[-1]
    exposure = float(last.partition(f"{unit}: ")[2].split()[0])
    assert exposure <= EXPOSURE[daemon], last


def test_control_plane_daemons_are_users_of_their_own(whole: Site) -> None:
    users = whole.n1.run("ps", "-eo", "user:32,args")
    for daemon in ("apiserver", "scheduler", "controllers"):
        assert f"wherry-{daemon} " in next(line for line in users.splitlines() if f"-m controlplane.{daemon}" in line)
    key = whole.n1.run("stat", "-c", "%U %a", "/etc/wherry/pki/ca.key").strip()
    assert key == "wherry-controllers 600"


def test_the_example_answers_from_every_machine_by_every_way(whole: Site) -> None:
    cluster_ip = whole.json("get", "service", "hello")["spec"]["clusterIP"]
    pods = {f"hello from {name} on {pod['node']}" for name, pod in whole.example_pods().items()}
    for machine in whole.machines:
        urls = [f"http://{cluster_ip}/", *(f"http://{other.address}:30080/" for other in whole.machines)]
        for url in urls:
            answers = until(lambda m=machine, u=url: whole.answers(m, u), f"{url} answers {machine.name}")
            assert answers <= pods, (machine.name, url, answers)
        assert len(whole.answers(machine, urls[0], tries=24)) == len(pods)


def test_logs_are_in_the_journal_with_their_levels(whole: Site) -> None:
    for unit in ("wherry-apiserver", "wherry-nodeagent", "wherry-runtime"):
        lines = whole.n1.run("journalctl", "--no-pager", "-o", "cat", f"--identifier={unit}", "-p", "info..info")
        assert lines, unit
        assert "<6>" not in lines
    whole.n1.run("systemctl", "reload", "wherry-scheduler")
    until(
        lambda: (
            "reloaded parts=" in whole.n1.run("journalctl", "--no-pager", "-o", "cat", "--identifier=wherry-scheduler")
        ),
        "the scheduler's reload is in the journal",
    )


def test_the_wheel_holds_every_file_of_the_packages(site: Site) -> None:
    packages = ("controlplane", "nodeagent", "netproxy", "pki")
    files = {
        str(path.relative_to(root.PROJECT))
        for package in packages
        for path in (root.PROJECT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    with zipfile.ZipFile(next((site.fleet.place / "wheels").glob("*.whl"))) as wheel:
        inside = {name for name in wheel.namelist() if name.partition("/")[0] in packages}
    assert inside == files
    assert any(not name.endswith((".py", ".md")) for name in inside)


def test_provisioning_twice_changes_nothing(whole: Site) -> None:
    for machine, role in ((whole.n1, "control-plane"), (whole.n2, "node")):
        files = fingerprint(machine)
        pids = [machine.show(unit, "MainPID")["MainPID"] for unit in whole.units(machine)]
        said = whole.provision(machine, role)
        assert fingerprint(machine) == files, said
        assert [machine.show(unit, "MainPID")["MainPID"] for unit in whole.units(machine)] == pids, said
