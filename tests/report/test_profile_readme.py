"""A profile's README says what the records say: counts, warnings, and where CDVFT costs less time."""

import random
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cdvft_bench.analysis.frame import entries
from cdvft_bench.analysis.peers import PEERS, crossover
from cdvft_bench.core.case import LORA, Case, CasePass, Value
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.interval import Interval
from cdvft_bench.core.record import Record
from cdvft_bench.core.timed import Energy, Modes, Samples, SelfTest, Timed, Timing
from cdvft_bench.report.page.profile_readme import profile_readme, write_profile_readme
from cdvft_bench.sweep.evaluate import label
from cdvft_bench.sweep.storage.store import Store
from cdvft_bench.timing.machine.environment import read_environment
from cdvft_bench.timing.trace import export_trace
from tests.made_records import ENVIRONMENT, ENVIRONMENTS, HOSTILE, campaign_of, failed, make_records

WIDTHS, TOKENS = (768, 4096), (128, 2048, 32768)
NOISE = 0.007


def samples(name: str, median: float, rng: random.Random) -> Samples:
    seconds = tuple(median * rng.lognormvariate(0, NOISE) for _ in range(15))
    q = [float(v) for v in np.quantile(seconds, [0.5, 0.25, 0.75])]
    return Samples(name, seconds, *q)


def timed(method: str, values: dict[str, Value], d: int, tokens: int, ratio: float, pass_: CasePass = "step") -> Record:
    """A record that took ``ratio`` times the frozen layer, where LoRA takes 1.2 times; each run on its own machine."""
    case = Case(method, tuple(sorted(values.items())), "layer", f"{d}x{d}", 1, tokens, "float32", pass_, "cuda")
    rng = random.Random(case.key)
    frozen = d * d * tokens * 1e-12 * rng.uniform(0.5, 2)  # the machine's speed differs from run to run
    runs = [samples(label(case), frozen * ratio, rng), samples("frozen", frozen, rng), samples(LORA, frozen * 1.2, rng)]
    if method == "lora":
        runs = runs[:2]

    def over(other: Samples) -> Interval:
        values = np.array(runs[0].seconds) / np.array(other.seconds)
        return Interval(*(float(v) for v in np.quantile(values, [0.5, 0.1, 0.9])))

    timing = Timing(tuple(runs), {s.name: over(s) for s in runs[1:]}, 15, "cuda_event", 1)
    return Record(
        case, "ok", label(case), None, None, Timed(timing, None, None), None, ENVIRONMENT, "2026-01-02T03:04:05Z", 2.0
    )


def ratio_of(m: int, d: int, tokens: int) -> float:
    """CDVFT with two diagonals crosses LoRA's 1.2 between 2,048 and 32,768 tokens at the larger width alone."""
    return 1.0 + 0.1 * m + (0.2 if d == 768 else 0.4 if tokens < 10_000 else -0.1)


@pytest.fixture(scope="module")
def campaign() -> list[Record]:
    records = []
    for d in WIDTHS:
        for tokens in TOKENS:
            records += [
                timed("cdvft", {"m": m, "block_size": p}, d, tokens, ratio_of(m, d, tokens) + (p != d) * 0.3)
                for m in (2, 3)
                for p in (d, d // 4)
            ]
            records += [timed("lora", {"rank": 8}, d, tokens, 1.2), timed("lora", {"rank": 64}, d, tokens, 0.9)]
            records.append(timed("c3a", {"block_size": d}, d, tokens, 1.5))
            records.append(timed("c3a", {"block_size": d // 8}, d, tokens, 1.3))
    return records


def readme(records: list[Record]) -> str:
    return profile_readme(campaign_of(records), name="test", file="records.jsonl.gz", command="make it")


def test_crossovers_against_lora_are_where_they_were_put(campaign: list[Record]) -> None:
    found = entries(crossover(campaign_of(campaign).frame, "lora"))
    assert len(found) == 4 * len(WIDTHS) * len(TOKENS)
    faster = []
    for row in found:
        d = int(row["subject"].partition("x")[0])
        assert row["peer"] == "LoRA r=8"  # a faster LoRA of another rank is another method's setting
        expected = (ratio_of(int(row["m"]), d, int(row["tokens"])) + (row["p"] != d) * 0.3) / 1.2
        assert row["ratio"] == pytest.approx(expected, rel=0.02)
        assert row["word"] == ("faster" if expected < 0.97 else "slower" if expected > 1.03 else row["word"])
        faster += [(row["m"], row["p"], row["tokens"])] if row["word"] == "faster" else []
    assert faster == [(2, 4096, 32768)]


def test_another_peer_is_its_fastest_setting_on_its_own_run(campaign: list[Record]) -> None:
    for row in entries(crossover(campaign_of(campaign).frame, "c3a")):
        d = int(row["subject"].partition("x")[0])
        assert row["peer"] == f"C3A p={d // 8}"
        expected = (ratio_of(int(row["m"]), d, int(row["tokens"])) + (row["p"] != d) * 0.3) / 1.3
        assert row["ratio"] == pytest.approx(expected, rel=0.02)
        assert row["low"] < row["ratio"] < row["high"]


def test_sentences_name_the_region(campaign: list[Record]) -> None:
    text = readme(campaign)
    assert "CDVFT beside LoRA of rank 8: faster in 1 of 24 measured settings" in text
    assert "Lowest is CDVFT m=2 p=d, torch.fft on 4096x4096 at 1 × 32,768 tokens" in text
    assert "| 4096x4096 | 1 × 32,768 | step | float32 | 1 of 4 | CDVFT m=2 p=d, torch.fft |" in text
    assert "CDVFT beside FourierFT: not measured." in text


def test_what_was_not_measured_says_so(campaign: list[Record]) -> None:
    text = readme(campaign)
    for source in ("count", "trace", "peak memory", "CUDA graph", "energy"):
        assert f"| {source} | not measured |" in text
    assert f"| time | {len(campaign)} of {len(campaign)} |" in text
    alone = readme([r for r in campaign if r.case.method == "cdvft"])
    for peer in PEERS[1:]:
        assert f"CDVFT beside {'FourierFT' if peer == 'fourierft' else 'C3A'}: not measured." in alone
    untimed = readme([replace(r, timed=None) for r in campaign])
    assert "Time: not measured." in untimed
    assert untimed.count(": not measured.") == 3 + len(PEERS)  # nor the clock against itself, nor launches


def test_the_share_of_launches_is_what_a_graph_saves(campaign: list[Record]) -> None:
    def with_graph(record: Record) -> Record:
        rng = random.Random(record.case.key)
        seconds = [1e-3 * rng.uniform(0.5, 2) for _ in range(15)]
        runs = (
            Samples("eager", tuple(seconds), 1e-3, 1e-3, 1e-3),
            Samples("graph", tuple(s * 0.6 for s in seconds), 6e-4, 6e-4, 6e-4),
        )
        modes = Modes(Timing(runs, {}, 15, "cuda_event", 1), None, {}, {})
        assert record.timed is not None
        return replace(record, timed=replace(record.timed, modes=modes))

    paper = [r for r in campaign if dict(r.case.hyperparameters) == {"m": 2, "block_size": 768}]
    (first, *others) = paper
    text = readme([with_graph(first), *others, *(r for r in campaign if r not in paper)])
    assert "| 40% |" in text  # paired by round, so the machine's speed cancels
    assert "Launches: not measured." in readme(campaign)


def test_the_clock_s_own_test_and_kept_traces_are_told(tmp_path: Path, campaign: list[Record]) -> None:
    tested = SelfTest(20, 0.05, 0.0, 0.004, 0.01, Interval(2.01, 1.99, 2.03), True, 1e-3)
    records = []
    for record in campaign:
        assert record.timed is not None
        records.append(replace(record, timed=replace(record.timed, selftest=tested)))
    path = tmp_path / f"a-{campaign[0].case.key}.json.gz"
    x = torch.randn(4, 4)
    export_trace(lambda: x @ x, path)
    stranger = tmp_path / "b-0000000000000000.json.gz"
    export_trace(lambda: x @ x, stranger)
    text = profile_readme(campaign_of(records), name="t", file="f", command="c", traces=[path, stranger])
    assert text.count("| cuda | 20 | 5% | 0% | 0.40% | 2.01× \\[1.99, 2.03\\] |") == 1
    case = "CDVFT m=2 p=d, torch.fft, 768x768, 128 tokens, float32, step"
    assert re.search(rf"\| {case} \| not measured \| not measured \| \d+ \| {path.name} \|", text)
    assert "a case that the records do not hold" in text
    assert "None is kept." in readme(campaign)


def test_counts_and_warnings_add_up(campaign: list[Record]) -> None:
    def warn(record: Record, *warnings: str) -> Record:
        assert record.timed is not None
        assert record.timed.timing is not None
        timing = replace(record.timed.timing, warnings=warnings)
        modes = Modes(timing, None, {}, {}, ("graph not run: no",))
        return replace(record, timed=replace(record.timed, timing=timing, modes=modes, energy=Energy(0.25, "NVML")))

    drifts = ["the machine drifted: +12% (p = 3e-05)", "the machine drifted: -7% (p = 0.001)"]
    records = [warn(campaign[0], drifts[0]), warn(campaign[1], drifts[1], "other"), failed(campaign[2], "killed")]
    text = readme([*records, *campaign[3:]])
    assert f"{len(campaign)} cases: {len(campaign) - 1} done, 1 failed." in text
    assert f"The clock warned in 2 of {len(campaign) - 1} timed cases." in text
    assert sum(f"| {drift} | 2 |" in text for drift in drifts) == 1  # one kind of warning, told by one of them
    assert "| other | 1 |" in text
    assert "| graph not run: no | 2 |" in text
    assert f"| energy | 2 of {len(campaign) - 1} |" in text
    assert re.search(r"\| CDVFT m=3 p=d, torch.fft \| 768x768 \| 128 \| float32 \| step \| killed \|", text)
    older = [replace(r, created="2025-01-01T00:00:00Z") for r in campaign[:2]]
    assert "2 older rows of the same cases aside" in readme([*older, *campaign])


def test_the_same_records_give_the_same_text(campaign: list[Record]) -> None:
    shuffled = campaign[:]
    random.Random(4).shuffle(shuffled)
    assert readme(shuffled) == readme(campaign)


def test_machines_are_kept_apart(campaign: list[Record]) -> None:
    moved = [replace(r, environment="other") for r in campaign]
    both = campaign_of([*campaign, *moved], {**ENVIRONMENTS, "other": {"gpus": ("Another GPU",)}})
    text = profile_readme(both, name="t", file="f", command="c")
    assert "- Another GPU, layer, cuda, float32, step: CDVFT beside LoRA of rank 8: faster in 1 of 24" in text
    assert text.count("faster in 1 of 24 measured settings") == 2


def test_hostile_text_stays_text() -> None:
    records = [failed(r, HOSTILE) for r in make_records()[:2]] + make_records()[2:]
    text = readme(records)
    assert "<script>" not in text
    assert "\u202e" not in text


def test_the_readme_stands_beside_the_records(tmp_path: Path, campaign: list[Record]) -> None:
    folder = tmp_path / "gpu-layers"
    with Store(tmp_path / "records.sqlite", create=True) as store:
        key = store.put_environment(read_environment())
        for record in campaign:
            store.put(replace(record, environment=key))
        store.export_text(folder / "records.jsonl.gz")
    path = write_profile_readme(folder / "records.jsonl.gz")
    assert path == folder / "README.md"
    text = path.read_text()
    assert text.startswith("# Profile gpu-layers\n")
    assert "`cdvft-bench dev profile-readme profiles/gpu-layers/records.jsonl.gz`" in text
    assert f"| torch | {read_environment().torch} |" in text
    assert str(tmp_path) not in text
    assert write_profile_readme(folder / "records.jsonl.gz").read_text() == text
    assert not list(folder.glob("*.part"))
    with pytest.raises(UserError, match="cannot be written"):
        write_profile_readme(folder / "records.jsonl.gz", output=path / "below" / "README.md")
    with Store(tmp_path / "empty.sqlite", create=True):
        pass
    with pytest.raises(UserError, match="holds no record"):
        write_profile_readme(tmp_path / "empty.sqlite")
