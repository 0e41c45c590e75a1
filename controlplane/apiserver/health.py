"""/version, /healthz, /livez, /readyz and /metrics: what the server says about itself."""

from collections.abc import Callable, Iterable, Mapping

from controlplane.apiserver.http import Request, Response
from controlplane.apiserver.registry.codec import to_json

Check = Callable[[], str]
"""Returns what is wrong, or nothing."""


class Health:
    """`checks` by name; all of them decide each endpoint."""

    def __init__(self, version: str, checks: Mapping[str, Check], metrics: Callable[[], Iterable[str]]) -> None:
        major, _, minor = version.partition(".")
        self._version = to_json({
            "major": major, "minor": minor, "gitVersion": f"v{version}.0+wherry", "gitCommit": "",
            "gitTreeState": "clean",
            "buildDate": "1970-01-01T00:00:00Z", "goVersion": "go0.0", "compiler": "cpython", "platform": "linux/amd64",
        })  # fmt: skip
        self._checks = checks
        self._metrics = metrics

    def answer(self, request: Request) -> Response | None:
        """None for another path."""
        parts = request.path.strip("/").split("/")
        if parts[0] == "version" and len(parts) == 1:
            return Response(body=self._version)
        if parts[0] in ("healthz", "livez", "readyz"):
            return self._health(request, parts[0], parts[1] if len(parts) > 1 else "")
        if parts == ["metrics"]:
            text = "\n".join(self._metrics()) + "\n"
            return Response(body=text.encode(), content_type="text/plain; version=0.0.4; charset=utf-8")
        return None

    def _health(self, request: Request, which: str, only: str) -> Response:
        if only and only not in self._checks:
            return Response(404, b"404 page not found\n", content_type="text/plain; charset=utf-8")
        excluded = set(request.query_lists.get("exclude", ()))
        names = [only] if only else [name for name in self._checks if name not in excluded]
        lines, failed = [], False
        for name in names:
            trouble = self._checks[name]()
            failed = failed or bool(trouble)
            lines.append(f"[-]{name} failed: reason withheld" if trouble else f"[+]{name} ok")
        if not failed and "verbose" not in request.query:
            return Response(body=b"ok", content_type="text/plain; charset=utf-8")
        lines.append(f"{which} check {'failed' if failed else 'passed'}")
        body = "\n".join(lines).encode() + b"\n"
        return Response(500 if failed else 200, body, content_type="text/plain; charset=utf-8")
