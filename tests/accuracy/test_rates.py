"""The grid of learning rates that extends itself."""

import itertools
import math
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from cdvft_bench.accuracy.rates import DIVERGED, LEAST, MOST, Grid, best_step, enclosed_after, walk


def _search(
    grid: Grid, trials: int, score: dict[float, float] | None, optimum: float, noise: float = 0.0
) -> dict[float, float]:
    """Run a search against a peak at ``optimum``, its falling side steep above ten times it: divergence."""
    tried = dict(score or {})

    def measure(rate: float) -> float:
        if rate > 10 * optimum:
            return DIVERGED
        ripple = noise * math.sin(1e4 * rate / grid.middle)
        return 0.8 / (1 + 0.05 * math.log(rate / optimum) ** 2) + ripple

    while True:
        rates, ended = walk(grid, trials, tried.get)
        if ended:
            return tried
        for rate in rates:
            tried.setdefault(rate, measure(rate))


@given(
    st.floats(-7.0, 0.0),
    st.floats(-7.0, 0.0),
    st.sampled_from([2.0, 3.0, 4.0, 10.0]),
    st.integers(3, 9),
    st.floats(0.0, 0.02),
)
def test_the_best_rate_lies_inside(middle: float, optimum: float, ratio: float, trials: int, noise: float) -> None:
    grid = Grid(10**middle, ratio)
    tried = _search(grid, trials, None, 10**optimum, noise)
    best = max(tried, key=lambda rate: tried[rate])
    assert min(tried) < best < max(tried)
    assert len(tried) >= trials
    assert len(tried) == max(trials, enclosed_after(grid, tried.get))
    # Until the best lies inside, the grid grows by one ratio at a time: no gap is wider than that.
    ordered = sorted(tried)
    assert all(high / low <= ratio * 1.02 for low, high in itertools.pairwise(ordered))


def test_a_search_goes_on_from_what_it_has() -> None:
    grid, peak = Grid(1e-2, 4.0), 3e-4
    whole = _search(grid, 8, None, peak)
    part = dict(list(whole.items())[:5])
    assert _search(grid, 8, part, peak) == whole
    assert list(_search(grid, 8, part, peak)) == list(whole)
    # More trials go on where fewer ended.
    assert list(_search(grid, 10, whole, peak))[:8] == list(whole)


def test_further_trials_halve_the_wider_gap_beside_the_best() -> None:
    tried = _search(Grid(1.0, 4.0), 7, None, 1.3)
    assert list(tried) == [1.0, 0.25, 4.0, 2.0, 0.5, 1.41, 1.19]


def test_of_equals_the_inner_one() -> None:
    steps = {Fraction(i): 0.5 for i in range(5)}
    assert best_step(steps) == 2
    assert best_step({**steps, Fraction(5): 0.5}) == 2
    # A plateau does not pull the grid outwards for ever.
    tried = dict.fromkeys([1.0, 0.25, 4.0, 0.5], 0.5)
    assert walk(Grid(1.0, 4.0), 4, tried.get) == ([1.0, 0.25, 4.0, 0.5], True)


def test_divergence_everywhere_goes_down_and_ends() -> None:
    grid = Grid(1e-3, 10.0)
    tried: dict[float, float] = {}
    while not (found := walk(grid, 3, tried.get))[1]:
        tried.update(dict.fromkeys(found[0], DIVERGED))
    assert min(tried) == LEAST
    assert max(tried) == 1e-2
    rising: dict[float, float] = {}
    while not (found := walk(grid, 3, rising.get))[1]:
        rising.update({rate: 1 - 1 / (2 + math.log(rate / LEAST)) for rate in found[0]})
    assert max(rising) == MOST
