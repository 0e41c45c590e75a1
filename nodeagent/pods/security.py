"""The pod's and the container's securityContext, merged into the runtime's `SecurityContext`. Pure.

The container's word wins over the pod's (kubelet's securitycontext.DetermineEffectiveSecurityContext). What is refused
here is refused in kubelet's words: a container that must not run as root, but would.
"""

from __future__ import annotations

from nodeagent.pods import apparmor
from nodeagent.pods.env import config_error
from nodeagent.pods.model import Object
from nodeagent.runtime.interface import Image, SecurityContext


def effective(pod: Object, container: Object) -> Object:
    """The container's securityContext, completed by the fields that the pod's gives to all."""
    shared = pod["spec"].get("securityContext") or {}
    inherited = ("runAsUser", "runAsGroup", "runAsNonRoot", "seccompProfile", "appArmorProfile", "seLinuxOptions")
    return {
        **{k: shared[k] for k in inherited if shared.get(k) is not None},
        **(container.get("securityContext") or {}),
    }


def security_context(pod: Object, container: Object, image: Image, seccomp_root: str) -> SecurityContext:
    """Raises RuntimeFailure (CreateContainerConfigError) when runAsNonRoot cannot be kept."""
    shared, own = pod["spec"].get("securityContext") or {}, effective(pod, container)
    check_non_root(pod, container, own, image)
    groups = [*(shared.get("supplementalGroups") or ())]
    if shared.get("fsGroup") is not None:
        groups.append(shared["fsGroup"])
    capabilities = own.get("capabilities") or {}
    privileged = bool(own.get("privileged"))
    unmasked = own.get("procMount") == "Unmasked" or privileged
    return SecurityContext(
        run_as_user=own.get("runAsUser"),
        run_as_group=own.get("runAsGroup"),
        supplemental_groups=tuple(groups),
        privileged=privileged,
        readonly_rootfs=bool(own.get("readOnlyRootFilesystem")),
        no_new_privs=own.get("allowPrivilegeEscalation") is False,
        strict_groups=shared.get("supplementalGroupsPolicy") == "Strict",
        apparmor="" if privileged else apparmor.profile(pod, container),
        add_capabilities=tuple(_capability(c) for c in capabilities.get("add") or ()),
        drop_capabilities=tuple(_capability(c) for c in capabilities.get("drop") or ()),
        seccomp=_seccomp(own, privileged, seccomp_root),
        masked_paths=() if unmasked else None,
        readonly_paths=() if unmasked else None,
    )


def check_non_root(pod: Object, container: Object, own: Object, image: Image) -> None:
    """Whether the user that the container would run as may be root."""
    if not own.get("runAsNonRoot"):
        return
    where = f'(pod: "{pod["metadata"]["name"]}_{pod["metadata"].get("namespace", "")}({pod["metadata"]["uid"]})", '
    where += f"container: {container['name']})"
    if own.get("runAsUser") is not None:
        if own["runAsUser"] == 0:
            raise config_error(f"container's runAsUser breaks non-root policy {where}")
        return
    user = image.config.user.partition(":")[0]
    if user in ("", "0", "root"):
        raise config_error(f"container has runAsNonRoot and image will run as root {where}")
    if not user.isdigit():
        message = f"container has runAsNonRoot and image has non-numeric user ({user}), "
        raise config_error(f"{message}cannot verify user is non-root {where}")


def _seccomp(own: Object, privileged: bool, root: str) -> str:
    profile = own.get("seccompProfile") or {}
    kind = profile.get("type", "")
    if privileged:
        return "Unconfined"
    if kind == "Localhost":
        return f"Localhost:{root}/{profile.get('localhostProfile', '')}"
    return kind or "RuntimeDefault"


def _capability(name: str) -> str:
    name = name.upper()
    return name.removeprefix("CAP_")
