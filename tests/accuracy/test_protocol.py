"""The protocol of a preset whose grids extend themselves: budgets alike, no best rate at an end, a pilot first."""

import math
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cdvft_bench.accuracy import search
from cdvft_bench.accuracy.analysis import scores
from cdvft_bench.accuracy.pilot import pilot_of
from cdvft_bench.accuracy.preset import Preset, read_preset
from cdvft_bench.accuracy.results import contender_of, final_runs, read_results, validated
from cdvft_bench.accuracy.search import left, pending, planned, train
from cdvft_bench.accuracy.training.fit import CURVE, batches, run_trial, thinned
from cdvft_bench.accuracy.training.trial import Trial, TrialResult, packed
from cdvft_bench.accuracy.tuning import Tuning
from cdvft_bench.core.errors import UserError

PRESET = """
[preset]
name = "wide"
model = "minilm"
task = "tweets"
examples = 64
batch = 8
length = 8
scored = 400
tune_examples = 16
tune_scored = 100
trials = 7
ratio = 4.0
scales = 2
gain = 0.05
seeds = [0, 1, 2]

[[method]]
name = "lora"
rank = 8
lr = 4e-3

[[method]]
name = "head"
lr = 1e-2

[[method]]
name = "full"
lr = 1e-4

[[method]]
name = "cdvft"
m = 2
lr = 2e-2
"""
OPTIMA = {"lora": 2e-3, "head": 1e-2, "full": 3e-4, "cdvft": 3e-2}
TOPS = {"head": 0.5, "full": 0.75, "lora": 0.72, "cdvft": 0.73}

Run = Callable[[Trial], TrialResult]


def _read(tmp_path: Path, text: str = PRESET) -> Preset:
    path = tmp_path / "wide.toml"
    path.write_text(text)
    return read_preset(path)


def _runner(optima: dict[str, float] = OPTIMA, tops: dict[str, float] = TOPS) -> Run:
    """Answers whose share of right ones falls with the distance from a method's best rate."""

    def run(trial: Trial) -> TrialResult:
        share = tops[trial.method] / (1 + 0.02 * math.log(trial.lr / optima[trial.method]) ** 2)
        rng = np.random.default_rng([int(trial.key, 16) % 2**31, trial.seed])
        right = [bool(good) for good in rng.random(trial.scored) < share]
        # Validation without noise, so that a test knows the best rate.
        accuracy = share if trial.evaluate == "validation" else sum(right) / len(right)
        return TrialResult(
            trial,
            trial.label,
            accuracy,
            scored=len(right),
            right=packed(right),
            contender="LoRA r=8" if trial.method == "lora" else "",
        )

    return run


def _all(preset: Preset, run: Run, known: dict[str, TrialResult] | None = None) -> dict[str, TrialResult]:
    """Run one trial after the other, as ``train`` does."""
    results = dict(known or {})
    while trial := next(pending(preset, results), None):
        assert trial.key not in results
        results[trial.key] = run(trial)
    return results


def _by_method(results: dict[str, TrialResult], evaluate: str) -> dict[str, list[Trial]]:
    found: dict[str, list[Trial]] = {method: [] for method in OPTIMA}
    for result in results.values():
        if result.trial.evaluate == evaluate:
            found[result.trial.method].append(result.trial)
    return found


def test_every_method_has_as_many_trials_and_its_best_rate_inside(tmp_path: Path) -> None:
    preset = _read(tmp_path)
    assert left(preset, {}) == 4 * (7 + 3)
    results = _all(preset, _runner())
    assert left(preset, results) == 0
    assert len(planned(preset, results.values())) == len(results) == 40
    tuned, final = _by_method(results, "validation"), _by_method(results, "test")
    assert {len(trials) for trials in tuned.values()} == {7}
    assert {len(trials) for trials in final.values()} == {3}
    assert {(t.examples, t.scored) for trials in tuned.values() for t in trials} == {(16, 100)}
    assert {(t.examples, t.scored) for trials in final.values() for t in trials} == {(64, 400)}
    # A method with a scale tries five rates and two scales, the others seven rates.
    assert {method: len({t.lr for t in trials}) for method, trials in tuned.items()} == {
        "head": 7,
        "full": 7,
        "lora": 5,
        "cdvft": 5,
    }
    found = scores(list(results.values()))
    assert len(found) == 4
    assert not any(s.at_edge for s in found)
    for s in found:
        assert abs(math.log(s.lr / OPTIMA[s.method])) < math.log(2.0)


@pytest.mark.parametrize("optimum", [2e-7, 30.0])
def test_a_method_that_needs_more_trials_gives_all_of_them_more(optimum: float, tmp_path: Path) -> None:
    preset = _read(tmp_path)
    results = _all(preset, _runner({**OPTIMA, "cdvft": optimum}))
    tuned = _by_method(results, "validation")
    count = len({t.lr for t in tuned["cdvft"]})
    assert count > 5
    kept = planned(preset, results.values())
    by_method = {method: [r for r in kept if r.trial.method == method] for method in OPTIMA}
    assert {len([r for r in runs if r.trial.evaluate == "validation"]) for runs in by_method.values()} == {count + 2}
    assert {len([r for r in runs if r.trial.evaluate == "test"]) for runs in by_method.values()} == {3}
    assert not any(s.at_edge for s in scores(kept))
    assert left(preset, results) == 0


def test_what_was_interrupted_goes_on_to_the_same_runs(tmp_path: Path) -> None:
    preset = _read(tmp_path)
    whole = _all(preset, _runner())
    rng = random.Random(1)
    for _ in range(5):
        n = rng.randrange(len(whole))
        part = dict(list(whole.items())[:n])
        assert list(_all(preset, _runner(), part)) == list(whole)
        assert left(preset, part) == len(whole) - n


def test_the_pilot_runs_first_and_may_end_it(tmp_path: Path) -> None:
    preset = _read(tmp_path)
    assert {t.method for t in pending(preset, {})} == {"head", "full"}
    results = _all(preset, _runner())
    methods = [r.trial.method for r in results.values()]
    assert set(methods[:20]) == {"head", "full"}
    pilot = pilot_of(list(results.values()))
    assert pilot is not None
    assert pilot.passed(0.05)
    assert pilot.gain == pytest.approx(0.25, abs=0.06)
    assert pilot.low < pilot.gain < pilot.high
    assert not pilot.passed(0.3)
    assert 0 < pilot.detectable < pilot.gain
    near = {**TOPS, "full": 0.62}
    with pytest.raises(UserError, match=r"preset wide cannot rank methods: .* asks for 5 points or more and disjoint"):
        _all(preset, _runner(tops=near))
    # Without a gain nothing is asked, and the order is the preset's.
    free = _read(tmp_path, PRESET.replace("gain = 0.05\n", ""))
    assert [t.method for t in pending(free, {})][:3] == ["lora"] * 3
    assert len(_all(free, _runner(tops=near))) == 40
    assert pilot_of([]) is None


def test_methods_run_in_rounds_of_seeds_the_deciding_ones_first(tmp_path: Path) -> None:
    free = PRESET.replace("gain = 0.05\n", "")
    for deciding, blocks in ((0, [4]), (1, [1, 3]), (3, [3, 1])):
        preset = _read(
            tmp_path, free.replace("trials = 7", f"trials = 7\ndeciding = {deciding}" if deciding else "trials = 7")
        )
        order = [r.trial for r in _all(preset, _runner()).values()]
        methods = [c.trial.method for c in preset.contenders]
        finals = [(t.method, t.seed) for t in order if t.evaluate == "test"]
        wanted = []
        for n in blocks:
            block, methods = methods[:n], methods[n:]
            wanted += [(method, seed) for seed in preset.seeds for method in block]
        assert finals == wanted
        for method in OPTIMA:  # every method is tuned before its first seed
            own = [t.evaluate for t in order if t.method == method]
            assert own == ["validation"] * 7 + ["test"] * 3


def test_a_file_begun_in_another_order_goes_on_without_losing_a_run(tmp_path: Path) -> None:
    preset = _read(tmp_path)
    whole = _all(preset, _runner())
    one_by_one = sorted(whole.values(), key=lambda r: [c.trial.method for c in preset.contenders].index(r.trial.method))
    for n in (0, 13, 20, 27, 40):
        begun = {r.trial.key: r for r in one_by_one[:n]}
        assert left(preset, begun) == 40 - n
        ended = _all(preset, _runner(), begun)
        assert set(ended) == set(whole)


def test_a_refused_pilot_keeps_its_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    preset, path = _read(tmp_path), tmp_path / "r.jsonl"
    run = _runner(tops={**TOPS, "full": 0.6})
    monkeypatch.setattr(search, "run_trial", lambda trial, device, measure: run(trial))
    for _ in range(2):
        with pytest.raises(UserError, match="cannot rank methods"):
            train(preset, path, {}, "k")
        assert len(read_results(path)[0]) == 20


def test_the_file_chooses_as_the_search_did(tmp_path: Path) -> None:
    """Final runs are found again from rows alone, although tuning had fewer examples."""
    preset = _read(tmp_path)
    results = _all(preset, _runner())
    found = final_runs(results.values())
    for contender in preset.contenders:
        best = Tuning(preset, results).chosen(contender)
        assert best is not None
        runs = next(rs for rs in found.values() if rs[0].trial.method == contender.trial.method)
        assert [(r.trial.lr, r.trial.examples) for r in runs] == [(best.lr, 64)] * 3
        assert contender_of(runs[0]) in found


LONG = PRESET.replace("gain = 0.05", "full_length = 3\ngain = 0.05")


def _shifting(by: float) -> Run:
    """As ``_runner``, but the best rate of runs of full length is so many times that of shorter ones."""
    short, long = _runner(), _runner({method: lr * by for method, lr in OPTIMA.items()})
    return lambda trial: (long if trial.examples == 64 else short)(trial)


@pytest.mark.parametrize("by", [0.3, 1.0, 3.0])
def test_runs_of_full_length_decide(by: float, tmp_path: Path) -> None:
    preset = _read(tmp_path, LONG)
    assert left(preset, {}) == 4 * (7 + 3 + 3)
    results = _all(preset, _shifting(by))
    assert left(preset, results) == 0
    kept = planned(preset, results.values())
    tuned, final = _by_method({r.trial.key: r for r in kept}, "validation"), _by_method(results, "test")
    long = {method: [t for t in trials if t.examples == 64] for method, trials in tuned.items()}
    assert len({len(trials) for trials in long.values()}) == 1, "as many for every method"
    assert 3 <= len(long["lora"]) <= 4
    assert {t.scored for trials in long.values() for t in trials} == {100}
    assert {t.seed for trials in tuned.values() for t in trials} == {1000}
    for method, trials in long.items():
        assert len({t.hyperparameters for t in trials}) == 1, "the scale is the one of the shorter runs"
        assert all(t.head_lr == (t.lr if method == "head" else Trial.head_lr) for t in trials)
        (lr,) = {t.lr for t in final[method]}
        assert min(t.lr for t in trials) < lr < max(t.lr for t in trials)
        assert abs(math.log(lr / (by * OPTIMA[method]))) < math.log(2.1)
    found = scores(kept)
    assert not any(s.at_edge for s in found)
    assert {s.method: s.lr for s in found} == {method: trials[0].lr for method, trials in final.items()}


def test_a_method_that_needs_more_runs_of_full_length_gives_all_of_them_more(tmp_path: Path) -> None:
    preset = _read(tmp_path, LONG)
    plain, far = _runner(), _runner({**OPTIMA, "cdvft": OPTIMA["cdvft"] / 100})
    results = _all(preset, lambda trial: (far if trial.examples == 64 else plain)(trial))
    kept = planned(preset, results.values())
    tuned = _by_method({r.trial.key: r for r in kept}, "validation")
    long = {method: len([t for t in trials if t.examples == 64]) for method, trials in tuned.items()}
    assert len(set(long.values())) == 1
    assert long["cdvft"] >= 6
    assert {len(trials) for trials in tuned.values()} == {7 + long["cdvft"]}
    assert not any(s.at_edge for s in scores(kept))


TWICE = LONG.replace("full_length = 3", "full_length = 4\nrepeated = 2")


@pytest.mark.parametrize("unstable", ["lora", "full", "none"])
def test_a_rate_that_its_second_seed_does_not_bear_out_is_not_chosen(unstable: str, tmp_path: Path) -> None:
    preset = _read(tmp_path, TWICE)
    assert left(preset, {}) == 4 * (7 + 4 + 2 + 3)
    plain, best = _runner(), {}

    def run(trial: Trial) -> TrialResult:
        found = plain(trial)
        if trial.method == unstable and trial.seed == 1001:
            best.setdefault(unstable, trial.lr)  # the first that is repeated scored most
            if trial.lr == best[unstable]:
                return replace(found, accuracy=0.1)
        return found

    results = _all(preset, run)
    assert left(preset, results) == 0
    kept = planned(preset, results.values())
    assert len(kept) == len(results)
    for method, trials in _by_method(results, "validation").items():
        long = [t for t in trials if t.examples == 64]
        once, again = ([t.lr for t in long if t.seed == seed] for seed in (1000, 1001))
        assert len(again) == 2
        assert len(once) == 4
        assert all(min(once) < lr < max(once) for lr in again)
        (lr,) = {r.trial.lr for r in final_runs(kept)[contender_of(results[trials[0].key])]}
        assert lr in again
        assert (lr != again[0]) == (method == unstable) or unstable == "none"
    assert not any(s.at_edge for s in scores(kept))


def test_a_repeated_rate_counts_where_more_rates_make_others_the_best(tmp_path: Path) -> None:
    """The last method needs more rates, after the first ones had theirs repeated."""
    preset = replace(_read(tmp_path, TWICE), gain=None)
    plain, far = _runner(), _runner({**OPTIMA, "cdvft": OPTIMA["cdvft"] / 100})
    results = _all(preset, lambda trial: (far if trial.examples == 64 else plain)(trial))
    assert left(preset, results) == 0
    tuned = _by_method(results, "validation")
    once = {m: len([t for t in trials if t.examples == 64 and t.seed == 1000]) for m, trials in tuned.items()}
    assert len(set(once.values())) == 1
    again = {m: len([t for t in trials if t.seed == 1001]) for m, trials in tuned.items()}
    assert again["cdvft"] == 2
    assert max(again.values()) > 2
    kept = planned(preset, results.values())
    for contender in preset.contenders:
        best = Tuning(preset, results).chosen(contender)
        assert best is not None
        assert best.lr in {r.trial.lr for r in kept if r.trial.method == best.method and r.trial.seed == 1001}
        assert best.lr in {s.lr for s in scores(kept) if s.method == best.method}


def test_validated_is_the_mean_of_the_chosen_setting(tmp_path: Path) -> None:
    made, longer = _runner(), {"examples": 64, "evaluate": "validation"}
    trial = replace(_read(tmp_path, TWICE).contenders[0].trial, **longer)  # type: ignore[arg-type]
    tried = [
        replace(made(replace(trial, lr=lr, seed=seed)), accuracy=accuracy)
        for lr, seed, accuracy in ((1e-3, 1000, 0.7), (1e-3, 1001, 0.6), (3e-3, 1000, 0.74), (3e-3, 1001, None))
    ] + [replace(made(replace(trial, lr=1e-2, seed=1000)), accuracy=0.9)]
    assert validated(tried) == 0.65
    assert validated(tried[2:4]) is None
    assert validated([]) is None


def test_shorter_runs_do_not_choose_where_longer_ones_did(tmp_path: Path) -> None:
    """Also where a short run scored more than every long one, as an unstable rate does."""
    preset = _read(tmp_path, LONG)
    low = _runner({method: lr / 3 for method, lr in OPTIMA.items()}, {name: top / 2 for name, top in TOPS.items()})
    plain = _runner()
    results = _all(
        replace(preset, gain=None),
        lambda trial: (low if trial.examples == 64 and trial.evaluate == "validation" else plain)(trial),
    )
    for contender in preset.contenders:
        best = Tuning(preset, results).chosen(contender)
        assert best is not None
        tried = [r.trial.lr for r in results.values() if r.trial.method == best.method and r.trial.examples == 64]
        assert best.lr in tried
        assert best.lr < 0.7 * OPTIMA[best.method]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("trials = 7", "trials = 7\ndeciding = 0", "deciding = 0 must be an integer from 1"),
        ("trials = 7", "trials = 4", "trials = 4 must be an integer >= 5"),
        ("trials = 7", "trials = 7.5", "trials = 7.5"),
        ("trials = 7", "trials = 7\nfull_length = 2", "full_length = 2 must be an integer >= 3"),
        ("examples = 64", 'examples = "many"\nfull_length = 3', "examples = 'many' must be an integer"),
        ("trials = 7", "trials = 7\nrepeated = 2", "repeated = 2 must be an integer from 2 to full_length - 2"),
        ("trials = 7", "trials = 7\nfull_length = 4\nrepeated = 3", "repeated = 3 must be an integer from 2"),
        ("trials = 7", "trials = 7\nfull_length = 4\nrepeated = true", "repeated = True must be an integer"),
        ("trials = 7", "trials = 7\nfull_length = true", "full_length = True must be an integer"),
        ("tune_examples = 16", "full_length = 3", "give tune_examples below examples"),
        ("tune_examples = 16", "tune_examples = 64\nfull_length = 3", "give tune_examples below examples"),
        ("ratio = 4.0", "ratio = 1.0", "ratio = 1.0 must be a number above 1"),
        ("ratio = 4.0", "", "needs 'ratio'"),
        ("ratio = 4.0", "ratio = 4.0\nlrs = [1e-3]", "'lrs' does not go with 'trials'"),
        ("trials = 7", "lrs = [1e-3, 1e-2]", "'ratio' does not go without 'trials'"),
        ("gain = 0.05", "gain = 5", "gain = 5 must be a number above 0 and below 1"),
        ("tune_scored = 100", "tune_scored = 0", "tune_scored = 0"),
        ("lr = 4e-3", "", "lora: lr = None must be a number above 0"),
        ("lr = 4e-3", "lr = -1", "lora: lr = -1 must be a number above 0"),
        ('name = "head"', 'name = "bitfit"', "name both"),
        ("batch = 8", "batch = 8\npool = 0", "pool = 0"),
    ],
)
def test_bad_presets(old: str, new: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        _read(tmp_path, PRESET.replace(old, new, 1))


def test_pooled_batches_hold_every_example_once_and_lengths_together() -> None:
    rng = random.Random(7)
    rows = [(i, rng.randrange(1, 33)) for i in range(500)]
    trial = Trial("minilm", "tweets", "head", batch=16, pool=8)
    drawn = list(batches(rows, trial, lambda row: row[1], random.Random(0)))
    assert sorted(row for batch in drawn for row in batch) == sorted(rows)
    assert len(drawn) == -(-500 // 16)
    assert sum(len(batch) < 16 for batch in drawn) == 1
    plain = list(batches(rows, replace(trial, pool=1), lambda row: row[1], random.Random(0)))
    assert [row for batch in plain for row in batch] == rows

    def padding(parts: list[list[tuple[int, int]]]) -> int:
        return sum(max(n for _, n in part) * len(part) - sum(n for _, n in part) for part in parts)

    assert padding([list(b) for b in drawn]) < 0.4 * padding([list(b) for b in plain])
    # No pool begins with its shortest batch each time.
    firsts = [max(n for _, n in drawn[i]) for i in range(0, 24, 8)]
    assert len(set(firsts)) > 1


def test_pooled_training_repeats_itself() -> None:
    trial = Trial(
        "minilm", "tweets", "lora", (("rank", 2),), examples=40, epochs=1, batch=4, length=8, scored=8, pool=3
    )
    first, second = run_trial(trial), run_trial(trial)
    assert (first.curve, first.right) == (second.curve, second.right)
    assert first.curve != run_trial(replace(trial, pool=1)).curve


def test_a_curve_stays_small_and_keeps_its_mean() -> None:
    rng = random.Random(2)
    losses = [rng.random() for _ in range(731)]
    curve = thinned(losses)
    assert len(curve) == CURVE
    weights = [(i + 1) * 731 // CURVE - i * 731 // CURVE for i in range(CURVE)]
    assert sum(w * c for w, c in zip(weights, curve, strict=True)) == pytest.approx(sum(losses), rel=1e-5)
    assert thinned(losses[:CURVE]) == [round(loss, 6) for loss in losses[:CURVE]]
    assert not math.isfinite(thinned([*losses, math.nan])[-1])
