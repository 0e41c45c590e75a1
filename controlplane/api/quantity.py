"""Quantities: "500m", "1.5Gi", "1e3": exact numbers with a unit suffix (apimachinery pkg/api/resource).

A quantity is an integer number of nano-units plus the family of suffixes it was written in; Kubernetes keeps no finer
precision (it rounds up to a nano), so integers are exact. Quantities compare and add by amount, whatever their suffix,
and `canonical` is the text in which Kubernetes stores them: largest suffix without a fraction.
"""

import re
from dataclasses import dataclass
from functools import lru_cache, total_ordering
from typing import Literal

Family = Literal["decimal", "binary", "exponent"]

NANO = 10**9
_LIMIT = (2**63 - 1) * NANO
_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_DECIMAL_NAME = {power: name for name, power in _DECIMAL.items()}
_BINARY = {"Ki": 1, "Mi": 2, "Gi": 3, "Ti": 4, "Pi": 5, "Ei": 6}
_BINARY_NAME = {power: name for name, power in _BINARY.items()}
_FORM = re.compile(r"([+-]?)(\d+)?(?:\.(\d*))?([numkMGTPE]|[KMGTPE]i|[eE][+-]?\d+)?", re.ASCII)
_COMPLAINT = r"quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"


@total_ordering
@dataclass(frozen=True, slots=True, eq=False)
class Quantity:
    """An amount in nano-units, and how to write it."""

    nano: int
    family: Family = "decimal"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Quantity) and self.nano == other.nano

    def __lt__(self, other: "Quantity") -> bool:
        return self.nano < other.nano

    def __hash__(self) -> int:
        return hash(self.nano)

    def __add__(self, other: "Quantity") -> "Quantity":
        return Quantity(self.nano + other.nano, self.family if self.nano else other.family)

    def __sub__(self, other: "Quantity") -> "Quantity":
        return Quantity(self.nano - other.nano, self.family if self.nano else other.family)

    def __neg__(self) -> "Quantity":
        return Quantity(-self.nano, self.family)

    def __bool__(self) -> bool:
        return self.nano != 0

    def value(self) -> int:
        """Whole units, rounded up: bytes of memory, number of pods."""
        return -(-self.nano // NANO)

    def milli(self) -> int:
        """Thousandths, rounded up: millicores."""
        return -(-self.nano // 10**6)

    def __str__(self) -> str:
        nano = self.nano
        if nano == 0:
            return "0"
        if self.family == "binary" and abs(nano) >= 1024 * NANO:
            return _scaled(self.value(), 1024, 0, _BINARY_NAME, 6)
        if self.family == "exponent":
            mantissa, power = nano, -9
            while mantissa % 1000 == 0:
                mantissa //= 1000
                power += 3
            return f"{mantissa}e{power}" if power else str(mantissa)
        return _scaled(nano, 1000, -9, _DECIMAL_NAME, 18)


def _scaled(number: int, base: int, power: int, names: dict[int, str], last: int) -> str:
    step = 3 if base == 1000 else 1
    while power < last and number % base == 0:
        number //= base
        power += step
    return f"{number}{names[power] if power else ''}"


@lru_cache(maxsize=4096)
def parse(text: str) -> Quantity:
    """The quantity that `text` writes. Raises ValueError with Kubernetes' complaint."""
    found = _FORM.fullmatch(text)
    if found is None:
        raise ValueError(_COMPLAINT)
    sign, whole, fraction, suffix = found.groups()
    if not whole and not fraction:
        raise ValueError(_COMPLAINT)
    digits = int((whole or "") + (fraction or ""))
    power = 9 - len(fraction or "")
    family: Family = "decimal"
    factor = 1
    if suffix in _BINARY:
        family, factor = "binary", 1024 ** _BINARY[suffix]
    elif suffix in _DECIMAL:
        power += _DECIMAL[suffix]
    elif suffix:
        family = "exponent"
        exponent = int(suffix[1:])
        if abs(exponent) > 100:
            raise ValueError("unable to parse quantity's suffix")
        power += exponent
    digits *= factor
    nano = digits * 10**power if power >= 0 else -(-digits // 10**-power)
    nano = min(nano, _LIMIT)
    return Quantity(-nano if sign == "-" else nano, family)


@lru_cache(maxsize=4096)
def canonical(text: str) -> str:
    """The canonical text of the quantity that `text` writes: "1000m" -> "1". Raises ValueError."""
    return str(parse(text))


def of(value: str | int | float) -> Quantity:
    """The quantity of a JSON value: text, or a plain number. Raises ValueError."""
    return parse(value if isinstance(value, str) else repr(value))


ZERO = Quantity(0)
