"""Rules for paths of files: inside a volume, or on the node."""

from controlplane.api.status import Cause, invalid_value


def no_backsteps(causes: list[Cause], value: str, at: str) -> None:
    """No element of the path is `..`."""
    if ".." in value and ".." in value.split("/"):
        causes.append(invalid_value(at, value, "must not contain '..'"))


def descending(causes: list[Cause], value: str, at: str) -> None:
    """A relative path that stays below its root."""
    if value.startswith("/"):
        causes.append(invalid_value(at, value, "must be a relative path"))
    no_backsteps(causes, value, at)


def local_file(causes: list[Cause], value: str, at: str) -> None:
    """A file below a volume's root; names that start with `..` are the kubelet's own."""
    descending(causes, value, at)
    if value.startswith("..") and not value.startswith("../"):
        causes.append(invalid_value(at, value, "must not start with '..'"))
