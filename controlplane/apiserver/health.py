"""/version, /healthz, /livez, /readyz and /metrics: what the server says about itself.

Three questions with the same form: is it well (healthz), should it be restarted (livez), may it be sent requests
(readyz)? Each check has a path of its own below them; `?verbose` shows all, `?exclude=` leaves some out. The texts are
Kubernetes', which probes and people compare.
"""

import platform
from collections.abc import Callable, Iterable, Iterator, Mapping

from controlplane.apiserver.exposition import CONTENT_TYPE, family
from controlplane.apiserver.http import Request, Response
from controlplane.apiserver.registry.codec import to_json

Check = Callable[[], str]
"""Returns what is wrong, or nothing."""
_TEXT = "text/plain; charset=utf-8"
_ENDPOINTS = ("healthz", "livez", "readyz")


class Health:
    """`checks` by name decide each endpoint, `readiness` only /readyz."""

    def __init__(
        self, version: str, checks: Mapping[str, Check], readiness: Mapping[str, Check],
        metrics: Callable[[], Iterable[str]],
    ) -> None:  # fmt: skip
        major, _, minor = version.partition(".")
        self._info = {
            "major": major, "minor": minor, "gitVersion": f"v{version}.0+wherry", "gitCommit": "",
            "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z", "goVersion": "go0.0",
            "compiler": "cpython", "platform": f"linux/{_ARCHITECTURES.get(platform.machine(), platform.machine())}",
        }  # fmt: skip
        self._version = to_json(self._info)
        self._checks = {"healthz": checks, "livez": checks, "readyz": {**checks, **readiness}}
        self._metrics = metrics
        self._outcomes: dict[tuple[str, str, str], int] = {}

    def answer(self, request: Request) -> Response | None:
        """None for another path."""
        first, _, rest = request.path.strip("/").partition("/")
        if first == "version" and not rest:
            return Response(body=self._version)
        if first in _ENDPOINTS:
            return self._one(first, rest) if rest else self._all(request, first)
        if first == "metrics" and rest in ("", "slis"):
            lines = self._slis() if rest else self._everything()
            return Response(body=("\n".join(lines) + "\n").encode(), content_type=CONTENT_TYPE)
        return None

    def names(self) -> dict[str, list[str]]:
        """The checks of each endpoint."""
        return {endpoint: list(checks) for endpoint, checks in self._checks.items()}

    def _everything(self) -> Iterator[str]:
        labels = {_LABELS[name]: value for name, value in self._info.items() if name in _LABELS}
        yield from family("kubernetes_build_info", "gauge", "What was built, from what.", [(labels, 1)])
        yield from self._metrics()

    def _one(self, endpoint: str, name: str) -> Response:
        check = self._checks[endpoint].get(name)
        if check is None:
            return Response(404, b"404 page not found\n", content_type=_TEXT)
        trouble = self._ask(endpoint, name, check)
        if trouble:
            return Response(500, f"internal server error: {trouble}\n".encode(), content_type=_TEXT)
        return Response(body=b"ok", content_type=_TEXT)

    def _all(self, request: Request, endpoint: str) -> Response:
        excluded = set(request.query_lists.get("exclude", ()))
        lines, failed = [], False
        for name, check in self._checks[endpoint].items():
            if name in excluded:
                excluded.discard(name)
                lines.append(f"[+]{name} excluded: ok")
            elif self._ask(endpoint, name, check):
                failed = True
                lines.append(f"[-]{name} failed: reason withheld")
            else:
                lines.append(f"[+]{name} ok")
        if excluded:
            unknown = ", ".join(f'"{name}"' for name in sorted(excluded))
            lines.append(f"warn: some health checks cannot be excluded: no matches for {unknown}")
        if not failed and "verbose" not in request.query:
            return Response(body=b"ok", content_type=_TEXT)
        lines.append(f"{endpoint} check {'failed' if failed else 'passed'}")
        body = "\n".join(lines).encode() + b"\n"
        return Response(500 if failed else 200, body, content_type=_TEXT)

    def _ask(self, endpoint: str, name: str, check: Check) -> str:
        trouble = check()
        key = (name, endpoint, "error" if trouble else "success")
        self._outcomes[key] = self._outcomes.get(key, 0) + 1
        return trouble

    def _slis(self) -> Iterator[str]:
        """Service level indicators: each check as it is now, and how often it was which way."""
        now = [
            ({"name": name, "type": endpoint}, 0.0 if check() else 1.0)
            for endpoint in _ENDPOINTS
            for name, check in self._checks[endpoint].items()
        ]
        yield from family("kubernetes_healthcheck", "gauge", "The result of each check: 1 is well.", now)
        names = ("name", "type", "status")
        yield from family(
            "kubernetes_healthchecks_total", "counter", "The results of all checks.",
            ((dict(zip(names, key, strict=True)), count) for key, count in sorted(self._outcomes.items())),
        )  # fmt: skip


_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_LABELS = {
    "major": "major", "minor": "minor", "gitVersion": "git_version", "gitCommit": "git_commit",
    "gitTreeState": "git_tree_state", "buildDate": "build_date", "goVersion": "go_version", "compiler": "compiler",
    "platform": "platform",
}  # fmt: skip
