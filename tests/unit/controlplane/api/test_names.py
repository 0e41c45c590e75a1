"""Which strings Kubernetes accepts where."""

from collections.abc import Callable

import pytest

from controlplane.api import names

GOOD_AND_BAD: list[tuple[Callable[[str], list[str]], list[str], list[str]]] = [
    (names.dns1123_label, ["a", "0-a", "a" * 63], ["", "A", "-a", "a.b", "a" * 64, "a\n"]),
    (names.dns1123_subdomain, ["a.b", "1.2.3", "a" * 253], ["", "a..b", "a_b", "a." * 200, ".a"]),
    (names.dns1035_label, ["web"], ["1web", ""]),
    (names.qualified_name, ["a", "A_b.C", "example.com/x"], ["", "/", "/a", "a/", "a/b/c", "Ex/a", "-a", "a" * 64]),
    (names.label_value, ["", "A_b", "1"], ["-a", "a b", "a" * 64]),
    (names.config_key, ["a.b", "A", ".hidden"], ["", "..", "..a", "a/b", "."]),
    (names.env_var_name, ["A", "my.env", "1A", "a b"], ["", "A=B", "ä"]),
    (names.port_name, ["http", "a-1"], ["", "HTTP", "1", "a--b", "-a", "a" * 16]),
    (names.ip, ["10.0.0.1", "2001:db8::1"], ["10.0.0", "x", "010.0.0.1"]),
    (names.path_segment, ["system:node"], [".", "..", "a/b", "a%b"]),
    (names.wildcard_dns1123_subdomain, ["*.a.com"], ["*", "a.com", "*.*.com"]),
]


@pytest.mark.parametrize(("check", "good", "bad"), GOOD_AND_BAD)
def test_checks(check: Callable[[str], list[str]], good: list[str], bad: list[str]) -> None:
    assert {value: check(value) for value in good} == {value: [] for value in good}
    assert [value for value in bad if not check(value)] == []


def test_words() -> None:
    assert names.dns1123_label("A") == [
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
        "with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
        "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
    ]
    assert names.port_number(0) == ["must be between 1 and 65535, inclusive"] and not names.port_number(80)


def test_names_of_kinds() -> None:
    assert names.name_errors("Pod", "a.b") == []
    assert names.name_errors("Namespace", "a.b") and names.name_errors("Service", "1a")
    assert names.name_errors("ClusterRole", "system:node") == []
    assert names.name_errors("CronJob", "a" * 53) == ["must be no more than 52 characters"]
    assert names.generate_name_errors("Pod", "web-") == [] and names.generate_name_errors("Pod", "web_")
