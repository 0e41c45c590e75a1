"""Defaults of pods and pod templates: spec, containers, probes (core/v1 defaults.go)."""

from typing import Any

from controlplane.api import quantity
from controlplane.api.defaults.volumes import downward_items, pull_policy, volume

Object = dict[str, Any]

TERMINATION_GRACE_PERIOD_SECONDS = 30


def pod(obj: Object) -> None:
    """A Pod: its spec, and what templates do not get (requests from limits, host ports, service links)."""
    spec = obj.setdefault("spec", {})
    pod_spec(spec)
    spec.setdefault("enableServiceLinks", True)
    for key in ("containers", "initContainers"):
        for each in spec.get(key) or ():
            _requests_from_limits(each["resources"])
            if spec.get("hostNetwork"):
                for port in each.get("ports") or ():
                    if not port.get("hostPort"):
                        port["hostPort"] = port.get("containerPort", 0)
    if "resources" in spec:
        _pod_requests(spec)


def template_of(obj: Object) -> None:
    """The pod template at `obj["template"]`; `obj` is a workload's spec or a PodTemplate."""
    template = obj.setdefault("template", {})
    pod_spec(template.setdefault("spec", {}))


def pod_spec(spec: Object) -> None:
    """What pods and templates have in common."""
    for key in ("containers", "initContainers", "ephemeralContainers"):
        for each in spec.get(key) or ():
            container(each)
    for each in spec.get("volumes") or ():
        volume(each)
    if not spec.get("restartPolicy"):
        spec["restartPolicy"] = "Always"
    if not spec.get("dnsPolicy"):
        spec["dnsPolicy"] = "ClusterFirst"
    if not spec.get("schedulerName"):
        spec["schedulerName"] = "default-scheduler"
    spec.setdefault("terminationGracePeriodSeconds", TERMINATION_GRACE_PERIOD_SECONDS)
    spec.setdefault("securityContext", {})
    # Two names for one field; Kubernetes always shows both.
    account = spec.get("serviceAccountName") or spec.get("serviceAccount")
    if account:
        spec["serviceAccountName"] = spec["serviceAccount"] = account


def container(each: Object) -> None:
    """One container of any sort."""
    if not each.get("imagePullPolicy"):
        each["imagePullPolicy"] = pull_policy(each.get("image", ""))
    if not each.get("terminationMessagePath"):
        each["terminationMessagePath"] = "/dev/termination-log"
    if not each.get("terminationMessagePolicy"):
        each["terminationMessagePolicy"] = "File"
    each.setdefault("resources", {})
    for port in each.get("ports") or ():
        if not port.get("protocol"):
            port["protocol"] = "TCP"
    for variable in each.get("env") or ():
        if "valueFrom" in variable:
            downward_items((variable["valueFrom"],))
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if name in each:
            probe(each[name])
    for handler in (each.get("lifecycle") or {}).values():
        if isinstance(handler, dict) and "httpGet" in handler:
            _http_get(handler["httpGet"])


def probe(each: Object) -> None:
    """A probe's timing, and where its request goes. Zero counts as unset, as in Go."""
    if not each.get("timeoutSeconds"):
        each["timeoutSeconds"] = 1
    if not each.get("periodSeconds"):
        each["periodSeconds"] = 10
    if not each.get("successThreshold"):
        each["successThreshold"] = 1
    if not each.get("failureThreshold"):
        each["failureThreshold"] = 3
    if "httpGet" in each:
        _http_get(each["httpGet"])
    if "grpc" in each:
        each["grpc"].setdefault("service", "")


def _http_get(action: Object) -> None:
    if not action.get("path"):
        action["path"] = "/"
    if not action.get("scheme"):
        action["scheme"] = "HTTP"


def _requests_from_limits(resources: Object) -> None:
    limits = resources.get("limits")
    if limits:
        resources["requests"] = {**limits, **(resources.get("requests") or {})}


def _pod_requests(spec: Object) -> None:
    """Pod-level requests that are not given: the containers' sum if they have any, else the pod-level limit."""
    resources = spec["resources"]
    requests = dict(resources.get("requests") or {})
    for name, limit in (resources.get("limits") or {}).items():
        if name in requests:
            continue
        amounts = [(each["resources"].get("requests") or {}).get(name) for each in spec.get("containers") or ()]
        known = [quantity.parse(amount) for amount in amounts if amount]
        requests[name] = str(sum(known, quantity.ZERO)) if known else limit
    if requests:
        resources["requests"] = requests
