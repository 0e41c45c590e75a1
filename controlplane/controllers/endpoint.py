"""What one pod contributes to a Service: an endpoint and the ports it serves. Pure; for EndpointSlice and Endpoints.

Rules of pkg/controller/endpointslice/utils.go: finished pods and pods without address do not count; a terminating pod
stays, marked so, as long as it serves; named target ports are looked up in the pod's containers, so different pods may
serve a Service port on different numbers.
"""

from collections.abc import Sequence

from controlplane.controllers import meta, pods

Ports = tuple[tuple[str, int, str, str], ...]
"""(name, number, protocol, appProtocol) of each port, in the Service's order."""


def counts(pod: meta.Object) -> bool:
    """Whether the pod can be an endpoint at all."""
    return not pods.is_terminal(pod) and bool(addresses(pod))


def addresses(pod: meta.Object) -> list[str]:
    """The pod's addresses, the primary one first."""
    status = meta.status(pod)
    several = [entry["ip"] for entry in status.get("podIPs") or () if entry.get("ip")]
    return several or ([status["podIP"]] if status.get("podIP") else [])


def address_of(pod: meta.Object, family: str) -> str:
    """The pod's first address of `family` (`IPv4` or `IPv6`); "" if it has none."""
    return next((a for a in addresses(pod) if (":" in a) == (family == "IPv6")), "")


def families(service: meta.Object) -> list[str]:
    """The address families for which slices are kept; a Service whose families are not defaulted yet is IPv4."""
    return service["spec"].get("ipFamilies") or ["IPv4"]


def is_headless(service: meta.Object) -> bool:
    return bool(service["spec"].get("clusterIP") == "None")


def endpoint(pod: meta.Object, service: meta.Object, address: str, zone: str) -> meta.Object:
    """The pod as an endpoint of an EndpointSlice. `zone`: of the pod's node, "" if unknown."""
    serving, terminating = pods.is_ready(pod), meta.is_deleting(pod)
    ready = bool(service["spec"].get("publishNotReadyAddresses")) or (serving and not terminating)
    result: meta.Object = {
        "addresses": [address],
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
        "targetRef": {"kind": "Pod", "namespace": meta.namespace(pod), "name": meta.name(pod), "uid": meta.uid(pod)},
    }
    if hostname(pod, service):
        result["hostname"] = hostname(pod, service)
    if pods.node_name(pod):
        result["nodeName"] = pods.node_name(pod)
    if zone:
        result["zone"] = zone
    return result


def hostname(pod: meta.Object, service: meta.Object) -> str:
    """The pod's own DNS name under the Service, when its `subdomain` names it; else ""."""
    spec = pod["spec"]
    return (spec.get("hostname") or "") if spec.get("subdomain") == meta.name(service) else ""


def ports(service: meta.Object, pod: meta.Object) -> Ports:
    """The ports at which `pod` serves `service`; those whose named target the pod does not have are left out."""
    found = []
    for port in service["spec"].get("ports") or ():
        number = _target(port, pod)
        if number is not None:
            protocol = port.get("protocol") or "TCP"
            found.append((port.get("name") or "", number, protocol, port.get("appProtocol") or ""))
    return tuple(found)


def _target(port: meta.Object, pod: meta.Object) -> int | None:
    target = port.get("targetPort") or port["port"]
    if isinstance(target, int):
        return target
    sidecars = [c for c in pod["spec"].get("initContainers") or () if c.get("restartPolicy") == "Always"]
    for container in [*pod["spec"]["containers"], *sidecars]:
        for offered in container.get("ports") or ():
            same_protocol = (offered.get("protocol") or "TCP") == (port.get("protocol") or "TCP")
            if offered.get("name") == target and same_protocol:
                return offered["containerPort"]  # type: ignore[no-any-return]
    return None


def written_ports(served: Ports) -> list[meta.Object]:
    """`served` as EndpointSlice ports. The name is written even when empty: it is what a Service port is found by."""
    return [
        {"name": name, "port": number, "protocol": protocol, **({"appProtocol": app} if app else {})}
        for name, number, protocol, app in served
    ]


def read_ports(slice_ports: Sequence[meta.Object] | None) -> Ports:
    """The inverse of `written_ports`."""
    return tuple(
        (p.get("name") or "", p.get("port") or 0, p.get("protocol") or "TCP", p.get("appProtocol") or "")
        for p in slice_ports or ()
    )
