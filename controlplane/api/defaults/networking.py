"""Defaults of Services, endpoints, ingresses and network policies."""

from typing import Any

Object = dict[str, Any]

SESSION_SECONDS = 10800


def service(obj: Object) -> None:
    """v1 Service. Addresses and node ports are the API server's to allocate."""
    spec = obj.setdefault("spec", {})
    if not spec.get("sessionAffinity"):
        spec["sessionAffinity"] = "None"
    if not spec.get("type"):
        spec["type"] = "ClusterIP"
    if spec["sessionAffinity"] == "ClientIP":
        client_ip = spec.setdefault("sessionAffinityConfig", {}).setdefault("clientIP", {})
        if not client_ip.get("timeoutSeconds"):
            client_ip["timeoutSeconds"] = SESSION_SECONDS
    elif spec["sessionAffinity"] == "None":
        spec.pop("sessionAffinityConfig", None)
    for port in spec.get("ports") or ():
        if not port.get("protocol"):
            port["protocol"] = "TCP"
        if port.get("targetPort") in (None, 0, ""):
            port["targetPort"] = port.get("port", 0)
    kind = spec["type"]
    external = kind in ("NodePort", "LoadBalancer") or (kind == "ClusterIP" and bool(spec.get("externalIPs")))
    if external and not spec.get("externalTrafficPolicy"):
        spec["externalTrafficPolicy"] = "Cluster"
    if kind in ("ClusterIP", "NodePort", "LoadBalancer"):
        spec.setdefault("internalTrafficPolicy", "Cluster")
    if kind == "LoadBalancer":
        spec.setdefault("allocateLoadBalancerNodePorts", True)
    obj.setdefault("status", {}).setdefault("loadBalancer", {})


def endpoints(obj: Object) -> None:
    """v1 Endpoints."""
    for subset in obj.get("subsets") or ():
        for port in subset.get("ports") or ():
            if not port.get("protocol"):
                port["protocol"] = "TCP"


def endpoint_slice(obj: Object) -> None:
    """discovery.k8s.io/v1 EndpointSlice."""
    obj.setdefault("endpoints", [])
    for port in obj.get("ports") or ():
        port.setdefault("name", "")
        port.setdefault("protocol", "TCP")


def ingress(obj: Object) -> None:
    """networking.k8s.io/v1 Ingress."""
    obj.setdefault("status", {}).setdefault("loadBalancer", {})


def ingress_class(obj: Object) -> None:
    """networking.k8s.io/v1 IngressClass."""
    parameters = obj.get("spec", {}).get("parameters")
    if parameters:
        parameters.setdefault("scope", "Cluster")


def network_policy(obj: Object) -> None:
    """networking.k8s.io/v1 NetworkPolicy: always about ingress, about egress if it has egress rules."""
    spec = obj.setdefault("spec", {})
    for rule in (*(spec.get("ingress") or ()), *(spec.get("egress") or ())):
        for port in rule.get("ports") or ():
            port.setdefault("protocol", "TCP")
    if not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", "Egress"] if spec.get("egress") else ["Ingress"]


BY_KIND = {
    ("", "Service"): service,
    ("", "Endpoints"): endpoints,
    ("discovery.k8s.io", "EndpointSlice"): endpoint_slice,
    ("networking.k8s.io", "Ingress"): ingress,
    ("networking.k8s.io", "IngressClass"): ingress_class,
    ("networking.k8s.io", "NetworkPolicy"): network_policy,
}
