"""Rules for the volumes of a pod."""

from collections.abc import Mapping, Sequence
from typing import Any

from controlplane.api import names
from controlplane.api.status import Cause, duplicate, forbidden_field, invalid_value, not_supported, required
from controlplane.api.validation import claims, volume_sources
from controlplane.api.validation.certificates import signer_name
from controlplane.api.validation.common import complain, need, selector
from controlplane.api.validation.environment import FILE_FIELDS, container_amount, pod_field
from controlplane.api.validation.paths import local_file

Each = Mapping[str, Any]
_SHORTEST_TOKEN_SECONDS = 600
_KEY_TYPES = ("RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519")


def volumes(causes: list[Cause], found: Sequence[Each], path: str, pod_name: str = "") -> dict[str, Each]:
    """The volumes of a pod (of a template: without a name). Returns those that are in order, by name."""
    known: dict[str, Each] = {}
    for index, volume in enumerate(found):
        at = f"{path}[{index}]"
        name = volume.get("name", "")
        before = len(causes)
        _source(causes, volume, at)
        if not name:
            causes.append(required(f"{at}.name"))
        elif complaints := names.dns1123_label(name):
            complain(causes, f"{at}.name", name, complaints)
        if name in known:
            causes.append(duplicate(f"{at}.name", name))
        if "ephemeral" in volume and pod_name and name:
            claim = f"{pod_name}-{name}"
            complaints = [f'PVC name "{claim}": {each}' for each in names.dns1123_subdomain(claim)]
            complain(causes, f"{at}.name", name, complaints)
        if len(causes) == before:
            known[name] = volume
    if pod_name and any("ephemeral" in volume for volume in found):
        _made_claims(causes, found, path, pod_name)
    return known


def _made_claims(causes: list[Cause], found: Sequence[Each], path: str, pod_name: str) -> None:
    made = {f"{pod_name}-{volume.get('name', '')}" for volume in found if "ephemeral" in volume}
    for index, volume in enumerate(found):
        name = (volume.get("persistentVolumeClaim") or {}).get("claimName", "")
        if name in made:
            text = "must not reference a PVC that gets created for an ephemeral volume"
            causes.append(invalid_value(f"{path}[{index}].persistentVolumeClaim.claimName", name, text))


def _source(causes: list[Cause], volume: Each, at: str) -> None:
    kinds = [kind for kind in volume if kind != "name"]
    if len(kinds) > 1:
        kinds.sort(key=lambda kind: _ORDER.get(kind, 0))
        causes += [forbidden_field(f"{at}.{kind}", "may not specify more than 1 volume type") for kind in kinds[1:]]
    elif not kinds:
        causes.append(required(at, "must specify a volume type"))
        return
    where, check = _SOURCES[kinds[0]]
    check(causes, volume[kinds[0]], f"{at}.{where}")


def _mode(causes: list[Cause], value: int | None, path: str) -> None:
    if value is not None and not 0 <= value <= 0o777:
        text = "must be a number between 0 and 0777 (octal), both inclusive"
        causes.append(invalid_value(path, value, text))


def _items(causes: list[Cause], items: Sequence[Each], path: str) -> None:
    for index, item in enumerate(items):
        at = f"{path}[{index}]"
        need(causes, item, at, "key", "path")
        local_file(causes, item.get("path", ""), f"{at}.path")
        _mode(causes, item.get("mode"), f"{at}.mode")


def _downward(causes: list[Cause], source: Each, path: str) -> None:
    _mode(causes, source.get("defaultMode"), f"{path}.defaultMode")
    for item in source.get("items") or ():
        _downward_file(causes, item, path)


def _downward_file(causes: list[Cause], item: Each, path: str) -> None:
    """A file of the downward API. Its causes have no index, as in Kubernetes."""
    need(causes, item, path, "path")
    local_file(causes, item.get("path", ""), f"{path}.path")
    if "fieldRef" in item:
        pod_field(causes, item["fieldRef"], f"{path}.fieldRef", FILE_FIELDS)
        if "resourceFieldRef" in item:
            text = "fieldRef and resourceFieldRef can not be specified simultaneously"
            causes.append(invalid_value(path, "resource", text))
    elif "resourceFieldRef" in item:
        container_amount(causes, item["resourceFieldRef"], f"{path}.resourceFieldRef", in_volume=True)
    else:
        causes.append(required(path, "one of fieldRef and resourceFieldRef is required"))
    _mode(causes, item.get("mode"), f"{path}.mode")


def _secret(causes: list[Cause], source: Each, path: str) -> None:
    need(causes, source, path, "secretName")
    _mode(causes, source.get("defaultMode"), f"{path}.defaultMode")
    _items(causes, source.get("items") or (), f"{path}.items")


def _config_map(causes: list[Cause], source: Each, path: str) -> None:
    need(causes, source, path, "name")
    _mode(causes, source.get("defaultMode"), f"{path}.defaultMode")
    _items(causes, source.get("items") or (), f"{path}.items")


def _projected(causes: list[Cause], source: Each, path: str) -> None:
    _mode(causes, source.get("defaultMode"), f"{path}.defaultMode")
    taken: set[str] = set()
    for index, each in enumerate(source.get("sources") or ()):
        at = f"{path}.sources[{index}]"
        for kind in ("secret", "configMap"):
            if kind in each:
                need(causes, each[kind], f"{at}.{kind}", "name")
                items = each[kind].get("items") or ()
                _items(causes, items, f"{at}.{kind}.items")
                _distinct(causes, [item.get("path", "") for item in items], taken, path, each[kind].get("name", ""))
        if "downwardAPI" in each:
            items = each["downwardAPI"].get("items") or ()
            for item in items:
                _downward_file(causes, item, f"{at}.downwardAPI")
            _distinct(causes, [item.get("path", "") for item in items], taken, path)
        if "serviceAccountToken" in each:
            _token(causes, each["serviceAccountToken"], f"{at}.serviceAccountToken", path)
        if "clusterTrustBundle" in each:
            _trust_bundle(causes, each["clusterTrustBundle"], f"{at}.clusterTrustBundle")
            _distinct(causes, [each["clusterTrustBundle"].get("path", "")], taken, path)
        if "podCertificate" in each:
            _pod_certificate(causes, each["podCertificate"], f"{at}.podCertificate")
        if len(each) > 1:
            causes.append(forbidden_field(at, "may not specify more than 1 volume type per source"))


def _distinct(causes: list[Cause], paths: Sequence[str], taken: set[str], at: str, shown: str | None = None) -> None:
    for path in paths:
        if path and path in taken:
            causes.append(invalid_value(at, path if shown is None else shown, "conflicting duplicate paths"))
        taken.add(path)


def _token(causes: list[Cause], token: Each, at: str, volume_path: str) -> None:
    seconds = token.get("expirationSeconds", 0)
    if seconds < _SHORTEST_TOKEN_SECONDS:
        text = "may not specify a duration less than 10 minutes"
        causes.append(invalid_value(f"{at}.expirationSeconds", seconds, text))
    elif seconds > 1 << 32:
        text = "may not specify a duration larger than 2^32 seconds"
        causes.append(invalid_value(f"{at}.expirationSeconds", seconds, text))
    if not token.get("path"):
        causes.append(required(f"{volume_path}.path"))
    else:
        local_file(causes, token["path"], f"{volume_path}.path")


def _trust_bundle(causes: list[Cause], source: Each, at: str) -> None:
    name, signer = source.get("name"), source.get("signerName")
    if name is not None and signer is not None:
        causes.append(invalid_value(at, source, "only one of name and signerName may be used"))
    elif name is not None:
        if not name:
            causes.append(required(f"{at}.name", "must be a valid object name"))
        if "labelSelector" in source:
            text = "labelSelector must be unset if name is specified"
            causes.append(invalid_value(f"{at}.labelSelector", source["labelSelector"], text))
    elif signer is not None:
        if not signer:
            causes.append(required(f"{at}.signerName", "must be a valid signer name"))
        else:
            causes += signer_name(signer, f"{at}.signerName")
        causes += selector(source.get("labelSelector"), f"{at}.labelSelector")
    else:
        causes.append(required(at, "either name or signerName must be specified"))
    need(causes, source, at, "path")
    local_file(causes, source.get("path", ""), f"{at}.path")


def _pod_certificate(causes: list[Cause], source: Each, at: str) -> None:
    if not source.get("signerName"):
        causes.append(required(f"{at}.signerName"))
    else:
        causes += signer_name(source["signerName"], f"{at}.signerName")
    kind = source.get("keyType", "")
    if kind not in _KEY_TYPES:
        causes.append(not_supported(f"{at}.keyType", kind, _KEY_TYPES))
    seconds = source.get("maxExpirationSeconds")
    if seconds is not None and seconds < 3600:
        text = "if provided, maxExpirationSeconds must be >= 3600"
        causes.append(invalid_value(f"{at}.maxExpirationSeconds", seconds, text))
    for field in ("credentialBundlePath", "keyPath", "certificateChainPath"):
        if source.get(field):
            local_file(causes, source[field], f"{at}.{field}")


def _empty_dir(causes: list[Cause], source: Each, path: str) -> None:
    if source.get("sizeLimit", "").startswith("-") and source["sizeLimit"] != "-0":
        causes.append(forbidden_field(f"{path}.sizeLimit", "SizeLimit field must be a valid resource quantity"))


def _image(causes: list[Cause], source: Each, path: str) -> None:
    policy = source.get("pullPolicy", "")
    if policy not in ("Always", "IfNotPresent", "Never"):
        causes.append(not_supported(f"{path}.pullPolicy", policy, ("Always", "IfNotPresent", "Never")))


def _ephemeral(causes: list[Cause], source: Each, path: str) -> None:
    template = source.get("volumeClaimTemplate")
    if template is None:
        causes.append(required(f"{path}.volumeClaimTemplate"))
    else:
        claims.template(causes, template, f"{path}.volumeClaimTemplate")


_SOURCES: dict[str, tuple[str, volume_sources.Check]] = {
    "emptyDir": ("emptyDir", _empty_dir),
    **volume_sources.SHARED,
    "gitRepo": ("gitRepo", volume_sources.git_repo),
    "secret": ("secret", _secret),
    "persistentVolumeClaim": ("persistentVolumeClaim", volume_sources.required_fields("claimName")),
    "downwardAPI": ("downwardAPI", _downward),
    "configMap": ("configMap", _config_map),
    "projected": ("projected", _projected),
    "csi": ("csi", volume_sources.csi),
    "ephemeral": ("ephemeral", _ephemeral),
    "image": ("image", _image),
}
_ORDER = {kind: index for index, kind in enumerate(_SOURCES)}
