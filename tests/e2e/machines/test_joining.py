"""Joining by token over TLS, with the CA pinned; and being refused, each time in its own words."""

import pytest

from tests.e2e.machines.fleet import Machine, until
from tests.e2e.machines.site import Site

pytestmark = [pytest.mark.e2e, pytest.mark.root]


def refusal(machine: Machine, *words: str) -> str:
    """What `wherry join` says when it does not let the machine in; it must leave no identity behind."""
    done = machine.result("wherry", "join", *words, "--node-name", machine.name, "--node-ip", machine.address)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert not machine.path("/etc/wherry/nodeagent.conf").exists()
    return done.stderr


def test_the_first_node_joined_by_token(site: Site) -> None:
    until(lambda: {"n1", "n2"} <= site.ready_nodes(), "both are Ready")
    tokens = site.n1.run("wherry", "token", "list")
    used = next(line for line in tokens.splitlines() if line.startswith(site.first_token.partition(".")[0]))
    assert " used " in used
    assert " n2 " in used


def test_keys_were_made_where_they_are_used(site: Site) -> None:
    """No private key of the control plane is on a worker, none of a worker's on the control plane."""

    def keys(machine: Machine) -> set[str]:
        script = "find /etc/wherry /var/lib/wherry -type f | xargs grep -l 'PRIVATE KEY' | xargs -n1 sha256sum"
        return {line.split()[0] for line in machine.run("sh", "-c", script).splitlines()}

    assert keys(site.n2)
    assert not keys(site.n1) & keys(site.n2)
    assert not site.n2.path("/etc/wherry/pki/ca.key").exists()
    loose = site.n2.run("sh", "-c", "find /var/lib/wherry/identity -type f -perm /077")
    assert loose == ""


def test_a_wrong_hash_is_refused(site: Site, outsider: Machine) -> None:
    wrong = "sha256:" + "0" * 64
    said = refusal(outsider, "10.88.0.11:6443", "--token", site.first_token, "--discovery-token-ca-cert-hash", wrong)
    assert "wrong hash" in said
    assert site.pin in said  # what it is in truth


def test_a_used_token_is_refused(site: Site, outsider: Machine) -> None:
    words = ("10.88.0.11:6443", "--token", site.first_token, "--discovery-token-ca-cert-hash", site.pin)
    said = refusal(outsider, *words)
    assert "used token" in said
    assert "was already used for system:node:n2" in said


def test_an_expired_token_is_refused(site: Site, outsider: Machine) -> None:
    token = site.n1.run("wherry", "token", "create", "--ttl", "1s").strip()
    row = token.partition(".")[0]
    until(lambda: "expired" in site.n1.run("wherry", "token", "list").partition(row)[2].splitlines()[0], "it expires")
    words = ("10.88.0.11:6443", "--token", token, "--discovery-token-ca-cert-hash", site.pin)
    assert "expired token" in refusal(outsider, *words)


def test_an_unknown_token_and_a_malformed_one_are_refused(site: Site, outsider: Machine) -> None:
    pin = ("--discovery-token-ca-cert-hash", site.pin)
    assert "unknown token" in refusal(outsider, "10.88.0.11:6443", "--token", "abcdef.0123456789abcdef", *pin)
    assert "malformed token" in refusal(outsider, "10.88.0.11:6443", "--token", "secret", *pin)


def test_a_second_machine_of_a_ready_nodes_name_is_refused(site: Site, outsider: Machine) -> None:
    address, *words = site.join_words().split()
    done = outsider.result("wherry", "join", address, *words, "--node-name", "n2", "--node-ip", outsider.address)
    assert done.returncode == 1, done.stdout
    assert "a node named n2 is Ready" in done.stderr
    assert not outsider.path("/etc/wherry/nodeagent.conf").exists()


def test_the_same_machine_joins_by_a_good_token(whole: Site) -> None:
    assert whole.ready_nodes() == {"n1", "n2", "n3"}
