"""Errors in Kubernetes' words."""

import pytest

from controlplane.api import status

CASES = [
    (status.not_found("pods", "web"), 404, "NotFound", 'pods "web" not found'),
    (status.not_found(), 404, "NotFound", "the server could not find the requested resource"),
    (
        status.already_exists("deployments.apps", "web"),
        409,
        "AlreadyExists",
        'deployments.apps "web" already exists',
    ),
    (
        status.conflict("pods", "web"),
        409,
        "Conflict",
        'Operation cannot be fulfilled on pods "web": the object has been modified; '
        "please apply your changes to the latest version and try again",
    ),
    (
        status.forbidden("jane", "list", "pods", namespace="default"),
        403,
        "Forbidden",
        'pods is forbidden: User "jane" cannot list resource "pods" in API group "" in the namespace "default"',
    ),
    (
        status.forbidden("jane", "get", "deployments", group="apps", subresource="scale", name="web"),
        403,
        "Forbidden",
        'deployments.apps "web" is forbidden: User "jane" cannot get resource "deployments/scale" '
        'in API group "apps" at the cluster scope',
    ),
    (
        status.forbidden("jane", "get", path="/metrics"),
        403,
        "Forbidden",
        'forbidden: User "jane" cannot get path "/metrics"',
    ),
    (
        status.method_not_allowed("pods", "create"),
        405,
        "MethodNotAllowed",
        'create is not supported on resources of kind "pods"',
    ),
    (status.too_large("limit is 3145728"), 413, "RequestEntityTooLarge", "Request entity too large: limit is 3145728"),
    (status.internal("boom"), 500, "InternalError", "Internal error occurred: boom"),
    (status.timeout("slow"), 504, "Timeout", "Timeout: slow"),
]


@pytest.mark.parametrize(("error", "code", "reason", "message"), CASES)
def test_words(error: status.StatusError, code: int, reason: str, message: str) -> None:
    assert (error.code, error.reason, error.message) == (code, reason, message)
    assert str(error) == message


def test_invalid_lists_its_causes() -> None:
    causes = [
        status.required("spec.containers"),
        status.invalid_value("metadata.name", "A", "no"),
        status.not_supported("spec.dnsPolicy", "x", ["None", "Default"]),
    ]
    error = status.invalid("", "Pod", "web", causes)
    assert error.message == (
        'Pod "web" is invalid: [spec.containers: Required value, metadata.name: Invalid value: "A": no, '
        'spec.dnsPolicy: Unsupported value: "x": supported values: "None", "Default"]'
    )
    assert error.details["causes"][0] == {
        "reason": "FieldValueRequired",
        "message": "Required value",
        "field": "spec.containers",
    }
    one = status.invalid("apps", "Deployment", "web", [status.duplicate("a", 3)])
    assert one.message == 'Deployment.apps "web" is invalid: a: Duplicate value: 3'


def test_field_errors_show_objects_as_json() -> None:
    assert status.invalid_value("f", {"a": 1}, "field is immutable").message == (
        'Invalid value: {"a":1}: field is immutable'
    )
    assert status.too_long("f", 63).message == "Too long: may not be more than 63 bytes"
    assert status.too_many("f", 5, 1).message == "Too many: 5: must have at most 1 item"
    assert status.forbidden_field("f", "may not change").message == "Forbidden: may not change"


def test_retry_after_is_a_detail_and_a_header() -> None:
    error = status.too_many_requests("busy", retry_after=7)
    assert error.details == {"retryAfterSeconds": 7} and error.headers == {"Retry-After": "7"}


def test_round_trip() -> None:
    error = status.conflict("pods", "web")
    document = error.to_dict()
    assert document["kind"] == "Status" and document["status"] == "Failure" and document["code"] == 409
    assert status.StatusError.from_dict(document).to_dict() == document
    assert status.StatusError.from_dict({}).code == 500
