"""What systemd promises of the daemons: started again when they die or hang, reloaded, stopped; pods never notice."""

from collections.abc import Callable

import pytest

from tests.e2e.machines.fleet import Machine, until
from tests.e2e.machines.site import Site

pytestmark = [pytest.mark.e2e, pytest.mark.root]
Pids = Callable[[Machine], set[int]]

WATCHDOG = "[Service]\nWatchdogSec=2\n"


def state(machine: Machine, unit: str) -> dict[str, str]:
    return machine.show(unit, "ActiveState", "SubState", "NRestarts", "MainPID", "Result")


def running_again(machine: Machine, unit: str, before: dict[str, str]) -> bool:
    now = state(machine, unit)
    return now["ActiveState"] == "active" and now["SubState"] == "running" and now["MainPID"] != before["MainPID"]


@pytest.fixture
def untouched(whole: Site, processes: Pids) -> object:
    """A function that asserts that no container of the example was touched since this fixture was made."""
    pids = {machine.name: processes(machine) for machine in whole.machines}
    restarts = {name: pod["restarts"] for name, pod in whole.example_pods().items()}
    assert all(pids.values())

    def check() -> None:
        until(lambda: all(p["ready"] for p in whole.example_pods().values()), "the example is ready")
        assert {machine.name: processes(machine) for machine in whole.machines} == pids
        assert {name: pod["restarts"] for name, pod in whole.example_pods().items()} == restarts

    return check


@pytest.mark.parametrize("daemon", ["nodeagent", "runtime", "netproxy", "apiserver", "scheduler", "controllers"])
def test_killed_daemon_is_started_again_and_no_container_notices(
    whole: Site, untouched: Callable[[], None], daemon: str
) -> None:
    unit = f"wherry-{daemon}.service"
    before = state(whole.n1, unit)
    whole.n1.run("systemctl", "kill", "--signal=KILL", "--kill-whom=main", unit)
    until(lambda: running_again(whole.n1, unit, before), f"{unit} is started again")
    assert int(state(whole.n1, unit)["NRestarts"]) > int(before["NRestarts"])
    untouched()


def test_restarting_agent_and_runtime_touches_no_container_and_new_pods_start(
    whole: Site, untouched: Callable[[], None]
) -> None:
    whole.n2.run("systemctl", "restart", "wherry-runtime", "wherry-nodeagent")
    untouched()
    whole.kubectl("run", "after-restart", "--image=busybox:1.35", "--overrides",
                  '{"spec":{"nodeName":"n2","terminationGracePeriodSeconds":0}}', "--", "sleep", "600")  # fmt: skip
    until(lambda: whole.json("get", "pod", "after-restart")["status"]["phase"] == "Running", "a new pod runs on n2")
    assert "nested" not in whole.kubectl("exec", "after-restart", "--", "cat", "/proc/1/cmdline")
    whole.kubectl("delete", "pod", "after-restart", "--wait=false")


def test_an_upgrade_starts_the_daemons_again_and_touches_no_container(
    whole: Site, untouched: Callable[[], None]
) -> None:
    machine, daemons = whole.n2, ["wherry-runtime", "wherry-nodeagent", "wherry-netproxy"]
    before = {unit: state(machine, unit)["MainPID"] for unit in ["wherry-pods", *daemons]}
    machine.path("/opt/wherry/.installed-node").write_text("another version\n")
    said = whole.provision(machine, "node")
    assert "restarted wherry-runtime wherry-nodeagent wherry-netproxy" in said
    assert state(machine, "wherry-pods")["MainPID"] == before["wherry-pods"]
    assert all(state(machine, unit)["MainPID"] != before[unit] for unit in daemons)
    untouched()


def test_a_missed_watchdog_restarts_agent_and_api_server(whole: Site, untouched: Callable[[], None]) -> None:
    units = ["wherry-nodeagent.service", "wherry-apiserver.service", "wherry-runtime.service"]
    machine = whole.n1
    for unit in units:
        place = machine.path(f"/run/systemd/system/{unit}.d/watchdog.conf")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(WATCHDOG)
    try:
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "restart", *units)
        before = {unit: state(machine, unit) for unit in units}
        fed = {unit: _fed(machine, unit) for unit in units}
        until(lambda: all(_fed(machine, unit) > fed[unit] for unit in units), "all of them feed it")
        for unit in units:
            machine.run("systemctl", "kill", "--signal=STOP", "--kill-whom=main", unit)
        for unit in units:
            until(lambda u=unit: running_again(machine, u, before[u]), f"{unit} was found hanging and started again")
        log = machine.run("journalctl", "--no-pager", "-o", "cat", "--identifier=systemd")
        assert all(f"{unit}: Watchdog timeout" in log for unit in units)
        untouched()
    finally:
        for unit in units:
            machine.path(f"/run/systemd/system/{unit}.d/watchdog.conf").unlink()
        machine.run("systemctl", "daemon-reload")
        machine.run("systemctl", "restart", *units)


def _fed(machine: Machine, unit: str) -> int:
    """When the watchdog was last fed, in microseconds."""
    return int(machine.show(unit, "WatchdogTimestampMonotonic")["WatchdogTimestampMonotonic"])


def test_reload_reads_certificates_and_settings_again(whole: Site) -> None:
    machine = whole.n1
    served = (
        "import ssl; from cryptography import x509; "
        "print(x509.load_pem_x509_certificate(ssl.get_server_certificate(('10.88.0.11', 6443)).encode()).serial_number)"
    )
    renew = """
from datetime import UTC, datetime
from cryptography import x509
from pki import provision, profiles
from pki.layout import DEFAULT
path = DEFAULT.identity("apiserver")
old = x509.load_pem_x509_certificate(path.read_bytes())
names = [str(n.value) for n in old.extensions.get_extension_for_class(x509.SubjectAlternativeName).value]
now = datetime.now(UTC)
path.write_bytes(provision.authority(DEFAULT, now).issue(profiles.APISERVER, now, names=names).pem())
"""
    before, pid = machine.run("python", "-c", served), state(machine, "wherry-apiserver")["MainPID"]
    machine.run("python", "-", stdin=renew)
    settings = machine.path("/etc/wherry/apiserver.yaml")
    text = settings.read_text()
    try:
        settings.write_text(text + "log_level: debug\n")
        machine.run("systemctl", "reload", "wherry-apiserver")
        until(lambda: machine.run("python", "-c", served) != before, "the new certificate is served")
        until(
            lambda: (
                "setting_changed name=log_level value='debug'"
                in machine.run("journalctl", "--no-pager", "-o", "cat", "--identifier=wherry-apiserver")
            ),
            "the new log level is taken",
        )
    finally:
        settings.write_text(text)
        machine.run("systemctl", "reload", "wherry-apiserver")
    assert state(machine, "wherry-apiserver")["MainPID"] == pid
    assert whole.ready_nodes() == {"n1", "n2", "n3"}


def test_stop_is_clean_and_leaves_containers(whole: Site, untouched: Callable[[], None]) -> None:
    machine = whole.n3
    daemons = ["wherry-nodeagent.service", "wherry-netproxy.service", "wherry-runtime.service"]
    machine.run("systemctl", "stop", *daemons)
    try:
        for unit in daemons:
            now = state(machine, unit)
            assert (now["ActiveState"], now["Result"], now["MainPID"]) == ("inactive", "success", "0"), (unit, now)
        left = machine.run("ps", "-eo", "cgroup:200,args")
        for unit in daemons:
            assert unit not in left.replace("/shims", ""), left
        assert "10250" not in machine.run("ss", "-Hltn")
    finally:
        machine.run("systemctl", "start", *daemons)
    untouched()


def test_stopping_the_pods_ends_every_container_and_starting_brings_them_back(whole: Site) -> None:
    machine = whole.n3
    machine.run("systemctl", "stop", "wherry-pods")
    try:
        assert machine.result("pgrep", "-x", "httpd").returncode == 1
        assert machine.result("pgrep", "-f", "zygote").returncode == 1
        assert state(machine, "wherry-nodeagent")["ActiveState"] == "inactive"  # it could do nothing without
    finally:
        machine.run("systemctl", "start", "wherry-pods", "wherry-runtime", "wherry-nodeagent")
    until(lambda: machine.result("pgrep", "-x", "httpd").returncode == 0, "the container is back")
    until(lambda: all(p["ready"] for p in whole.example_pods().values()), "the example is ready")
