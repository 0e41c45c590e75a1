"""What `vagrant up` leaves: three nodes, a host let in by its own certificate, and nothing to do a second time."""

import base64
import subprocess
import sys

import pytest
import yaml

pytestmark = [pytest.mark.slow, pytest.mark.root, pytest.mark.e2e]
NODES = {"node-1": "192.168.56.11", "node-2": "192.168.56.12", "node-3": "192.168.56.13"}
UNITS = "systemctl show -P ActiveEnterTimestampMonotonic wherry-nodeagent wherry-runtime wherry-netproxy wherry-pods"


def test_three_nodes_are_ready_at_the_addresses_of_the_table(lab):
    found = {
        node["metadata"]["name"]: next(a["address"] for a in node["status"]["addresses"] if a["type"] == "InternalIP")
        for node in lab.json("get", "nodes")["items"]
    }
    assert found == NODES
    assert lab.ready_nodes() == set(NODES)


def test_every_unit_is_active_and_none_has_failed(lab):
    for name in NODES:
        machine = lab.machine(name)
        units = "wherry-pods wherry-runtime wherry-nodeagent wherry-netproxy"
        units += " wherry-apiserver wherry-controllers wherry-scheduler" if name == "node-1" else ""
        assert set(machine.run(f"systemctl is-active {units}").split()) == {"active"}
        assert machine.run("systemctl is-system-running").strip() == "running"


def test_the_hosts_key_never_left_it_and_its_certificate_is_the_clusters(lab):
    assert lab.kubeconfig.stat().st_mode & 0o777 == 0o600
    user = yaml.safe_load(lab.kubeconfig.read_text())["users"][0]["user"]
    said = lab.kubectl("auth", "whoami")
    assert "wherry:lab-admins" in said and "system:masters" not in said
    certificate = base64.b64decode(user["client-certificate-data"]).decode()
    key = base64.b64decode(user["client-key-data"]).decode().splitlines()[1]
    found = lab.machine("node-1").attempt(f"grep -rlF '{key}' /etc/wherry /var/lib/wherry/identity /tmp")
    assert found.stdout == "" and "PRIVATE" not in certificate


def test_without_a_certificate_the_api_says_nothing(lab):
    program = (
        "import ssl, urllib.request, urllib.error\n"
        "context = ssl._create_unverified_context()\n"
        "try: print(urllib.request.urlopen('https://192.168.56.11:6443/api/v1/nodes', context=context).status)\n"
        "except urllib.error.HTTPError as error: print(error.code)\n"
    )
    assert lab.enter([sys.executable, "-c", program], 60).stdout.strip() in {"401", "403"}


def test_certificates_and_keys_of_nodes_are_their_own(lab):
    """Nothing secret was copied: no two machines have a key in common, and only the control plane has the CA's."""
    keys = {}
    for name in NODES:
        found = lab.machine(name).run("find /etc/wherry /var/lib/wherry/identity -type f -exec sha256sum {} + ")
        listed = [line.split(None, 1) for line in found.splitlines()]
        keys[name] = {digest for digest, path in listed if path.endswith((".key", ".pem"))}
        assert any(path.endswith("/ca.key") for _, path in listed) == (name == "node-1")
    assert keys["node-2"] and not keys["node-2"] & keys["node-3"] and not keys["node-1"] & keys["node-2"]


def test_up_again_and_provision_again_change_nothing(lab, stopwatch):
    before = {name: (lab.machine(name).boot_id(), lab.machine(name).run(UNITS)) for name in NODES}
    kubeconfig = lab.kubeconfig.read_text()
    with stopwatch("vagrant up, again"):
        assert "already provisioned" in lab.vagrant("up")
    with stopwatch("vagrant provision, again"):
        lab.vagrant("provision", timeout=900)
    assert {name: (lab.machine(name).boot_id(), lab.machine(name).run(UNITS)) for name in NODES} == before
    assert lab.kubeconfig.read_text() == kubeconfig
    assert lab.ready_nodes() == set(NODES)


def test_logs_and_exec_go_through_the_api_server_to_every_node(lab, eventually):
    for name in NODES:
        overrides = f'{{"spec":{{"nodeName":"{name}","terminationGracePeriodSeconds":1}}}}'
        script = "echo I am here; sleep 3600"
        lab.kubectl(
            "run", f"probe-{name}", "--image=busybox:1.35", f"--overrides={overrides}", "--", "sh", "-c", script
        )
    for name in NODES:
        lab.kubectl("wait", "--for=condition=Ready", f"pod/probe-{name}", "--timeout=180s", timeout=200)
        assert lab.kubectl("logs", f"probe-{name}") == "I am here\n"
        assert lab.kubectl("exec", f"probe-{name}", "--", "cat", "/etc/hostname") == f"probe-{name}\n"
    lab.kubectl("delete", "pod", *(f"probe-{name}" for name in NODES), "--grace-period=1")


def test_a_name_beyond_the_table_counts_on(lab):
    """NODES=5 makes node-4 and node-5; asked of Vagrant itself, without booting them."""
    inside = lab.hypervisor.command("env", "NODES=5", "vagrant", "status", "--machine-readable")
    done = subprocess.run(inside, env=lab.environment, text=True, capture_output=True, timeout=60)
    names = {line.split(",")[1] for line in done.stdout.splitlines() if ",state," in line}
    assert names == {*NODES, "node-4", "node-5"}
