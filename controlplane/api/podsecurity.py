"""The Pod Security Standards: what a pod does that the levels `baseline` and `restricted` do not allow.

Pure. `violations()` gives the complaints about a pod's metadata and spec in the words of Kubernetes' PodSecurity
admission (k8s.io/pod-security-admission): a reason, and in brackets who has to mend what. The standards are those of
the newest version; older versions differ in details only (a few sysctls).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

Object = Mapping[str, Any]
Check = Callable[[Object, Object], str]

LEVELS = ("privileged", "baseline", "restricted")
_KINDS = ("initContainers", "containers", "ephemeralContainers")
_CAPABILITIES = frozenset(
    (
        "AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE", "SETFCAP",
        "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT",
    )
)  # fmt: skip
_SYSCTLS = frozenset(
    (
        "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies",
        "net.ipv4.ping_group_range", "net.ipv4.ip_unprivileged_port_start", "net.ipv4.ip_local_reserved_ports",
        "net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl",
        "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem",
    )
)  # fmt: skip
_SELINUX_TYPES = ("", "container_t", "container_init_t", "container_kvm_t", "container_engine_t")
_VOLUMES = frozenset(
    (
        "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected",
        "secret",
    )
)  # fmt: skip
_APP_ARMOR = "container.apparmor.security.beta.kubernetes.io/"


def violations(level: str, meta: Object, spec: Object) -> str:
    """What a pod does that `level` forbids, in one line; empty if it may."""
    found = (check(meta, spec) for check in _CHECKS.get(level, ()))
    return ", ".join(text for text in found if text)


def _containers(spec: Object) -> Iterator[Object]:
    for kind in _KINDS:
        yield from spec.get(kind) or ()


def _context(each: Object) -> Object:
    return each.get("securityContext") or {}


def _quoted(values: Iterable[str]) -> str:
    return ", ".join(f'"{value}"' for value in values)


def _who(names: Sequence[str]) -> str:
    return f"{'container' if len(names) == 1 else 'containers'} {_quoted(names)}"


def _setters(spec: Object, names: Sequence[str], *, pod: bool) -> str:
    parts = (["pod"] if pod else []) + ([_who(names)] if names else [])
    return " and ".join(parts)


def _named(spec: Object, bad: Callable[[Object], Any]) -> list[str]:
    return [each.get("name", "") for each in _containers(spec) if bad(each)]


def _windows(spec: Object) -> bool:
    return (spec.get("os") or {}).get("name") == "windows"


# --- baseline


def _app_armor(meta: Object, spec: Object) -> str:
    def bad(context: Object) -> str:
        kind = (context.get("appArmorProfile") or {}).get("type", "")
        return "" if kind in ("", "RuntimeDefault", "Localhost") else kind

    values = {value for each in (spec, *_containers(spec)) if (value := bad(_context(each)))}
    noted = {
        f'{key}="{value}"'
        for key, value in (meta.get("annotations") or {}).items()
        if key.startswith(_APP_ARMOR) and value not in ("", "runtime/default") and not value.startswith("localhost/")
    }
    details = sorted(noted)
    if values:
        setters = _setters(spec, _named(spec, lambda each: bad(_context(each))), pod=bool(bad(_context(spec))))
        details.insert(0, f"{setters} must not set AppArmor profile type to {_quoted(sorted(values))}")
    many = "s" if len(values) + len(noted) > 1 else ""
    return f"forbidden AppArmor profile{many} ({', '.join(details)})" if details else ""


def _added(each: Object, allowed: Iterable[str]) -> list[str]:
    return [name for name in (_context(each).get("capabilities") or {}).get("add") or () if name not in allowed]


def _capabilities(meta: Object, spec: Object) -> str:
    names = _named(spec, lambda each: _added(each, _CAPABILITIES))
    if not names:
        return ""
    bad = sorted({name for each in _containers(spec) for name in _added(each, _CAPABILITIES)})
    text = f"{_who(names)} must not include {_quoted(bad)} in securityContext.capabilities.add"
    return f"non-default capabilities ({text})"


def _host_namespaces(meta: Object, spec: Object) -> str:
    found = [f"{field}=true" for field in ("hostNetwork", "hostPID", "hostIPC") if spec.get(field)]
    return f"host namespaces ({', '.join(found)})" if found else ""


def _host_paths(meta: Object, spec: Object) -> str:
    names = [volume.get("name", "") for volume in spec.get("volumes") or () if "hostPath" in volume]
    return f"hostPath volumes ({'volume' if len(names) == 1 else 'volumes'} {_quoted(names)})" if names else ""


def _host_ports(meta: Object, spec: Object) -> str:
    names = _named(spec, lambda each: any(port.get("hostPort") for port in each.get("ports") or ()))
    if not names:
        return ""
    found = {str(port["hostPort"]) for c in _containers(spec) for port in c.get("ports") or () if port.get("hostPort")}
    what = "hostPort" if len(found) == 1 else "hostPorts"
    return f"hostPort ({_who(names)} {'uses' if len(names) == 1 else 'use'} {what} {', '.join(sorted(found))})"


def _hosts(each: Object) -> set[str]:
    handlers = [each.get(name) for name in ("livenessProbe", "readinessProbe", "startupProbe")]
    handlers += [(each.get("lifecycle") or {}).get(name) for name in ("postStart", "preStop")]
    actions = [(handler or {}).get(kind) or {} for handler in handlers for kind in ("httpGet", "tcpSocket")]
    return {action["host"] for action in actions if action.get("host") not in (None, "", "127.0.0.1", "::1")}


def _probe_hosts(meta: Object, spec: Object) -> str:
    names = _named(spec, _hosts)
    if not names:
        return ""
    found = sorted({host for each in _containers(spec) for host in _hosts(each)})
    uses, what = ("uses" if len(names) == 1 else "use"), ("host" if len(found) == 1 else "hosts")
    return f"probe or lifecycle host ({_who(names)} {uses} probe or lifecycle {what} {_quoted(found)})"


def _privileged(meta: Object, spec: Object) -> str:
    names = _named(spec, lambda each: _context(each).get("privileged"))
    return f"privileged ({_who(names)} must not set securityContext.privileged=true)" if names else ""


def _proc_mount(meta: Object, spec: Object) -> str:
    def bad(each: Object) -> str:
        mount: str = _context(each).get("procMount") or "Default"
        return "" if mount == "Default" else mount

    names = _named(spec, bad) if spec.get("hostUsers") is not False else []
    values = sorted({value for each in _containers(spec) if (value := bad(each))})
    return f"procMount ({_who(names)} must not set securityContext.procMount to {_quoted(values)})" if names else ""


def _selinux(meta: Object, spec: Object) -> str:
    def bad(each: Object) -> list[str]:
        options = _context(each).get("seLinuxOptions") or {}
        kind = options.get("type", "")
        found = [f'type "{kind}"'] if kind not in _SELINUX_TYPES else []
        return found + [f"{field} may not be set" for field in ("user", "role") if options.get(field)]

    details = dict.fromkeys(text for each in (spec, *_containers(spec)) for text in bad(each))
    if not details:
        return ""
    setters = _setters(spec, _named(spec, bad), pod=bool(bad(spec)))
    return f"seLinuxOptions ({setters} set forbidden securityContext.seLinuxOptions: {'; '.join(details)})"


def _seccomp_type(each: Object) -> str:
    kind: str = (_context(each).get("seccompProfile") or {}).get("type", "")
    return kind


def _unconfined(spec: Object) -> str:
    def bad(each: Object) -> bool:
        return _seccomp_type(each) not in ("", "RuntimeDefault", "Localhost")

    values = sorted({_seccomp_type(each) for each in (spec, *_containers(spec)) if bad(each)})
    if not values:
        return ""
    setters = _setters(spec, _named(spec, bad), pod=bad(spec))
    return f"{setters} must not set securityContext.seccompProfile.type to {_quoted(values)}"


def _seccomp_baseline(meta: Object, spec: Object) -> str:
    text = _unconfined(spec)
    return f"seccompProfile ({text})" if text else ""


def _sysctls(meta: Object, spec: Object) -> str:
    found = [each.get("name", "") for each in _context(spec).get("sysctls") or ()]
    bad = [name for name in found if name not in _SYSCTLS]
    return f"forbidden sysctls ({', '.join(bad)})" if bad else ""


def _host_process(meta: Object, spec: Object) -> str:
    def bad(each: Object) -> bool:
        return bool((_context(each).get("windowsOptions") or {}).get("hostProcess"))

    setters = _setters(spec, _named(spec, bad), pod=bad(spec))
    return f"hostProcess ({setters} must not set securityContext.windowsOptions.hostProcess=true)" if setters else ""


# --- restricted


def _escalation(meta: Object, spec: Object) -> str:
    names = _named(spec, lambda each: _context(each).get("allowPrivilegeEscalation") is not False)
    if not names or _windows(spec):
        return ""
    return f"allowPrivilegeEscalation != false ({_who(names)} must set securityContext.allowPrivilegeEscalation=false)"


def _dropped(meta: Object, spec: Object) -> str:
    if _windows(spec):
        return ""
    details = []
    keep = _named(spec, lambda each: "ALL" not in ((_context(each).get("capabilities") or {}).get("drop") or ()))
    if keep:
        details.append(f'{_who(keep)} must set securityContext.capabilities.drop=["ALL"]')
    allowed = ("NET_BIND_SERVICE",)
    more = _named(spec, lambda each: _added(each, allowed))
    if more:
        bad = sorted({name for each in _containers(spec) for name in _added(each, allowed)})
        details.append(f"{_who(more)} must not include {_quoted(bad)} in securityContext.capabilities.add")
    return f"unrestricted capabilities ({'; '.join(details)})" if details else ""


def _volume_types(meta: Object, spec: Object) -> str:
    bad = {
        volume.get("name", ""): kind
        for volume in spec.get("volumes") or ()
        for kind in volume
        if kind != "name" and kind not in _VOLUMES
    }
    if not bad:
        return ""
    kinds = sorted(set(bad.values()))
    names, uses = ("volume", "uses") if len(bad) == 1 else ("volumes", "use")
    what = "type" if len(kinds) == 1 else "types"
    return f"restricted volume types ({names} {_quoted(bad)} {uses} restricted volume {what} {_quoted(kinds)})"


def _non_root(meta: Object, spec: Object) -> str:
    whole = _context(spec).get("runAsNonRoot")
    explicit = _named(spec, lambda each: _context(each).get("runAsNonRoot") is False)
    implicit = [] if whole else _named(spec, lambda each: _context(each).get("runAsNonRoot") is None)
    details = []
    if (whole is False and implicit) or explicit:
        setters = _setters(spec, explicit, pod=whole is False and bool(implicit))
        details.append(f"{setters} must not set securityContext.runAsNonRoot=false")
    elif implicit:
        details.append(f"pod or {_who(implicit)} must set securityContext.runAsNonRoot=true")
    return f"runAsNonRoot != true ({'; '.join(details)})" if details else ""


def _root_user(meta: Object, spec: Object) -> str:
    pod = _context(spec).get("runAsUser") == 0
    setters = _setters(spec, _named(spec, lambda each: _context(each).get("runAsUser") == 0), pod=pod)
    return f"runAsUser=0 ({setters} must not set runAsUser=0)" if setters else ""


def _seccomp(meta: Object, spec: Object) -> str:
    if _windows(spec):
        return ""
    details = [text] if (text := _unconfined(spec)) else []
    missing = [] if _seccomp_type(spec) else _named(spec, lambda each: not _seccomp_type(each))
    if missing:
        text = 'must set securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"'
        details.append(f"pod or {_who(missing)} {text}")
    return f"seccompProfile ({'; '.join(details)})" if details else ""


# In the order in which they are told; a check of `restricted` stands in for its weaker sister.
_BOTH: tuple[Check, ...] = (_app_armor, _host_namespaces, _host_ports, _probe_hosts, _privileged, _proc_mount, _selinux,
                            _sysctls, _host_process)  # fmt: skip
_CHECKS: dict[str, tuple[Check, ...]] = {
    "baseline": (
        _app_armor, _capabilities, _host_namespaces, _host_paths, _host_ports, _probe_hosts, _privileged, _proc_mount,
        _selinux, _seccomp_baseline, _sysctls, _host_process,
    ),
    "restricted": (*_BOTH, _escalation, _dropped, _volume_types, _non_root, _root_user, _seccomp),
}  # fmt: skip
