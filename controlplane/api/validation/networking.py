"""Rules for networking.k8s.io: ingresses and their classes, network policies, addresses of Services."""

from collections.abc import Mapping
from ipaddress import ip_network
from typing import Any

from controlplane.api import names
from controlplane.api.status import Cause, forbidden_field, invalid_value, not_supported, required, too_long
from controlplane.api.validation.common import IMMUTABLE, Object, complain, named, selector
from controlplane.api.validation.probes import port

Each = Mapping[str, Any]
GROUP = "networking.k8s.io"
_PATH_TYPES = ("Exact", "ImplementationSpecific", "Prefix")
_BAD_IN_PATH, _BAD_AT_END = ("//", "/./", "/../", "%2f", "%2F"), ("/..", "/.")
_CLASS = "kubernetes.io/ingress.class"
_LONGEST_CONTROLLER = 250


def ingress(obj: Object) -> list[Cause]:
    """Ingress."""
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    if not spec.get("rules") and "defaultBackend" not in spec:
        causes.append(invalid_value("spec", spec.get("rules"), "either `defaultBackend` or `rules` must be specified"))
    if "defaultBackend" in spec:
        _backend(causes, spec["defaultBackend"], "spec.defaultBackend")
    for index, rule in enumerate(spec.get("rules") or ()):
        at = f"spec.rules[{index}]"
        host = rule.get("host", "")
        if host:
            if not names.ip(host):
                causes.append(invalid_value(f"{at}.host", host, "must be a DNS name, not an IP address"))
            _host(causes, host, f"{at}.host")
        http = rule.get("http")
        if http is not None and not http.get("paths"):
            causes.append(required(f"{at}.http.paths"))
        for place, each in enumerate((http or {}).get("paths") or ()):
            _path(causes, each, f"{at}.http.paths[{place}]")
    for index, each in enumerate(spec.get("tls") or ()):
        for place, host in enumerate(each.get("hosts") or ()):
            _host(causes, host, f"spec.tls[{index}].hosts[{place}]")
        if each.get("secretName"):
            complaints = names.dns1123_subdomain(each["secretName"])
            complain(causes, f"spec.tls[{index}].secretName", each["secretName"], complaints)
    if spec.get("ingressClassName") is not None:
        value = spec["ingressClassName"]
        complain(causes, "spec.ingressClassName", value, names.dns1123_subdomain(value))
    return causes


def new_ingress(obj: Object) -> list[Cause]:
    """An Ingress that is being created: its class is said once."""
    causes = ingress(obj)
    noted = ((obj.get("metadata") or {}).get("annotations") or {}).get(_CLASS)
    chosen = (obj.get("spec") or {}).get("ingressClassName")
    if noted is not None and chosen is not None and noted != chosen:
        text = "must match `ingressClassName` when both are specified"
        causes.append(invalid_value(f"annotations.{_CLASS}", noted, text))
    return causes


def _host(causes: list[Cause], host: str, at: str) -> None:
    check = names.wildcard_dns1123_subdomain if "*" in host else names.dns1123_subdomain
    complain(causes, at, host, check(host))


def _path(causes: list[Cause], each: Each, at: str) -> None:
    kind, path = each.get("pathType"), each.get("path", "")
    if kind is None:
        causes.append(required(f"{at}.pathType", "pathType must be specified"))
        return
    if kind not in _PATH_TYPES:
        causes.append(not_supported(f"{at}.pathType", kind, _PATH_TYPES))
    elif (path or kind != "ImplementationSpecific") and not path.startswith("/"):
        causes.append(invalid_value(f"{at}.path", path, "must be an absolute path"))
    if kind in ("Exact", "Prefix"):
        complain(causes, f"{at}.path", path, (f"must not contain '{bad}'" for bad in _BAD_IN_PATH if bad in path))
        complain(causes, f"{at}.path", path, (f"cannot end with '{bad}'" for bad in _BAD_AT_END if path.endswith(bad)))
    _backend(causes, each.get("backend") or {}, f"{at}.backend")


def _backend(causes: list[Cause], backend: Each, path: str) -> None:
    target, resource = backend.get("service"), backend.get("resource")
    if target is not None and resource is not None:
        causes.append(invalid_value(path, "", "cannot set both resource and service backends"))
    elif resource is not None:
        _reference(causes, resource, f"{path}.resource")
    elif target is None:
        causes.append(invalid_value(path, "", "resource or service backend is required"))
    else:
        named(causes, target.get("name"), f"{path}.service.name", names.dns1035_label)
        chosen = target.get("port") or {}
        if chosen.get("name") and chosen.get("number"):
            causes.append(invalid_value(path, "", "cannot set both port name & port number"))
        elif chosen.get("name"):
            port(causes, chosen["name"], f"{path}.service.port.name")
        elif chosen.get("number"):
            port(causes, chosen["number"], f"{path}.service.port.number")
        else:
            causes.append(required(path, "port name or number is required"))


def _reference(causes: list[Cause], found: Each, at: str) -> None:
    if found.get("apiGroup") is not None:
        complain(causes, f"{at}.apiGroup", found["apiGroup"], names.dns1123_subdomain(found["apiGroup"]))
    for field in ("kind", "name"):
        named(causes, found.get(field), f"{at}.{field}", names.path_segment)


def ingress_class(obj: Object) -> list[Cause]:
    """IngressClass."""
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    controller, at = spec.get("controller", ""), "spec.controller"
    if not controller:
        causes.append(required(at))
    else:
        if len(controller.encode()) > _LONGEST_CONTROLLER:
            causes.append(too_long(at, _LONGEST_CONTROLLER))
        complain(causes, at, controller, names.domain_prefixed_path(controller))
    parameters = spec.get("parameters")
    if parameters is None:
        return causes
    path = "spec.parameters"
    _reference(causes, parameters, path)
    scope, namespace = parameters.get("scope"), parameters.get("namespace")
    if scope is None:
        causes.append(required(f"{path}.scope"))
    elif scope not in ("Cluster", "Namespace"):
        causes.append(not_supported(f"{path}.scope", scope, ("Cluster", "Namespace")))
    elif scope == "Cluster" and namespace is not None:
        causes.append(forbidden_field(f"{path}.namespace", "`parameters.scope` is set to 'Cluster'"))
    elif scope == "Namespace":
        if namespace is None:
            causes.append(required(f"{path}.namespace", "`parameters.scope` is set to 'Namespace'"))
        else:
            complain(causes, f"{path}.namespace", namespace, names.dns1123_label(namespace))
    return causes


def network_policy(obj: Object) -> list[Cause]:
    """NetworkPolicy."""
    spec = obj.get("spec") or {}
    causes = selector(spec.get("podSelector"), "spec.podSelector")
    for kind, peers in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(spec.get(kind) or ()):
            at = f"spec.{kind}[{index}]"
            for place, each in enumerate(rule.get("ports") or ()):
                _policy_port(causes, each, f"{at}.ports[{place}]")
            for place, peer in enumerate(rule.get(peers) or ()):
                _peer(causes, peer, f"{at}.{peers}[{place}]")
    kinds = spec.get("policyTypes") or ()
    if len(kinds) > 2:
        causes.append(invalid_value("spec.policyTypes", kinds, "may not specify more than two policyTypes"))
        return causes
    for index, kind in enumerate(kinds):
        if kind not in ("Ingress", "Egress"):
            causes.append(not_supported(f"spec.policyTypes[{index}]", kind, ("Ingress", "Egress")))
    return causes


def _policy_port(causes: list[Cause], each: Each, at: str) -> None:
    protocol, first, last = each.get("protocol"), each.get("port"), each.get("endPort")
    if protocol is not None and protocol not in ("TCP", "UDP", "SCTP"):
        causes.append(not_supported(f"{at}.protocol", protocol, ("TCP", "UDP", "SCTP")))
    if first is not None:
        port(causes, first, f"{at}.port")
    if last is None:
        return
    if first is None:
        causes.append(invalid_value(f"{at}.endPort", last, "may not be specified when `port` is not specified"))
    elif isinstance(first, str):
        causes.append(invalid_value(f"{at}.endPort", last, "may not be specified when `port` is non-numeric"))
    else:
        if last < first:
            causes.append(invalid_value(f"{at}.endPort", last, "must be greater than or equal to `port`"))
        complain(causes, f"{at}.endPort", last, names.port_number(last))


def _peer(causes: list[Cause], peer: Each, path: str) -> None:
    causes += selector(peer.get("podSelector"), f"{path}.podSelector")
    causes += selector(peer.get("namespaceSelector"), f"{path}.namespaceSelector")
    if "ipBlock" in peer:
        _block(causes, peer["ipBlock"], f"{path}.ipBlock")
    if not peer:
        causes.append(required(path, "must specify a peer"))
    elif "ipBlock" in peer and len(peer) > 1:
        causes.append(forbidden_field(path, "may not specify both ipBlock and another peer"))


def _block(causes: list[Cause], block: Each, path: str) -> None:
    if not named(causes, block.get("cidr"), f"{path}.cidr", names.cidr):
        return
    network = ip_network(block["cidr"], strict=False)
    for index, text in enumerate(block.get("except") or ()):
        at = f"{path}.except[{index}]"
        if complaints := names.cidr(text):
            complain(causes, at, text, complaints)
            continue
        part = ip_network(text, strict=False)
        inside = part.version == network.version and part.network_address in network
        if not inside or part.prefixlen <= network.prefixlen:
            causes.append(invalid_value(at, text, "must be a strict subset of `cidr`"))


def ip_address(obj: Object) -> list[Cause]:
    """IPAddress: whose it is must be said."""
    parent = (obj.get("spec") or {}).get("parentRef")
    if parent is None:
        return [required("spec.parentRef")]
    causes: list[Cause] = []
    at = "spec.parentRef"
    if parent.get("group"):
        complain(causes, f"{at}.group", parent["group"], names.dns1123_subdomain(parent["group"]))
    for field in ("resource", "name"):
        named(causes, parent.get(field), f"{at}.{field}", names.path_segment)
    if parent.get("namespace"):
        complain(causes, f"{at}.namespace", parent["namespace"], names.path_segment(parent["namespace"]))
    return causes


def service_cidr(obj: Object) -> list[Cause]:
    """ServiceCIDR: one network for each family."""
    found = (obj.get("spec") or {}).get("cidrs") or []
    causes: list[Cause] = []
    if not found:
        return [required("spec.cidrs", "at least one CIDR required")]
    if len(found) > 2:
        return [invalid_value("spec", found, "may only hold up to 2 values")]
    for index, text in enumerate(found):
        complain(causes, f"spec.cidrs[{index}]", text, names.cidr(text))
    if len(found) == 2 and not causes and (":" in found[0]) == (":" in found[1]):
        text = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/96"
        causes.append(invalid_value("spec.cidrs", found, text))
    return causes


def ingress_class_changes(new: Object, old: Object) -> list[Cause]:
    """An IngressClass keeps its controller."""
    now, was = (each.get("spec", {}).get("controller") for each in (new, old))
    return [] if now == was else [invalid_value("spec.controller", now, IMMUTABLE)]


BY_KIND = {
    (GROUP, "Ingress"): ingress,
    (GROUP, "IngressClass"): ingress_class,
    (GROUP, "NetworkPolicy"): network_policy,
    (GROUP, "IPAddress"): ip_address,
    (GROUP, "ServiceCIDR"): service_cidr,
}
