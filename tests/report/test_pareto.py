"""The front against its definition, by brute force."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cdvft_bench.analysis.pareto import pareto_front
from cdvft_bench.core.errors import UserError

coordinate = st.integers(-4, 4).map(float) | st.floats(allow_nan=False)


@given(st.lists(st.tuples(coordinate, coordinate), max_size=30))
def test_front_against_the_definition(points) -> None:
    def beaten(i: int) -> bool:
        cost, score = points[i]
        return any(c <= cost and s >= score and (c < cost or s > score) for c, s in points)

    front = pareto_front([c for c, _ in points], [s for _, s in points])
    assert sorted(front) == [i for i in range(len(points)) if not beaten(i)]
    assert [points[i][0] for i in front] == sorted(points[i][0] for i in front)


def test_bad_points() -> None:
    with pytest.raises(UserError, match="score 1 is NaN"):
        pareto_front([1.0, 2.0], [1.0, float("nan")])
    with pytest.raises(UserError, match="2 costs and 1 scores"):
        pareto_front([1.0, 2.0], [1.0])
