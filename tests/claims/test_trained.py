"""Claims of accuracy are judged from fine-tuning runs: paired, with an interval, each workload by itself."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from cdvft_bench.accuracy.analysis import estimate, paired, scores
from cdvft_bench.accuracy.pilot import detectable
from cdvft_bench.accuracy.training.trial import Trial, TrialResult, packed
from cdvft_bench.claims.judge import verify_ledger
from cdvft_bench.claims.ledger.read import parse_ledger
from cdvft_bench.claims.table import short_table, verdict_table
from cdvft_bench.claims.verdict import Verdict, Verification
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.student import fieller

pytest.importorskip("scipy")

LEDGER = """
[ledger]
title = "t"
version = 1
[[claim]]
id = "accuracy"
statement = "as accurate as LoRA"
source = { paper = "p", section = "s" }
quantity = "accuracy"
subject = { method = "cdvft", m = 2 }
against = { method = "lora" }
law = { kind = "ratio", low = 0.99 }
witnesses = ["accuracy"]
verdict = "not measured"
"""
EXAMPLES = 4000
CDVFT, LORA = ("cdvft", {"m": 2}), ("lora", {"rank": 8})


def runs(
    method: tuple[str, dict[str, int]],
    accuracy: float,
    seeds: Iterable[int] = range(5),
    task: str = "tweets",
    lr: float = 1e-3,
    evaluate: str = "test",
    diverged: Sequence[int] = (),
) -> list[TrialResult]:
    """Runs that answer the examples right whose difficulty is below an accuracy, but for a little noise by seed."""
    difficulty = np.random.default_rng(0).random(EXAMPLES)
    found = []
    for seed in seeds:
        noise = np.random.default_rng([seed, *method[0].encode()]).normal(0, 0.01, EXAMPLES)
        right = (difficulty + noise < accuracy).tolist()
        name, values = method
        trial = Trial("minilm", task, name, tuple(values.items()), lr, seed=seed, evaluate=evaluate, scored=EXAMPLES)  # type: ignore[arg-type]
        result = TrialResult(
            trial, trial.label, sum(right) / EXAMPLES, parameters=100, scored=EXAMPLES, right=packed(right)
        )
        found.append(replace(result, accuracy=None, diverged=True) if seed in diverged else result)
    return found


def judged(tmp_path: Path, *groups: list[TrialResult], ledger: str = LEDGER) -> Verdict:
    path = tmp_path / "results.jsonl"
    lines = [msgspec.json.encode({"environment_row": {"cpu": "x"}, "key": "e"})]
    lines += [msgspec.json.encode(asdict(r)) for group in groups for r in group]
    path.write_bytes(b"\n".join(lines) + b"\n")
    return verify_ledger(parse_ledger(ledger, "a.toml", tmp_path), [path]).verdicts[0]


def tables(verdict: Verdict) -> str:
    verification = Verification("t", "a.toml", (verdict,))
    return verdict_table(verification) + short_table(verification)


def test_a_clear_lead_holds_on_its_workload_alone(tmp_path: Path) -> None:
    verdict = judged(tmp_path, runs(CDVFT, 0.82), runs(LORA, 0.8))
    assert verdict.word == "holds"
    assert verdict.as_pinned
    assert (
        "shown on minilm on tweets (1,000 examples x 2, batch 16, at most 32 tokens), and nowhere else"
        in verdict.detail
    )
    said = verdict.readings[0].results[0]
    assert said.value == pytest.approx(0.82 / 0.8, rel=0.02)
    assert "5 paired seeds, 4,000 test examples, CDVFT m=2 p=d fft and LoRA r=8" in said.text


def test_a_clear_lag_fails_by_how_much(tmp_path: Path) -> None:
    verdict = judged(tmp_path, runs(CDVFT, 0.7), runs(LORA, 0.8))
    assert verdict.word == "fails"
    assert "off by -1" in verdict.detail
    assert "at workload = minilm on tweets" in verdict.detail


@pytest.mark.parametrize(
    ("groups", "reason"),
    [
        ((runs(CDVFT, 0.793), runs(LORA, 0.8)), "[0.98"),  # within 1 %, by less than the interval
        ((runs(CDVFT, 0.9, seeds=[0]), runs(LORA, 0.5)), "1 seed in common: no interval"),
        ((runs(CDVFT, 0.9, seeds=[0, 1]), runs(LORA, 0.5, seeds=[1, 2])), "1 seed in common: no interval"),
        ((runs(CDVFT, 0.9, diverged=[3]), runs(LORA, 0.5)), "diverged 1 time"),
    ],
)
def test_what_is_not_shown_either_way_does_not_hold(tmp_path: Path, groups, reason) -> None:
    verdict = judged(tmp_path, *groups)
    assert (verdict.word, verdict.hits, verdict.open) == ("undecided", 0, 1)
    assert verdict.detail.startswith("not shown either way on minilm on tweets")
    assert "run more seeds" in verdict.detail
    assert reason in verdict.readings[0].results[0].text
    assert "**undecided**: not shown either way" in verdict_table(Verification("t", "a.toml", (verdict,)))
    short = short_table(Verification("t", "a.toml", (verdict,)))
    assert "- **undecided**" in short
    assert short.count("(minilm on tweets: ") == 1
    assert reason in tables(verdict)


def test_a_verdict_says_what_its_design_could_have_seen_and_whether_it_can_rank(tmp_path: Path) -> None:
    text = judged(tmp_path, runs(CDVFT, 0.793), runs(LORA, 0.8)).readings[0].results[0].text
    ours, lora = (scores(runs(*one))[0] for one in ((CDVFT, 0.793), (LORA, 0.8)))
    table = paired(ours, lora)
    assert table is not None
    seen = 100 * detectable(estimate(table)) / lora.mean
    assert f"a true difference of {seen:.2g} % is seen with a chance of 80 %" in text
    assert text.endswith("not shown to rank methods: no pilot)")
    more = judged(tmp_path, runs(CDVFT, 0.793, range(20)), runs(LORA, 0.8, range(20))).readings[0].results[0].text
    assert float(more.split("true difference of ")[1].split(" ")[0]) < float(f"{seen:.2g}")

    def with_pilot(least: float, full: float) -> str:
        piloted = (runs(("head", {}), least), runs(("full", {}), full))
        return judged(tmp_path, runs(CDVFT, 0.793), runs(LORA, 0.8), *piloted).readings[0].results[0].text

    assert "not shown to rank" not in with_pilot(0.6, 0.9)
    assert "not shown to rank methods: full fine-tuning is 2.1 points above training the least" in with_pilot(0.78, 0.8)


def test_a_workload_that_cannot_rank_says_nothing_beside_one_that_can(tmp_path: Path) -> None:
    def piloted(task: str, accuracy: float, least: float, full: float) -> list[list[TrialResult]]:
        settings = ((CDVFT, accuracy), (LORA, 0.8), (("head", {}), least), (("full", {}), full))
        return [runs(*one, task=task) for one in settings]

    weak, strong = piloted("images", 0.793, 0.78, 0.8), piloted("tweets", 0.82, 0.6, 0.9)
    assert judged(tmp_path, *weak).word == "undecided"
    verdict = judged(tmp_path, *weak, *strong)
    assert (verdict.word, verdict.tried, verdict.open) == ("holds", 1, 0)
    assert verdict.detail.startswith("shown on minilm on tweets (")


def test_a_workload_without_all_seeds_says_nothing_beside_one_that_has_them(tmp_path: Path) -> None:
    whole = (runs(CDVFT, 0.82), runs(LORA, 0.8))
    early = (runs(CDVFT, 0.5, seeds=[0, 1], task="bbc-news"), runs(LORA, 0.8, task="bbc-news"))
    verdict = judged(tmp_path, *whole, *early)
    assert (verdict.word, verdict.open) == ("holds", 0)
    assert "bbc-news" not in verdict.detail
    # As many seeds of both count against it.
    assert judged(tmp_path, *whole, runs(CDVFT, 0.5, task="bbc-news"), early[1]).word == "holds only if"


def test_a_workload_of_images_has_no_tokens(tmp_path: Path) -> None:
    detail = judged(tmp_path, runs(CDVFT, 0.8, task="digits"), runs(LORA, 0.8, task="digits")).detail
    assert "minilm on digits (1,000 examples x 2, batch 16)" in detail


def test_every_workload_counts(tmp_path: Path) -> None:
    good, other = (runs(CDVFT, 0.82), runs(LORA, 0.8)), runs(LORA, 0.8, task="images")
    both = judged(tmp_path, *good, runs(CDVFT, 0.82, task="images"), other)
    assert (both.word, both.hits) == ("holds", 2)
    assert tables(both).count("paired seeds") == 2
    assert tables(both).count("minilm on images: 1.0267 [") == 1  # in the short one

    mixed = judged(tmp_path, *good, runs(CDVFT, 0.7, task="images"), other)
    assert mixed.word == "holds only if"
    assert mixed.needed == (("workload", ("minilm on tweets (1,000 examples x 2, batch 16, at most 32 tokens)",)),)
    assert "holds only if workload = minilm on tweets" in tables(mixed)

    unclear = judged(tmp_path, *good, runs(CDVFT, 0.793, task="images"), other)
    assert (unclear.word, unclear.hits, unclear.open) == ("undecided", 1, 1)
    assert "not shown either way on minilm on images" in unclear.detail
    assert "shown to hold on minilm on tweets" in unclear.detail

    alone = judged(tmp_path, *good, other)  # CDVFT was not run on the second
    assert (alone.word, alone.tried) == ("holds", 1)


def test_the_setting_chosen_on_validation_data_is_compared(tmp_path: Path) -> None:
    """The better rate on validation, and of two ranks the better one there, however they fare on the test split."""
    strong, weak = ("lora", {"rank": 8}), ("lora", {"rank": 1})
    tuning = [
        *runs(strong, 0.9, [1000], evaluate="validation"),
        *runs(weak, 0.6, [1000], evaluate="validation"),
        *runs(CDVFT, 0.9, [1000], evaluate="validation"),
        *runs(CDVFT, 0.5, [1000], evaluate="validation", lr=1e-2),
    ]
    finals = [*runs(strong, 0.8), *runs(weak, 0.95), *runs(CDVFT, 0.82), *runs(CDVFT, 0.1, lr=1e-2)]
    verdict = judged(tmp_path, tuning, finals)
    assert verdict.word == "holds"
    assert "CDVFT m=2 p=d fft and LoRA r=8" in verdict.readings[0].results[0].text


def test_of_tuning_runs_of_several_lengths_the_longest_choose(tmp_path: Path) -> None:
    """A rate that is best over few steps and collapses over many makes no rank the best one."""
    strong, weak = ("lora", {"rank": 8}), ("lora", {"rank": 1})
    short = [
        replace(run, trial=replace(run.trial, examples=500))
        for run in runs(weak, 0.9, seeds=[1000], evaluate="validation")
    ]
    tuned = [
        *short,
        *runs(weak, 0.6, seeds=[1000], evaluate="validation"),
        *runs(strong, 0.8, seeds=[1000], evaluate="validation"),
    ]
    verdict = judged(tmp_path, runs(CDVFT, 0.82), runs(strong, 0.8), runs(weak, 0.7), tuned)
    assert "CDVFT m=2 p=d fft and LoRA r=8" in verdict.readings[0].results[0].text


def test_hyperparameters_that_the_ledger_names_must_be_those_of_the_run(tmp_path: Path) -> None:
    ledger = LEDGER.replace('{ method = "lora" }', '{ method = "cdvft", m = 3 }')
    verdict = judged(tmp_path, runs(CDVFT, 0.82), runs(LORA, 0.8), ledger=ledger)
    assert verdict.word == "not measured"
    assert not verdict.open
    assert "cdvft (m = 3)" in verdict.detail
    three = runs(("cdvft", {"m": 3}), 0.8)
    default = runs(("cdvft", {}), 0.82)  # m = 2 where none is written
    assert judged(tmp_path, default, three, ledger=ledger).word == "holds"


def test_blocks_as_wide_as_the_layer_are_told_from_smaller_ones(tmp_path: Path) -> None:
    wide, small = runs(CDVFT, 0.6), runs(("cdvft", {"m": 2, "block_size": 64}), 0.9)
    named = LEDGER.replace("m = 2 }", 'm = 2, block_size = "d" }')
    assert judged(tmp_path, wide, small, runs(LORA, 0.7)).word == "holds"
    assert judged(tmp_path, wide, small, runs(LORA, 0.7), ledger=named).word == "fails"
    assert judged(tmp_path, small, runs(LORA, 0.7), ledger=named).word == "not measured"


def test_damaged_results_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text('{"trial": {"model": 3}}\n{"trial": {}}\n')
    with pytest.raises(UserError, match=r"results.jsonl, line 1 is damaged"):
        verify_ledger(parse_ledger(LEDGER, "a.toml", tmp_path), [path])


def test_fieller_holds_the_true_ratio_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(400):
        b = rng.normal(0.8, 0.02, 6)
        a = 0.95 * b + rng.normal(0, 0.01, 6)

        spread = 2.571**2 * np.cov(a, b) / 6
        low, high = fieller(a.mean(), b.mean(), spread[0, 0], spread[0, 1], spread[1, 1])
        apart = np.array([a - low * b, a - high * b])
        half = 2.571 * apart.std(axis=1, ddof=1) / 6**0.5
        assert np.abs(apart.mean(axis=1)) == pytest.approx(half)  # at the ends it is just not told from 0
        inside += low <= 0.95 <= high
    assert 0.92 <= inside / 400 <= 0.98
