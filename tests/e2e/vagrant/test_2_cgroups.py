"""cgroup v2 for real: the pure hierarchy of node-2 under systemd's delegation, asked by what happens to processes."""

import json
import re
from typing import Any

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.root, pytest.mark.e2e]
NODE = "node-2"
TOP = "/sys/fs/cgroup/wherry.slice/wherry-pods.service"
BUSY = "while true; do :; done"


@pytest.fixture
def pod(lab, eventually):
    """`pod(name, script, resources)`: running on NODE (or ended, with `until`); its cgroup. Deleted afterwards."""
    made = []

    def make(name: str, script: str, resources: dict[str, Any], until: str = "Running", **spec: Any) -> str:
        container = {"name": "main", "image": "busybox:1.35", "command": ["sh", "-c", script], "resources": resources}
        manifest = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name},
            "spec": {"nodeName": NODE, "containers": [container], "terminationGracePeriodSeconds": 1, **spec},
        }
        lab.kubectl("create", "-f", "-", stdin=json.dumps(manifest))
        made.append(name)
        eventually(f"{name} is {until}", lambda: lab.json("get", "pod", name)["status"]["phase"] == until)
        return path(lab.json("get", "pod", name))

    yield make
    if made:
        lab.kubectl("delete", "pod", "--ignore-not-found", "--grace-period=1", *made)


def path(seen: dict[str, Any]) -> str:
    """The container's cgroup as Kubernetes lays it out: a level for the QoS class, one for the pod, one for it."""
    quality, uid = seen["status"]["qosClass"].lower(), seen["metadata"]["uid"]
    level = "" if quality == "guaranteed" else f"{quality}/"
    container = seen["status"]["containerStatuses"][0]["containerID"].removeprefix("wherry://")
    return f"{TOP}/kubepods/{level}pod{uid}/{container}"


def state(lab, name: str) -> dict[str, Any]:
    return lab.json("get", "pod", name)["status"]["containerStatuses"][0]


def files(lab, folder: str, *names: str) -> list[str]:
    return lab.machine(NODE).run(f"cd {folder} && cat {' '.join(names)}").splitlines()


def used_us(lab, folder: str) -> int:
    return int(re.search(r"usage_usec (\d+)", lab.machine(NODE).run(f"cat {folder}/cpu.stat"))[1])


def test_the_machine_is_pure_v2_and_the_tree_is_delegated(lab):
    run = lab.machine(NODE).run
    assert run("stat -f -c %T /sys/fs/cgroup").strip() == "cgroup2fs"
    assert run("systemctl show -P Delegate wherry-pods").strip() == "yes"
    handed_down = set(run(f"cat {TOP}/cgroup.subtree_control").split())
    assert handed_down >= {"cpu", "cpuset", "memory", "pids"}
    assert run(f"cat {TOP}/cgroup.procs").strip() == "", "processes beside cgroups that have controllers"


def test_limits_are_in_the_files(lab, pod):
    resources = {"requests": {"cpu": "250m", "memory": "16Mi"}, "limits": {"cpu": "500m", "memory": "48Mi"}}
    folder = pod("limits", "sleep 3600", resources)
    assert files(lab, folder, "memory.max", "memory.oom.group", "cpu.max") == [str(48 << 20), "1", "50000 100000"]
    # 250m are 256 shares, and cpu.weight is 1 + (shares - 2) * 9999 / 262142.
    assert files(lab, folder, "cpu.weight") == ["10"]
    assert files(lab, f"{folder}/..", "memory.max", "cpu.max") == [str(48 << 20), "50000 100000"]
    inside = lab.kubectl("exec", "limits", "--", "cat", "/sys/fs/cgroup/memory.max", "/proc/self/cgroup")
    assert inside.splitlines() == [str(48 << 20), "0::/"], "the container sees its own cgroup as the top"


def test_too_much_memory_ends_the_container_and_the_status_says_why(lab, pod):
    folder = pod("hog", "tail /dev/zero", {"limits": {"memory": "24Mi"}}, until="Failed", restartPolicy="Never")
    ended = state(lab, "hog")["state"]["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("OOMKilled", 137)
    assert "kubepods/burstable" in folder
    log = lab.machine(NODE).run("dmesg | grep -c 'Memory cgroup out of memory'")
    assert int(log) >= 1, "the kernel's own word for it"


def test_one_process_too_greedy_takes_its_container_along_and_the_agent_restarts_it(lab, pod, eventually):
    """memory.oom.group: no half of a container goes on."""
    script = "sleep 3600 & [ -e /again/once ] && sleep 3600; touch /again/once; tail /dev/zero"
    volume = {"volumes": [{"name": "again", "emptyDir": {}}]}
    container = {
        "name": "main",
        "image": "busybox:1.35",
        "command": ["sh", "-c", script],
        "resources": {"limits": {"memory": "24Mi"}},
        "volumeMounts": [{"name": "again", "mountPath": "/again"}],
    }
    pod("greedy", script, {}, containers=[container], **volume)

    def restarted() -> bool:
        seen = state(lab, "greedy")
        return seen["restartCount"] == 1 and "running" in seen["state"]

    eventually("restarted", restarted)
    assert state(lab, "greedy")["lastState"]["terminated"]["reason"] == "OOMKilled"


def test_a_process_of_its_choice_is_killed_and_that_is_no_oom(lab, pod, eventually):
    pod("shot", "sleep 60 & kill -9 $!; wait $!", {"limits": {"memory": "24Mi"}}, until="Failed", restartPolicy="Never")
    ended = state(lab, "shot")["state"]["terminated"]
    assert (ended["reason"], ended["exitCode"]) == ("Error", 137)


def test_a_quota_is_kept(lab, pod):
    folder = pod("throttled", BUSY, {"limits": {"cpu": "200m"}})
    machine = lab.machine(NODE)
    script = (
        f"cd {folder}; a=$(head -1 cpu.stat); b=$(date +%s%N); sleep 5; echo $a $(head -1 cpu.stat) $(date +%s%N) $b"
    )
    _, before, _, after, until, since = machine.run(script).split()
    share = (int(after) - int(before)) * 1000 / (int(until) - int(since))
    assert 0.1 < share < 0.25, f"{share:.2f} of a CPU, not 0.2"
    assert int(re.search(r"nr_throttled (\d+)", machine.run(f"cat {folder}/cpu.stat"))[1]) > 0


def test_under_contention_cpu_goes_by_requests(lab, pod):
    """Two pods that never rest share node-2's only CPU as 4 : 1."""
    big, small = (pod(f"busy-{m}", BUSY, {"requests": {"cpu": m}}) for m in ("400m", "100m"))
    before = used_us(lab, big), used_us(lab, small)
    lab.machine(NODE).run("sleep 10")
    ratio = (used_us(lab, big) - before[0]) / (used_us(lab, small) - before[1])
    assert 2.5 < ratio < 6, f"{ratio:.1f}"


def test_a_pod_that_asked_for_nothing_yields_to_one_that_did(lab, pod, eventually):
    """Between classes as within them: BestEffort gets what is left."""
    asked, free = pod("asked", BUSY, {"requests": {"cpu": "200m"}}), pod("free", BUSY, {})
    assert files(lab, f"{TOP}/kubepods/besteffort", "cpu.weight") == ["1"]
    before = used_us(lab, asked), used_us(lab, free)
    lab.machine(NODE).run("sleep 10")
    assert used_us(lab, asked) - before[0] > 3 * (used_us(lab, free) - before[1])


def test_a_pod_has_only_so_many_processes(lab, pod):
    """The agent's podPidsLimit, as the kubelet's: -1 (none) unless set; the container's own view is the pod's."""
    folder = pod("forks", "sleep 3600", {})
    machine = lab.machine(NODE)
    machine.run(f"echo 20 >{folder}/../pids.max")
    said = lab.kubectl(
        "exec", "forks", "--", "sh", "-c", "sh -c 'for i in $(seq 40); do sleep 60 >/dev/null 2>&1 & done' 2>&1 || true"
    )
    assert "can't fork" in said
    assert int(files(lab, f"{folder}/..", "pids.current")[0]) <= 20


def test_what_forks_without_end_is_gone_with_its_pod(lab, pod, eventually):
    """cgroup.kill: nothing escapes, and the directories are removed."""
    folder = pod("hydra", "head() { sleep 0.1; head & head & }; head; while true; do head; sleep 1; done", {},
                 terminationGracePeriodSeconds=0)  # fmt: skip
    machine = lab.machine(NODE)
    machine.run(f"echo 200 >{folder}/../pids.max")
    eventually("many heads", lambda: int(files(lab, f"{folder}/..", "pids.current")[0]) > 50)
    lab.kubectl("delete", "pod", "hydra", "--grace-period=0", "--wait=true", timeout=180)
    parent = folder.rsplit("/", 1)[0]
    eventually(
        "its cgroup is removed", lambda: machine.run(f"ls -d {parent} 2>/dev/null || echo gone").strip() == "gone"
    )
