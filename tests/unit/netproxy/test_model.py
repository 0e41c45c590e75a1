from netproxy.changes import ChangeTracker
from netproxy.conntrack import Flow, expected, stale
from netproxy.model import Endpoint, PortName, ServiceName, ServicePort, service_ports, slice_endpoints
from netproxy.topology import Location, ServicePlan, plan


def service(**spec):
    metadata = {"namespace": "default", "name": "web", "labels": spec.pop("labels", {})}
    ports = [{"name": "http", "port": 80, "protocol": "TCP", "nodePort": 30080}]
    return {"metadata": metadata, "spec": {"clusterIP": "10.96.0.20", "ports": ports, **spec}}


def slice_(*endpoints, name="web-1", owner="web", labels=None, ports=None):
    return {
        "metadata": {
            "namespace": "default",
            "name": name,
            "labels": labels or {"kubernetes.io/service-name": owner},
        },
        "addressType": "IPv4",
        "ports": ports or [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": [ip], **more} for ip, more in endpoints],
    }


def test_services_without_cluster_ip_or_of_others_have_no_ports():
    assert service_ports(service(clusterIP="None")) == ()
    assert service_ports(service(type="ExternalName", clusterIP="")) == ()
    assert service_ports(service(labels={"service.kubernetes.io/service-proxy-name": "x"})) == ()
    assert service_ports(service(clusterIP="fd00::1", clusterIPs=["fd00::1"])) == ()


def test_a_service_port_as_the_api_says_it():
    (one,) = service_ports(service(type="NodePort", sessionAffinity="ClientIP"))
    assert (one.cluster_ip, one.port, one.node_port, one.affinity_s) == ("10.96.0.20", 80, 30080, 10800)
    assert str(one.name) == "default/web:http"
    (plain,) = service_ports(service())
    assert plain.node_port == 0  # a ClusterIP Service's leftover is not served
    ingress = [{"ip": "198.51.100.2"}, {"ip": "198.51.100.3", "ipMode": "Proxy"}, {"hostname": "x"}]
    balanced = service(type="LoadBalancer") | {"status": {"loadBalancer": {"ingress": ingress}}}
    assert service_ports(balanced)[0].load_balancer_ips == ("198.51.100.2",)


def test_conditions_that_are_not_there_mean_ready():
    found = slice_endpoints(
        slice_(("10.244.1.5", {}), ("10.244.1.6", {"conditions": {"ready": False}, "nodeName": "n1"})), "n1"
    )
    assert found["http"] == (
        Endpoint("10.244.1.5", 8080),
        Endpoint("10.244.1.6", 8080, ready=False, serving=False, local=True),
    )
    assert slice_endpoints({**slice_(), "addressType": "FQDN"}, "n1") == {}


def test_only_what_matters_is_a_change():
    tracker = ChangeTracker("n1")
    name = ServiceName("default", "web")
    assert not tracker.slice_changed(slice_(("10.244.1.5", {})))  # its Service is not known yet
    assert tracker.service_changed(service())
    assert tracker.take() == {name}
    assert not tracker.service_changed(service(labels={"a": "b"}))
    assert not tracker.slice_changed(slice_(("10.244.1.5", {"targetRef": {"name": "p"}})))
    assert tracker.slice_changed(slice_(("10.244.1.6", {})))
    assert tracker.take() == {name} and tracker.take() == set()
    assert tracker.service_deleted(service()) and tracker.ports(name) == ()


def test_endpoints_of_all_slices_are_one_list_each_once():
    tracker = ChangeTracker("n1")
    tracker.service_changed(service())
    tracker.slice_changed(slice_(("10.244.1.5", {"conditions": {"ready": False}}), ("10.244.1.7", {})))
    tracker.slice_changed(slice_(("10.244.1.5", {}), name="web-2"))
    name = ServiceName("default", "web")
    assert [(e.ip, e.ready) for e in tracker.endpoints(name, "http")] == [("10.244.1.5", True), ("10.244.1.7", True)]
    tracker.slice_deleted(slice_(name="web-2"))
    assert [(e.ip, e.ready) for e in tracker.endpoints(name, "http")] == [("10.244.1.5", False), ("10.244.1.7", True)]


def test_a_slice_that_changes_its_owner_leaves_the_old_one():
    tracker = ChangeTracker("n1")
    tracker.service_changed(service())
    tracker.slice_changed(slice_(("10.244.1.5", {})))
    tracker.take()
    assert tracker.slice_changed(slice_(("10.244.1.5", {}), owner="other"))
    assert tracker.take() == {ServiceName("default", "web")}
    assert tracker.endpoints(ServiceName("default", "web"), "http") == []
    headless = {"kubernetes.io/service-name": "web", "service.kubernetes.io/headless": ""}
    assert not tracker.slice_changed(slice_(("10.244.1.5", {}), name="h", labels=headless))


def port(**more):
    protocol = more.pop("protocol", "TCP")
    return ServicePort(PortName(ServiceName("default", "web"), "", protocol), "10.96.0.20", 80, protocol, **more)


def chosen(endpoints, location=None, **more):
    return [e.ip for e in plan(port(**more), endpoints, location or Location("n1", "east")).cluster]


def test_hints_choose_node_then_zone_unless_one_is_missing():
    def hinted(ip, node="", zone=""):
        return Endpoint(ip, 80, zone_hints=frozenset(filter(None, [zone])), node_hints=frozenset(filter(None, [node])))

    zones = [hinted("1", zone="east"), hinted("2", zone="west")]
    assert chosen(zones) == ["1"]
    assert chosen(zones, Location("n1", "north")) == ["1", "2"]
    assert chosen(zones, Location("n1")) == ["1", "2"]
    assert chosen([*zones, hinted("3")]) == ["1", "2", "3"]
    nodes = [hinted("1", "n1", "east"), hinted("2", "n2", "east"), hinted("3", "n3", "west")]
    assert chosen(nodes) == ["1"]
    assert chosen(nodes, Location("n9", "east")) == ["1", "2"]


def test_terminating_endpoints_serve_only_as_a_last_resort():
    going = Endpoint("1", 80, ready=False, serving=True, terminating=True)
    dead = Endpoint("2", 80, ready=False, serving=False, terminating=True)
    assert chosen([going, dead]) == ["1"]
    assert chosen([going, Endpoint("3", 80)]) == ["3"]
    assert not plan(port(), [dead], Location("n1")).has_any
    here = Endpoint("4", 80, ready=False, serving=True, terminating=True, local=True)
    local = plan(port(external_local=True, node_port=1), [Endpoint("3", 80), here], Location("n1"))
    assert [e.ip for e in local.local] == ["4"]


def test_stale_udp_flows_are_those_answered_by_nobody_who_should():
    udp = port(protocol="UDP", node_port=30053)
    now = ServicePlan(udp, (Endpoint("10.244.1.5", 53),), has_any=True)
    vip, pod, dead = (b"\x0a\x60\x00\x14", 80), (b"\x0a\xf4\x01\x05", 53), (b"\x0a\xf4\x01\x06", 53)
    node = (b"\x0a\x4d\x00\x0b", 30053)
    good, bad, black, other = Flow(vip, pod), Flow(vip, dead), Flow(vip, vip), Flow((b"\x08\x08\x08\x08", 53), dead)
    port_good, port_bad = Flow(node, pod), Flow(node, dead)
    assert stale([good, bad, black, other, port_good, port_bad], expected([now])) == [bad, black, port_bad]
    assert stale([good, bad, black], expected([ServicePlan(udp)])) == [good, bad]
    assert expected([ServicePlan(port())]) == {}
