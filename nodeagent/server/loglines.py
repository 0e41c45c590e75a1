"""From a log file's bytes to what users see: what `kubectl logs` can ask for, applied.

    2026-11-21T10:00:00.123456789Z stdout F a whole line
    2026-11-21T10:00:00.123456790Z stderr P a part, whose line goes on in the next one

That is the CRI's format (cri-api's and kubelet's pkg/kubelet/kuberuntime/logs).
"""

from __future__ import annotations

from dataclasses import dataclass

from controlplane import clock
from controlplane.api.status import bad_request
from nodeagent.server.http import Request


@dataclass(frozen=True, slots=True)
class LogOptions:
    """What `kubectl logs` can ask for. `since`: RFC 3339 text to compare with, empty for all. `tail` and `limit_bytes`
    None: no limit. `stream`: stdout, stderr or empty for both."""

    follow: bool = False
    tail: int | None = None
    since: str = ""
    timestamps: bool = False
    limit_bytes: int | None = None
    previous: bool = False
    stream: str = ""

    @classmethod
    def of(cls, request: Request) -> LogOptions:
        """From a request's parameters. Raises StatusError (400)."""
        try:
            tail = request.first("tailLines") or None
            limit = request.first("limitBytes") or None
            seconds = request.first("sinceSeconds")
            since = ""
            if seconds:
                since = clock.rfc3339_micro(clock.wall_time() - int(seconds))
            elif request.first("sinceTime"):
                since = clock.rfc3339_micro(clock.parse_rfc3339(request.first("sinceTime")))
            options = cls(
                request.flag("follow"), None if tail is None else int(tail), since, request.flag("timestamps"),
                None if limit is None else int(limit), request.flag("previous"),
                {"stdout": "stdout", "stderr": "stderr"}.get(request.first("stream").lower(), ""),
            )  # fmt: skip
        except ValueError as error:
            raise bad_request(f"invalid log options: {error}") from error
        if (options.tail or 0) < 0 or (options.limit_bytes is not None and options.limit_bytes < 1):
            raise bad_request("tailLines must not be negative and limitBytes must be positive")
        return options


class LogLines:
    """Give it blocks of a file in order. It keeps an unfinished line, and whether the last one shown was a part."""

    def __init__(self, options: LogOptions) -> None:
        self._since = options.since.encode()
        self._timestamps = options.timestamps
        self._stream = options.stream.encode()
        self._continued: set[bytes] = set()  # streams whose last line shown was a part
        self._rest = b""

    def new_file(self) -> None:
        """What comes next is another file's beginning; a line cut off at the end of the last one is lost."""
        self._rest = b""

    def format(self, block: bytes) -> bytes:
        """What is shown of the lines that end in `block`."""
        text, newline, rest = block.rpartition(b"\n")
        if not newline:
            self._rest += block
            return b""
        text, self._rest = self._rest + text, rest
        return self._shown(text.split(b"\n"))

    def _shown(self, lines: list[bytes]) -> bytes:
        result: list[bytes] = []
        for line in lines:
            parts = line.split(b" ", 3)
            if len(parts) < 4:
                continue
            stamp, stream, tag, text = parts
            if self._stream and stream != self._stream:
                continue
            if self._since:
                if _earlier(stamp, self._since):
                    continue
                self._since = b""  # later lines are later
            if self._timestamps and stream not in self._continued:
                result += (stamp, b" ")
            result.append(text)
            if tag.startswith(b"P"):
                self._continued.add(stream)
            else:
                self._continued.discard(stream)
                result.append(b"\n")
        return b"".join(result)


def _earlier(stamp: bytes, since: bytes) -> bool:
    """Compare RFC 3339 times in UTC as text: the seconds first, then the fraction, which may have any length."""
    if stamp[:19] != since[:19]:
        return stamp[:19] < since[:19]
    return stamp[20:].rstrip(b"Z").ljust(9, b"0") < since[20:].rstrip(b"Z").ljust(9, b"0")
