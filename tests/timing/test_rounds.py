"""Many contenders in shared rounds, over several processes."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from cdvft_bench.core.timed import Timing
from cdvft_bench.timing.clock import Contender
from cdvft_bench.timing.joined import Rounds, joined
from cdvft_bench.timing.rounds import RAREST, time_rounds
from tests.timing.fake_machine import FakeMachine

BESIDE = {"frozen": "f", "lora r=8": "l"}


def test_rounds_are_shared_and_the_dear_join_fewer_of_them() -> None:
    machine = FakeMachine()
    seconds = {"f": 0.010, "l": 0.020, "c": 0.022, "dear": 0.200, "dearest": 5.0}
    contenders = [Contender(name, machine.work(s, name)) for name, s in seconds.items()]
    told: list[int] = []
    found = time_rounds(contenders, "l", budget_s=1.0, precision=1e-9, timer=machine.now, at=told.append)
    rounds = {len(column) for column in found.seconds.values()}
    assert len(rounds) == 1
    made = {name: [s for s in column if s is not None] for name, column in found.seconds.items()}
    for name, column in made.items():
        assert column == pytest.approx([seconds[name]] * len(column))
        assert len(column) >= 2
    assert len(made["l"]) == len(made["c"]) == rounds.pop()  # each in every round
    assert len(made["dear"]) < len(made["l"])
    assert len(made["dearest"]) == 1 + (len(made["l"]) - 1) // RAREST
    assert set(told) == set(range(5))


def test_precise_ratios_end_the_rounds_and_the_order_is_random() -> None:
    machine = FakeMachine()
    contenders = [Contender(name, machine.work(0.01, name)) for name in "flabcdefgh"]
    found = time_rounds(contenders[:2] + contenders[2:5], "l", budget_s=1e6, precision=0.05, timer=machine.now)
    assert len(found.seconds["f"]) < 30
    orders = {tuple(machine.log[i : i + 5]) for i in range(len(machine.log) - 50, len(machine.log) - 5, 5)}
    assert len(orders) > 1


def process(rng: random.Random, rounds: int, own: float = 0.0) -> Rounds:
    def column(scale: float) -> tuple[float, ...]:
        return tuple(scale * math.exp(rng.gauss(0, 0.01)) for _ in range(rounds))

    seconds = {"f": column(1.0), "l": column(2.0), "c": column(3.0 * math.exp(own))}
    return Rounds(seconds, dict.fromkeys(seconds, 1), "perf_counter", 2)


def test_intervals_are_over_processes() -> None:
    rng = random.Random()
    timing: Timing | None = None
    given = [process(rng, 7 + i, 0.05 * i) for i in range(4)]
    for one in given:
        timing = joined(timing, one, "c", "CDVFT", BESIDE, "key", 0.05)
    assert timing is not None
    assert (timing.processes, timing.split, timing.rounds, timing.group) == (4, (7, 8, 9, 10), 34, "key")
    assert [s.name for s in timing.samples] == ["CDVFT", "frozen", "lora r=8"]
    logs = [np.log(np.median(np.array(one.seconds["c"]) / np.array(one.seconds["l"]))) for one in given]
    stats = pytest.importorskip("scipy.stats")
    low, high = stats.t.interval(0.95, 3, loc=np.mean(logs), scale=stats.sem(logs))
    ratio = timing.ratios["lora r=8"]
    assert (ratio.low, ratio.high) == (pytest.approx(math.exp(low)), pytest.approx(math.exp(high)))
    assert timing.correlation is not None
    assert "was not reached" in timing.warnings[0]  # processes differ by 5 %


def test_rounds_that_a_contender_sat_out_are_left_out_of_its_timing_alone() -> None:
    one = process(random.Random(), 6)
    rare = Rounds({**one.seconds, "c": (3.0, None, None, 3.0, None, None)}, one.calls, "perf_counter", 1)
    timing = joined(None, rare, "c", "c", BESIDE, "k", 0.05)
    assert timing.split == (2,)
    assert timing.samples[1].seconds == (one.seconds["f"][0], one.seconds["f"][3])
    assert timing.ratios["frozen"].bounds is None
    assert "2 rounds so far, 5 make an interval" in timing.warnings[0]
    assert joined(None, rare, "l", "l", {"frozen": "f"}, "k", 0.5).split == (6,)
