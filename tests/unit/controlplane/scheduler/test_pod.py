from controlplane.scheduler.pod import PodInfo, requests_of, slim


def container(cpu: str = "", memory: str = "", **more: object) -> dict[str, object]:
    requests = {k: v for k, v in (("cpu", cpu), ("memory", memory)) if v}
    return {"name": "c", "image": "i", "resources": {"requests": requests}, **more}


def test_containers_add_up_and_the_largest_init_container_counts() -> None:
    spec = {
        "containers": [container("100m", "64Mi"), container("200m")],
        "initContainers": [container("250m"), container("1")],
    }
    assert requests_of(spec) == {"cpu": 1000, "memory": 64 << 20}


def test_sidecars_run_beside_what_starts_after_them_and_beside_the_containers() -> None:
    spec = {
        "containers": [container("100m")],
        "initContainers": [container("500m"), container("300m", restartPolicy="Always"), container("400m")],
    }
    assert requests_of(spec) == {"cpu": 700}  # the third step: sidecar and init container together


def test_overhead_limits_and_pod_level_requests() -> None:
    limited = {"containers": [{"resources": {"limits": {"cpu": "2"}}}], "overhead": {"cpu": "50m"}}
    assert requests_of(limited) == {"cpu": 2050}
    whole = {"containers": [container("3", "1Gi")], "resources": {"requests": {"cpu": "1"}}}
    assert requests_of(whole) == {"cpu": 1000, "memory": 1 << 30}


def test_a_pod_that_asks_for_nothing_is_scored_as_a_small_one(pod) -> None:
    info = PodInfo(pod("p"))
    assert (info.requests, info.nonzero_cpu, info.nonzero_memory) == ((), 100, 200 << 20)


def test_match_label_keys_narrow_a_selector(pod) -> None:
    constraint = {
        "topologyKey": "zone",
        "maxSkew": 1,
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "web"}},
        "matchLabelKeys": ["pod-template-hash"],
    }
    obj = pod("p", labels={"app": "web", "pod-template-hash": "x"}, topologySpreadConstraints=[constraint])
    selector = PodInfo(obj).spreads[0].selector
    assert selector.matches({"app": "web", "pod-template-hash": "x"})
    assert not selector.matches({"app": "web", "pod-template-hash": "y"})


def test_slim_keeps_what_decisions_need(pod) -> None:
    obj = pod("p", cpu="1", ports=[{"hostPort": 80}], nodeSelector={"a": "b"}, volumes=[{"emptyDir": {}}])
    obj["spec"]["containers"][0]["env"] = [{"name": "LARGE", "value": "x" * 1000}]
    obj["metadata"]["annotations"] = {"a": "b"}
    small = slim(obj)
    assert "env" not in small["spec"]["containers"][0]
    assert "annotations" not in small["metadata"]
    one, other = PodInfo(obj), PodInfo(small)
    assert (one.requests, one.ports, one.node_selector) == (other.requests, other.ports, other.node_selector)
