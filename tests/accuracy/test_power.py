"""What difference a design can see, against simulation."""

import math

import numpy as np
import pytest

from cdvft_bench.accuracy.analysis import Estimate, estimate
from cdvft_bench.accuracy.pilot import Components, components, detectable
from cdvft_bench.core.errors import UserError

SCALE = 1000
"""Of simulated answers: whole numbers whose rounding does not count."""


def _table(rng: np.random.Generator, parts: Components, seeds: int, examples: int) -> np.ndarray:
    draw = rng.standard_normal
    table = (
        math.sqrt(parts.seed) * draw((seeds, 1))
        + math.sqrt(parts.example) * draw((1, examples))
        + math.sqrt(parts.rest) * draw((seeds, examples))
    )
    return np.round(SCALE * table).astype(np.int64)  # answers are whole numbers


def test_components_are_found_again() -> None:
    rng = np.random.default_rng(3)
    parts = Components(seed=4e-3, example=0.05, rest=0.08)
    found = [components(_table(rng, parts, 6, 150)) for _ in range(300)]
    for name in ("seed", "example", "rest"):
        mean = np.mean([getattr(c, name) for c in found]) / SCALE**2
        assert mean == pytest.approx(getattr(parts, name), rel=0.12)


def test_the_error_is_that_of_the_mean() -> None:
    rng = np.random.default_rng(4)
    parts = Components(seed=2e-3, example=0.05, rest=0.08)
    means = [_table(rng, parts, 5, 60).mean() for _ in range(3000)]
    assert float(np.std(means)) / SCALE == pytest.approx(parts.error(5, 60), rel=0.06)
    # The estimate counts what belongs to one answer twice: it may be too wide, not too narrow.
    errors = [estimate(_table(rng, parts, 5, 60)).error or 0.0 for _ in range(300)]
    assert float(np.sqrt(np.mean(np.square(errors)))) / SCALE >= parts.error(5, 60)


def test_a_difference_of_that_size_is_found_four_times_of_five() -> None:
    rng = np.random.default_rng(5)
    n, sd = 8, 0.3
    error = sd / math.sqrt(n)
    effect = detectable(Estimate(0.0, error, n - 1))
    from scipy.stats import ttest_1samp

    samples = effect + sd * rng.standard_normal((6000, n))
    share = float((ttest_1samp(samples, 0.0, axis=1).pvalue < 0.05).mean())
    assert 0.76 < share < 0.88
    assert detectable(Estimate(0.0, error, n - 1), comparisons=20) > 1.3 * effect
    assert detectable(Estimate(0.4, 0.0, 4)) == 0.0
    assert detectable(Estimate(0.4, None, 0)) == math.inf


def test_more_of_either_sees_less() -> None:
    parts = Components(seed=1e-5, example=0.05, rest=0.1)
    assert parts.detectable(5, 4000) > parts.detectable(5, 8000) > parts.detectable(10, 8000)
    for shape in ((1, 5), (5, 1)):
        with pytest.raises(UserError, match="two of each"):
            components(np.zeros(shape, dtype=np.int64))
