"""appArmorProfile: which profile a container is to run under, and whether this node can keep that promise.

A node whose kernel has no AppArmor refuses a pod that asks for a profile, rather than run it without one; a pod that
asks for nothing runs everywhere. Words and reason: kubelet's pkg/security/apparmor.
"""

from __future__ import annotations

from collections.abc import Callable

from nodeagent.linux import apparmor
from nodeagent.pods.memory import Verdict
from nodeagent.pods.model import Object

_ANNOTATION = "container.apparmor.security.beta.kubernetes.io/"


def profile(pod: Object, container: Object) -> str:
    """The name of the profile; empty for none (Unconfined, or nothing asked)."""
    own = (container.get("securityContext") or {}).get("appArmorProfile")
    asked = own or (pod["spec"].get("securityContext") or {}).get("appArmorProfile") or _annotated(pod, container)
    if asked.get("type") == "Localhost":
        return str(asked.get("localhostProfile") or "")
    return apparmor.DEFAULT_PROFILE if asked.get("type") == "RuntimeDefault" else ""


def refuse(
    pod: Object, enabled: Callable[[], bool] = apparmor.enabled, loaded: Callable[[], set[str]] = apparmor.profiles
) -> Verdict | None:
    """Why the node refuses the pod for the profiles that it asks for; None if it takes it."""
    spec = pod["spec"]
    containers = (*(spec.get("initContainers") or ()), *spec["containers"])
    wanted = [name for name in (profile(pod, c) for c in containers) if name]
    if not wanted:
        return None
    if not enabled():
        return _refusal("AppArmor is not enabled on the host")
    known = loaded()
    missing = next((name for name in wanted if known and name not in known), None)
    return None if missing is None else _refusal(f'profile "{missing}" is not loaded')


def _refusal(why: str) -> Verdict:
    return Verdict("Failed", "AppArmor", f"Pod was rejected: Cannot enforce AppArmor: {why}", 0)


def _annotated(pod: Object, container: Object) -> Object:
    """What clients wrote before there was a field."""
    value = (pod["metadata"].get("annotations") or {}).get(_ANNOTATION + container["name"], "")
    if value.startswith("localhost/"):
        return {"type": "Localhost", "localhostProfile": value.removeprefix("localhost/")}
    return {"type": "RuntimeDefault"} if value == "runtime/default" else {}
