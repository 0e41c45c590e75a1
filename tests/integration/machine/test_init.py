"""`wherry init`, run again and again, and `wherry reset`."""

import json
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509

from controlplane.cli.machine.initialise import Plan, initialise
from controlplane.cli.machine.reset import files
from pki import kubeconfig, owners, profiles, provision
from pki.authority import Authority, pin
from pki.keys import load_key
from pki.layout import Layout

NOW = datetime.now(UTC)


def snapshot(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    layout, plan = Layout.under(tmp_path), Plan("192.0.2.1", "cp", names=["api.example.org"])
    first = initialise(plan, layout, NOW)
    assert first.pin == pin(x509.load_pem_x509_certificate(layout.ca_cert.read_bytes()))
    before = snapshot(tmp_path)
    again = initialise(plan, layout, NOW)
    assert (again.changes, again.pin, snapshot(tmp_path)) == ([], first.pin, before)


def test_what_has_changed_is_said_and_keys_stay(tmp_path: Path) -> None:
    layout = Layout.under(tmp_path)
    initialise(Plan("192.0.2.1", "cp"), layout, NOW)
    layout.config("apiserver").write_text(layout.config("apiserver").read_text() + "max_requests_in_flight: 7\n")
    serving = layout.identity("apiserver")
    old = x509.load_pem_x509_certificate(serving.read_bytes())
    done = initialise(Plan("192.0.2.9", "cp", names=["api.example.org"]), layout, NOW)
    new = x509.load_pem_x509_certificate(serving.read_bytes())
    assert new.public_key() == old.public_key() and new.serial_number != old.serial_number
    assert provision.alternative_names(new) - provision.alternative_names(old) == {"192.0.2.9", "api.example.org"}
    settings = yaml.safe_load(layout.config("apiserver").read_text())
    assert (settings["advertise_address"], settings["max_requests_in_flight"]) == ("192.0.2.9", 7)
    changed = {Path(line.partition(":")[0]).name for line in done.changes}
    assert changed == {"apiserver.pem", "admin.conf", "scheduler.conf", "controllers.conf", "apiserver.yaml"}


def test_what_is_near_its_end_is_made_anew(tmp_path: Path) -> None:
    layout, plan = Layout.under(tmp_path), Plan("192.0.2.1", "cp")
    initialise(plan, layout, NOW)
    ca, account = layout.ca_key.read_bytes(), layout.service_account_key.read_bytes()
    done = initialise(plan, layout, NOW + timedelta(days=300))
    assert len([line for line in done.changes if "ends" in line]) == 5, done.changes
    assert (layout.ca_key.read_bytes(), layout.service_account_key.read_bytes()) == (ca, account)


def test_the_administrators_certificate_is_renewed_when_it_is_used(plane: Any) -> None:
    layout = plane.layout
    path = layout.kubeconfig("admin")
    ca = Authority.load(layout.ca_cert.read_bytes(), load_key(layout.ca_key))
    old = NOW - timedelta(days=360)
    kubeconfig.write(path, f"https://127.0.0.1:{plane.port}", ca.pem(), "a", ca.issue(profiles.ADMIN, old))
    assert plane.token()
    ends = x509.load_pem_x509_certificate(kubeconfig.read(path).certificate).not_valid_after_utc
    assert ends > NOW + timedelta(days=300)
    before = path.read_bytes()
    plane.token()
    assert path.read_bytes() == before


def test_nonsense_is_refused(tmp_path: Path, command: Callable[..., "subprocess.CompletedProcess[str]"]) -> None:
    root = str(tmp_path)
    assert "no-address" in command("init", "--advertise-address", "no-address", "--root", root, ok=False).stderr
    bad = command("init", "--advertise-address", "192.0.2.1", "--service-cidr", "10.0.0.1/8", "--root", root, ok=False)
    assert "10.0.0.1/8" in bad.stderr
    assert not list(tmp_path.iterdir())
    assert "wherry init" in command("token", "list", "--root", root, ok=False).stderr
    assert command("token", "create", "--ttl", "soon", "--root", root, ok=None).returncode == 2


def test_every_secret_has_an_owner(tmp_path: Path) -> None:
    """Whatever init writes is in the owners' table; secrets are readable for one user, and the CA's key for its own."""
    layout = Layout.under(tmp_path)
    initialise(Plan("192.0.2.1", "cp"), layout, NOW)
    rows = {path: (component, mode) for path, component, mode in owners.table(layout)}
    written = snapshot(tmp_path)
    assert written.keys() <= rows.keys()
    for path, content in written.items():
        _, mode = rows[path]
        assert mode == (0o600 if b"PRIVATE KEY" in content or path == layout.kubeconfig("admin") else 0o644), path
        assert path.stat().st_mode & 0o777 == mode
    assert rows[layout.ca_key] == ("controllers", 0o600)
    assert rows[layout.service_account_key] == ("apiserver", 0o600)
    assert [p for p, (component, _) in rows.items() if component == "controllers" and p in written] == [
        layout.ca_key, layout.identity("controllers")
    ]  # fmt: skip


@pytest.mark.root
def test_files_go_to_the_users_that_need_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    users = {"apiserver": "daemon", "scheduler": "bin", "controllers": "sys"}
    monkeypatch.setattr(owners, "USERS", users)
    layout = Layout.under(tmp_path)
    changes = initialise(Plan("192.0.2.1", "cp"), layout, NOW).changes
    assert layout.ca_key.owner() == "sys"
    assert layout.identity("apiserver").owner() == layout.store.parent.owner() == "daemon"
    assert layout.identity("scheduler").owner() == "bin"
    assert layout.kubeconfig("admin").owner() == "root"
    assert any("belongs to sys" in line for line in changes)
    assert initialise(Plan("192.0.2.1", "cp"), layout, NOW).changes == []
    (layout.identities / "scheduler" / "link").symlink_to("/etc/hostname")
    with pytest.raises(OSError):
        owners.apply(layout)


def _served(port: int, ca: Path) -> x509.Certificate:
    context = ssl.create_default_context(cafile=str(ca))
    with socket.create_connection(("127.0.0.1", port), 5) as raw, context.wrap_socket(
        raw, server_hostname="127.0.0.1"
    ) as tls:  # fmt: skip
        der = tls.getpeercert(True)
        assert der
        return x509.load_der_x509_certificate(der)


def test_a_running_server_takes_the_new_certificate(plane: Any) -> None:
    layout = plane.layout
    old = _served(plane.port, layout.ca_cert)
    assert "same key, now also for api.example.org" in plane.init("--names", "api.example.org")
    plane.signal("apiserver", signal.SIGHUP)
    deadline = time.monotonic() + 10
    while (new := _served(plane.port, layout.ca_cert)).serial_number == old.serial_number:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert "api.example.org" in provision.alternative_names(new)


class TestReset:
    def test_a_node(self, plane: Any, machines: Any, command: Any) -> None:
        machine = machines()
        machine.join(plane.token())
        assert command("reset", "--root", str(machine.root), ok=None, given="n\n").returncode == 1
        assert machine.layout.kubeconfig("nodeagent").exists()
        command("reset", "--yes", "--root", str(machine.root))
        assert snapshot(machine.root) == {}
        command("reset", "--yes", "--root", str(machine.root))
        machine.join(plane.token())

    def test_a_control_plane_keeps_its_data(self, tmp_path: Path, command: Any) -> None:
        root = tmp_path / "cp"
        command("init", "--advertise-address", "192.0.2.1", "--root", str(root))
        before = snapshot(root)
        done = command("reset", "--yes", "--root", str(root))
        assert "--control-plane" in done.stdout
        assert snapshot(root) == before
        command("reset", "--yes", "--control-plane", "--root", str(root))
        assert snapshot(root) == {}

    def test_nothing_of_others_is_on_the_list(self, tmp_path: Path) -> None:
        layout = Layout.under(tmp_path)
        for everything in (False, True):
            for path in files(layout, everything):
                assert tmp_path in path.parents
                assert path not in (layout.etc, layout.data), path


def test_tokens_are_listed_without_secrets(plane: Any, command: Any) -> None:
    token = plane.token("--description", "for the cellar", "--ttl", "2h")
    identifier, _, secret = token.partition(".")
    for output in ("table", "json"):
        said = command("token", "list", "-o", output, "--root", str(plane.root)).stdout
        assert identifier in said and "for the cellar" in said and secret not in said
    [entry] = [t for t in json.loads(said) if t["id"] == identifier]
    assert (entry["state"], entry["uses"]) == ("good", "1")
    assert command("token", "delete", identifier, "--root", str(plane.root)).stdout
    assert "no token" in command("token", "delete", identifier, "--root", str(plane.root), ok=False).stderr
