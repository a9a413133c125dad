"""The clock's test of itself, on a machine whose time the tests make up."""

from __future__ import annotations

import pytest
import torch

from cdvft_bench.core.errors import UserError
from cdvft_bench.core.interval import Interval
from cdvft_bench.timing.machine.selftest import _outside, selftest
from tests.timing.fake_machine import FakeMachine


def test_an_exact_clock_finds_nothing_but_the_doubled_work() -> None:
    machine = FakeMachine()
    result = selftest(machine.work(3e-3), comparisons=4, timer=machine.now)
    assert result.comparisons == 4
    assert result.largest_deviation < 1e-9
    assert result.excluded_by_1_percent == 0
    assert result.doubled.value == pytest.approx(2)
    assert result.doubled_found
    assert result.seconds == pytest.approx(3e-3)
    assert result.warnings == ()


def test_a_noisy_clock_is_right_about_as_often_as_it_says() -> None:
    machine = FakeMachine(3)
    result = selftest(machine.work(3e-3, noise=0.05), comparisons=60, timer=machine.now, budget_s=60)
    assert result.excluded <= 9 / 60  # some 4 of 60 are expected
    assert result.excluded_by_1_percent <= result.excluded
    assert 0 < result.largest_deviation < 0.1
    assert result.widest_half_width is not None
    assert result.widest_half_width <= 0.02
    assert result.doubled_found


def test_an_unsteady_call_makes_wide_intervals_and_says_so() -> None:
    machine = FakeMachine()
    turns = [0]

    def call() -> None:
        turns[0] += 1
        machine.seconds += 3e-3 * (1 + 0.2 * (turns[0] % 2))

    result = selftest(call, comparisons=3, timer=machine.now, max_rounds=40)
    assert result.widest_half_width is not None
    assert result.widest_half_width > 0.02
    assert any("precision" in w for w in result.warnings)


def test_too_short_a_budget_finds_nothing_and_says_so() -> None:
    machine = FakeMachine()
    result = selftest(machine.work(5.0), comparisons=2, timer=machine.now, budget_s=1)
    assert result.widest_half_width is None
    assert result.doubled.low is None
    assert not result.doubled_found
    assert result.excluded == 0
    assert any("interval" in w for w in result.warnings)


def test_the_doubled_work_must_lie_in_its_interval() -> None:
    assert not _outside(Interval(2.0, 1.97, 2.005), 2.0, 0.01)
    assert not _outside(Interval(1.98, 1.97, 1.985), 2.0, 0.01)
    assert _outside(Interval(1.9, 1.85, 1.97), 2.0, 0.01)
    assert _outside(Interval(2.1, 2.05, 2.2), 2.0, 0.01)
    assert _outside(Interval(1.02, 1.005, 1.03), 1.0)
    assert not _outside(Interval(1.02, 1.005, 1.03), 1.0, 0.01)


def test_the_real_clock_runs() -> None:
    result = selftest(comparisons=2, budget_s=0.05, threads=1)
    assert result.seconds > 0
    assert result.doubled.value > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [({"comparisons": 0}, "comparisons = 0"), ({"device": "abacus"}, "'abacus' is not known")],
)
def test_bad_arguments_are_named(arguments, said) -> None:
    with pytest.raises(UserError, match=said):
        selftest(lambda: None, **arguments)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_clock_runs() -> None:
    result = selftest(comparisons=2, budget_s=0.2, device="cuda")
    assert result.seconds > 0
