"""The interleaved clock, on a machine whose time the tests make up."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch

from cdvft_bench.core.errors import UserError
from cdvft_bench.timing.clock import SHORTEST_SAMPLE, Contender, fixed_threads, time_interleaved
from tests.timing.fake_machine import FakeMachine


def test_a_known_ratio_is_found_and_its_interval_holds_it() -> None:
    machine = FakeMachine()
    contenders = [Contender("slow", machine.work(6e-3)), Contender("fast", machine.work(4e-3))]
    timing = time_interleaved(contenders, timer=machine.now)
    ratio = timing.ratios["fast"]
    assert ratio.value == pytest.approx(1.5)
    assert ratio.low is not None
    assert ratio.high is not None
    assert ratio.low == pytest.approx(1.5)
    assert ratio.high == pytest.approx(1.5)
    assert [s.name for s in timing.samples] == ["slow", "fast"]
    assert timing.samples[0].median == pytest.approx(6e-3)
    assert len(timing.samples[0].seconds) == timing.rounds
    assert timing.method == "perf_counter"
    assert timing.warnings == ()


def test_under_noise_most_intervals_hold_the_truth() -> None:
    held = 0
    for seed in range(60):
        machine = FakeMachine(seed)
        contenders = [Contender("a", machine.work(3e-3, noise=0.1)), Contender("b", machine.work(2e-3, noise=0.1))]
        timing = time_interleaved(contenders, timer=machine.now, budget_s=60, seed=seed)
        ratio = timing.ratios["b"]
        assert ratio.low is not None
        assert ratio.high is not None
        assert ratio.low <= ratio.value <= ratio.high
        held += ratio.low <= 1.5 <= ratio.high
    assert held >= 52  # 57 are expected of 95 %, and fewer than 52 in one of a thousand such tests


def test_a_tighter_precision_takes_more_rounds() -> None:
    rounds = []
    for precision in (0.1, 0.05, 0.02):
        machine = FakeMachine()
        contenders = [Contender("a", machine.work(3e-3, noise=0.1)), Contender("b", machine.work(3e-3, noise=0.1))]
        timing = time_interleaved(contenders, timer=machine.now, budget_s=60, precision=precision, max_rounds=1000)
        ratio = timing.ratios["b"]
        assert ratio.low is not None
        assert ratio.high is not None
        assert (ratio.high - ratio.low) / 2 / ratio.value <= precision
        rounds.append(timing.rounds)
    assert rounds[0] < rounds[1] < rounds[2] < 1000


def test_a_precision_out_of_reach_is_said() -> None:
    machine = FakeMachine()
    contenders = [Contender("a", machine.work(3e-3, noise=0.3)), Contender("b", machine.work(3e-3, noise=0.3))]
    timing = time_interleaved(contenders, timer=machine.now, budget_s=60, precision=1e-3, max_rounds=40)
    assert timing.rounds == 40
    assert any("precision" in w for w in timing.warnings)


def test_one_contender_is_timed_to_its_own_precision() -> None:
    machine = FakeMachine()
    timing = time_interleaved([Contender("a", machine.work(3e-3, noise=0.05))], timer=machine.now, precision=0.05)
    assert timing.ratios == {}
    assert 10 <= timing.rounds < 200
    assert timing.samples[0].median == pytest.approx(3e-3, rel=0.1)


def test_rounds_do_not_wait_for_a_ratio_that_nobody_awaits() -> None:
    """As replays do not for eager calls, which are as noisy as the host: the ratio is told with the interval it has."""
    rounds = {}
    for awaited in (True, False):
        machine = FakeMachine()
        contenders = [
            Contender("a", machine.work(3e-3, noise=0.01)),
            Contender("b", machine.work(3e-3, noise=0.01)),
            Contender("noisy", machine.work(9e-3, noise=0.8), awaited=awaited),
        ]
        timing = time_interleaved(contenders, timer=machine.now, budget_s=60, precision=0.02, max_rounds=80)
        rounds[awaited] = timing.rounds
        assert timing.ratios["b"].half_width < 0.02 < timing.ratios["noisy"].half_width
        assert any("precision" in w for w in timing.warnings) == awaited
    assert rounds[False] < rounds[True] == 80


def test_the_machine_drifting_leaves_ratios_right_and_is_said() -> None:
    machine = FakeMachine()

    def slower() -> None:
        machine.slowness *= 1.004

    contenders = [
        Contender("a", machine.work(6e-3, noise=0.01), before=slower),
        Contender("b", machine.work(4e-3, noise=0.01), before=slower),
    ]
    timing = time_interleaved(contenders, timer=machine.now, precision=1e-4, max_rounds=60, budget_s=60)
    assert timing.ratios["b"].value == pytest.approx(1.5, rel=0.02)
    assert timing.samples[0].seconds[-1] > 1.3 * timing.samples[0].seconds[0]
    assert any(w.startswith("the machine drifted") for w in timing.warnings)
    assert not any("one value" in w for w in timing.warnings)


def test_a_drifting_ratio_is_said() -> None:
    machine = FakeMachine()
    grown = [6e-3]

    def call() -> None:
        grown[0] *= 1.005
        machine.seconds += grown[0]

    contenders = [Contender("a", call), Contender("b", machine.work(6e-3, noise=0.01))]
    timing = time_interleaved(contenders, timer=machine.now, precision=1e-4, max_rounds=60, budget_s=60)
    assert any("the ratio to b drifted" in w and "one value" in w for w in timing.warnings)


def test_steady_noise_is_no_drift() -> None:
    warned = 0
    for seed in range(40):
        machine = FakeMachine(seed)
        contenders = [Contender("a", machine.work(3e-3, noise=0.03)), Contender("b", machine.work(3e-3, noise=0.03))]
        timing = time_interleaved(contenders, timer=machine.now, precision=1e-4, max_rounds=60, budget_s=60)
        warned += any("drift" in w for w in timing.warnings)
    assert warned <= 2


def orders(seed: int) -> list[tuple[str, ...]]:
    machine = FakeMachine()
    contenders = [Contender(n, machine.work(5e-3, n)) for n in "abc"]
    timing = time_interleaved(contenders, timer=machine.now, seed=seed, precision=1e-9, max_rounds=30, budget_s=60)
    kept = machine.log[-3 * timing.rounds :]  # what came before was the warm-up
    return [tuple(kept[i : i + 3]) for i in range(0, len(kept), 3)]


def test_every_round_holds_every_contender_once_in_random_order() -> None:
    rounds = orders(0)
    assert all(sorted(r) == ["a", "b", "c"] for r in rounds)
    assert len(set(rounds)) == 6
    assert orders(0) == rounds
    assert orders(1) != rounds


def test_the_budget_is_kept() -> None:
    def spend(cost: float, rounds: int) -> tuple[float, int]:
        machine = FakeMachine()
        contenders = [Contender("a", machine.work(cost, noise=0.3)), Contender("b", machine.work(cost, noise=0.3))]
        timing = time_interleaved(
            contenders, timer=machine.now, budget_s=2.0, precision=1e-6, min_rounds=1, max_rounds=rounds
        )
        return machine.seconds - 1000, timing.rounds

    for cost in (1e-4, 3e-3, 0.05, 0.15):
        warm_up_and_one_round, _ = spend(cost, 1)
        everything, rounds = spend(cost, 100_000)
        assert everything - warm_up_and_one_round < 2.1  # the last round may take longer than the mean of the others
        assert everything > 1.5
        assert rounds >= 3


@pytest.mark.parametrize(("cost", "rounds"), [(10.0, 1), (0.45, 5), (0.19, 5), (0.12, 8)])
def test_slow_calls_get_few_rounds(cost, rounds) -> None:
    machine = FakeMachine()
    contenders = [Contender("a", machine.work(cost, "a")), Contender("b", machine.work(cost, "b"))]
    timing = time_interleaved(contenders, timer=machine.now, budget_s=2.0)
    assert timing.rounds == rounds
    ratio = timing.ratios["b"]
    assert ratio.value == pytest.approx(1)
    if rounds < 5:
        assert ratio.bounds is None
        assert any("5 make an interval" in w for w in timing.warnings)
        assert timing.correlation is None
        assert machine.log.count("a") == 2  # one to warm up, one timed
    else:
        assert ratio.bounds is not None
        assert timing.warnings == ()


def test_short_calls_are_batched() -> None:
    machine = FakeMachine()
    contenders = [Contender("short", machine.work(1e-5)), Contender("long", machine.work(0.01))]
    timing = time_interleaved(contenders, timer=machine.now)
    assert timing.calls["long"] == 1
    assert timing.calls["short"] * 1e-5 >= SHORTEST_SAMPLE / 2
    assert timing.samples[0].median == pytest.approx(1e-5)
    assert timing.ratios["long"].value == pytest.approx(1e-3)


def test_before_runs_untimed_before_each_call() -> None:
    machine = FakeMachine()
    contenders = [
        Contender("a", machine.work(1e-4, "call"), before=machine.work(5e-3, "before")),
        Contender("b", machine.work(1e-4, "b")),
    ]
    timing = time_interleaved(contenders, timer=machine.now)
    assert timing.samples[0].median == pytest.approx(1e-4)
    assert timing.calls["a"] > 1
    mine = [entry for entry in machine.log if entry != "b"]
    assert mine == ["before", "call"] * (len(mine) // 2)


def test_a_slow_start_is_warmed_away() -> None:
    machine = FakeMachine()
    left = [5.0, 1.0, 0.2]

    def call() -> None:
        machine.seconds += left.pop(0) if left else 4e-3

    timing = time_interleaved(
        [Contender("a", call), Contender("b", machine.work(4e-3))], timer=machine.now, budget_s=20
    )
    assert set(np.round(timing.samples[0].seconds, 9)) == {4e-3}


def test_a_first_call_that_misleads_the_warm_up_does_not_leave_samples_short() -> None:
    machine = FakeMachine()
    first = [60.0]  # compiles; longer than the budget, so nothing more is spent on warming up

    def call() -> None:
        machine.seconds += first.pop() if first else 1e-5

    timing = time_interleaved([Contender("a", call), Contender("b", machine.work(4e-3))], timer=machine.now)
    assert timing.calls["a"] >= 100
    assert timing.samples[0].median == pytest.approx(1e-5)


def test_threads_and_garbage_collection_are_restored() -> None:
    threads, seen = torch.get_num_threads(), []
    machine = FakeMachine()

    def fails() -> None:
        seen.append((torch.get_num_threads(), gc.isenabled()))
        machine.seconds += 3e-3
        if len(seen) == 4:
            raise RuntimeError("broken")

    assert gc.isenabled()
    with pytest.raises(RuntimeError, match="broken"):
        time_interleaved([Contender("a", fails)], timer=machine.now, threads=1)
    assert set(seen) == {(1, False)}
    assert torch.get_num_threads() == threads
    assert gc.isenabled()
    with fixed_threads(None) as used:
        assert used == threads


def test_threads_are_reported() -> None:
    machine = FakeMachine()
    assert time_interleaved([Contender("a", machine.work(1e-2))], timer=machine.now, threads=1).threads == 1


def test_a_call_that_takes_no_time_is_refused() -> None:
    machine = FakeMachine()
    with pytest.raises(UserError, match="'a' took no time"):
        time_interleaved([Contender("a", lambda: None)], timer=machine.now)


@pytest.mark.parametrize(
    ("names", "arguments", "said"),
    [
        ("", {}, "at least one"),
        ("aa", {}, "name of its own"),
        ("a", {"precision": 0.0}, "precision = 0.0"),
        ("a", {"precision": float("nan")}, "precision = nan"),
        ("a", {"budget_s": -1.0}, r"budget_s = -1\.0"),
        ("a", {"budget_s": float("inf")}, "budget_s = inf"),
        ("a", {"min_rounds": 0}, "min_rounds = 0"),
        ("a", {"min_rounds": 5, "max_rounds": 4}, "max_rounds = 4"),
        ("a", {"threads": 0}, "threads = 0"),
        ("a", {"device": "abacus"}, "device 'abacus' is not known"),
        ("a", {"device": "meta"}, "device 'meta' cannot be timed"),
    ],
)
def test_bad_arguments_are_named(names, arguments, said) -> None:
    machine = FakeMachine()
    with pytest.raises(UserError, match=said):
        time_interleaved([Contender(n, machine.work(1e-3)) for n in names], timer=machine.now, **arguments)
    assert machine.log == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_missing_gpu_is_named() -> None:
    with pytest.raises(UserError, match="torch sees no GPU"):
        time_interleaved([Contender("a", lambda: None)], device="cuda")


def test_the_real_clock_runs() -> None:
    x = torch.randn(64, 64)
    timing = time_interleaved(
        [Contender("once", lambda: x @ x), Contender("twice", lambda: (x @ x, x @ x))], budget_s=0.2
    )
    assert timing.rounds >= 1
    assert all(s > 0 for sample in timing.samples for s in sample.seconds)
    assert all(sample.q25 <= sample.median <= sample.q75 for sample in timing.samples)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_gpu_is_timed_with_events() -> None:
    x = torch.randn(512, 512, device="cuda")
    timing = time_interleaved([Contender("once", lambda: x @ x), Contender("again", lambda: x @ x)], device="cuda")
    assert timing.method == "cuda_event"
    assert all(s > 0 for sample in timing.samples for s in sample.seconds)
