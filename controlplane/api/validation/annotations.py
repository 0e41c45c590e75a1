"""Rules for the annotations of pods that mean something to the API: mirror pods, deletion, old security profiles."""

from collections.abc import Mapping
from typing import Any

from controlplane.api.status import Cause, forbidden_field, invalid_value
from controlplane.api.validation.paths import descending

Each = Mapping[str, Any]

MIRROR = "kubernetes.io/config.mirror"
_COST = "controller.kubernetes.io/pod-deletion-cost"
_APP_ARMOR = "container.apparmor.security.beta.kubernetes.io/"
_SECCOMP_POD = "seccomp.security.alpha.kubernetes.io/pod"
_SECCOMP = "container.seccomp.security.alpha.kubernetes.io/"
_KINDS = ("initContainers", "containers", "ephemeralContainers")


def pod(causes: list[Cause], found: Mapping[str, str], spec: Each, path: str, spec_path: str) -> None:
    """The annotations of a pod or a template, at `path`."""
    if MIRROR in found and not spec.get("nodeName"):
        text = "must set spec.nodeName if mirror pod annotation is set"
        causes.append(invalid_value(f"{path}[{MIRROR}]", found[MIRROR], text))
    if _COST in found and not _cost(found[_COST]):
        causes.append(invalid_value(f"{path}[{_COST}]", found[_COST], "must be a 32bit integer"))
    for key, value in found.items():
        if key == _SECCOMP_POD or key.startswith(_SECCOMP):
            _seccomp(causes, value, f"{path}.{key}")
        elif key.startswith(_APP_ARMOR):
            _app_armor(causes, key, value, spec, path, spec_path)


def _cost(text: str) -> bool:
    # As Go's strconv.ParseInt reads it, without a plus sign and leading zeros.
    digits = text.removeprefix("-")
    plain = digits.isascii() and digits.isdecimal() and (digits == "0" or not digits.startswith("0")) and text != "-0"
    return plain and -(2**31) <= int(text) < 2**31


def _seccomp(causes: list[Cause], profile: str, at: str) -> None:
    if profile.startswith("localhost/"):
        descending(causes, profile.removeprefix("localhost/"), at)
    elif profile not in ("runtime/default", "docker/default", "unconfined"):
        causes.append(invalid_value(at, profile, "must be a valid seccomp profile"))


def _app_armor(causes: list[Cause], key: str, profile: str, spec: Each, path: str, spec_path: str) -> None:
    name = key.removeprefix(_APP_ARMOR)
    container, at = next(
        ((each, f"{spec_path}.{kind}[{index}]") for kind in _KINDS for index, each in enumerate(spec.get(kind) or ())
         if each.get("name") == name), (None, ""),
    )  # fmt: skip
    if container is None:
        causes.append(invalid_value(f"{path}[{key}]", name, "container not found"))
    if profile not in ("", "runtime/default", "unconfined") and not profile.startswith("localhost/"):
        causes.append(invalid_value(f"{path}[{key}]", profile, f'invalid AppArmor profile name: "{profile}"'))
    if container is None or (spec.get("os") or {}).get("name") == "windows":
        return
    whole = (spec.get("securityContext") or {}).get("appArmorProfile")
    wanted = (container.get("securityContext") or {}).get("appArmorProfile") or whole
    if wanted is None:
        return
    at = f"{at}.securityContext.appArmorProfile"
    expected = {"Unconfined": "unconfined", "RuntimeDefault": "runtime/default", "Localhost": "localhost/"}.get(
        wanted.get("type", ""), profile
    )
    if expected == "localhost/" and profile.startswith(expected):
        if profile != f"localhost/{wanted.get('localhostProfile', '')}":
            text = "apparmor profile in annotation and field must match"
            causes.append(forbidden_field(f"{at}.localhostProfile", text))
    elif profile != expected:
        causes.append(forbidden_field(f"{at}.type", "apparmor type in annotation and field must match"))


def pod_changes(new: Mapping[str, str], old: Mapping[str, str]) -> list[Cause]:
    """Annotations of a pod that say what it is do not change."""
    causes = []
    for key in {**old, **new}:
        if new.get(key) == old.get(key):
            continue
        done = "add" if key not in old else "remove or update"
        if key.startswith(_APP_ARMOR):
            causes.append(forbidden_field(f"metadata.annotations[{key}]", f"may not {done} AppArmor annotations"))
        elif key == MIRROR:
            text = f"may not {done} mirror pod annotation"
            causes.append(forbidden_field(f"metadata.annotations[{key}]", text))
    return causes
