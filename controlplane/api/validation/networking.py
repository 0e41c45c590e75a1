"""Rules for Services, endpoints, ingresses and network policies."""

from collections.abc import Mapping
from ipaddress import ip_address, ip_network
from typing import Any

from controlplane.api import names
from controlplane.api.status import (
    Cause,
    duplicate,
    forbidden_field,
    invalid_value,
    not_supported,
    required,
    too_many,
)
from controlplane.api.validation.common import Object, labels, maybe_one_of, named, need, one_of, selector
from controlplane.api.validation.containers import PROTOCOLS
from controlplane.api.validation.probes import port

Each = Mapping[str, Any]
SERVICE_TYPES = ("ClusterIP", "NodePort", "LoadBalancer", "ExternalName")


def service(obj: Object) -> list[Cause]:
    """v1 Service."""
    spec = obj.get("spec") or {}
    causes: list[Cause] = []
    kind = spec.get("type")
    one_of(causes, spec, "spec", "type", SERVICE_TYPES)
    one_of(causes, spec, "spec", "sessionAffinity", ("ClientIP", "None"))
    headless = spec.get("clusterIP") == "None"
    if kind == "ExternalName":
        _external_name(causes, spec)
    elif not headless and not spec.get("ports"):
        causes.append(required("spec.ports"))
    if headless and kind in ("NodePort", "LoadBalancer"):
        text = f"may not be set to 'None' for {kind} services"
        causes.append(invalid_value("spec.clusterIPs[0]", "None", text))
    _service_ports(causes, spec, kind or "")
    causes += labels(spec.get("selector"), "spec.selector")
    for index, address in enumerate(spec.get("clusterIPs") or ([spec["clusterIP"]] if spec.get("clusterIP") else ())):
        if address != "None":
            causes += [invalid_value(f"spec.clusterIPs[{index}]", address, each) for each in names.ip(address)]
    for index, address in enumerate(spec.get("externalIPs") or ()):
        causes += [invalid_value(f"spec.externalIPs[{index}]", address, each) for each in names.ip(address)]
    seconds = ((spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}).get("timeoutSeconds")
    if seconds is not None and not 0 < seconds <= 86400:
        path = "spec.sessionAffinityConfig.clientIP.timeoutSeconds"
        causes.append(invalid_value(path, seconds, "must be greater than 0 and less than 86400"))
    _policies(causes, spec, kind or "")
    return causes


def _external_name(causes: list[Cause], spec: Each) -> None:
    if spec.get("clusterIP"):
        text = "may not be set for ExternalName services"
        causes.append(forbidden_field("spec.clusterIPs", text))
    name = (spec.get("externalName") or "").removesuffix(".")
    if not name:
        causes.append(required("spec.externalName"))
    else:
        causes += [invalid_value("spec.externalName", spec["externalName"], e) for e in names.dns1123_subdomain(name)]


def _policies(causes: list[Cause], spec: Each, kind: str) -> None:
    maybe_one_of(causes, spec, "spec", "internalTrafficPolicy", ("Cluster", "Local"))
    maybe_one_of(causes, spec, "spec", "ipFamilyPolicy", ("SingleStack", "PreferDualStack", "RequireDualStack"))
    policy = spec.get("externalTrafficPolicy")
    if policy:
        if kind in ("NodePort", "LoadBalancer") or spec.get("externalIPs"):
            maybe_one_of(causes, spec, "spec", "externalTrafficPolicy", ("Cluster", "Local"))
        else:
            text = "may only be set for externally-accessible services"
            causes.append(invalid_value("spec.externalTrafficPolicy", policy, text))
    for index, family in enumerate(spec.get("ipFamilies") or ()):
        if family not in ("IPv4", "IPv6"):
            causes.append(not_supported(f"spec.ipFamilies[{index}]", family, ("IPv4", "IPv6")))


def _service_ports(causes: list[Cause], spec: Each, kind: str) -> None:
    ports = spec.get("ports") or ()
    seen_names, seen, seen_nodes = set(), set(), set()
    for index, each in enumerate(ports):
        at = f"spec.ports[{index}]"
        name = each.get("name", "")
        if name:
            causes += [invalid_value(f"{at}.name", name, text) for text in names.dns1123_label(name)]
            if name in seen_names:
                causes.append(duplicate(f"{at}.name", name))
            seen_names.add(name)
        elif len(ports) > 1:
            causes.append(required(f"{at}.name"))
        number = each.get("port", 0)
        causes += [invalid_value(f"{at}.port", number, text) for text in names.port_number(number)]
        one_of(causes, each, at, "protocol", PROTOCOLS)
        port(causes, each.get("targetPort", 0), f"{at}.targetPort")
        key = (each.get("protocol"), number)
        if key in seen:
            causes.append(duplicate(at, {"protocol": key[0], "port": number}))
        seen.add(key)
        node = each.get("nodePort")
        if node:
            if kind == "ClusterIP":
                causes.append(forbidden_field(f"{at}.nodePort", "may not be used when `type` is 'ClusterIP'"))
            elif (key[0], node) in seen_nodes:
                causes.append(duplicate(f"{at}.nodePort", node))
            seen_nodes.add((key[0], node))


def endpoints(obj: Object) -> list[Cause]:
    """v1 Endpoints."""
    causes: list[Cause] = []
    for index, subset in enumerate(obj.get("subsets") or ()):
        at = f"subsets[{index}]"
        if not subset.get("addresses") and not subset.get("notReadyAddresses"):
            causes.append(required(at, "must specify `addresses` or `notReadyAddresses`"))
        for kind in ("addresses", "notReadyAddresses"):
            for place, address in enumerate(subset.get(kind) or ()):
                _address(causes, address.get("ip", ""), f"{at}.{kind}[{place}].ip")
        ports = subset.get("ports") or ()
        for place, each in enumerate(ports):
            where = f"{at}.ports[{place}]"
            if len(ports) > 1 and not each.get("name"):
                causes.append(required(f"{where}.name"))
            number = each.get("port", 0)
            causes += [invalid_value(f"{where}.port", number, text) for text in names.port_number(number)]
            one_of(causes, each, where, "protocol", PROTOCOLS)
    return causes


def _address(causes: list[Cause], text: str, path: str) -> None:
    complaints = names.ip(text)
    causes += [invalid_value(path, text, each) for each in complaints]
    if complaints:
        return
    address = ip_address(text)
    if address.is_unspecified:
        causes.append(invalid_value(path, text, f"may not be unspecified ({text})"))
    elif address.is_loopback:
        causes.append(invalid_value(path, text, "may not be in the loopback range (127.0.0.0/8, ::1/128)"))
    elif address.is_link_local:
        causes.append(invalid_value(path, text, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"))
    elif address.is_multicast and text.startswith(("224.0.0.", "ff")):
        causes.append(
            invalid_value(path, text, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")
        )


def endpoint_slice(obj: Object) -> list[Cause]:
    """discovery.k8s.io/v1 EndpointSlice."""
    causes: list[Cause] = []
    family = obj.get("addressType")
    one_of(causes, obj, "", "addressType", ("IPv4", "IPv6", "FQDN"))
    found = obj.get("endpoints") or ()
    if len(found) > 1000:
        causes.append(too_many("endpoints", len(found), 1000))
    for index, each in enumerate(found):
        at = f"endpoints[{index}]"
        addresses = each.get("addresses") or ()
        if not addresses:
            causes.append(required(f"{at}.addresses", "must contain at least 1 address"))
        elif len(addresses) > 100:
            causes.append(too_many(f"{at}.addresses", len(addresses), 100))
        for place, address in enumerate(addresses):
            where = f"{at}.addresses[{place}]"
            if family == "FQDN":
                causes += [invalid_value(where, address, text) for text in names.dns1123_subdomain(address)]
            else:
                _address(causes, address, where)
                if (":" in address) != (family == "IPv6") and not names.ip(address):
                    causes.append(invalid_value(where, address, f"must be an {family} address"))
    seen = set()
    ports = obj.get("ports") or ()
    if len(ports) > 20000:
        causes.append(too_many("ports", len(ports), 20000))
    for index, each in enumerate(ports):
        name = each.get("name", "")
        if name in seen:
            causes.append(duplicate(f"ports[{index}].name", name))
        seen.add(name)
        if name:
            causes += [invalid_value(f"ports[{index}].name", name, text) for text in names.dns1123_label(name)]
        one_of(causes, each, f"ports[{index}]", "protocol", PROTOCOLS)
    return causes


def ingress(obj: Object) -> list[Cause]:
    """networking.k8s.io/v1 Ingress."""
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
            check = names.wildcard_dns1123_subdomain if "*" in host else names.dns1123_subdomain
            causes += [invalid_value(f"{at}.host", host, text) for text in check(host)]
        http = rule.get("http")
        if http is not None and not http.get("paths"):
            causes.append(required(f"{at}.http.paths"))
        for place, each in enumerate((http or {}).get("paths") or ()):
            where = f"{at}.http.paths[{place}]"
            kind, path = each.get("pathType"), each.get("path", "")
            if not kind:
                causes.append(required(f"{where}.pathType", "pathType must be specified"))
            elif kind not in ("Exact", "Prefix", "ImplementationSpecific"):
                causes.append(not_supported(f"{where}.pathType", kind, ("Exact", "ImplementationSpecific", "Prefix")))
            if (path or kind != "ImplementationSpecific") and not path.startswith("/"):
                causes.append(invalid_value(f"{where}.path", path, "must be an absolute path"))
            _backend(causes, each.get("backend") or {}, f"{where}.backend")
    return causes


def _backend(causes: list[Cause], backend: Each, path: str) -> None:
    target, resource = backend.get("service"), backend.get("resource")
    if target is not None and resource is not None:
        causes.append(invalid_value(path, "", "cannot set both resource and service backends"))
    elif target is None and resource is None:
        causes.append(required(path, "resource or service backend is required"))
    elif target is not None:
        named(causes, target.get("name"), f"{path}.service.name", names.dns1035_label)
        chosen = target.get("port") or {}
        if not chosen.get("name") and not chosen.get("number"):
            causes.append(required(f"{path}.service.port", "port name or number is required"))
        elif chosen.get("name") and chosen.get("number"):
            causes.append(invalid_value(f"{path}.service.port", "", "cannot set both port name & port number"))
        else:
            port(causes, chosen.get("name") or chosen["number"], f"{path}.service.port")


def network_policy(obj: Object) -> list[Cause]:
    """networking.k8s.io/v1 NetworkPolicy."""
    spec = obj.get("spec") or {}
    causes = selector(spec.get("podSelector"), "spec.podSelector")
    for kind, peers in (("ingress", "from"), ("egress", "to")):
        for index, rule in enumerate(spec.get(kind) or ()):
            at = f"spec.{kind}[{index}]"
            for place, each in enumerate(rule.get("ports") or ()):
                maybe_one_of(causes, each, f"{at}.ports[{place}]", "protocol", PROTOCOLS)
                if "port" in each:
                    port(causes, each["port"], f"{at}.ports[{place}].port")
            for place, peer in enumerate(rule.get(peers) or ()):
                _peer(causes, peer, f"{at}.{peers}[{place}]")
    for index, kind in enumerate(spec.get("policyTypes") or ()):
        if kind not in ("Ingress", "Egress"):
            causes.append(not_supported(f"spec.policyTypes[{index}]", kind, ("Egress", "Ingress")))
    return causes


def _peer(causes: list[Cause], peer: Each, path: str) -> None:
    if not peer:
        causes.append(required(path, "must specify a peer"))
    causes += selector(peer.get("podSelector"), f"{path}.podSelector")
    causes += selector(peer.get("namespaceSelector"), f"{path}.namespaceSelector")
    block = peer.get("ipBlock")
    if block is None:
        return
    if len(peer) > 1:
        text = "may not specify both ipBlock and another peer"
        causes.append(forbidden_field(path, text))
    need(causes, block, f"{path}.ipBlock", "cidr")
    for field, text in (("cidr", block.get("cidr")), *(("except", each) for each in block.get("except") or ())):
        try:
            ip_network(text or "0.0.0.0/0")
        except ValueError:
            complaint = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"
            causes.append(invalid_value(f"{path}.ipBlock.{field}", text, complaint))


BY_KIND = {
    ("", "Service"): service,
    ("", "Endpoints"): endpoints,
    ("discovery.k8s.io", "EndpointSlice"): endpoint_slice,
    ("networking.k8s.io", "Ingress"): ingress,
    ("networking.k8s.io", "NetworkPolicy"): network_policy,
}
