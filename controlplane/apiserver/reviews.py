"""Review kinds: questions that are answered and not stored. May this user do that? Who does this token stand for?"""

from typing import Any

from controlplane.api import status
from controlplane.apiserver.authn import Authenticator
from controlplane.apiserver.authz.authorizer import Authorizer
from controlplane.apiserver.http import User
from controlplane.apiserver.requestinfo import RequestInfo

Object = dict[str, Any]
KINDS = frozenset((
    "SelfSubjectAccessReview", "SubjectAccessReview", "LocalSubjectAccessReview", "SelfSubjectRulesReview",
    "SelfSubjectReview", "TokenReview",
))  # fmt: skip


def answer(kind: str, review: Object, user: User, info: RequestInfo, authn: Authenticator, authz: Authorizer) -> Object:
    """`review` with its status."""
    spec = review.setdefault("spec", {})
    if kind == "TokenReview":
        review["status"] = _token(spec, authn)
    elif kind == "SelfSubjectReview":
        review.pop("spec", None)
        review["status"] = {"userInfo": _user_info(user)}
    elif kind == "SelfSubjectRulesReview":
        review["status"] = _rules(spec.get("namespace", ""), user, authz)
    else:
        _check(kind, spec)
        asked = user
        if kind != "SelfSubjectAccessReview":
            groups = tuple(spec.get("groups") or ())
            asked = User(spec.get("user", ""), groups, spec.get("uid", ""))
        allowed = authz.allows(asked, _question(spec))
        review["status"] = {"allowed": allowed}
    return review


def _check(kind: str, spec: Object) -> None:
    """Raises StatusError 422 for a question about nothing, or about nobody."""
    causes = []
    if ("resourceAttributes" in spec) == ("nonResourceAttributes" in spec):
        causes.append(status.invalid_value("spec.resourceAttributes", None,
            "exactly one of nonResourceAttributes or resourceAttributes must be specified"))  # fmt: skip
    if kind != "SelfSubjectAccessReview" and not spec.get("user") and not spec.get("groups"):
        causes.append(status.invalid_value("spec.user", "", "at least one of user or group must be specified"))
    if causes:
        raise status.invalid("authorization.k8s.io", kind, "", causes)


def _question(spec: Object) -> RequestInfo:
    about = spec.get("resourceAttributes")
    if about is None:
        path = spec.get("nonResourceAttributes") or {}
        return RequestInfo(False, path.get("path", ""), path.get("verb", ""))
    return RequestInfo(
        True, "", about.get("verb", ""), about.get("group", ""), about.get("version", ""), about.get("resource", ""),
        about.get("subresource", ""), about.get("namespace", ""), about.get("name", ""),
    )  # fmt: skip


def _token(spec: Object, authn: Authenticator) -> Object:
    audiences = tuple(spec.get("audiences") or (authn.signer.issuer,))
    user = authn.token(spec.get("token", ""), audiences)
    if user is None:
        return {"authenticated": False, "user": {}, "error": "invalid bearer token"}
    return {"authenticated": True, "user": _user_info(user), "audiences": list(audiences)}


def _user_info(user: User) -> Object:
    info: Object = {"username": user.name, "groups": list(user.groups)}
    if user.uid:
        info["uid"] = user.uid
    if user.extra:
        info["extra"] = {key: list(values) for key, values in user.extra.items()}
    return info


def _rules(namespace: str, user: User, authz: Authorizer) -> Object:
    if "system:masters" in user.groups:
        everything: list[Object] = [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]
        return {
            "resourceRules": everything,
            "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}],
            "incomplete": False,
        }
    grants = authz.rbac.grants(user)
    rules = [*grants.everywhere, *grants.in_namespace.get(namespace, ())]
    return {
        "resourceRules": [dict(r) for r in rules if r.get("resources")],
        "nonResourceRules": [dict(r) for r in rules if r.get("nonResourceURLs")],
        "incomplete": False,
    }
