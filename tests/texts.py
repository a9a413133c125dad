"""Generated text against what is committed: the same words, the same counts, figures alike but for rounding."""

import math
import re
from itertools import zip_longest

NUMBER = re.compile(r"(?<![\w.])[-+−]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?(?![\w])")
LEAST = 1e-9
"""Figures below are rounding errors."""


def same_text(shown: str, now: str) -> None:
    """Assert that two texts say the same.

    All but the numbers is equal, and so are whole numbers, which count something. Others, and percentages, may be apart
    by one unit of the last digit that both show, or be both rounding errors: they come from sums that end in other last
    bits on another processor.
    """
    for i, (old, new) in enumerate(zip_longest(shown.splitlines(), now.splitlines(), fillvalue="(no such line)"), 1):
        assert NUMBER.sub("#", old) == NUMBER.sub("#", new), f"line {i}"
        for a, b in zip(NUMBER.finditer(old), NUMBER.finditer(new), strict=True):
            share = old[a.end() : a.end() + 2] == " %"
            assert alike(a[0], b[0], share), f"line {i}: {a[0]} and {b[0]} in {new[max(0, b.start() - 60) :][:120]!r}"


def alike(a: str, b: str, share: bool = False) -> bool:
    """Whether two printed figures are the same but for rounding; whole ones must be equal unless they are a share."""
    x, y = (float(text.replace(",", "").replace("−", "-")) for text in (a, b))
    if x == y or max(abs(x), abs(y)) < LEAST:
        return True
    whole = not any(set(".e") & set(text) for text in (a, b))
    if whole and not share:
        return False
    return abs(x - y) <= min(_unit(a), _unit(b)) * (1 + LEAST) or math.isclose(x, y, rel_tol=LEAST)


def _unit(text: str) -> float:
    """Of the last digit."""
    mantissa, _, exponent = text.partition("e")
    return 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
