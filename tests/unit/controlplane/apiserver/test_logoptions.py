"""Parameters of a log request, by Kubernetes' rules and in its words."""

import pytest

from controlplane.api.status import StatusError
from controlplane.apiserver import logoptions


def test_what_is_passed_on() -> None:
    query = {"container": "c", "follow": "true", "tailLines": "0", "sinceSeconds": "5", "limitBytes": "", "pretty": "1"}
    assert logoptions.chosen(query, "p") == {"follow": "true", "tailLines": "0", "sinceSeconds": "5"}
    assert logoptions.chosen({"stream": "Stderr"}, "p") == {"stream": "Stderr"}


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ({"tailLines": "-1"}, "tailLines: Invalid value: -1: must be greater than or equal to 0"),
        ({"limitBytes": "0"}, "limitBytes: Invalid value: 0: must be greater than 0"),
        ({"sinceSeconds": "0"}, "sinceSeconds: Invalid value: 0: must be greater than 0"),
        ({"sinceSeconds": "1", "sinceTime": "2026-11-21T10:00:00Z"}, "at most one of `sinceTime` or `sinceSeconds`"),
        ({"stream": "Both"}, 'stream: Unsupported value: "Both": supported values: "All", "Stderr", "Stdout"'),
        ({"stream": "Stdout", "tailLines": "1"}, "`tailLines` and specific `stream` are mutually exclusive for now"),
    ],
)
def test_what_breaks_a_rule(query: dict[str, str], said: str) -> None:
    with pytest.raises(StatusError) as caught:
        logoptions.chosen(query, "p")
    assert caught.value.code == 422
    assert caught.value.message.startswith('PodLogOptions "p" is invalid: ')
    assert said in caught.value.message


def test_what_is_no_number() -> None:
    with pytest.raises(StatusError) as caught:
        logoptions.chosen({"tailLines": "many"}, "p")
    assert (caught.value.code, caught.value.message) == (
        400, 'strconv.ParseInt: parsing "many": invalid syntax',
    )  # fmt: skip
