"""Equal accuracies decide nothing: constructed ties of which means of floats make a difference."""

import importlib
import json
import math
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdvft_bench.accuracy.analysis import Answers, compared, estimate, scores, seed_deviation
from cdvft_bench.accuracy.draws import CostOf, front_shares_of, on_front
from cdvft_bench.accuracy.training.trial import Split, Trial, TrialResult, packed
from cdvft_bench.analysis.accuracy.answers import answers, by_start, starts_said
from cdvft_bench.analysis.accuracy.fronts import fronts_of
from cdvft_bench.analysis.accuracy.maps import best_by, cells, rate_verdict, slope

N = 800


def runs(
    method: str, answered: Answers, split: Split = "test", lr: float = 1e-3, parameters: int = 100, **values: int | str
) -> list[TrialResult]:
    """One run a row of answers."""
    found = []
    for seed, row in enumerate(answered):
        trial = Trial("minilm", "tweets", method, tuple(values.items()), lr, seed=seed, evaluate=split)
        right = [bool(a) for a in row]
        found.append(
            TrialResult(
                trial,
                trial.label,
                sum(right) / len(right),
                parameters=parameters,
                scored=len(right),
                right=packed(right),
                step_flops=1.0,
            )
        )
    return found


def drawn(rng: np.random.Generator, seeds: int, share: float = 0.7, examples: int = N) -> Answers:
    return (rng.random((seeds, examples)) < share).astype(np.int64)


def row_of(counts: Sequence[int], examples: int = N) -> Answers:
    return np.array([[i < count for i in range(examples)] for count in counts], dtype=np.int64)


@pytest.mark.parametrize("seed", range(5))
def test_a_method_that_answers_alike_for_more_is_on_no_front(seed: int) -> None:
    """The same answers from every seed: each draw is a tie, whatever seeds it takes, and the dearer method loses it."""
    rng = np.random.default_rng(seed)
    row = drawn(rng, 1, 0.7)
    found = scores([*runs("lora", row.repeat(3, 0), rank=8), *runs("cdvft", row.repeat(7, 0), m=2)])
    cheap, dear = "LoRA r=8", "CDVFT m=2 p=d fft"
    assert found[0].mean == found[1].mean
    assert front_shares_of(found, {"cost": {cheap: CostOf(1.0), dear: CostOf(2.0)}})["cost"] == {cheap: 1.0, dear: 0.0}
    assert front_shares_of(found, {"cost": {cheap: CostOf(3.0), dear: CostOf(3.0)}})["cost"] == {cheap: 1.0, dear: 1.0}


def test_the_old_rule_put_it_there() -> None:
    """Means of floats over 3 and over 7 seeds of the same answers differ in some draws: what the integers mend."""
    rng = np.random.default_rng(0)
    drawn_counts = rng.integers(0, N, (2000, N))
    right = drawn(rng, 1)[0]
    weights = np.stack([np.bincount(d, minlength=N) for d in drawn_counts]) / N
    shares = (weights * right).sum(1)
    means = [np.mean([shares] * seeds, axis=0) for seeds in (3, 7)]
    assert 0 < (means[0] != means[1]).sum() < 2000
    assert np.abs(means[0] - means[1]).max() < 1e-15


def test_methods_of_other_numbers_of_seeds_and_examples_compare_by_one_integer() -> None:
    """Which 64 bits need not hold."""
    primes = (83, 89, 97, 101, 103, 107, 109, 113, 127, 131)
    row = [row_of([n] * 2, n) for n in primes]  # all right, of any number
    found = scores([run for i, r in enumerate(row) for run in runs("cdvft", r, m=2, block_size=3 + i)])
    assert math.lcm(*(s.answers.size for s in found)) >= 2**63
    costs = {s.label: CostOf(float(i)) for i, s in enumerate(found, 1)}
    assert list(front_shares_of(found, {"cost": costs})["cost"].values()) == [1.0] + [0.0] * 9


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=4, max_size=4), min_size=1, max_size=6)
)
def test_the_front_by_its_definition(points: list[list[tuple[int, int]]]) -> None:
    table = np.array(points)
    found = on_front(table[:, :, 1], table[:, :, 0].astype(float))
    for row, kept in zip(points, found, strict=True):
        for j, (cost, score) in enumerate(row):
            beaten = any(c <= cost and s >= score and (c < cost or s > score) for c, s in row)
            assert bool(kept[j]) is not beaten


@pytest.mark.parametrize("seed", range(20))
def test_an_estimate_does_not_hang_on_the_order_of_seeds_or_examples(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = drawn(rng, 5) - drawn(rng, 5)
    found = estimate(table)
    mixed = estimate(table[rng.permutation(5)][:, rng.permutation(N)])
    assert (mixed, mixed.p, mixed.half_width) == (found, found.p, found.half_width)
    rows, columns = table.mean(axis=1), table.mean(axis=0)
    variance = rows.var(ddof=1) / 5 + columns.var(ddof=1) / N
    assert found.mean == pytest.approx(table.mean(), rel=1e-12, abs=1e-15)
    assert found.error == pytest.approx(math.sqrt(variance), rel=1e-12)


@pytest.mark.parametrize("k", [3, 6, 7, 11, 49])
def test_no_spread_is_none_at_all(k: int) -> None:
    """Every seed and every example has one right answer in k: the k means of 1 / k have no variance."""
    found = estimate(np.eye(k, dtype=np.int64))
    assert (found.mean, found.error, found.half_width) == (1 / k, 0.0, 0.0)


@settings(deadline=None)
@given(ratio=st.floats(-3, 3), seed=st.integers(0, 1000))
def test_an_estimate_of_a_scaled_difference(ratio: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = drawn(rng, 3, examples=50), drawn(rng, 3, 0.5, examples=50)
    found, table = estimate(one, other, ratio), one - ratio * other
    variance = table.mean(axis=1).var(ddof=1) / 3 + table.mean(axis=0).var(ddof=1) / 50
    assert found.error is not None
    assert found.mean == pytest.approx(table.mean(), rel=1e-9, abs=1e-12)
    assert found.error**2 == pytest.approx(variance, rel=1e-9, abs=1e-15)
    assert estimate(one, one, 1.0).error == 0.0
    with pytest.raises(ValueError, match="whole numbers"):
        estimate(one * 0.5)  # type: ignore[arg-type]


def test_equal_scores_stand_by_parameters_then_by_name_whatever_the_file_order() -> None:
    rng = np.random.default_rng(1)
    table = drawn(rng, 3)
    groups = [
        runs("lora", table, parameters=50, rank=8),
        runs("cdvft", table[:, rng.permutation(N)], parameters=50, m=2),
        runs("cdvft", table[::-1], parameters=40, m=3),
        runs("lora", row_of(table.sum(1).tolist()), parameters=60, rank=4),
    ]
    expected = ["CDVFT m=3 p=d fft", "CDVFT m=2 p=d fft", "LoRA r=8", "LoRA r=4"]
    for _ in range(6):
        order = rng.permutation(len(groups))
        found = scores([run for i in order for run in groups[i]])
        assert [s.label for s in found] == expected
        assert len({s.mean for s in found}) == 1


def test_equal_differences_stand_by_name() -> None:
    rng = np.random.default_rng(2)
    base, other = drawn(rng, 3, 0.6), drawn(rng, 3, 0.75)
    mixed = rng.permutation(N)  # of the examples, for both alike: the difference has the same spread
    first = compared(scores([*runs("lora", base, rank=8), *runs("cdvft", other, m=2)]), "LoRA r=8")[0]
    second = compared(scores([*runs("lora", base[:, mixed], rank=8), *runs("cdvft", other[:, mixed], m=2)]), "LoRA r=8")
    assert second[0] == first
    twins = [*runs("lora", base, rank=8), *runs("cdvft", other, m=3), *runs("cdvft", other, m=2)]
    assert [d.label for d in compared(scores(twins), "LoRA r=8")] == ["CDVFT m=2 p=d fft", "CDVFT m=3 p=d fft"]


def test_seeds_that_are_alike_do_not_deviate() -> None:
    rng = np.random.default_rng(3)
    (score,) = scores(runs("lora", drawn(rng, 1).repeat(7, 0), rank=8))
    assert seed_deviation(score) == 0.0
    (score,) = scores(runs("lora", drawn(rng, 4), rank=8))
    assert seed_deviation(score) == pytest.approx(np.std(score.accuracies, ddof=1), rel=1e-12)


def test_the_best_on_validation_is_not_picked_by_the_test_split() -> None:
    """Two settings are as good on the validation split: the smaller one is it, though the other tests better."""
    rng = np.random.default_rng(4)
    validation = row_of([600])
    given_runs = [*runs("lora", drawn(rng, 3, 0.7), rank=8, parameters=300)]
    for m, share in ((2, 0.65), (3, 0.8)):
        given_runs += runs("cdvft", validation, "validation", parameters=100 * m, m=m)
        given_runs += runs("cdvft", drawn(rng, 3, share), parameters=100 * m, m=m)
    found = scores(given_runs)
    assert found[0].label == "CDVFT m=3 p=d fft"
    worth = answers(given_runs, found, fronts_of(found, None))["R6"]
    assert "on the validation split, CDVFT m=2 p=d fft, trains 1.50 times fewer" in worth


def test_starts_that_answer_alike_are_told_in_the_order_of_the_runs() -> None:
    table = drawn(np.random.default_rng(7), 2)
    names = ("random", "zero_circulant", "zero_diagonal")
    found = scores([run for name in names for run in runs("cdvft", table, init=name, m=2)])
    (group,) = by_start(found)
    assert len({score.mean for score in group.values()}) == 1
    first = next(iter(group))
    assert f"each start tuned by itself: {first} " in starts_said(group)


# --- maps ----------------------------------------------------------------------------------


def mapped(p: int, lr: float, counts: Sequence[int], method: str = "block_circulant") -> list[TrialResult]:
    found = []
    for seed, count in enumerate(counts):
        trial = Trial("minilm", "tweets", method, (("block_size", p),), lr=lr, seed=seed, evaluate="validation")
        found.append(TrialResult(trial, trial.label, count / N, gradient_rms=1.0, scored=N))
    return found


def test_of_rates_with_as_many_right_answers_the_smaller_is_best() -> None:
    rng = np.random.default_rng(5)
    broken = 0
    for _ in range(100):
        total = int(rng.integers(900, 1500))
        first = rng.multinomial(total, [1 / 3] * 3).tolist()
        second = rng.multinomial(total, [1 / 3] * 3).tolist()
        found = cells([*mapped(8, 1e-2, second), *mapped(8, 1e-3, first)])
        assert found[0].accuracy == found[1].accuracy
        (best,) = best_by(found).values()
        assert best.lr == 1e-3
        broken += float(np.mean([c / N for c in first])) != float(np.mean([c / N for c in second]))
    assert broken > 10  # the old rule told them apart


def test_a_power_between_two_rules_has_one_name() -> None:
    """Best rates that go as p to the power -3/4 are as near to one rule as to the other: the first is named."""
    runs_ = []
    for p, top in ((1, 1.0), (16, 1 / 8), (256, 1 / 64)):
        for lr in (8.0, 1.0, 1 / 8, 1 / 64, 1 / 512):
            runs_ += mapped(p, lr, [N if lr == top else 0])
    assert slope([1, 16, 256], [1.0, 1 / 8, 1 / 64]) == -0.75
    assert "power -0.75, nearest to the rule of 1/p" in rate_verdict(cells(runs_))


def test_a_contender_at_two_rates_is_chosen_by_its_right_answers() -> None:
    rng = np.random.default_rng(6)
    table = drawn(rng, 2)
    tuned = [
        replace(run, trial=replace(run.trial, lr=lr))
        for lr in (1e-2, 1e-3)
        for run in runs("lora", row_of([600]), "validation", rank=8)
    ]
    tests = [run for lr in (1e-2, 1e-3) for run in runs("lora", table, lr=lr, rank=8)]
    (score,) = scores([*tuned, *tests])
    assert score.lr == 1e-3


# --- other processors ------------------------------------------------------------------------

FIGURES = """
from dataclasses import asdict
from pathlib import Path
from cdvft_bench.accuracy.analysis import compared, scores
from cdvft_bench.accuracy.draws import CostOf, front_shares_of
from cdvft_bench.accuracy.results import read_results

found = scores([r for r in read_results(Path(RESULTS))[0] if r.trial.evaluate == "test" and r.right])
shares = front_shares_of(found, {"n": {s.label: CostOf(float(s.parameters + 1)) for s in found}})["n"]
differ = [asdict(d) for d in compared(found, "LoRA r=8")]
said = [[[s.label, s.mean, s.low, s.high] for s in found], shares, differ]
"""


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names the kernels of x86-64 processors")
def test_a_processor_with_narrow_vectors_says_the_same() -> None:
    """Of the recorded runs, every share, mean, interval and p: alike to the last bit."""
    umath = importlib.import_module("numpy._core._multiarray_umath")
    narrow = {"NPY_DISABLE_CPU_FEATURES": " ".join(umath.__cpu_dispatch__), "OPENBLAS_CORETYPE": "Nehalem"}
    results = Path(__file__).parents[2] / "profiles" / "accuracy-clothes-vit" / "results.jsonl"
    here: dict[str, object] = {"RESULTS": str(results)}
    exec(FIGURES, here)
    code = f"import json\nRESULTS = {str(results)!r}\n{FIGURES}\nprint(json.dumps(said))"
    command = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(command, env={**os.environ, **narrow}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == here["said"]
