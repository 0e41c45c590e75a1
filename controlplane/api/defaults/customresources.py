"""Defaults of apiextensions.k8s.io/v1 CustomResourceDefinition (pkg/apis/apiextensions/v1/defaults.go)."""

from typing import Any

Object = dict[str, Any]


def definition(obj: Object) -> None:
    """Names that follow from the kind, conversion without a webhook, and the flags of versions."""
    spec = obj.setdefault("spec", {})
    names = spec.setdefault("names", {})
    kind = names.get("kind", "")
    if kind:
        if not names.get("singular"):
            names["singular"] = kind.lower()
        if not names.get("listKind"):
            names["listKind"] = f"{kind}List"
    if not spec.get("conversion"):
        spec["conversion"] = {"strategy": "None"}
    service = (spec["conversion"].get("webhook") or {}).get("clientConfig", {}).get("service")
    if service is not None:
        service.setdefault("port", 443)
    for version in spec.get("versions") or ():
        version.setdefault("served", False)
        version.setdefault("storage", False)


BY_KIND = {("apiextensions.k8s.io", "CustomResourceDefinition"): definition}
