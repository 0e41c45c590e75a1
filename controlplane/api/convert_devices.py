"""Between the versions of resource.k8s.io (claims of devices), which nest the same fields differently.

v1 and v1beta2 put what an exact request asks for under `exactly`, and a device's properties beside its name; v1beta1
and v1alpha3 have the request flat and the properties under `basic`. v1alpha3 also wrote a capacity as a bare quantity.
"""

from collections.abc import Callable, Sequence
from typing import Any

Object = dict[str, Any]
Change = Callable[[Object], Object]
_OWN = ("name", "firstAvailable")  # of a request, in every version


def _each(value: Any, change: Change) -> list[Any]:
    return [change(item) if isinstance(item, dict) else item for item in value]


def _along(path: Sequence[str], obj: Object, change: Change) -> Object:
    """`obj` with the list at `path` changed item by item; what is not on the path is shared."""
    if not path:
        return obj
    below = obj.get(path[0])
    if len(path) == 1:
        return {**obj, path[0]: _each(below, change)} if isinstance(below, list) else obj
    return {**obj, path[0]: _along(path[1:], below, change)} if isinstance(below, dict) else obj


def _nested_request(request: Object) -> Object:
    exactly = {key: value for key, value in request.items() if key not in _OWN}
    if not exactly or "exactly" in request:
        return request
    return {**{key: value for key, value in request.items() if key in _OWN}, "exactly": exactly}


def _flat_request(request: Object) -> Object:
    exactly = request.get("exactly")
    if not isinstance(exactly, dict):
        return request
    return {**{key: value for key, value in request.items() if key != "exactly"}, **exactly}


def _flat_device(device: Object) -> Object:
    basic = device.get("basic")
    if not isinstance(basic, dict):
        return device
    return {**{key: value for key, value in device.items() if key != "basic"}, **basic}


def _basic_device(device: Object) -> Object:
    if "basic" in device:
        return device
    return {"name": device.get("name", ""), "basic": {key: value for key, value in device.items() if key != "name"}}


def _capacities(device: Object, change: Callable[[Any], Any]) -> Object:
    basic = device.get("basic")
    if not isinstance(basic, dict) or not isinstance(basic.get("capacity"), dict):
        return device
    capacity = {key: change(value) for key, value in basic["capacity"].items()}
    return {**device, "basic": {**basic, "capacity": capacity}}


def _bare(device: Object) -> Object:
    return _capacities(device, lambda value: value.get("value", "0") if isinstance(value, dict) else value)


def _valued(device: Object) -> Object:
    return _capacities(device, lambda value: value if isinstance(value, dict) else {"value": value})


_REQUESTS = {
    "ResourceClaim": ("spec", "devices", "requests"),
    "ResourceClaimTemplate": ("spec", "spec", "devices", "requests"),
}
_DEVICES = ("spec", "devices")


def changes() -> dict[tuple[str, str, str], Change]:
    """(kind, from, to) -> the change, for every pair that differs in more than apiVersion."""
    found: dict[tuple[str, str, str], Change] = {}
    group = "resource.k8s.io"
    for nested in (f"{group}/v1", f"{group}/v1beta2"):
        for flat in (f"{group}/v1beta1", f"{group}/v1alpha3"):
            for kind, path in _REQUESTS.items():
                found[kind, flat, nested] = _walker(path, _nested_request)
                found[kind, nested, flat] = _walker(path, _flat_request)
        found["ResourceSlice", f"{group}/v1beta1", nested] = _walker(_DEVICES, _flat_device)
        found["ResourceSlice", nested, f"{group}/v1beta1"] = _walker(_DEVICES, _basic_device)
        found["ResourceSlice", f"{group}/v1alpha3", nested] = _walker(_DEVICES, lambda d: _flat_device(_valued(d)))
        found["ResourceSlice", nested, f"{group}/v1alpha3"] = _walker(_DEVICES, lambda d: _bare(_basic_device(d)))
    found["ResourceSlice", f"{group}/v1alpha3", f"{group}/v1beta1"] = _walker(_DEVICES, _valued)
    found["ResourceSlice", f"{group}/v1beta1", f"{group}/v1alpha3"] = _walker(_DEVICES, _bare)
    return found


def _walker(path: Sequence[str], change: Change) -> Change:
    return lambda obj: _along(path, obj, change)
