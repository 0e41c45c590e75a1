"""Names: which strings Kubernetes accepts where (apimachinery util/validation, core validation).

Each check returns the complaints about a value in Kubernetes' words, an empty list if there are none; the caller puts
a field path in front. `name_errors` knows which check a kind's metadata.name has to pass.
"""

import re
from collections.abc import Callable
from ipaddress import ip_address, ip_network

Check = Callable[[str], list[str]]

_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = rf"{_LABEL}(\.{_LABEL})*"
_LABEL_1035 = r"[a-z]([-a-z0-9]*[a-z0-9])?"
_QUALIFIED = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_CONFIG_KEY = r"[-._a-zA-Z0-9]+"
_HTTP_HEADER = r"[-A-Za-z0-9]+"

_is_label = re.compile(_LABEL).fullmatch
_is_subdomain = re.compile(_SUBDOMAIN).fullmatch
_is_label_1035 = re.compile(_LABEL_1035).fullmatch
_is_qualified = re.compile(_QUALIFIED).fullmatch
_is_config_key = re.compile(_CONFIG_KEY).fullmatch
_is_http_header = re.compile(_HTTP_HEADER).fullmatch
_SEARCH_LABEL = r"[a-z0-9_]([-_a-z0-9]*[a-z0-9])?"
_SEARCH_DOMAIN = rf"{_SEARCH_LABEL}(\.{_SEARCH_LABEL})*"
_HTTP_PATH = r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+"
_is_port_name = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?").fullmatch
_is_search_domain = re.compile(_SEARCH_DOMAIN).fullmatch
_is_http_path = re.compile(_HTTP_PATH).fullmatch
_is_printable = re.compile(r"[ -<>-~]+").fullmatch


def _too_long(limit: int) -> str:
    return f"must be no more than {limit} bytes"


def _says(text: str, pattern: str, *examples: str) -> str:
    shown = " or ".join(f"'{example}', " for example in examples)
    return f"{text} (e.g. {shown}regex used for validation is '{pattern}')"


_LABEL_TEXT = _says(
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', "
    "and must start and end with an alphanumeric character",
    _LABEL,
    "my-name",
    "123-abc",
)
_SUBDOMAIN_TEXT = _says(
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
    "and must start and end with an alphanumeric character",
    _SUBDOMAIN,
    "example.com",
)
_LABEL_1035_TEXT = _says(
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', "
    "start with an alphabetic character, and end with an alphanumeric character",
    _LABEL_1035,
    "my-name",
    "abc-123",
)
_QUALIFIED_TEXT = _says(
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character",
    _QUALIFIED,
    "MyName",
    "my.name",
    "123-abc",
)
_LABEL_VALUE_TEXT = _says(
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', "
    "and must start and end with an alphanumeric character",
    f"({_QUALIFIED})?",
    "MyValue",
    "my_value",
    "12345",
)
_SEARCH_DOMAIN_TEXT = _says(
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', "
    "and must start and end with an alphanumeric character",
    _SEARCH_DOMAIN,
    "example.com",
)
_HTTP_PATH_TEXT = f"Invalid path (regex used for validation is '{_HTTP_PATH}')"
_CONFIG_KEY_TEXT = _says(
    "a valid config key must consist of alphanumeric characters, '-', '_' or '.'",
    _CONFIG_KEY,
    "key.name",
    "KEY_NAME",
    "key-name",
)
_HTTP_HEADER_TEXT = _says(
    "a valid HTTP header must consist of alphanumeric characters or '-'", _HTTP_HEADER, "X-Header-Name"
)


def _check(value: str, matches: Callable[[str], object], limit: int, text: str) -> list[str]:
    errors = [] if len(value) <= limit else [_too_long(limit)]
    if not matches(value):
        errors.append(text)
    return errors


def dns1123_label(value: str) -> list[str]:
    """A lower-case DNS label of up to 63 characters: namespaces, containers, volumes."""
    return _check(value, _is_label, 63, _LABEL_TEXT)


def dns1123_subdomain(value: str) -> list[str]:
    """Dot-separated lower-case labels of up to 253 characters together: most names."""
    return _check(value, _is_subdomain, 253, _SUBDOMAIN_TEXT)


def dns1035_label(value: str) -> list[str]:
    """A lower-case DNS label that starts with a letter: Services."""
    return _check(value, _is_label_1035, 63, _LABEL_1035_TEXT)


def wildcard_dns1123_subdomain(value: str) -> list[str]:
    """A subdomain whose first label is "*": Ingress hosts."""
    pattern = rf"\*\.{_SUBDOMAIN}"
    text = _says(
        "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of "
        "lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character",
        pattern,
        "*.example.com",
    )
    return _check(value, re.compile(pattern).fullmatch, 253, text)


def qualified_name(value: str) -> list[str]:
    """A name with an optional DNS prefix, "example.com/MyName": label and annotation keys, resource names."""
    if len(value) <= 63 and _is_qualified(value):  # the common case: no prefix
        return []
    prefix, slash, name = value.partition("/")
    if not slash:
        prefix, name = "", value
    if "/" in name:
        tail = "with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
        return [f"a qualified name {_QUALIFIED_TEXT} {tail}"]
    errors: list[str] = []
    if slash:
        if not prefix:
            errors.append("prefix part must be non-empty")
        elif complaints := dns1123_subdomain(prefix):
            errors += [f"prefix part {each}" for each in complaints]
    if not name:
        errors.append("name part must be non-empty")
    elif len(name) > 63:
        errors.append(f"name part {_too_long(63)}")
    if not _is_qualified(name):
        errors.append(f"name part {_QUALIFIED_TEXT}")
    return errors


def label_value(value: str) -> list[str]:
    """The value of a label: empty, or like the name part of a qualified name."""
    if not value:
        return []
    return _check(value, _is_qualified, 63, _LABEL_VALUE_TEXT)


def config_key(value: str) -> list[str]:
    """A key of a ConfigMap or Secret."""
    errors = _check(value, _is_config_key, 253, _CONFIG_KEY_TEXT)
    if value == ".":
        errors.append("must not be '.'")
    elif value == "..":
        errors.append("must not be '..'")
    elif value.startswith(".."):
        errors.append("must not start with '..'")
    return errors


def env_var_name(value: str) -> list[str]:
    """The name of an environment variable (as relaxed since Kubernetes 1.30)."""
    if not value:
        return ["environment variable name must be non-empty"]
    if not _is_printable(value):
        return ["a valid environment variable name must consist only of printable ASCII characters other than '='"]
    return []


def http_header_name(value: str) -> list[str]:
    """The name of an HTTP header."""
    return [] if _is_http_header(value) else [_HTTP_HEADER_TEXT]


def port_name(value: str) -> list[str]:
    """An IANA service name: the name of a container's port."""
    if len(value) <= 15 and _is_port_name(value) and "--" not in value and not value.replace("-", "").isdecimal():
        return []
    errors = [] if len(value) <= 15 else [_too_long(15)]
    if not re.fullmatch(r"[-a-z0-9]+", value):
        errors.append("must contain only alphanumeric characters (a-z, 0-9), and hyphens (-)")
    if not re.search(r"[a-z]", value):
        errors.append("must contain at least one letter (a-z)")
    if "--" in value:
        errors.append("must not contain consecutive hyphens")
    if value and (value[0] == "-" or value[-1] == "-"):
        errors.append("must not begin or end with a hyphen")
    return errors


def port_number(value: int) -> list[str]:
    """A TCP, UDP or SCTP port."""
    return [] if 1 <= value <= 65535 else ["must be between 1 and 65535, inclusive"]


def ip(value: str) -> list[str]:
    """An IPv4 or IPv6 address (without a zone)."""
    try:
        ip_address(value if "%" not in value else "")
    except ValueError:
        return ["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]
    return []


def cidr(value: str) -> list[str]:
    """A network, "10.9.8.0/24". Bits beyond the prefix are let pass, as in the old fields of Kubernetes."""
    try:
        ip_network(value if value.rpartition("/")[2].isdecimal() and "/" in value else "", strict=False)
    except ValueError:
        return ["must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"]
    return []


def dns1123_subdomain_with_underscore(value: str) -> list[str]:
    """A subdomain that may have underscores: the search list of a resolver."""
    return _check(value, _is_search_domain, 253, _SEARCH_DOMAIN_TEXT)


def domain_prefixed_path(value: str) -> list[str]:
    """A domain, a slash and a path: "example.com/controller"."""
    domain, slash, path = value.partition("/")
    if not slash or not domain or not path:
        return ['must be a domain-prefixed path (such as "acme.io/foo")']
    errors = dns1123_subdomain(domain)
    if not _is_http_path(path):
        errors.append(_HTTP_PATH_TEXT)
    return errors


def path_segment(value: str) -> list[str]:
    """Anything that can be one segment of a URL: RBAC names, "system:node"."""
    if value in (".", ".."):
        return [f"may not be '{value}'"]
    return [f"may not contain '{char}'" for char in "/%" if char in value]


def _cron_job(value: str) -> list[str]:
    # The controller appends 11 characters to a CronJob's name to name its Jobs, which are labels of 63.
    return ["must be no more than 52 characters"] if len(value) > 52 else dns1123_subdomain(value)


def _address_name(value: str) -> list[str]:
    complaints = ip(value)
    if not complaints and str(ip_address(value)) != value:
        return ["must be in canonical form (RFC 5952)"]
    return complaints


_CHECKS: dict[str, Check] = {
    "Namespace": dns1123_label,
    "StatefulSet": dns1123_label,  # a pod's hostname comes from it
    "PodDisruptionBudget": path_segment,
    "Service": dns1035_label,
    "Role": path_segment,
    "ClusterRole": path_segment,
    "RoleBinding": path_segment,
    "ClusterRoleBinding": path_segment,
    "APIService": path_segment,
    "IPAddress": _address_name,
    "ClusterTrustBundle": path_segment,
    "StorageVersion": path_segment,
    "CronJob": _cron_job,
}


def name_errors(kind: str, name: str) -> list[str]:
    """Complaints about `name` as the metadata.name of an object of `kind`."""
    check = _CHECKS.get(kind)
    if check is None:
        return [] if len(name) <= 253 and _is_subdomain(name) else dns1123_subdomain(name)
    return check(name)


def generate_name_errors(kind: str, prefix: str) -> list[str]:
    """Complaints about `prefix` as the metadata.generateName of an object of `kind`: a trailing "-" is fine."""
    return name_errors(kind, prefix[:-1] + "a" if prefix.endswith("-") else prefix)
