"""A budget lets the first job begin and none that would end too late."""

import math
import time

import pytest

from cdvft_bench.core.budget import Budget, parse_seconds
from cdvft_bench.core.errors import UserError


def test_the_first_job_always_begins_and_later_ones_only_where_they_fit() -> None:
    budget = Budget(10.0, begun=time.monotonic() - 8.0)
    assert not budget.spent
    budget.took(1.0)
    assert not budget.spent
    budget.took(5.0)
    budget.took(0.5)
    assert budget.longest == 5.0
    assert budget.spent
    assert Budget(1.0, begun=time.monotonic() - 8.0).left < 0


def test_without_an_end_nothing_is_spent() -> None:
    budget = Budget()
    budget.took(1e9)
    assert not budget.spent
    assert budget.left == math.inf


@pytest.mark.parametrize(("text", "seconds"), [("540", 540), ("540s", 540), ("9m", 540), ("0.5h", 1800), ("1e2", 100)])
def test_times_as_people_write_them(text: str, seconds: float) -> None:
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-3", "nan", "inf", "h", "3 days", "0s", "1e999h"])
def test_what_is_no_time_is_named(text: str) -> None:
    with pytest.raises(UserError, match=r"write 540s, 9m or 0\.5h"):
        parse_seconds(text)


def test_of_no_time_at_all_no_job_begins() -> None:
    assert Budget(0.0).spent
    assert not Budget(1e-9).spent


def test_jobs_of_no_time_end_with_the_budget() -> None:
    budget = Budget(10.0, begun=time.monotonic() - 20.0)
    assert not budget.spent
    budget.took(0.0)
    assert budget.spent
