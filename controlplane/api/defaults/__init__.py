"""Defaults: the fields that Kubernetes fills in when a client leaves them out, kind by kind.

`apply` runs on every object that a client sends, between the structural check and validation, and changes it in place:
the object must be freshly decoded. (The result of a patch shares parts with the stored object: encode and decode it
first.) A function a kind, written by hand, because the published definitions do not carry defaults.

Not here: what the API server decides with other objects or with chance at hand: cluster IPs, node ports, service
accounts, generated names and selectors, a new pod's status.
"""

from collections.abc import Callable
from typing import Any

from controlplane.api.defaults import cluster, config, devices, networking, storage, workloads
from controlplane.api.defaults.pods import pod, template_of
from controlplane.api.resources import Resource

Object = dict[str, Any]

_BY_KIND: dict[tuple[str, str], Callable[[Object], None]] = {
    ("", "Pod"): pod,
    ("", "PodTemplate"): template_of,
    **workloads.BY_KIND,
    **networking.BY_KIND,
    **storage.BY_KIND,
    **config.BY_KIND,
    **cluster.BY_KIND,
    **devices.BY_KIND,
}


def apply(resource: Resource, obj: Object) -> None:
    """Fill in the defaults of a freshly decoded object of `resource`, in place."""
    if resource.custom is not None:
        return  # its schema's defaults came with decoding
    fill = _BY_KIND.get((resource.group, resource.kind))
    if fill is not None:
        fill(obj)
