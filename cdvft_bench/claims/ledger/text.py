"""How the judge writes numbers and names. Standard library and core only."""

import math
from collections.abc import Sequence

from cdvft_bench.core.ties import steady

ROUNDING = 1e-8
"""Relative differences below this are rounding errors, which differ from machine to machine: no text shows them."""


def number(value: float, digits: int = 4) -> str:
    """A number to ``digits`` significant digits; whole ones, but for rounding errors, in full."""
    if not math.isfinite(value):
        return str(value)
    value = steady(value)
    if abs(value) < 1e15 and math.isclose(value, round(value), rel_tol=ROUNDING):
        return f"{value:,.0f}"
    exponent = math.floor(math.log10(abs(value)))
    if exponent < -4 or exponent > 14:
        return f"{value:.{digits - 1}e}"
    return f"{value:,.{max(0, digits - 1 - exponent)}f}"


def numbers(values: Sequence[float]) -> str:
    """One number, or several in parentheses."""
    return number(values[0]) if len(values) == 1 else "(" + ", ".join(number(v) for v in values) + ")"


def percent(value: float) -> str:
    """A signed share: ``+3.4 %``."""
    if abs(value) < ROUNDING:
        return "0 %"
    scaled = 100 * value
    return f"{'+' if scaled > 0 else '-'}{number(abs(scaled), 2 if abs(scaled) < 100 else 3)} %"


def share_text(share: float) -> str:
    """A probability in per cent, never rounded to a certainty that it is not."""
    if 0 < share < 0.01:
        return "under 1 %"
    if 0.99 < share < 1:
        return "over 99 %"
    return f"{100 * share:.0f} %"


def besides(miss: float) -> str:
    """How far off a figure is, in parentheses after it; nothing where only rounding errors part it from the claim."""
    return f" ({percent(miss)})" if abs(miss) >= ROUNDING else ""


def setting(pairs: Sequence[tuple[str, object]]) -> str:
    """``tokens = 256, subject.path = fft``; options of the quantity stand without its name."""
    return ", ".join(f"{axis_text(axis)} = {value_text(value)}" for axis, value in pairs)


def axis_text(axis: str) -> str:
    """An axis as tables show it."""
    return axis.removeprefix("quantity.")


def value_text(value: object) -> str:
    """A value of a ledger as tables show it."""
    if isinstance(value, tuple):
        return " + ".join(str(v) for v in value)
    return str(value).lower() if isinstance(value, bool) else str(value)
