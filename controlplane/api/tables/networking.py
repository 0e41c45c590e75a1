"""Rows of Services, endpoints, ingresses and network policies."""

from typing import Any

from controlplane.api.tables.columns import AGE, NAME, Column, at, joined, pairs, selector

Object = dict[str, Any]


def _external_ip(obj: Object, now: float) -> str:
    spec = obj.get("spec", {})
    kind = spec.get("type", "ClusterIP")
    if kind == "ExternalName":
        return str(spec.get("externalName") or "<none>")
    given = spec.get("externalIPs") or []
    if kind != "LoadBalancer":
        return joined(given)
    balanced = [each.get("ip") or each.get("hostname", "") for each in _ingress(obj)]
    return joined([*balanced, *given], "<pending>")


def _ingress(obj: Object) -> list[Object]:
    return obj.get("status", {}).get("loadBalancer", {}).get("ingress") or []


def _ports(obj: Object, now: float) -> str:
    texts = []
    for each in obj.get("spec", {}).get("ports") or ():
        node = f":{each['nodePort']}" if each.get("nodePort") else ""
        texts.append(f"{each.get('port', 0)}{node}/{each.get('protocol', 'TCP')}")
    return joined(texts)


def _plain_selector(obj: Object, now: float) -> str:
    return pairs(obj.get("spec", {}).get("selector"))


def _cluster_ip(obj: Object, now: float) -> str:
    spec = obj.get("spec", {})
    ips = spec.get("clusterIPs") or [spec.get("clusterIP")]
    return ips[0] or "<none>"


def _endpoints(obj: Object, now: float) -> str:
    texts: list[str] = []
    for subset in obj.get("subsets") or ():
        addresses = [each.get("ip", "") for each in subset.get("addresses") or ()]
        ports = subset.get("ports") or ()
        texts += [f"{ip}:{port.get('port', 0)}" for port in ports for ip in addresses] if ports else addresses
    return joined(texts, limit=3)


def _slice_ports(obj: Object, now: float) -> str:
    found = obj.get("ports") or ()
    return joined((str(each.get("port", "*")) for each in found), "<unset>", limit=3)


def _slice_endpoints(obj: Object, now: float) -> str:
    return joined((ip for each in obj.get("endpoints") or () for ip in each.get("addresses") or ()), "<unset>", limit=3)


def _hosts(obj: Object, now: float) -> str:
    return joined((rule["host"] for rule in obj.get("spec", {}).get("rules") or () if rule.get("host")), "*", limit=3)


def _address(obj: Object, now: float) -> str:
    return joined((each.get("ip") or each.get("hostname", "") for each in _ingress(obj)), "")


def _ingress_ports(obj: Object, now: float) -> str:
    return "80, 443" if obj.get("spec", {}).get("tls") else "80"


def _parameters(obj: Object, now: float) -> str:
    found = obj.get("spec", {}).get("parameters")
    if not found:
        return "<none>"
    group = f".{found['apiGroup']}" if found.get("apiGroup") else ""
    return f"{found.get('kind', '')}{group}/{found.get('name', '')}"


def _cidrs(obj: Object, now: float) -> str:
    return joined(obj.get("spec", {}).get("cidrs") or ())


def _parent(obj: Object, now: float) -> str:
    found = obj.get("spec", {}).get("parentRef") or {}
    parts = (found.get("resource"), found.get("namespace"), found.get("name"))
    return "/".join(part for part in parts if part) or "<none>"


BY_KIND = {
    ("", "Service"): (
        NAME,
        Column("Type", at("spec", "type")),
        Column("Cluster-IP", _cluster_ip),
        Column("External-IP", _external_ip),
        Column("Port(s)", _ports),
        AGE,
        Column("Selector", _plain_selector, wide=True),
    ),
    ("", "Endpoints"): (NAME, Column("Endpoints", _endpoints), AGE),
    ("discovery.k8s.io", "EndpointSlice"): (
        NAME,
        Column("AddressType", at("addressType")),
        Column("Ports", _slice_ports),
        Column("Endpoints", _slice_endpoints),
        AGE,
    ),
    ("networking.k8s.io", "Ingress"): (
        NAME,
        Column("Class", at("spec", "ingressClassName")),
        Column("Hosts", _hosts),
        Column("Address", _address),
        Column("Ports", _ingress_ports),
        AGE,
    ),
    ("networking.k8s.io", "IngressClass"): (
        NAME,
        Column("Controller", at("spec", "controller")),
        Column("Parameters", _parameters),
        AGE,
    ),
    ("networking.k8s.io", "NetworkPolicy"): (NAME, Column("Pod-Selector", selector("spec", "podSelector")), AGE),
    ("networking.k8s.io", "ServiceCIDR"): (NAME, Column("CIDRs", _cidrs), AGE),
    ("networking.k8s.io", "IPAddress"): (NAME, Column("ParentRef", _parent)),
}
