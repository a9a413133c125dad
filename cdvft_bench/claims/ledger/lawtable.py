"""Laws as a ledger writes them, read strictly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from cdvft_bench.claims.ledger.checks import check_keys, finite
from cdvft_bench.claims.ledger.laws import LAWS, Absent, AtMost, Equals, Exponent, Law, Over, Ratio
from cdvft_bench.core.errors import UserError

_LAW_KEYS = {
    "ratio": ("expected", "digits", "low", "high"),
    "absent": ("fraction",),
    "present": (),
    "identity": (),
    "linear": (),
    "n_log_n": (),
}
_ONE = ("expected",)


def law_of(table: Mapping[str, Any]) -> Law:
    """Read a claim's law. Raises UserError."""
    kind = table.get("kind")
    if kind not in LAWS:
        raise UserError(f"law {kind!r} is not known; use one of {', '.join(LAWS)}")
    cls = LAWS[kind]
    ranged = cls.least_values > 0
    check_keys(table, ("kind", *_LAW_KEYS.get(kind, _ONE), *(("over", "values", "counted") if ranged else ())),
          f"law {kind!r}")  # fmt: skip
    over = _over(table, cls) if ranged else None
    if cls is Ratio:
        return _ratio(table)
    if cls is Absent:
        fraction = finite(table.get("fraction", 0.5), "fraction")
        if not 0 < fraction <= 1:
            raise UserError(f"law 'absent': fraction = {fraction} must be above 0 and at most 1")
        return Absent(fraction=fraction)
    if cls is Equals or cls is AtMost or cls is Exponent:
        expected = _expected(table, kind)
        if cls is AtMost and (len(expected) != 1 or expected[0] <= 0):
            raise UserError(f"law 'at_most': expected = {list(expected)} must be one number > 0")
        if cls is Exponent and len(expected) != 1:
            raise UserError(f"law 'exponent': expected = {list(expected)} must be one number")
        return cls(over=over, expected=expected)
    return cls(over=over)


def _ratio(table: Mapping[str, Any]) -> Ratio:
    bounds = {k: finite(table[k], k) for k in ("low", "high") if k in table}
    if ("expected" in table) == bool(bounds):
        raise UserError("law 'ratio' needs 'expected', or bounds: 'low', 'high' or both")
    if any(b <= 0 for b in bounds.values()) or bounds.get("low", 0) > bounds.get("high", math.inf):
        raise UserError(f"law 'ratio': {bounds} must be positive, low below high")
    if bounds:
        if "digits" in table:
            raise UserError("law 'ratio': 'digits' belongs to 'expected'")
        return Ratio(low=bounds.get("low"), high=bounds.get("high"))
    expected = _expected(table, "ratio")
    if any(e <= 0 for e in expected):
        raise UserError(f"law 'ratio': expected = {list(expected)} must be positive")
    digits = table.get("digits")
    if digits is not None and (isinstance(digits, bool) or not isinstance(digits, int) or not 0 <= digits <= 9):
        raise UserError(f"law 'ratio': digits = {digits!r} must be an integer from 0 to 9")
    return Ratio(expected=expected, digits=digits)


def _expected(table: Mapping[str, Any], kind: str) -> tuple[float, ...]:
    if "expected" not in table:
        raise UserError(f"law {kind!r} needs 'expected'")
    given = table["expected"]
    values = given if isinstance(given, list) else [given]
    if not values:
        raise UserError(f"law {kind!r}: expected is empty")
    return tuple(finite(v, "expected") for v in values)


def _over(table: Mapping[str, Any], law: type[Law]) -> Over:
    axis, values = table.get("over"), table.get("values")
    if not isinstance(axis, str):
        raise UserError(f"law {law.kind!r} is judged on a range; give 'over' (an axis, e.g. \"d\") and 'values'")
    if not isinstance(values, list) or len(values) < law.least_values:
        n = len(values) if isinstance(values, list) else 0
        raise UserError(f"law {law.kind!r} over {n} point{'' if n == 1 else 's'}; it needs at least {law.least_values}")
    counted = table.get("counted", [])
    for name, given in (("values", values), ("counted", counted)):
        if not isinstance(given, list) or any(finite(v, name) <= 0 for v in given) or sorted(set(given)) != given:
            raise UserError(f"law {law.kind!r}: {name} = {given} must be positive numbers in increasing order")
    if not set(counted) <= set(values) or (counted and len(counted) < law.least_values):
        raise UserError(f"law {law.kind!r}: counted = {counted} must be at least {law.least_values} of its values")
    return Over(axis, tuple(values), tuple(counted))
