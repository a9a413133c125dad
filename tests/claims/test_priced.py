"""FLOPs at open prices: closed forms on one side, what runs on the other, and nothing shared between them."""

import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdvft_bench.claims.ledger.point import MethodSubject, Point
from cdvft_bench.claims.ledger.quantities import QUANTITIES
from cdvft_bench.claims.sources.analytic import FormulaSource
from cdvft_bench.claims.sources.counted import CountSource
from cdvft_bench.claims.sources.priced import real_split_radix, split_radix
from cdvft_bench.claims.sources.source import NotAvailable
from cdvft_bench.counting.prices import count_fft

FORMULA, COUNT = FormulaSource(Path()), CountSource(Path())


@pytest.mark.parametrize("k", range(10))
def test_recurrences_are_what_a_split_radix_transform_takes(k: int) -> None:
    """Against a transform over numbers that count, which knows no recurrence."""
    for n in (2**k, 3 * 2**k):
        assert split_radix(n) == count_fft(n).flops
        assert real_split_radix(n) == count_fft(n, real=True).flops
    n = 2**k
    assert split_radix(n) == 4 * n * k - 6 * n + 8 if k else split_radix(n) == 0
    assert real_split_radix(n) == 2 * n * k - 4 * n + 6 if k else real_split_radix(n) == 0


@pytest.mark.parametrize("n", [0, 5, 7, 9, 18, 100, 769])
def test_other_lengths_have_no_closed_form(n: int) -> None:
    for form in (split_radix, real_split_radix):
        with pytest.raises(NotAvailable, match=f"split-radix FFT of {n} points"):
            form(n)


prices = st.fixed_dictionaries(
    {
        "mac": st.sampled_from([1, 2]),
        "fft": st.sampled_from([1, 2.5, 5, "tallied"]) | st.floats(0.1, 10),
        "plane": st.sampled_from(["n log2 n", "n log2 d"]),
        "real_fft": st.sampled_from(["half", "as complex"]),
        "spectrum_of_c": st.sampled_from(["per batch", "per token", "never"]),
        "diagonals": st.booleans(),
        "products": st.sampled_from(["none", "per entry", "per bin"]),
    }
)
subjects = st.one_of(
    st.builds(
        lambda m, p: MethodSubject("cdvft", (("block_size", p), ("m", m))),
        st.integers(2, 4),
        st.sampled_from([16, 24, 32, 48, 96]),
    ),
    st.builds(lambda p: MethodSubject("block_circulant", (("block_size", p),)), st.sampled_from([16, 24, 48, 96])),
    st.builds(lambda r: MethodSubject("lora", (("rank", r),)), st.integers(1, 9)),
    st.just(MethodSubject("fourierft", (("n_frequency", 50),))),
)


@settings(max_examples=60)
@given(prices, subjects, st.sampled_from(["96x96", "96x48", "48x96"]), st.integers(1, 9))
def test_formula_and_count_come_to_the_same(
    options: dict[str, object], subject: MethodSubject, layer: str, tokens: int
) -> None:
    assert set(options) == set(QUANTITIES["priced_flops"].options)
    point = Point("priced_flops", tuple(sorted(options.items())), subject, place=layer, tokens=tokens)  # type: ignore[arg-type]
    (formula,), (count,) = FORMULA.value(point, subject), COUNT.value(point, subject)
    assert formula == pytest.approx(count, rel=1e-12)


def test_the_printed_ratio_by_hand() -> None:
    """The quotient that 51.81 rounds, and that half the price over half the tokens gives it too."""
    d, log = 768, math.log2(768)
    found = [
        (price * d**2 * 2 * log + 2 * tokens * d**2) / (tokens * (3 * d * log * unit + 2 * d))
        for price, unit, tokens in ((1, 1, 256), (0.5, 1, 128))
    ]
    assert [round(r, 2) for r in found] == [51.81, 51.81]
