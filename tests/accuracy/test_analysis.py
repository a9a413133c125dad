"""Statistics of fine-tuning runs against what they must give."""

from dataclasses import replace

import numpy as np
import pytest

from cdvft_bench.accuracy.analysis import compared, estimate, holm, scores
from cdvft_bench.accuracy.draws import CostOf, front_shares_of
from cdvft_bench.accuracy.training.trial import Split, Trial, TrialResult, packed
from cdvft_bench.analysis.accuracy.answers import verdict
from cdvft_bench.core.errors import UserError

SMALL = Trial("minilm", "tweets", "cdvft", (("m", 2),))


def made(method: str, accuracies: list[float], n: int = 1000, **hyperparameters: int) -> list[TrialResult]:
    """Runs of one method by seed, whose wrong answers are spread over the examples by the seed."""
    trial = replace(SMALL, method=method, hyperparameters=tuple(hyperparameters.items()), evaluate="test")
    found = []
    for seed, accuracy in enumerate(accuracies):
        right = np.ones(n, dtype=bool)
        right[np.random.default_rng(seed).permutation(n)[: round((1 - accuracy) * n)]] = False
        one = replace(trial, seed=seed)
        found.append(TrialResult(one, trial.label, accuracy, parameters=100, scored=n, right=packed(list(right))))
    return found


def test_differences_are_paired_and_corrected() -> None:
    results = [
        *made("lora", [0.70, 0.72, 0.71], rank=8),
        *made("cdvft", [0.75, 0.771, 0.761], m=2),
        *made("cdvft", [0.69, 0.74, 0.70], m=3),
    ]
    found = compared(scores(results), "LoRA r=8")
    assert [d.label for d in found] == ["CDVFT m=2 p=d fft", "CDVFT m=3 p=d fft"]
    assert found[0].mean == pytest.approx(0.0507, abs=1e-3)
    assert found[0].interval.low > 0
    assert found[1].interval.low < 0 < found[1].interval.high
    assert found[0].p_holm == pytest.approx(2 * found[0].p)
    with pytest.raises(UserError, match="no run on the test split"):
        compared(scores(results), "BOFT")
    with pytest.raises(UserError, match="shares two seeds"):
        compared(scores([*results[:3], results[3]]), "LoRA r=8")


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize("spread", [0.0, 0.02, 0.1])
def test_intervals_hold_the_truth_as_often_as_they_say(seeds: int, spread: float) -> None:
    """Answers with an effect of the seed and of the example: 95 % of the intervals hold the true mean, or more.

    Satterthwaite's degrees of freedom held 92 % of three seeds' that differ much.
    """
    rng = np.random.default_rng(seeds)
    held, tries = 0, 1000
    for _ in range(tries):
        chance = 0.6 + rng.normal(0, spread, (seeds, 1)) + rng.normal(0, 0.2, (1, 200))
        value = estimate((rng.random((seeds, 200)) < chance).astype(int))
        assert value.interval.low is not None
        assert value.interval.high is not None
        held += value.interval.low <= 0.6 <= value.interval.high
    assert held / tries >= 0.93  # 95 % are due, and 0.02 are three standard errors


def test_fewer_than_three_seeds_tell_no_difference() -> None:
    """Two seeds made a difference of no width here, or an interval that held 87 %."""
    for n in (1, 2):
        found = estimate(np.array([[0, 1, 1], [1, 1, 1]])[:n])
        assert (found.half_width, found.p) == (None, 1.0)
        assert found.interval.side(0.0) == "undecided"
    results = [*made("lora", [0.70, 0.72], rank=8), *made("cdvft", [0.95, 0.96], m=2)]
    (difference,) = compared(scores(results), "LoRA r=8")
    assert (*vars(difference.interval).values(), difference.p_holm) == (difference.mean, None, None, 1.0)
    assert verdict(difference).startswith("not told apart (+24.5 points [no interval]")
    assert [(s.low, s.high) for s in scores(results)] == [(None, None)] * 2


def test_an_estimate_of_no_spread() -> None:
    assert estimate(np.ones((1, 5))).half_width is None
    assert estimate(np.zeros((3, 5))).p == 1.0
    assert estimate(np.ones((3, 5))).p == 0.0


def test_runs_of_one_method_must_answer_the_same_examples() -> None:
    results = [*made("lora", [0.7], n=100, rank=8), *made("lora", [0.7, 0.8], n=200, rank=8)[1:]]
    with pytest.raises(UserError, match="scored 100, 200 examples"):
        scores(results)


def test_two_starts_of_one_method_are_two_contenders() -> None:
    def run(init: str, accuracy: float, seed: int, split: Split = "test", lr: float = 1e-3) -> TrialResult:
        trial = replace(SMALL, hyperparameters=(("init", init), ("m", 2)), seed=seed, evaluate=split, lr=lr)
        right = packed([i < 10 * accuracy for i in range(10)])
        return TrialResult(trial, trial.label, accuracy, scored=10, right=right, contender=trial.label)

    runs = [run("random", 0.5, seed, lr=1e-2) for seed in (0, 1)]
    runs += [run("zero_diagonal", 0.7, seed) for seed in (0, 1)]
    runs += [run("random", 0.6, 1000, "validation", 1e-2), run("zero_diagonal", 0.9, 1000, "validation", 1e-3)]
    found = scores(runs)
    assert [(s.label, s.mean) for s in found] == [
        ("CDVFT m=2 p=d fft zero_diagonal", pytest.approx(0.7)),
        ("CDVFT m=2 p=d fft random", pytest.approx(0.5)),
    ]


def test_runs_at_a_rate_that_was_not_chosen_do_not_count() -> None:
    def run(lr: float, accuracy: float, seed: int, split: str) -> TrialResult:
        trial = replace(SMALL, lr=lr, seed=seed, evaluate=split)
        return TrialResult(
            trial, trial.label, accuracy, scored=10, right=packed([i < 10 * accuracy for i in range(10)])
        )

    early = [run(1e-3, 0.60, 1000, "validation"), run(1e-3, 0.1, 0, "test"), run(1e-3, 0.1, 1, "test")]
    assert scores(early)[0].mean == pytest.approx(0.1)
    late = [run(1e-2, 0.65, 1000, "validation"), run(1e-2, 0.7, 0, "test"), run(1e-2, 0.8, 1, "test")]
    found = scores([*early, *late])
    assert [(s.mean, s.lr) for s in found] == [(pytest.approx(0.75), 1e-2)]


def test_holm() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9]) == [0.9]


def test_front_shares_are_those_of_the_draws() -> None:
    results = [
        *made("lora", [0.70, 0.71], rank=8),
        *made("cdvft", [0.50, 0.51], m=2),
        *made("cdvft", [0.71, 0.72], m=3),
    ]
    found = scores(results)
    costs = {"LoRA r=8": CostOf(10.0), "CDVFT m=2 p=d fft": CostOf(20.0), "CDVFT m=3 p=d fft": CostOf(5.0)}
    shares = front_shares_of(found, {"cost": costs})["cost"]
    assert shares["CDVFT m=2 p=d fft"] < 0.01
    assert shares["CDVFT m=3 p=d fft"] == 1.0
    assert shares["LoRA r=8"] < 0.6
    assert front_shares_of(found, {"cost": costs})["cost"] == shares
    # A measured cost whose interval reaches below another's is cheaper in some of the draws.
    unsure = {"CDVFT m=2 p=d fft": CostOf(10.0, 5.0, 20.0), "CDVFT m=3 p=d fft": CostOf(12.0)}
    assert 0.5 < front_shares_of(found, {"cost": unsure})["cost"]["CDVFT m=2 p=d fft"] < 0.9
    assert front_shares_of(found, {"cost": {}})["cost"] == {}


def test_answers_all_alike_still_have_an_interval() -> None:
    none, every = (scores(made("lora", [share] * 3, n=128, rank=8)) for share in (0.0, 1.0))
    assert (none[0].low, none[0].high) == (0.0, pytest.approx(0.0284, abs=1e-4))  # 0.975 = 1 - (1 - share)^128
    assert (every[0].low, every[0].high) == (pytest.approx(0.9716, abs=1e-4), 1.0)
