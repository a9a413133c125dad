"""Recorded times predicted by fits that left them out: what was left out has no say, and misses get a cause."""

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from cdvft_bench.core.environment import Environment
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.record import Record
from cdvft_bench.execution.planner import BUILT_IN
from cdvft_bench.predictor.causes import find_cause, typical_baselines
from cdvft_bench.predictor.evaluation import error, evaluate, evaluate_stores, read_profiles
from cdvft_bench.predictor.fit import make_terms, predict
from cdvft_bench.predictor.results import Evaluation
from cdvft_bench.predictor.samples import as_executed, device_name, samples
from cdvft_bench.sweep.evaluate import predict as witness_predict
from cdvft_bench.sweep.grid import make_case
from cdvft_bench.timing.calibrate import write

STORE = Path(__file__).parents[2] / "profiles" / "cpu-quick" / "records.jsonl.gz"
CALIBRATED = STORE.parents[1] / "cpu-2026-11-25" / "records.jsonl.gz"
PROFILE = read_profiles([STORE])
LAYERS = [r for r in PROFILE.records if r.case.subject == "roberta-base:query"]


@pytest.fixture(scope="module")
def found() -> Evaluation:
    return evaluate(LAYERS, PROFILE.environments)


def timed(record: Record, factor: float = 1.0, **changes: object) -> Record:
    """The record with its subject's times multiplied, and fields of its timing changed."""
    assert record.timed is not None
    assert record.timed.timing is not None
    timing = record.timed.timing
    first = timing.samples[0]
    seconds = tuple(factor * s for s in first.seconds)
    slower = dataclasses.replace(first, seconds=seconds, median=factor * first.median)
    changed = {"samples": (slower, *timing.samples[1:]), **changes}
    return dataclasses.replace(
        record, timed=dataclasses.replace(record.timed, timing=dataclasses.replace(timing, **changed))
    )


def test_every_record_is_predicted_once_a_split(found: Evaluation) -> None:
    splits = Counter((p.key, p.split) for p in found.predictions)
    assert splits == dict.fromkeys(((r.case.key, s) for r in LAYERS for s in ("case", "method")), 1)
    assert any("all records are of one shape" in note for note in found.notes)  # one layer, one number of tokens
    assert any("all records are of one campaign" in note for note in found.notes)
    assert any(note.startswith("machines (cpu): there is one") for note in found.notes)
    assert any(note.startswith("GPUs: not measured") and "NVIDIA H200" in note for note in found.notes)
    assert not found.left_out


def test_the_table_sums_up_the_predictions(found: Evaluation) -> None:
    for row in found.errors:
        mine = [p for p in found.predictions if (p.kind, p.pass_, p.split) == (row.kind, row.pass_, row.split)]
        errors = [max(p.ratio, 1 / p.ratio) - 1 for p in mine]
        assert (row.cases, row.median) == (len(mine), pytest.approx(np.median(errors)))
        assert row.p90 == pytest.approx(np.quantile(errors, 0.9))
        baseline = [error(p.flops_only_s / p.measured_s) for p in mine]
        assert row.flops_median == pytest.approx(np.median(baseline))
        inside = [p.predicted_s.low <= p.measured_s <= p.predicted_s.high for p in mine]  # type: ignore[operator]
        assert row.covered == pytest.approx(np.mean(inside))
    assert {row.pass_ for row in found.errors} == {"forward", "step"}


@pytest.mark.parametrize("path", ["fused", "stored", "merged", "native"])
def test_a_pick_is_priced_as_it_was_executed(path: str) -> None:
    """Whatever today's planner would pick."""
    options = {"kind": "layer", "subject": "768x768", "sequence": 128, "pass_": "step"}
    auto = make_case("cdvft", {"path": "auto"}, **options)
    plain = make_case("cdvft", {"path": path}, **options)
    record = dataclasses.replace(LAYERS[0], case=auto, predicted=witness_predict(plain))
    assert as_executed(record) == plain
    assert as_executed(dataclasses.replace(record, case=plain)) == plain
    assert as_executed(dataclasses.replace(record, predicted=None)) == auto


def test_what_is_left_out_has_no_say(found: Evaluation) -> None:
    """Times of one method ten times as long: predictions of that method, left out, are the same."""
    changed = evaluate(
        [timed(r, 10.0) if r.case.method == "cdvft" else r for r in LAYERS], PROFILE.environments
    ).predictions
    before = {p.key: p for p in found.predictions if p.split == "method" and p.method == "cdvft"}
    after = {p.key: p for p in changed if p.split == "method" and p.method == "cdvft"}
    assert len(before) > 20
    for key, p in after.items():
        assert p.predicted_s.value == pytest.approx(before[key].predicted_s.value, rel=1e-6)
        assert p.flops_only_s == pytest.approx(before[key].flops_only_s)
        assert p.measured_s == pytest.approx(10 * before[key].measured_s)


def test_a_second_machine_is_predicted_by_the_first() -> None:
    """The same times on a machine of four threads: predicted as if it were the first."""
    (key,) = {r.environment for r in LAYERS}
    four = dataclasses.replace(PROFILE.environments[key], threads=4)
    twice = [*LAYERS, *(dataclasses.replace(r, environment=four.key) for r in LAYERS)]
    found = evaluate(twice, {**PROFILE.environments, four.key: four})
    machines = [row for row in found.errors if row.split == "machine"]
    assert {row.device for row in machines} == {"AMD EPYC, 2 threads", "AMD EPYC, 4 threads"}
    assert all(row.median < 0.5 for row in machines)
    assert not any(note.startswith("machines") for note in found.notes)


def test_replayed_graphs_are_fitted_for_themselves() -> None:
    """Eager calls that a host slows ten times say nothing of the kernels."""
    gpu = Path(__file__).parents[2] / "profiles" / "nvidia-h200-2026-11-29-lean" / "records.jsonl.gz"
    profile = read_profiles([gpu])
    steps = [r for r in profile.records if r.case.kind == "layer" and r.case.pass_ == "step"]
    fast, slow = (evaluate([timed(r, f) for r in steps], profile.environments, profile.rates) for f in (1.0, 10.0))
    graphs = [[p for p in found.predictions if p.device == "NVIDIA H200, replayed graphs"] for found in (fast, slow)]
    assert len({p.key for p in graphs[0]}) == len(steps)
    replays = {r.case.key: r.timed.replays.timing.samples[0].median for r in steps}  # type: ignore[union-attr]
    assert all(p.measured_s == replays[p.key] for p in graphs[0])
    for one, other in zip(*graphs, strict=True):
        assert other.predicted_s.value == pytest.approx(one.predicted_s.value)
    eager, kernels = ([r for r in fast.errors if r.device.endswith(word)] for word in ("H200", "graphs"))
    assert kernels[0].median < eager[0].median


def test_a_second_campaign_is_predicted_by_the_first() -> None:
    """The same times by another version on the same machine: its fit sees the first campaign alone."""
    (key,) = {r.environment for r in LAYERS}
    later = dataclasses.replace(PROFILE.environments[key], torch="9.0")
    twice = [*LAYERS, *(timed(dataclasses.replace(r, environment=later.key), 3.0) for r in LAYERS)]
    found = evaluate(twice, {**PROFILE.environments, later.key: later})
    rows = [row for row in found.errors if row.split == "campaign"]
    assert {(row.device, row.groups) for row in rows} == {("AMD EPYC, 2 threads", 2)}
    ratios = [p.ratio for p in found.predictions if p.split == "campaign" and p.environment == later.key]
    assert np.median(ratios) == pytest.approx(1 / 3, rel=0.3)


def test_the_farthest_come_first_and_have_causes(found: Evaluation) -> None:
    misses = [error(f.prediction.ratio) for f in found.farthest]
    assert len(misses) == 10
    assert misses == sorted(misses, reverse=True)
    alone = sorted((error(p.ratio) for p in found.predictions if p.split == "case"), reverse=True)
    assert misses == pytest.approx(alone[:10])
    assert all(f.cause and f.evidence for f in found.farthest)


def _cause(record: Record, among: list[Record]) -> tuple[str, str]:
    (sample,) = samples([record], PROFILE.environments)[0]
    terms = make_terms([sample.work])
    predicted = predict(terms, np.zeros(len(terms.kinds)))
    prediction = evaluate([*among, record], PROFILE.environments).predictions[0]
    low = dataclasses.replace(prediction.predicted_s, value=sample.seconds / 4)
    miss = dataclasses.replace(prediction, measured_s=sample.seconds, predicted_s=low)
    return find_cause(miss, record, sample.work, predicted, typical_baselines([*among, record]), [])


def _clean() -> tuple[Record, list[Record]]:
    """A record of which neither clock nor trace says anything amiss, and others of its workload."""
    steps = [r for r in LAYERS if r.case.pass_ == "step" and r.timed and r.timed.trace and r.timed.timing]
    record = timed(next(r for r in steps if r.case.method == "lora"), warnings=())
    return record, [r for r in steps if r.case.key != record.case.key][:5]


def test_causes_are_found_in_the_record() -> None:
    record, others = _clean()
    assert record.timed is not None
    assert record.timed.timing is not None
    assert record.timed.trace is not None
    timing, trace = record.timed.timing, record.timed.trace
    baselines = [dataclasses.replace(s, median=9 * s.median) if s.name == "frozen" else s for s in timing.samples]
    assert _cause(timed(record, samples=tuple(baselines)), others)[0] == "the machine was slower during this run"
    first = timing.samples[0]
    wide = (dataclasses.replace(first, seconds=(first.median, 9 * first.median)), *timing.samples[1:])
    unsteady = timed(record, samples=wide, warnings=("drifted",))
    assert _cause(unsteady, others)[0] == "the clock warned"
    assert _cause(unsteady, others)[1].startswith("drifted; nine of ten rounds took ")
    assert _cause(timed(record, samples=wide), others)[0] == "the rounds disagree"
    assert _cause(timed(record, warnings=("drifted",)), others)[0] != "the clock warned"  # by per cents, not by 4

    def traced(**changes: object) -> Record:
        changed = dataclasses.replace(trace, **changes)  # type: ignore[arg-type]
        return dataclasses.replace(record, timed=dataclasses.replace(record.timed, trace=changed))  # type: ignore[type-var]

    calm = dataclasses.replace(timing.samples[0], seconds=(timing.samples[0].median,) * 5)
    record = timed(record, samples=(calm, *timing.samples[1:]))
    assert _cause(traced(busy_fraction=0.2, span_seconds=1.0), others)[0] == "dispatch overhead"
    foreign = {"matmul": 1e-3, "other": 1e-3}
    cause = _cause(traced(busy_fraction=0.9, families=foreign), others)
    assert cause == ("operators that the formula does not cover", "they took 50 % of the traced call")
    cause = _cause(traced(busy_fraction=0.9, families={"elementwise": 1.0, "matmul": 1e-3}), others)
    assert cause[0] == "elementwise operators take longer than their kind usually does"
    assert "1e+03 ms in the trace" in cause[1]
    finer = {"elementwise": 0.4, "optimizer": 0.6, "matmul": 1e-3}  # an optimiser's kernels are element-wise ones
    assert _cause(traced(busy_fraction=0.9, families=finer), others) == cause
    finer = {"matmul": 1e-3, "sort": 0.5e-3, "communication": 0.5e-3}
    assert _cause(traced(busy_fraction=0.9, families=finer), others)[0] == ("operators that the formula does not cover")


def test_rates_beside_a_store_are_taken(tmp_path: Path) -> None:
    store = tmp_path / "records.jsonl.gz"
    store.write_bytes(STORE.read_bytes())
    assert not read_profiles([store]).rates
    slow = dataclasses.replace(BUILT_IN["cpu"], source="measured", device="x86_64")
    write(slow.to_json(), tmp_path / "rates.json")
    assert read_profiles([store]).rates == {"AMD EPYC, 2 threads": slow}
    write(dataclasses.replace(slow, threads=64).to_json(), tmp_path / "rates.json")
    assert not read_profiles([store]).rates  # of another machine
    write(slow.to_json(), tmp_path / "given.json")
    assert read_profiles([store], tmp_path / "given.json").rates == {"AMD EPYC, 2 threads": slow}


def test_records_without_a_time_are_told() -> None:
    failed = dataclasses.replace(LAYERS[0], status="failed", timed=None, error="out of memory")
    with pytest.raises(UserError, match=r"no record has a time to compare .*: out of memory"):
        evaluate([failed], PROFILE.environments)
    found = evaluate([failed, *LAYERS[1:]], PROFILE.environments)
    assert found.left_out == ((failed.label, "out of memory"),)
    gpu = dataclasses.replace(LAYERS[0], case=dataclasses.replace(LAYERS[0].case, device="cuda"))
    unknown = Environment(**{**dataclasses.asdict(PROFILE.environments[gpu.environment]), "gpus": ("NVIDIA Z1",)})
    _, left_out = samples([gpu], {gpu.environment: unknown})
    assert left_out == [(gpu.label, "no rates are known for NVIDIA Z1; calibrate it")]
    known = dataclasses.replace(unknown, gpus=("NVIDIA H200",))
    (sample,) = samples([gpu], {gpu.environment: known})[0]
    assert sample.work.rates.asynchronous
    assert device_name(gpu.case, known) == sample.device == "NVIDIA H200"


def test_no_record_at_all_is_told() -> None:
    with pytest.raises(UserError, match="no record has a time"):
        evaluate([], {})


def test_whole_stores_are_evaluated() -> None:
    found = evaluate_stores([STORE, CALIBRATED])
    assert {row.kind for row in found.errors} == {"layer", "model"}
    assert {row.split for row in found.errors} == {"case", "shape", "method", "campaign"}
    for row in found.errors:  # what bytes and launches add, at calibrated rates: to whole models, too
        assert row.median < 0.75 * row.flops_median
        assert row.p90 < 0.75 * row.flops_p90
