"""Quantities."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controlplane.api import quantity


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("0", "0"),
        ("0Ki", "0"),
        ("-0", "0"),
        ("1", "1"),
        ("+1", "1"),
        ("1.", "1"),
        (".5", "500m"),
        ("0.5", "500m"),
        ("1000m", "1"),
        ("1500m", "1500m"),
        ("100000", "100k"),
        ("1024", "1024"),
        ("1024Ki", "1Mi"),
        ("1.5Gi", "1536Mi"),
        ("1000Ki", "1000Ki"),
        ("0.5Ki", "512"),
        ("0.1Gi", "107374183"),
        ("1e3", "1e3"),
        ("12e2", "1200"),
        ("1E", "1E"),
        ("1E3", "1e3"),
        ("1n", "1n"),
        ("0.1n", "1n"),
        ("-1.5", "-1500m"),
        ("-2Gi", "-2Gi"),
        ("99999999999999999999", "9223372036854775807"),
    ],
)
def test_canonical(text: str, canonical: str) -> None:
    assert quantity.canonical(text) == canonical
    assert quantity.canonical(canonical) == canonical


@pytest.mark.parametrize(
    "text", ["", "m", "1 ", " 1", "1mi", "1KI", "1e", "e3", ".", "1.2.3", "--1", "0x1", "1e3m", "٣"]
)
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="quantit"):
        quantity.parse(text)


def test_amounts() -> None:
    assert quantity.parse("1Gi").value() == 1 << 30
    assert quantity.parse("100m").milli() == 100
    assert quantity.parse("1m").value() == 1
    assert quantity.parse("0.5m").milli() == 1
    assert quantity.parse("1") == quantity.parse("1000m") < quantity.parse("1001m")
    assert str(quantity.parse("1Gi") + quantity.parse("512Mi")) == "1536Mi"
    assert str(quantity.ZERO + quantity.parse("1Gi") - quantity.parse("512Mi")) == "512Mi"
    assert quantity.of(2).value() == 2 and quantity.of(0.5).milli() == 500
    assert not quantity.ZERO and -quantity.parse("1") < quantity.ZERO


@given(st.integers(-(10**15), 10**15), st.sampled_from(["", "m", "k", "M", "Ki", "Mi", "n", "e3", "e-2"]))
def test_canonical_text_keeps_the_amount(number: int, suffix: str) -> None:
    parsed = quantity.parse(f"{number}{suffix}")
    again = quantity.parse(str(parsed))
    assert again == parsed and str(again) == str(parsed)


@given(st.integers(0, 10**12), st.integers(0, 10**12))
def test_order_is_that_of_numbers(one: int, other: int) -> None:
    assert (quantity.parse(f"{one}m") < quantity.parse(f"{other}m")) == (one < other)
