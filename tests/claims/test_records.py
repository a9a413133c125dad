"""The witnesses who read what was recorded."""

import csv
import random
from dataclasses import fields
from pathlib import Path

import pytest

from cdvft_bench.accuracy.published.methods import method_of
from cdvft_bench.accuracy.published.reading import campaign, read_published
from cdvft_bench.accuracy.published.run import PublishedRun
from cdvft_bench.claims.judge import verify_ledger
from cdvft_bench.claims.ledger.point import MethodSubject
from cdvft_bench.claims.ledger.read import parse_ledger
from cdvft_bench.claims.sources.records import UNNAMED, ClockSource, read_records
from cdvft_bench.claims.sources.source import NotAvailable
from cdvft_bench.claims.sources.trained import RunTable
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.interval import Interval
from cdvft_bench.core.record import Record
from cdvft_bench.core.timed import Samples, Timed, Timing
from cdvft_bench.sweep.grid import make_case

HEAD = '[ledger]\ntitle = "t"\nversion = 1\n'
ACCURACY = (
    HEAD
    + """
[[claim]]
id = "accuracy"
statement = "s"
source = { paper = "p", section = "s" }
quantity = "accuracy"
subject = { method = "c3a", block_size = 64 }
against = { method = "lora", rank = 8 }
law = { kind = "ratio", low = 0.99 }
witnesses = ["accuracy"]
verdict = "not measured"
"""
)
TIME = (
    HEAD
    + """
[[claim]]
id = "time"
statement = "s"
source = { paper = "p", section = "s" }
quantity = { name = "time", pass = "step" }
subject = { method = "cdvft", m = 2 }
against = { method = "lora", rank = 8 }
layer = "768x768"
tokens = 128
law = { kind = "ratio", high = 1.1 }
witnesses = ["clock"]
"""
)


def table(path: Path, *runs: tuple[str, str, float]) -> Path:
    names = [*(f.name for f in fields(PublishedRun) if f.name not in ("score", "metric")), "test_accuracy"]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        for i, (method, hyperparameters, accuracy) in enumerate(runs):
            row = dict.fromkeys(names, "1") | {
                "model": "",
                "optimizer": "",
                "experiment": f"e{i}",
                "method": method,
                "target_modules": '["q"]',
            }
            writer.writerow(row | {"hyperparameters": hyperparameters, "test_accuracy": str(accuracy)})
    return path


def test_accuracy_is_the_best_configuration_s_mean(tmp_path: Path) -> None:
    c3a = [random.Random(4).uniform(0.5, 0.6) for _ in range(3)]
    path = table(
        tmp_path / "runs.csv",
        *(("C3A", '{"block_size": 64}', a) for a in c3a),
        ("C3A", '{"block_size": 32}', 0.99),
        ("LORA", '{"r": 8, "use_dora": false}', 0.4),
        *(("LORA", '{"r": 8, "lora_alpha": 16}', a) for a in (0.79, 0.8, 0.81)),
        ("LORA", '{"r": 8, "use_dora": true}', 0.95),
        ("LORA", '{"r": 16}', 0.9),
    )
    verdict = verify_ledger(parse_ledger(ACCURACY, "a.toml", tmp_path), [path]).verdicts[0]
    assert verdict.readings[0].results[0].value == pytest.approx(sum(c3a) / 3 / 0.8)
    assert verdict.word == "fails"
    assert "at workload = runs.csv" in verdict.detail
    assert verdict.as_pinned  # somebody has measured since: no regression


def named(*names: str, method: str = "LORA", **hyperparameters: object) -> list[PublishedRun]:
    """Rows of one method that differ by their names alone, or by hyperparameters."""
    rest = {"trainable_params": 1, "train_time_s": 1.0, "peak_memory_bytes": 1, "adapter_file_bytes": 1, "lr": 1e-4}
    rest |= {"steps": 5000, "device": "x", "torch": "x", "date": "x", "target_modules": ("q",)}
    values = {"method": method, "hyperparameters": {"r": 32, **hyperparameters}, **rest}
    return [PublishedRun(experiment=n, score=0.1 + 0.01 * i, **values) for i, n in enumerate(names)]  # type: ignore[arg-type]


def test_a_variant_that_only_its_name_tells_is_not_pooled() -> None:
    """PEFT's own table: one run of LoRA r = 32, and LoRA-FA and MiCA of the same hyperparameters."""
    table = RunTable("peft", campaign().runs)
    assert table.best(MethodSubject("lora", (("rank", 32),))) == [0.478393]
    assert table.best(MethodSubject("lora_fa", (("rank", 32),))) == [0.404094]
    assert table.best(MethodSubject("dora", (("rank", 32),))) == [0.469295]
    assert table.best(MethodSubject("rslora", (("rank", 64),))) == [0.513268]
    assert table.best(MethodSubject("miss")) == [0.486732]
    assert table.best(MethodSubject("lora", (("rank", 10),))) == [0.494314]  # on other modules
    with pytest.raises(NotAvailable, match=r"left out, since a variant is not known: .*-target-mlp-bdlora \(bdlora\)"):
        table.best(MethodSubject("lora", (("rank", 14),)))
    note = table.figure(MethodSubject("lora", (("rank", 32),)), None).note
    assert "lora-rank32-mica (mica)" in note


@pytest.mark.parametrize("variant", ["kasa", "riemannian", "mica", "bdlora", "pissa", "olora", "corda", "x2y"])
def test_an_unknown_variant_is_left_out_and_named(variant: str) -> None:
    for name in (f"lora-rank32-{variant}", f"lora-{variant}-rank32", f"lora_{variant}_r32", f"LoRA-{variant.upper()}"):
        (run,) = named(name)
        assert method_of(run) == ("lora", variant), name


@pytest.mark.parametrize("switch", [{"use_kasa": True}, {"use_bdlora": True}, {"init_lora_weights": "pissa"}])
def test_a_switch_that_is_not_known_is_left_out_and_named(switch: dict[str, object]) -> None:
    (run,) = named("lora-rank32", **switch)
    name, unknown = method_of(run)
    assert name == "lora"
    assert next(iter(switch)) in unknown


@pytest.mark.parametrize(
    ("name", "method", "found"),
    [
        ("lora-rank32", "LORA", "lora"),
        ("lora-rank10-target-mlp", "LORA", "lora"),
        ("lora-lr_0.001-seed3", "LORA", "lora"),
        ("lora-default", "LORA", "lora"),
        ("run-7", "LORA", "lora"),
        ("e12", "C3A", "c3a"),
        ("fourierft-n_frequency-5000", "FOURIERFT", "fourierft"),
        ("lora-rank32-lorafa", "LORA", "lora_fa"),
        ("dora-rank64", "LORA", "dora"),
        ("lokr-rank32-factor4-lr0.003", "LOKR", "lokr"),
        ("ia3-all-attn-5k-lr0.005", "IA3", "ia3"),
        ("cdvft-m2-p768", "CDVFT", "cdvft"),
        ("lora-lr_5e-3", "LORA", "lora"),
    ],
)
def test_what_a_name_says_of_sizes_and_rates_is_no_variant(name: str, method: str, found: str) -> None:
    (run,) = named(name, method=method)
    assert method_of(run) == (found, "")


def test_switches_name_the_methods_that_the_suite_has() -> None:
    assert method_of(named("lora-rank32", use_dora=True)[0]) == ("dora", "")
    assert method_of(named("lora-rank32", use_rslora=True, use_dora=False)[0]) == ("rslora", "")


def test_configurations_with_as_many_right_answers_are_equal(tmp_path: Path) -> None:
    """Three runs, other three with as many right answers in all, and the first three twice: the first ones count."""
    rng = random.Random(5)
    apart = 0
    for i in range(40):
        total = rng.randrange(600, 1320)
        first, second = ([rng.randrange(total // 4) for _ in range(2)] for _ in range(2))
        groups = [[n / 1319 for n in (*counts, total - sum(counts))] for counts in (first, second)]
        groups.append(groups[0] * 2)
        apart += sum(groups[0]) / 3 != sum(groups[1]) / 3
        ours = [("C3A", f'{{"block_size": 64, "try": {k}}}', a) for k, g in enumerate(groups) for a in g]
        runs = read_published(table(tmp_path / f"{i}.csv", *ours)).runs
        best = RunTable("t", runs).best(MethodSubject("c3a", (("block_size", 64),)))
        assert best == pytest.approx(groups[0])
        assert len(best) == 3
    assert apart > 5  # means of floats told them apart


def test_one_run_of_a_configuration_shows_nothing_either_way(tmp_path: Path) -> None:
    path = table(tmp_path / "runs.csv", ("C3A", '{"block_size": 64}', 0.9), ("LORA", '{"r": 8}', 0.5))
    verdict = verify_ledger(parse_ledger(ACCURACY, "a.toml", tmp_path), [path]).verdicts[0]
    assert (verdict.word, verdict.open, verdict.hits) == ("undecided", 1, 0)
    assert "not shown either way on runs.csv" in verdict.detail


def test_accuracy_without_a_run_is_not_measured(tmp_path: Path) -> None:
    path = table(tmp_path / "runs.csv", ("C3A", '{"block_size": 64}', 0.5))
    verdict = verify_ledger(parse_ledger(ACCURACY, "a.toml", tmp_path), [path]).verdicts[0]
    assert verdict.word == "not measured"
    assert "no recorded fine-tuning run of lora (rank = 8)" in verdict.detail


def record(
    created: str, ratio: float, tokens: int = 128, spread: float | None = 0.01, **hyperparameters: int
) -> Record:
    method = "cdvft" if "m" in hyperparameters else "lora"
    case = make_case(method, hyperparameters, "layer", "768x768", 2, tokens // 2, seed=3)
    seconds = Samples("x", (1.0,), 1.0, 1.0, 1.0)
    low, high = (None, None) if spread is None else (ratio * (1 - spread), ratio * (1 + spread))
    timing = Timing((seconds,), {"frozen": Interval(ratio, low, high)}, 1, "perf_counter", 1)
    return Record(case, "ok", "x", None, None, Timed(timing, None, None), None, "e", created, 1.0)


def judged_time(*records: Record) -> tuple[str, str]:
    from cdvft_bench.claims.judge import judge

    claim = parse_ledger(TIME, "a.toml", Path()).claims[0]
    verdict = judge(claim, {"clock": ClockSource([(r, UNNAMED) for r in records])})
    return verdict.word, verdict.detail + verdict.readings[0].results[0].text


def test_time_is_the_newest_record_of_the_same_case() -> None:
    lora = record("2026-01-01", 1.25, rank=8)
    # A block size of 768 is the default on this layer, written out.
    old, new = record("2026-01-01", 9.0, m=2), record("2026-01-02", 1.5, m=2, block_size=768)
    other = [
        record("2026-01-03", 1.0, m=3),
        record("2026-01-03", 1.0, m=2, tokens=64),
        record("2026-01-04", 1.0, rank=4),
    ]
    word, text = judged_time(lora, old, new, *other)
    assert word == "fails"
    assert "= 1.2 " in text or "= 1.2000" in text
    assert judged_time(lora, record("2026-01-05", 1.3, m=2), old)[0] == "holds"


def test_times_whose_intervals_reach_both_sides_show_nothing() -> None:
    lora = record("2026-01-01", 1.25, rank=8)
    for ratio, spread in ((1.35, 0.03), (1.4, 0.03), (1.2, None)):  # of at most 1.1 times LoRA's
        word, text = judged_time(lora, record("2026-01-02", ratio, spread=spread, m=2))
        assert word == "undecided"
        assert "not shown either way" in text
        assert "time it longer" in text
    assert judged_time(lora, record("2026-01-02", 1.2, spread=0.03, m=2))[0] == "holds"


def test_time_without_a_record_is_not_measured() -> None:
    word, text = judged_time(record("2026-01-01", 1.25, rank=8))
    assert word == "not measured"
    assert "no record times cdvft (m = 2) on 768x768, 128 tokens, float32, cpu" in text


def test_bad_records(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("")
    (tmp_path / "x.csv").write_text("a,b\n")
    for name, rule in {"none.csv": "No such file", "x.txt": "must end in", "x.csv": "lacks the column"}.items():
        with pytest.raises(UserError, match=rule):
            read_records([tmp_path / name])
