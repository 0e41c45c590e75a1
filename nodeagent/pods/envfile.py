"""Files of environment variables (`env[].valueFrom.fileKeyRef`): read safely from a volume, parsed strictly.

    # a comment; blank lines and white space before a name do not count
    NAME='value'          # only single quotes; everything between them is literal, line ends too

The strict form is Kubernetes' own (KEP-3721, pkg/kubelet/util/env): no shell reads such a file differently. Only an
init container writes these files, so they are as untrusted as any container's: no symbolic link leaves the volume, and
nothing but a small regular file is read.
"""

from __future__ import annotations

import os
import re
import stat

from nodeagent.pods.volumes import subpath

MOST_BYTES = 64 * 1024
_NAME = re.compile(r"[ \t]*([!-<>-~](?:[ -<>-~]*[!-<>-~])?)='")
_REST = re.compile(r"[ \t]*(#[^\n]*)?(\n|$)")
_IGNORED = re.compile(r"[ \t\r]*(#[^\n]*)?(\n|$)")


class BadEnvFile(ValueError):
    """The file is not there, is no file of variables, or is too large."""


def parse(text: str) -> dict[str, str]:
    """name -> value; of two with one name, the later. Raises BadEnvFile naming the line."""
    result: dict[str, str] = {}
    at = 0
    while at < len(text):
        if match := _IGNORED.match(text, at):
            at = match.end()
            continue
        line = text.count("\n", 0, at) + 1
        match = _NAME.match(text, at)
        if match is None:
            raise BadEnvFile(f"invalid environment variable format at line {line}: want NAME='value'")
        end = text.find("'", match.end())
        if end < 0:
            raise BadEnvFile(f"unterminated single-quoted value at line {line}")
        rest = _REST.match(text, end + 1)
        if rest is None:
            raise BadEnvFile(f"unexpected content after the closing quote at line {line}")
        result[match[1]] = text[match.end() : end]
        at = rest.end()
    return result


def read(volume: str, path: str) -> dict[str, str] | None:
    """The variables in `path` of the volume at directory `volume`; None if there is no such file. Raises BadEnvFile."""
    try:
        fd = subpath.open_inside(volume, path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadEnvFile(error.strerror or str(error)) from error
    try:
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode):
            raise BadEnvFile("not a regular file")
        if found.st_size > MOST_BYTES:
            raise BadEnvFile(f"file size {found.st_size} exceeds the limit of {MOST_BYTES} bytes")
        with open(f"/proc/self/fd/{fd}", "rb") as file:
            return parse(file.read(MOST_BYTES).decode("utf-8", "replace"))
    finally:
        os.close(fd)
