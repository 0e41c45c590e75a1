"""Environment, resources, security context, hosts: the pure parts of a container's config."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from nodeagent.pods import env, hosts, resources, security
from nodeagent.pods.images import pull_policy
from nodeagent.pods.model import qos_class
from nodeagent.pods.services import variables
from nodeagent.runtime.interface import Image, ImageConfig, RuntimeFailure

Obj = dict[str, Any]


def pod(spec: Obj | None = None, **meta: Any) -> Obj:
    return {
        "metadata": {"name": "web", "namespace": "ns", "uid": "u1", **meta},
        "spec": {"containers": [{"name": "app", "image": "i"}], "nodeName": "n1", **(spec or {})},
    }


def sources(**more: Any) -> env.Sources:
    secret = {"kind": "Secret", "data": {"password": base64.b64encode(b"geheim").decode()}}
    return env.Sources(
        pod(labels={"app": "web"}), ["10.77.0.11"], ["10.244.0.5"], {"cpu": "2", "memory": "4Gi"},
        {"DB_SERVICE_HOST": "10.96.0.7", "SHARED": "service"},
        {"cm": {"kind": "ConfigMap", "data": {"a": "1", "SHARED": "cm"}}, "none": None}, {"sec": secret}, **more,
    )  # fmt: skip


def test_precedence_and_expansion() -> None:
    container = {
        "name": "app",
        "envFrom": [{"configMapRef": {"name": "cm"}}, {"prefix": "S_", "secretRef": {"name": "sec"}}],
        "env": [
            {"name": "A", "value": "$(a)-$(DB_SERVICE_HOST)-$(LATER)-$$(a)"},
            {"name": "LATER", "value": "x"},
            {"name": "B", "value": "$(LATER)$(A)"},
        ],
    }
    result = env.environment(container, sources())
    assert result["A"] == "1-10.96.0.7-$(LATER)-$(a)"
    assert result["B"] == "x1-10.96.0.7-$(LATER)-$(a)"
    assert result["SHARED"] == "cm" and result["S_password"] == "geheim"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.name", "web"),
        ("metadata.namespace", "ns"),
        ("metadata.uid", "u1"),
        ("metadata.labels['app']", "web"),
        ("metadata.labels['absent']", ""),
        ("spec.nodeName", "n1"),
        ("status.hostIP", "10.77.0.11"),
        ("status.podIP", "10.244.0.5"),
    ],
)
def test_fields(path: str, value: str) -> None:
    entry = {"name": "X", "valueFrom": {"fieldRef": {"fieldPath": path}}}
    assert env.environment({"name": "app", "env": [entry]}, sources())["X"] == value


@pytest.mark.parametrize(
    ("ref", "value"),
    [
        ({"resource": "limits.cpu"}, "1"),
        ({"resource": "limits.cpu", "divisor": "1m"}, "250"),
        ({"resource": "requests.cpu", "divisor": "1m"}, "250"),
        ({"resource": "limits.memory", "divisor": "1Mi"}, "4096"),
        ({"resource": "requests.memory"}, "0"),
    ],
)
def test_resource_fields_round_up_and_fall_back_to_the_node(ref: Obj, value: str) -> None:
    container = {
        "name": "app",
        "resources": {"limits": {"cpu": "250m"}},
        "env": [{"name": "X", "valueFrom": {"resourceFieldRef": ref}}],
    }
    assert env.environment(container, sources())["X"] == value


def test_what_is_missing_is_an_error_unless_optional() -> None:
    def one(source: Obj) -> dict[str, str]:
        return env.environment({"name": "app", "env": [{"name": "X", "valueFrom": source}]}, sources())

    with pytest.raises(RuntimeFailure, match="couldn't find key z in ConfigMap ns/cm") as failure:
        one({"configMapKeyRef": {"name": "cm", "key": "z"}})
    assert failure.value.reason == "CreateContainerConfigError"
    with pytest.raises(RuntimeFailure, match='secret "absent" not found'):
        one({"secretKeyRef": {"name": "absent", "key": "z"}})
    assert "X" not in one({"secretKeyRef": {"name": "absent", "key": "z", "optional": True}})


def test_service_variables() -> None:
    service = {
        "metadata": {"name": "my-db"},
        "spec": {"clusterIP": "10.96.0.9", "ports": [{"name": "sql", "port": 5432, "protocol": "TCP"}]},
    }
    result = variables(service)
    assert result["MY_DB_SERVICE_HOST"] == "10.96.0.9" and result["MY_DB_SERVICE_PORT_SQL"] == "5432"
    assert result["MY_DB_PORT"] == result["MY_DB_PORT_5432_TCP"] == "tcp://10.96.0.9:5432"
    assert variables({"metadata": {"name": "x"}, "spec": {"clusterIP": "None", "ports": [{"port": 1}]}}) == {}


def limits(cpu: str, memory: str) -> Obj:
    return {"resources": {"requests": {"cpu": cpu, "memory": memory}, "limits": {"cpu": cpu, "memory": memory}}}


def test_qos_and_cgroups() -> None:
    guaranteed = pod({"containers": [{"name": "a", **limits("500m", "64Mi")}]})
    assert qos_class(guaranteed) == "Guaranteed" and resources.cgroup_parent(guaranteed) == "kubepods/podu1"
    settings = resources.container_resources(guaranteed, guaranteed["spec"]["containers"][0], 1 << 30)
    assert (settings.cpu_shares, settings.cpu_quota_us, settings.memory_limit_bytes) == (512, 50_000, 64 << 20)
    assert settings.oom_score_adj == -997
    burstable = pod({"containers": [{"name": "a", "resources": {"requests": {"memory": "512Mi"}}}, {"name": "b"}]})
    assert resources.cgroup_parent(burstable) == "kubepods/burstable/podu1"
    assert resources.container_resources(burstable, burstable["spec"]["containers"][0], 1 << 30).oom_score_adj == 500
    assert resources.pod_resources(burstable).memory_limit_bytes == 0
    assert resources.cgroup_parent(pod()) == "kubepods/besteffort/podu1"
    assert resources.container_resources(pod(), {"name": "a"}, 1 << 30).oom_score_adj == 1000


def test_a_pods_request_is_its_greediest_moment() -> None:
    spec = {
        "containers": [{"name": "a", **limits("300m", "1Mi")}],
        "initContainers": [
            {"name": "side", "restartPolicy": "Always", **limits("100m", "1Mi")},
            {"name": "big", **limits("1", "1Mi")},
        ],
    }
    assert resources.effective(pod(spec), "requests", "cpu") == 1100 * 10**6


def context(spec: Obj | None = None, own: Obj | None = None, user: str = "") -> Any:
    container = {"name": "app", "securityContext": own or {}}
    return security.security_context(pod(spec), container, Image("i", (), ImageConfig(user=user)), "/seccomp")


def test_security_context() -> None:
    shared = {"securityContext": {"runAsUser": 5, "fsGroup": 7, "supplementalGroups": [6]}}
    merged = context(shared, {"runAsUser": 9, "capabilities": {"add": ["CAP_NET_ADMIN"], "drop": ["all"]}})
    assert merged.run_as_user == 9 and merged.supplemental_groups == (6, 7)
    assert merged.add_capabilities == ("NET_ADMIN",) and merged.drop_capabilities == ("ALL",)
    assert merged.seccomp == "RuntimeDefault" and merged.masked_paths is None
    assert context(own={"privileged": True}).seccomp == "Unconfined"
    profile = {"seccompProfile": {"type": "Localhost", "localhostProfile": "p.json"}}
    assert context(own=profile).seccomp == "Localhost:/seccomp/p.json"


@pytest.mark.parametrize(
    ("own", "user", "message"),
    [
        ({}, "", "image will run as root"),
        ({}, "0:0", "image will run as root"),
        ({}, "web", "non-numeric user"),
        ({"runAsUser": 0}, "5", "breaks non-root policy"),
        ({}, "5", ""),
        ({"runAsUser": 5}, "", ""),
    ],
)
def test_run_as_non_root(own: Obj, user: str, message: str) -> None:
    own = {"runAsNonRoot": True, **own}
    if message:
        with pytest.raises(RuntimeFailure, match=message):
            context(own=own, user=user)
    else:
        context(own=own, user=user)


NODE_DNS = hosts.DnsSettings(("10.96.0.10",), "cluster.local", "search lan\nnameserver 192.0.2.53\noptions timeout:1\n")


def test_resolv_conf_by_policy() -> None:
    first = hosts.resolv_conf(pod(), NODE_DNS)
    assert (
        first
        == "search ns.svc.cluster.local svc.cluster.local cluster.local lan\nnameserver 10.96.0.10\noptions ndots:5\n"
    )
    plain = hosts.resolv_conf(pod({"dnsPolicy": "Default"}), NODE_DNS)
    assert plain == "search lan\nnameserver 192.0.2.53\noptions timeout:1\n"
    assert hosts.resolv_conf(pod({"hostNetwork": True}), NODE_DNS) == plain
    none = {
        "dnsPolicy": "None",
        "dnsConfig": {"nameservers": ["192.0.2.1"], "options": [{"name": "ndots", "value": "2"}]},
    }
    assert hosts.resolv_conf(pod(none), NODE_DNS) == "nameserver 192.0.2.1\noptions ndots:2\n"
    without = hosts.DnsSettings((), "cluster.local", NODE_DNS.node_resolv_conf)
    assert hosts.resolv_conf(pod(), without) == plain


def test_hosts_file_and_names() -> None:
    spec = {"hostname": "h", "subdomain": "sub", "hostAliases": [{"ip": "192.0.2.9", "hostnames": ["a", "b"]}]}
    text = hosts.hosts_file(pod(spec), ["10.244.0.5"], "cluster.local")
    assert text.startswith(hosts.HEADER) and "10.244.0.5\th.sub.ns.svc.cluster.local\th\n" in text
    assert "\n# Entries added by HostAliases.\n192.0.2.9\ta\tb\n" in text
    assert hosts.hostname(pod({**spec, "setHostnameAsFQDN": True}), "cluster.local")[0] == "h.sub.ns.svc.cluster.local"
    assert hosts.hostname(pod(name="x" * 62 + ".y"), "cluster.local")[0] == "x" * 62


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("a", "Always"),
        ("a:latest", "Always"),
        ("a:1", "IfNotPresent"),
        ("r:5000/a", "Always"),
        ("a@sha256:" + "0" * 64, "IfNotPresent"),
    ],
)
def test_default_pull_policy(image: str, policy: str) -> None:
    assert pull_policy({"image": image}) == policy
