"""Rules for Services, and for what stands behind them: Endpoints and EndpointSlices."""

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

from controlplane.api import names
from controlplane.api.status import Cause, duplicate, forbidden_field, invalid_value, not_supported, required, too_many
from controlplane.api.validation.common import IMMUTABLE, Object, complain, labels, maybe_one_of, one_of
from controlplane.api.validation.containers import PROTOCOLS
from controlplane.api.validation.probes import port

Each = Mapping[str, Any]

SERVICE_TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
_FAMILIES = ("IPv4", "IPv6")
_FAMILY_POLICIES = ("PreferDualStack", "RequireDualStack", "SingleStack")
_DISTRIBUTIONS = ("PreferClose", "PreferSameNode", "PreferSameZone")
_LONGEST_STICKY_SECONDS = 86400
_RANGES = "service.beta.kubernetes.io/load-balancer-source-ranges"
_HINTS, _MODE = "service.kubernetes.io/topology-aware-hints", "service.kubernetes.io/topology-mode"
_MOST_ENDPOINTS, _MOST_ADDRESSES, _MOST_PORTS, _MOST_ZONES = 1000, 100, 20000, 8


def service(obj: Object) -> list[Cause]:
    """v1 Service."""
    spec = obj.get("spec") or {}
    annotations = (obj.get("metadata") or {}).get("annotations") or {}
    causes: list[Cause] = []
    kind = spec.get("type", "")
    if _MODE in annotations and annotations.get(_HINTS, annotations[_MODE]) != annotations[_MODE]:
        text = f"must match annotations[{_HINTS}] when both are specified"
        causes.append(invalid_value(f"metadata.annotations[{_MODE}]", annotations[_MODE], text))
    headless = spec.get("clusterIP") == "None"
    if kind != "ExternalName" and not headless and not spec.get("ports"):
        causes.append(required("spec.ports"))
    if kind in ("LoadBalancer", "NodePort") and headless:
        causes.append(invalid_value("spec.clusterIPs[0]", "None", f"may not be set to 'None' for {kind} services"))
    if kind == "ExternalName":
        _external_name(causes, spec)
    _ports(causes, spec, kind)
    causes += labels(spec.get("selector"), "spec.selector")
    one_of(causes, spec, "spec", "sessionAffinity", ("ClientIP", "None"))
    if spec.get("sessionAffinity") == "ClientIP":
        seconds = ((spec.get("sessionAffinityConfig") or {}).get("clientIP") or {}).get("timeoutSeconds", 0)
        if not 0 < seconds <= _LONGEST_STICKY_SECONDS:
            path = "spec.sessionAffinityConfig.clientIP.timeoutSeconds"
            text = f"must be greater than 0 and less than {_LONGEST_STICKY_SECONDS}"
            causes.append(invalid_value(path, seconds, text))
    if kind != "ExternalName":
        _cluster_ips(causes, spec, headless)
    for index, address in enumerate(spec.get("externalIPs") or ()):
        _address(causes, address, f"spec.externalIPs[{index}]")
    one_of(causes, spec, "spec", "type", SERVICE_TYPES)
    _balancer(causes, spec, kind, annotations)
    _policies(causes, spec, kind)
    return causes


def _external_name(causes: list[Cause], spec: Each) -> None:
    text = "may not be set for ExternalName services"
    for field, at in (("clusterIP", "clusterIPs"), ("ipFamilies", "ipFamilies"), ("ipFamilyPolicy", "ipFamilyPolicy")):
        if spec.get(field):
            causes.append(forbidden_field(f"spec.{at}", text))
    name = (spec.get("externalName") or "").removesuffix(".")
    if not name:
        causes.append(required("spec.externalName"))
    else:
        complain(causes, "spec.externalName", name, names.dns1123_subdomain(name))


def _ports(causes: list[Cause], spec: Each, kind: str) -> None:
    ports = spec.get("ports") or ()
    seen_names, seen, seen_nodes = set(), set(), set()
    for index, each in enumerate(ports):
        at = f"spec.ports[{index}]"
        name = each.get("name", "")
        if name:
            complain(causes, f"{at}.name", name, names.dns1123_label(name))
            if name in seen_names:
                causes.append(duplicate(f"{at}.name", name))
            seen_names.add(name)
        elif len(ports) > 1:
            causes.append(required(f"{at}.name"))
        number, protocol = each.get("port", 0), each.get("protocol", "")
        complain(causes, f"{at}.port", number, names.port_number(number))
        one_of(causes, each, at, "protocol", PROTOCOLS)
        port(causes, each.get("targetPort", 0), f"{at}.targetPort")
        _app_protocol(causes, each, at)
        node = each.get("nodePort")
        if node:
            if kind == "ClusterIP":
                causes.append(forbidden_field(f"{at}.nodePort", "may not be used when `type` is 'ClusterIP'"))
            if (protocol, node) in seen_nodes:
                causes.append(duplicate(f"{at}.nodePort", node))
            seen_nodes.add((protocol, node))
        if (protocol, number) in seen:
            causes.append(duplicate(at, {"protocol": protocol, "port": number}))
        seen.add((protocol, number))


def _app_protocol(causes: list[Cause], each: Each, at: str) -> None:
    value = each.get("appProtocol")
    if value is not None:
        complain(causes, f"{at}.appProtocol", value, names.qualified_name(value))


def _cluster_ips(causes: list[Cause], spec: Each, headless: bool) -> None:
    one, several = spec.get("clusterIP", ""), spec.get("clusterIPs") or []
    at = "spec.clusterIPs"
    if several and several[0] != one:
        text = "first value must match `clusterIP`" if one else "must be empty when `clusterIP` is not specified"
        causes.append(invalid_value(at, several, text))
    families = spec.get("ipFamilies") or []
    for index, family in enumerate(families):
        if family not in _FAMILIES:
            causes.append(not_supported(f"spec.ipFamilies[{index}]", family, _FAMILIES))
        if family in families[:index]:
            causes.append(duplicate(f"spec.ipFamilies[{index}]", family))
    maybe_one_of(causes, spec, "spec", "ipFamilyPolicy", _FAMILY_POLICIES)
    before = len(causes)
    for index, address in enumerate(several or ([one] if one else [])):
        if index == 0 and address == "None":
            if len(several) > 1:
                causes.append(invalid_value(at, several, "'None' must be the first and only value"))
        else:
            complain(causes, f"{at}[{index}]", address, names.ip(address))
    if len(several) > 2:
        causes.append(invalid_value(at, several, "may only hold up to 2 values"))
    if len(causes) > before:
        return
    if len(several) == 2 and (":" in several[0]) == (":" in several[1]):
        causes.append(invalid_value(at, several, "may specify no more than one IP for each IP family"))
    for index, (address, family) in enumerate(zip(several, families, strict=False)):
        if not headless and family in _FAMILIES and (":" in address) != (family == "IPv6"):
            text = f"expected an {family} value as indicated by `ipFamilies[{index}]`"
            causes.append(invalid_value(f"{at}[{index}]", address, text))


def _balancer(causes: list[Cause], spec: Each, kind: str, annotations: Mapping[str, str]) -> None:
    balanced = kind == "LoadBalancer"
    only = "may only be used when `type` is 'LoadBalancer'"
    ranges, at = spec.get("loadBalancerSourceRanges"), "spec.LoadBalancerSourceRanges"
    noted = [] if ranges else [each for each in annotations.get(_RANGES, "").strip().split(",") if each]
    if not ranges and _RANGES in annotations:
        at = f"metadata.annotations[{_RANGES}]"
    if (ranges or _RANGES in annotations) and not balanced:
        causes.append(forbidden_field(at, only))
    for index, value in enumerate(ranges or noted):
        where = f"{at}[{index}]" if ranges else at
        complain(causes, where, value.strip(), names.cidr(value.strip()))
    if spec.get("allocateLoadBalancerNodePorts") is not None and not balanced:
        causes.append(forbidden_field("spec.allocateLoadBalancerNodePorts", only))
    chosen = spec.get("loadBalancerClass")
    if chosen is not None:
        if balanced:
            complain(causes, "spec.loadBalancerClass", chosen, names.qualified_name(chosen))
        else:
            causes.append(forbidden_field("spec.loadBalancerClass", only))


def _policies(causes: list[Cause], spec: Each, kind: str) -> None:
    policy = spec.get("externalTrafficPolicy")
    if kind in ("NodePort", "LoadBalancer") or (kind == "ClusterIP" and spec.get("externalIPs")):
        one_of(causes, spec, "spec", "externalTrafficPolicy", ("Cluster", "Local"))
    elif policy:
        text = "may only be set for externally-accessible services"
        causes.append(invalid_value("spec.externalTrafficPolicy", policy, text))
    checked = kind == "LoadBalancer" and policy == "Local"
    number = spec.get("healthCheckNodePort")
    if number and not checked:
        text = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
        causes.append(invalid_value("spec.healthCheckNodePort", number, text))
    elif number:
        complain(causes, "spec.healthCheckNodePort", number, names.port_number(number))
    maybe_one_of(causes, spec, "spec", "internalTrafficPolicy", ("Cluster", "Local"))
    maybe_one_of(causes, spec, "spec", "trafficDistribution", _DISTRIBUTIONS)


def changes(new: Object, old: Object) -> list[Cause]:
    """A Service keeps its first address and family while it is of a type that has some, and its balancer's class."""
    after, before = new.get("spec") or {}, old.get("spec") or {}
    causes: list[Cause] = []
    if "ExternalName" not in (after.get("type"), before.get("type")):
        _kept_addresses(causes, after, before)
    if after.get("type") == before.get("type") == "LoadBalancer":
        if after.get("loadBalancerClass") != before.get("loadBalancerClass"):
            given = after.get("loadBalancerClass")
            causes.append(invalid_value("spec.loadBalancerClass", given, "may not change once set"))
        checked = after.get("externalTrafficPolicy") == before.get("externalTrafficPolicy") == "Local"
        if checked and after.get("healthCheckNodePort") != before.get("healthCheckNodePort"):
            causes.append(forbidden_field("spec.healthCheckNodePort", IMMUTABLE))
    return causes


def _kept_addresses(causes: list[Cause], after: Each, before: Each) -> None:
    for field, single, what in (("clusterIPs", "clusterIP", "clusterIP"), ("ipFamilies", "", "ipFamily")):
        was = before.get(field) or ([before[single]] if single and before.get(single) else [])
        now = after.get(field) or ([after[single]] if single and after.get(single) else [])
        headless = before.get("clusterIP") == "None", after.get("clusterIP") == "None"
        if not was or all(headless) or (field == "ipFamilies" and any(headless)):
            continue
        if not now:
            causes.append(invalid_value(f"spec.{field}[0]", now, f"primary {what} can not be unset"))
        elif now[0] != was[0] or (len(now) == len(was) and now != was):
            place = 0 if now[0] != was[0] or field == "ipFamilies" else 1
            causes.append(invalid_value(f"spec.{field}[{place}]", now, "may not change once set"))
        if len(now) == 1 and len(was) == 2 and after.get("ipFamilyPolicy") != "SingleStack":
            text = f"must be set to 'SingleStack' when releasing the secondary {what}"
            causes.append(invalid_value("spec.ipFamilyPolicy", after.get("ipFamilyPolicy"), text))


def endpoints(obj: Object) -> list[Cause]:
    """v1 Endpoints."""
    causes: list[Cause] = []
    for index, subset in enumerate(obj.get("subsets") or ()):
        at = f"subsets[{index}]"
        if not subset.get("addresses") and not subset.get("notReadyAddresses"):
            causes.append(required(at, "must specify `addresses` or `notReadyAddresses`"))
        for kind in ("addresses", "notReadyAddresses"):
            for place, address in enumerate(subset.get(kind) or ()):
                where = f"{at}.{kind}[{place}]"
                _address(causes, address.get("ip", ""), f"{where}.ip")
                if address.get("hostname"):
                    complain(causes, f"{where}.hostname", address["hostname"], names.dns1123_label(address["hostname"]))
                if address.get("nodeName") is not None:
                    complaints = names.dns1123_subdomain(address["nodeName"])
                    complain(causes, f"{where}.nodeName", address["nodeName"], complaints)
        ports = subset.get("ports") or ()
        for place, each in enumerate(ports):
            where = f"{at}.ports[{place}]"
            if each.get("name"):
                complain(causes, f"{where}.name", each["name"], names.dns1123_label(each["name"]))
            elif len(ports) > 1:
                causes.append(required(f"{where}.name"))
            number = each.get("port", 0)
            complain(causes, f"{where}.port", number, names.port_number(number))
            one_of(causes, each, where, "protocol", PROTOCOLS)
            _app_protocol(causes, each, where)
    return causes


def _address(causes: list[Cause], text: str, path: str) -> None:
    complaints = names.ip(text)
    complain(causes, path, text, complaints)
    if complaints:
        return
    address = ip_address(text)
    if address.is_unspecified:
        causes.append(invalid_value(path, text, f"may not be unspecified ({text})"))
    elif address.is_loopback:
        causes.append(invalid_value(path, text, "may not be in the loopback range (127.0.0.0/8, ::1/128)"))
    elif address.is_link_local:
        causes.append(invalid_value(path, text, "may not be in the link-local range (169.254.0.0/16, fe80::/10)"))
    elif address.is_multicast and text.lower().startswith(("224.0.0.", "ff02:")):
        about = "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)"
        causes.append(invalid_value(path, text, about))


def endpoint_slice(obj: Object) -> list[Cause]:
    """discovery.k8s.io/v1 EndpointSlice."""
    causes: list[Cause] = []
    family = obj.get("addressType", "")
    one_of(causes, obj, "", "addressType", ("FQDN", "IPv4", "IPv6"))
    found = obj.get("endpoints") or ()
    if len(found) > _MOST_ENDPOINTS:
        causes.append(too_many("endpoints", len(found), _MOST_ENDPOINTS))
    else:
        for index, each in enumerate(found):
            _endpoint(causes, each, f"endpoints[{index}]", family)
    seen = set()
    ports = obj.get("ports") or ()
    if len(ports) > _MOST_PORTS:
        causes.append(too_many("ports", len(ports), _MOST_PORTS))
        return causes
    for index, each in enumerate(ports):
        name, at = each.get("name", ""), f"ports[{index}]"
        if name:
            complain(causes, f"{at}.name", name, names.dns1123_label(name))
        if name in seen:
            causes.append(duplicate(f"{at}.name", name))
        seen.add(name)
        one_of(causes, each, at, "protocol", PROTOCOLS)
        if each.get("port"):
            complain(causes, f"{at}.port", each["port"], names.port_number(each["port"]))
        _app_protocol(causes, each, at)
    return causes


def _endpoint(causes: list[Cause], each: Each, at: str, family: str) -> None:
    addresses = each.get("addresses") or ()
    if not addresses:
        causes.append(required(f"{at}.addresses", "must contain at least 1 address"))
    elif len(addresses) > _MOST_ADDRESSES:
        causes.append(too_many(f"{at}.addresses", len(addresses), _MOST_ADDRESSES))
    for place, address in enumerate(addresses):
        where = f"{at}.addresses[{place}]"
        if family == "FQDN":
            complain(causes, where, address, names.dns1123_subdomain(address))
        elif family in _FAMILIES:
            if not names.ip(address) and (":" in address) != (family == "IPv6"):
                causes.append(invalid_value(where, address, f"must be a valid {family} address"))
            _address(causes, address, where)
    if each.get("hostname") is not None:
        complain(causes, f"{at}.hostname", each["hostname"], names.dns1123_label(each["hostname"]))
    if each.get("nodeName") is not None:
        complain(causes, f"{at}.nodeName", each["nodeName"], names.dns1123_subdomain(each["nodeName"]))
    zones = (each.get("hints") or {}).get("forZones") or ()
    if len(zones) > _MOST_ZONES:
        causes.append(too_many(f"{at}.hints.forZones", len(zones), _MOST_ZONES))
    seen = set()
    for place, zone in enumerate(zones):
        name = zone.get("name", "")
        if name in seen:
            causes.append(duplicate(f"{at}.hints.forZones[{place}].name", name))
        complain(causes, f"{at}.hints.forZones[{place}].name", name, names.label_value(name))
        seen.add(name)


BY_KIND = {
    ("", "Service"): service,
    ("", "Endpoints"): endpoints,
    ("discovery.k8s.io", "EndpointSlice"): endpoint_slice,
}
