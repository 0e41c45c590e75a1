"""Rows of namespaces, nodes, events, configuration, roles, leases, certificates and extensions."""

from typing import Any

from controlplane.api.tables.columns import AGE, NAME, Column, at, duration, joined, since

Object = dict[str, Any]
_ROLE = "node-role.kubernetes.io/"


def _count(*fields: str) -> Column:
    def cell(obj: Object, now: float) -> int:
        return sum(len(obj.get(field) or ()) for field in fields)

    return Column("Data", cell, "integer")


def _node_status(obj: Object, now: float) -> str:
    texts = []
    for each in obj.get("status", {}).get("conditions") or ():
        if each.get("type") == "Ready":
            texts.append("Ready" if each.get("status") == "True" else "NotReady")
    if not texts:
        texts.append("Unknown")
    if obj.get("spec", {}).get("unschedulable"):
        texts.append("SchedulingDisabled")
    return ",".join(texts)


def _roles(obj: Object, now: float) -> str:
    labels = obj["metadata"].get("labels") or {}
    found = {key.removeprefix(_ROLE) for key in labels if key.startswith(_ROLE) and key != _ROLE}
    if labels.get("kubernetes.io/role"):
        found.add(labels["kubernetes.io/role"])
    return joined(sorted(found))


def _address(kind: str) -> Any:
    def cell(obj: Object, now: float) -> str:
        found = (each for each in obj.get("status", {}).get("addresses") or () if each.get("type") == kind)
        return next((str(each.get("address")) for each in found), "<none>")

    return cell


def _info(field: str) -> Any:
    return at("status", "nodeInfo", field, default="<unknown>")


def _event_object(obj: Object, now: float) -> str:
    about = obj.get("involvedObject") or obj.get("regarding") or {}
    return f"{about.get('kind', '').lower()}/{about.get('name', '')}"


def _last_seen(obj: Object, now: float) -> str:
    series = obj.get("series") or {}
    seen = series.get("lastObservedTime") or obj.get("lastTimestamp") or obj.get("deprecatedLastTimestamp")
    when = seen or obj.get("eventTime") or _first(obj)
    return since(when, now)


def _first(obj: Object) -> str | None:
    found: str | None = obj.get("firstTimestamp") or obj.get("deprecatedFirstTimestamp") or obj.get("eventTime")
    return found


def _first_seen(obj: Object, now: float) -> str:
    return since(_first(obj), now)


def _event_count(obj: Object, now: float) -> int:
    series = obj.get("series") or {}
    return int(series.get("count") or obj.get("count") or obj.get("deprecatedCount") or 1)


def _source(obj: Object, now: float) -> str:
    source = obj.get("source") or obj.get("deprecatedSource") or {}
    component = source.get("component") or obj.get("reportingComponent") or obj.get("reportingController") or ""
    host = source.get("host") or (obj.get("reportingInstance") or "")
    return f"{component}, {host}" if host else component


def _message(obj: Object, now: float) -> str:
    return str(obj.get("message") or obj.get("note") or "").strip()


def _subpath(obj: Object, now: float) -> str:
    about = obj.get("involvedObject") or obj.get("regarding") or {}
    return str(about.get("fieldPath") or "")


def _role_ref(obj: Object, now: float) -> str:
    ref = obj.get("roleRef", {})
    return f"{ref.get('kind', '')}/{ref.get('name', '')}"


def _subjects(kind: str, name: str) -> Column:
    def cell(obj: Object, now: float) -> str:
        found = [each for each in obj.get("subjects") or () if each.get("kind") == kind]
        if kind == "ServiceAccount":
            return joined((f"{each.get('namespace', '')}/{each.get('name', '')}" for each in found), "")
        return joined((each.get("name", "") for each in found), "")

    return Column(name, cell, wide=True)


BINDING = (
    NAME,
    Column("Role", _role_ref),
    AGE,
    _subjects("User", "Users"),
    _subjects("Group", "Groups"),
    _subjects("ServiceAccount", "ServiceAccounts"),
)


def _csr_condition(obj: Object, now: float) -> str:
    found = obj.get("status", {})
    kinds = {each.get("type") for each in found.get("conditions") or ()}
    texts = [kind for kind in ("Approved", "Denied") if kind in kinds] or ["Pending"]
    if "Failed" in kinds:
        texts.append("Failed")
    if found.get("certificate"):
        texts.append("Issued")
    return ",".join(texts)


def _requested(obj: Object, now: float) -> str:
    seconds = obj.get("spec", {}).get("expirationSeconds")
    return "<none>" if seconds is None else duration(seconds)


def _quota(limits: bool) -> Any:
    def cell(obj: Object, now: float) -> str:
        hard = obj.get("status", {}).get("hard") or obj.get("spec", {}).get("hard") or {}
        used = obj.get("status", {}).get("used") or {}
        chosen = [name for name in sorted(hard) if name.startswith("limits.") == limits]
        return joined((f"{name}: {used.get(name, '0')}/{hard[name]}" for name in chosen), "").replace(",", ", ")

    return cell


def _service(obj: Object, now: float) -> str:
    found = obj.get("spec", {}).get("service")
    return f"{found.get('namespace', '')}/{found.get('name', '')}" if found else "Local"


def _available(obj: Object, now: float) -> str:
    for each in obj.get("status", {}).get("conditions") or ():
        if each.get("type") == "Available":
            return "True" if each.get("status") == "True" else f"{each.get('status')} ({each.get('reason', '')})"
    return "Unknown"


def _webhooks(obj: Object, now: float) -> int:
    return len(obj.get("webhooks") or ())


def _component(obj: Object, field: str) -> str:
    for each in obj.get("conditions") or ():
        if each.get("type") == "Healthy":
            if field == "status":
                return "Healthy" if each.get("status") == "True" else "Unhealthy"
            return str(each.get(field) or "")
    return "Unknown" if field == "status" else ""


BY_KIND: dict[tuple[str, str], tuple[Column, ...]] = {
    ("", "Namespace"): (NAME, Column("Status", at("status", "phase", default="")), AGE),
    ("", "Node"): (
        NAME,
        Column("Status", _node_status),
        Column("Roles", _roles),
        AGE,
        Column("Version", at("status", "nodeInfo", "kubeletVersion", default="")),
        Column("Internal-IP", _address("InternalIP"), wide=True),
        Column("External-IP", _address("ExternalIP"), wide=True),
        Column("OS-Image", _info("osImage"), wide=True),
        Column("Kernel-Version", _info("kernelVersion"), wide=True),
        Column("Container-Runtime", _info("containerRuntimeVersion"), wide=True),
    ),
    ("", "ConfigMap"): (NAME, _count("data", "binaryData"), AGE),
    ("", "Secret"): (NAME, Column("Type", at("type")), _count("data"), AGE),
    ("", "ServiceAccount"): (
        NAME,
        Column("Secrets", lambda obj, now: len(obj.get("secrets") or ()), "integer"),
        AGE,
    ),
    ("", "ResourceQuota"): (
        NAME,
        Column("Request", _quota(limits=False)),
        Column("Limit", _quota(limits=True)),
        AGE,
    ),
    ("", "ComponentStatus"): (
        NAME,
        Column("Status", lambda obj, now: _component(obj, "status")),
        Column("Message", lambda obj, now: _component(obj, "message")),
        Column("Error", lambda obj, now: _component(obj, "error")),
    ),
    ("coordination.k8s.io", "Lease"): (NAME, Column("Holder", at("spec", "holderIdentity", default="")), AGE),
    ("rbac.authorization.k8s.io", "RoleBinding"): BINDING,
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): BINDING,
    ("certificates.k8s.io", "CertificateSigningRequest"): (
        NAME,
        AGE,
        Column("SignerName", at("spec", "signerName")),
        Column("Requestor", at("spec", "username", default="")),
        Column("RequestedDuration", _requested),
        Column("Condition", _csr_condition),
    ),
    ("scheduling.k8s.io", "PriorityClass"): (
        NAME,
        Column("Value", at("value", default=0), "integer"),
        Column("Global-Default", at("globalDefault", default=False), "boolean"),
        AGE,
        Column("PreemptionPolicy", at("preemptionPolicy", default="")),
    ),
    ("node.k8s.io", "RuntimeClass"): (NAME, Column("Handler", at("handler")), AGE),
    ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"): (
        NAME,
        Column("Webhooks", _webhooks, "integer"),
        AGE,
    ),
    ("admissionregistration.k8s.io", "MutatingWebhookConfiguration"): (
        NAME,
        Column("Webhooks", _webhooks, "integer"),
        AGE,
    ),
    ("apiregistration.k8s.io", "APIService"): (
        NAME,
        Column("Service", _service),
        Column("Available", _available),
        AGE,
    ),
}

_EVENT: tuple[Column, ...] = (
    Column("Last Seen", _last_seen),
    Column("Type", at("type", default="")),
    Column("Reason", at("reason", default="")),
    Column("Object", _event_object),
    Column("Subobject", _subpath, wide=True),
    Column("Source", _source, wide=True),
    Column("Message", _message),
    Column("First Seen", _first_seen, wide=True),
    Column("Count", _event_count, "integer", wide=True),
    NAME._replace(wide=True),
)
BY_KIND["", "Event"] = BY_KIND["events.k8s.io", "Event"] = _EVENT
