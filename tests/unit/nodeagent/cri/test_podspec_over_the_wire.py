"""What a pod spec promises about security must cross the CRI unharmed, in both directions, byte for byte."""

from nodeagent.cri import codec, configs
from nodeagent.runtime.interface import (
    ContainerConfig,
    Mount,
    PodIdentity,
    SandboxConfig,
    SecurityContext,
    UserNamespace,
)
from nodeagent.runtime.rootfs import MASKED_PATHS, READONLY_PATHS


def test_users_groups_profiles_targets_and_mounts() -> None:
    pod = SandboxConfig(
        PodIdentity("ns", "web", "u1"), "web", "/logs", cgroup_parent="kubepods", user_namespace=UserNamespace(131072)
    )
    sandbox = configs.sandbox_to_cri(pod, "")
    there = codec.decode("PodSandboxConfig", codec.encode("PodSandboxConfig", sandbox))
    assert configs.sandbox_from_cri(there).user_namespace == UserNamespace(131072)

    security = SecurityContext(
        run_as_user=1, supplemental_groups=(7,), strict_groups=True, apparmor="mine", masked_paths=MASKED_PATHS,
        readonly_paths=READONLY_PATHS,
    )  # fmt: skip
    mounts = (Mount("/a", "/b", readonly=True, recursive=True), Mount("/c", "/d", readonly=True))
    ours = ContainerConfig("app", 0, "image", security=security, mounts=mounts, target_id="t1")
    sent = codec.encode("ContainerConfig", configs.container_to_cri(ours, sandbox))
    message = codec.decode("ContainerConfig", sent)
    assert message["mounts"][0]["uidMappings"] == [{"host_id": 131072, "container_id": 0, "length": 65536}]
    back = configs.container_from_cri(message, "image")
    assert back.target_id == "t1" and back.mounts == mounts
    assert back.security == security
