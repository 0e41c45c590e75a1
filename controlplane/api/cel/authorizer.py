"""`authorizer` in CEL: questions like authorizer.group('apps').resource('deployments').check('create').allowed().

A question grows as a map, like the other values of Kubernetes' functions; `check` asks CHECK, which whoever evaluates
the expression has set. Source: k8s.io/apiserver/pkg/cel/library/authz.go.
"""

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

from controlplane.api.cel.values import kind_of

Question = Mapping[str, str]
CHECK: ContextVar[Callable[[Mapping[str, Any] | None, Question], bool]] = ContextVar("check of CEL's authorizer")
"""(user and groups, or None for who asks; what is asked) -> whether it is allowed."""

AUTHORIZER, ASKED, DECISION = "kubernetes.Authorizer", "kubernetes.AuthorizerCheck", "kubernetes.AuthorizerDecision"


def _held(value: Any, kind: str) -> Any:
    if kind_of(value) == kind or (isinstance(value, dict) and kind in value):
        return value[kind]
    raise ValueError("no such overload")


def _begin(key: str) -> Callable[[Any, str], Any]:
    return lambda value, text: {ASKED: {**_held(value, AUTHORIZER), key: text}}


def _more(key: str) -> Callable[[Any, str], Any]:
    return lambda value, text: {ASKED: {**_held(value, ASKED), key: text}}


def _as_account(value: Any, namespace: str, name: str) -> Any:
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"]
    who = {"name": f"system:serviceaccount:{namespace}:{name}", "groups": groups}
    return {AUTHORIZER: {**_held(value, AUTHORIZER), "user": who}}


def _check(value: Any, verb: str) -> Any:
    asked = dict(_held(value, ASKED))
    who = asked.pop("user", None)
    return {DECISION: bool(CHECK.get()(who, {**asked, "verb": verb}))}


ENTRIES: list[Any] = [
    ("path", "dyn", ("map", "string"), True, _begin("path")),
    ("group", "dyn", ("map", "string"), True, _begin("group")),
    ("serviceAccount", "dyn", ("map", "string", "string"), True, _as_account),
    ("resource", "dyn", ("map", "string"), True, _more("resource")),
    ("subresource", "dyn", ("map", "string"), True, _more("subresource")),
    ("namespace", "dyn", ("map", "string"), True, _more("namespace")),
    ("name", "dyn", ("map", "string"), True, _more("name")),
    ("fieldSelector", "dyn", ("map", "string"), True, lambda value, text: value),
    ("labelSelector", "dyn", ("map", "string"), True, lambda value, text: value),
    ("check", "dyn", ("map", "string"), True, _check),
    ("allowed", "bool", ("map",), True, lambda value: _held(value, DECISION)),
    ("reason", "string", ("map",), True, lambda value: ""),
    ("errored", "bool", ("map",), True, lambda value: _held(value, DECISION) not in (True, False)),
    ("error", "string", ("map",), True, lambda value: ""),
]
"""As library.Entry."""
