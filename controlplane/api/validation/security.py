"""Rules for security contexts, of pods and of containers, and for what an operating system allows of them."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from controlplane.api import names
from controlplane.api.status import (
    Cause,
    duplicate,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
    too_long,
)
from controlplane.api.validation.common import complain, within
from controlplane.api.validation.paths import descending

Each = Mapping[str, Any]

MAX_ID = 2**31 - 1
_PROFILES = ("Localhost", "RuntimeDefault", "Unconfined")
_SYSCTL = r"([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?"
_is_sysctl = re.compile(_SYSCTL).fullmatch
_PATH_MAX = 4095
_CREDENTIALS_KIB = 64


def pod_context(causes: list[Cause], context: Each, spec: Each, path: str) -> None:
    """A pod's securityContext."""
    within(causes, context, path, 0, MAX_ID, "fsGroup", "runAsUser", "runAsGroup")
    for index, value in enumerate(context.get("supplementalGroups") or ()):
        if not 0 <= value <= MAX_ID:
            text = f"must be between 0 and {MAX_ID}, inclusive"
            causes.append(invalid_value(f"{path}.supplementalGroups[{index}]", value, text))
    if "sysctls" in context:
        _sysctls(causes, context["sysctls"] or (), spec, f"{path}.sysctls")
    for field, supported in _POD_CHOICES:
        value = context.get(field)
        if value is not None and value not in supported:
            causes.append(not_supported(f"{path}.{field}", value, supported))
    _profiles(causes, context, path)


_POD_CHOICES = (
    ("fsGroupChangePolicy", ("Always", "OnRootMismatch")),
    ("supplementalGroupsPolicy", ("Merge", "Strict")),
    ("seLinuxChangePolicy", ("MountOption", "Recursive")),
)


def container_context(causes: list[Cause], context: Each, path: str, *, host_users: bool) -> None:
    """A container's securityContext. `host_users`: root in the pod is root on the node."""
    within(causes, context, path, 0, MAX_ID, "runAsUser", "runAsGroup")
    mount = context.get("procMount")
    if mount is not None:
        if mount not in ("Default", "Unmasked"):
            causes.append(not_supported(f"{path}.procMount", mount, ("Default", "Unmasked")))
        if host_users and mount == "Unmasked":
            text = "`hostUsers` must be false to use `Unmasked`"
            causes.append(invalid_value(f"{path}.procMount", mount, text))
    if context.get("allowPrivilegeEscalation") is False:
        if context.get("privileged"):
            text = "cannot set `allowPrivilegeEscalation` to false and `privileged` to true"
            causes.append(invalid_value(path, context, text))
        if "CAP_SYS_ADMIN" in ((context.get("capabilities") or {}).get("add") or ()):
            text = "cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN"
            causes.append(invalid_value(path, context, text))
    _profiles(causes, context, path)


def _profiles(causes: list[Cause], context: Each, path: str) -> None:
    if "seccompProfile" in context:
        _seccomp(causes, context["seccompProfile"], f"{path}.seccompProfile")
    if "appArmorProfile" in context:
        _app_armor(causes, context["appArmorProfile"], f"{path}.appArmorProfile")
    if "windowsOptions" in context:
        _windows_options(causes, context["windowsOptions"], f"{path}.windowsOptions")


def _seccomp(causes: list[Cause], profile: Each, path: str) -> None:
    kind, local = profile.get("type", ""), profile.get("localhostProfile")
    if not kind:
        causes.append(required(f"{path}.type", "type is required when seccompProfile is set"))
    elif kind not in _PROFILES:
        causes.append(not_supported(f"{path}.type", kind, _PROFILES))
    if kind == "Localhost":
        if local is None:
            text = "must be set when seccomp type is Localhost"
            causes.append(required(f"{path}.localhostProfile", text))
        else:
            descending(causes, local, f"{path}.localhostProfile")
    elif local is not None:
        text = "can only be set when seccomp type is Localhost"
        causes.append(invalid_value(f"{path}.localhostProfile", profile, text))


def _app_armor(causes: list[Cause], profile: Each, path: str) -> None:
    kind, local, at = profile.get("type", ""), profile.get("localhostProfile"), f"{path}.localhostProfile"
    if not kind:
        causes.append(required(f"{path}.type", "type is required when appArmorProfile is set"))
    elif kind not in _PROFILES:
        causes.append(not_supported(f"{path}.type", kind, _PROFILES))
    elif kind == "Localhost":
        if not local:
            causes.append(required(at, "must be set when AppArmor type is Localhost"))
            return
        if local != local.strip():
            causes.append(invalid_value(at, local, "must not be padded with whitespace"))
        if len(local.encode()) > _PATH_MAX:
            causes.append(too_long(at, _PATH_MAX))
    elif local is not None:
        causes.append(invalid_value(at, local, "can only be set when AppArmor type is Localhost"))


# Namespaced parameters, by the namespace that has them (component-helpers node/util/sysctl).
_IPC_SYSCTLS = ("kernel.shm_rmid_forced", "kernel.shmmax", "kernel.shmall", "kernel.shmmni", "kernel.msgmax",
                "kernel.msgmnb", "kernel.msgmni", "kernel.sem")  # fmt: skip


def _sysctls(causes: list[Cause], found: Any, spec: Each, path: str) -> None:
    seen = set()
    for index, sysctl in enumerate(found):
        at, name = f"{path}[{index}].name", sysctl.get("name", "")
        if not name:
            causes.append(required(at))
        elif len(name) > 253 or not _is_sysctl(name):
            causes.append(invalid_value(at, name, f"must have at most 253 characters and match regex ^{_SYSCTL}$"))
        elif name in seen:
            causes.append(duplicate(at, name))
        seen.add(name)
        dotted = name.replace("/", ".")
        if spec.get("hostNetwork") and dotted.startswith("net."):
            causes.append(invalid_value(at, name, "may not be specified when 'hostNetwork' is true"))
        elif spec.get("hostIPC") and (dotted in _IPC_SYSCTLS or dotted.startswith("fs.mqueue.")):
            causes.append(invalid_value(at, name, "may not be specified when 'hostIPC' is true"))


_BAD_USER = re.compile(r'["/\\:;|=,+*?<>@\[\]]')
_NET_BIOS = re.compile(r'[^\\/:*?"<>|.][^\\/:*?"<>|]{0,14}')
_DNS_PART = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?"
_DNS_DOMAIN = re.compile(rf"{_DNS_PART}(?:\.{_DNS_PART})*")


def _windows_options(causes: list[Cause], options: Each, path: str) -> None:
    name, contents = options.get("gmsaCredentialSpecName"), options.get("gmsaCredentialSpec")
    if name is not None:
        complain(causes, f"{path}.gmsaCredentialSpecName", name, names.dns1123_subdomain(name))
    if contents is not None:
        at = f"{path}.gmsaCredentialSpec"
        if not contents:
            causes.append(invalid_value(at, contents, "gmsaCredentialSpec cannot be an empty string"))
        elif len(contents.encode()) > _CREDENTIALS_KIB * 1024:
            text = f"gmsaCredentialSpec size must be under {_CREDENTIALS_KIB} KiB"
            causes.append(invalid_value(at, contents, text))
    if options.get("runAsUserName") is not None:
        user = options["runAsUserName"]
        complain(causes, f"{path}.runAsUserName", user, (f"runAsUserName{text}" for text in _windows_user(user)))


def _windows_user(name: str) -> Iterator[str]:
    if not name:
        yield " cannot be an empty string"
        return
    if any(ord(char) < 32 or ord(char) == 127 for char in name):
        yield " cannot contain control characters"
        return
    if name.count("\\") > 1:
        yield " cannot contain more than one backslash"
        return
    domain, slash, user = name.rpartition("\\")
    if len(domain) >= 256:
        yield "'s Domain length must be under 256 characters"
    if slash and not _NET_BIOS.fullmatch(domain) and not _DNS_DOMAIN.fullmatch(domain):
        yield "'s Domain doesn't match the NetBios nor the DNS format"
    if not user:
        yield "'s User cannot be empty"
    elif len(user) > 104:
        yield "'s User length must not be longer than 104 characters"
    if user and not user.strip(". "):
        yield "'s User cannot contain only periods or spaces"
    if _BAD_USER.search(user):
        yield "'s User cannot contain the following characters: \"/\\:;|=,+*?<>@[]"


def _each_container(spec: Each, path: str) -> Iterator[tuple[Each, str]]:
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for index, container in enumerate(spec.get(kind) or ()):
            yield container, f"{path}.{kind}[{index}]"


def operating_system(causes: list[Cause], spec: Each, path: str) -> None:
    """A pod that says for which system it is, and has no option of the other one."""
    name = (spec.get("os") or {}).get("name", "")
    if not name:
        causes.append(required(f"{path}.os.name", "cannot be empty"))
    elif name == "linux":
        text = "windows options cannot be set for a linux pod"
        for context, at in _contexts(spec, path):
            if "windowsOptions" in context:
                causes.append(forbidden_field(f"{at}.windowsOptions", text))
    elif name == "windows":
        _no_linux(causes, spec, path)
    else:
        causes.append(not_supported(f"{path}.os", name, ("linux", "windows")))


def _contexts(spec: Each, path: str) -> Iterator[tuple[Each, str]]:
    yield spec.get("securityContext") or {}, f"{path}.securityContext"
    for container, at in _each_container(spec, path):
        yield container.get("securityContext") or {}, f"{at}.securityContext"


_NOT_WINDOWS = (
    "appArmorProfile", "seLinuxOptions", "seccompProfile", "fsGroup", "fsGroupChangePolicy", "sysctls", "runAsUser",
    "runAsGroup", "supplementalGroups", "supplementalGroupsPolicy", "seLinuxChangePolicy", "capabilities",
    "readOnlyRootFilesystem", "privileged", "allowPrivilegeEscalation", "procMount",
)  # fmt: skip


def _no_linux(causes: list[Cause], spec: Each, path: str) -> None:
    text = "cannot be set for a windows pod"
    for field in ("hostUsers", "hostPID", "hostIPC", "shareProcessNamespace"):
        if spec.get(field) is not None and (spec[field] or field in ("hostUsers", "shareProcessNamespace")):
            causes.append(forbidden_field(f"{path}.{field}", text))
    for context, at in _contexts(spec, path):
        causes += [forbidden_field(f"{at}.{field}", text) for field in _NOT_WINDOWS if context.get(field) is not None]


def has_windows_options(spec: Each) -> bool:
    """Whether anything in a pod is only for Windows (nearly never)."""
    return "windowsOptions" in (spec.get("securityContext") or ()) or any(
        "windowsOptions" in container["securityContext"]
        for container in spec.get("containers") or ()
        if "securityContext" in container
    )


def host_processes(causes: list[Cause], spec: Each, path: str) -> None:
    """Windows containers that run on the node itself: all of them or none."""
    whole = ((spec.get("securityContext") or {}).get("windowsOptions") or {}).get("hostProcess")
    count = total = 0
    for container, at in _each_container(spec, path):
        total += 1
        own = ((container.get("securityContext") or {}).get("windowsOptions") or {}).get("hostProcess")
        if whole is not None and own is not None and whole != own:
            text = f"pod hostProcess value must be identical if both are specified, was {str(whole).lower()}"
            causes.append(invalid_value(f"{at}.securityContext.windowsOptions.hostProcess", own, text))
        count += bool(whole if own is None else own)
    if not count:
        return
    if count != total:
        text = "If pod contains any hostProcess containers then all containers must be HostProcess containers"
        causes.append(invalid_value(path, "", text))
    if not spec.get("hostNetwork"):
        text = "hostNetwork must be true if pod contains any hostProcess containers"
        causes.append(invalid_value(f"{path}.hostNetwork", False, text))
