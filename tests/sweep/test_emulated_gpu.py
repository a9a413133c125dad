"""A GPU's campaign from an empty folder to a page, on a CUDA device that is emulated: nothing here is a measurement.

Every record is of a device called ``EMULATED``, and none may come into a profile.
"""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from cdvft_bench.claims.judge import verify_ledger
from cdvft_bench.claims.ledger.read import parse_ledger
from cdvft_bench.cli import main as command
from cdvft_bench.core.case import Case
from cdvft_bench.core.record import Record
from cdvft_bench.core.timed import Replays
from cdvft_bench.report.page.profile_readme import write_profile_readme
from cdvft_bench.sweep.engines.work import describe
from cdvft_bench.sweep.grid import Limits, read_grid
from cdvft_bench.sweep.storage.store import Store
from cdvft_bench.timing import slice as slices
from cdvft_bench.timing.__main__ import main as bare
from cdvft_bench.timing.graphs import named, replays
from tests.timing.fake_cuda import NAME, emulated

PROFILES = Path(__file__).parents[2] / "profiles"
GRID = """
[grid]
name = "emulated"
modes = ["eager", "graph"]

[[block]]
kind = "layer"
subjects = ["64x64"]
sequence = [24]
dtype = ["bfloat16"]
pass = ["step"]
device = "cuda"

[[block.method]]
name = "cdvft"
m = 2
path = "auto"

[[block.method]]
name = "c3a"

[[block]]
kind = "layer"
subjects = ["64x64"]
sequence = [24]
dtype = ["bfloat16"]
pass = ["step"]
device = "cuda"
keep_trace = true

[[block.method]]
name = "cdvft"
m = 2
path = "auto"
"""
LEDGER = """
[ledger]
title = "emulated"
version = 1

[[claim]]
id = "replayed"
statement = "s"
origin = { paper = "p", section = "s" }
quantity = { name = "time", pass = "step", device = "cuda", mode = "MODE" }
subject = { method = "cdvft", m = 2, path = "PATH" }
against = { method = "lora", rank = 8 }
layer = "64x64"
tokens = 24
dtype = "bfloat16"
law = { kind = "ratio", low = 1e-6, high = 1e6 }
sources = ["clock"]
"""


LIMITS = Limits(budget_s=60, precision=100, modes=("eager", "graph"), count=False)


class Here:
    """Replays in this process, where the emulation is."""

    def __init__(self, build: str) -> None:
        self.build = named(build)

    def __call__(self, case: Case, budget_s: float, precision: float) -> Replays:
        return replays(case, self.build, budget_s, precision)

    def close(self) -> None: ...


@pytest.fixture(scope="module")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the rows of a slice, its traces, and their store as text."""
    folder = tmp_path_factory.mktemp("emulated")
    (folder / "grid.toml").write_text(GRID)
    rows, traces = folder / "rows.jsonl", folder / "traces"
    options = ["--grid", str(folder / "grid.toml"), "--output", str(rows), "--case-budget", "60s", "--energy", "0"]
    # Any interval is narrow enough: a busy machine makes as many rounds as an idle one.
    options += ["--modes", "eager,graph", "--selftest", "1", "--precision", "100"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(slices, "Replayer", Here)
        with emulated(patch):
            assert bare([*options, "--no-trace"]) == 0  # as the script's parts 1 and 2
            assert bare([*options, "--kept", "--traces", str(traces)]) == 0  # as its part 3
            label, predicted, counted, timed = describe(next(iter(read_grid(str(folder / "grid.toml")))), LIMITS)
    # What a case's process says in a sweep.
    assert label == "CDVFT m=2 p=d"
    assert predicted is not None
    assert counted is None
    assert timed is not None
    assert timed.replays is not None
    assert timed.replays.timing is not None, timed.replays.notes
    assert timed.trace is not None
    assert timed.trace.device == "cuda"
    assert timed.modes is None  # the graph was timed beside its baselines, not alone
    store = folder / "records.sqlite"
    for given in (
        ["import", str(rows), "--store", str(store)],
        ["export", str(store), str(folder / "records.jsonl.gz")],
    ):
        done = CliRunner().invoke(command, given)
        assert done.exit_code == 0, done.output
    return folder


@pytest.fixture(scope="module")
def records(campaign: Path) -> dict[str, Record]:
    with Store(campaign / "records.sqlite") as store:
        assert {e.gpus for e in store.environments().values()} == {(NAME,)}
        return {record.label: record for record in store.records()}


def test_every_case_has_eager_times_and_those_of_graphs(records: dict[str, Record]) -> None:
    assert len(records) == 2
    for label, record in records.items():
        assert record.status == "ok", record.error
        assert record.predicted is not None
        timed = record.timed
        assert timed is not None
        assert timed.timing is not None
        assert set(timed.timing.ratios) == {"frozen", "lora r=8", "lora r=8 bfloat16"}
        assert timed.timing.method == "cuda_event"
        assert timed.timing.clocks_mhz == (1980.0,) * timed.timing.rounds
        assert timed.timing.watts == (400.0,) * timed.timing.rounds
        assert timed.selftest is not None
        assert timed.replays is not None
        if label.startswith("CDVFT"):
            assert timed.replays.timing is not None, timed.replays.notes
            assert timed.replays.inputs > 1
            assert timed.replays.timing.samples[0].name == label
            assert set(timed.replays.timing.ratios) == {*timed.timing.ratios, "eager"}
            assert all(d is not None and d < 0.1 for d in timed.replays.differences.values())


def test_a_case_is_traced_in_a_run_of_its_own_and_its_times_stay(campaign: Path, records: dict[str, Record]) -> None:
    entries = [json.loads(line) for line in (campaign / "rows.jsonl").read_text().splitlines()]
    rows = [entry["record"] for entry in entries if "record" in entry]
    assert len(rows) == 3  # the one that is kept twice: without its trace, and with it
    first, last = (row for row in rows if row["case"] == rows[0]["case"])
    assert first["timed"]["trace"] is None
    assert last["timed"]["trace"]["launches"] > 0
    assert last["timed"]["trace"]["device"] == "cuda"
    assert last["timed"]["memory"]["peak_bytes"] == 4096
    assert last["timed"]["timing"] == first["timed"]["timing"]
    assert last["timed"]["replays"] == first["timed"]["replays"]
    (trace,) = (campaign / "traces").iterdir()
    assert b"emulated_kernel" in gzip.decompress(trace.read_bytes())
    assert sum(r.timed is not None and r.timed.trace is not None for r in records.values()) == 1


@pytest.mark.parametrize(
    ("mode", "path", "word"),
    [("graph", "auto", "holds"), ("eager", "auto", "holds"), ("graph", "fused", "not measured")],
)
def test_claims_on_a_gpu_are_judged_by_its_replays(campaign: Path, mode: str, path: str, word: str) -> None:
    ledger = parse_ledger(LEDGER.replace("MODE", mode).replace("PATH", path), "emulated", campaign)
    (verdict,) = verify_ledger(ledger, [campaign / "records.jsonl.gz"]).verdicts
    assert verdict.word == word


def test_readme_and_page_tell_graphs_from_eager_calls_and_name_the_device(campaign: Path, tmp_path: Path) -> None:
    text = write_profile_readme(campaign / "records.jsonl.gz", output=tmp_path / "README.md").read_text()
    assert NAME in text
    part = text[text.index("## Kernels alone: replayed CUDA graphs") :].split("\n## ")[0]
    assert "eager ÷ LoRA | graph ÷ LoRA | graph ÷ LoRA in 16 bits | graph ÷ frozen" in part
    assert part.count("| 64x64 |") >= 1
    assert f"- {NAME}, layer, cuda, bfloat16, step, as replayed graphs: CDVFT beside C3A: " in text
    assert f"- {NAME}, layer, cuda, bfloat16, step: CDVFT beside C3A: " in text
    done = CliRunner().invoke(command, ["report", str(campaign), "--output", str(tmp_path / "page"), "--no-claims"])
    assert done.exit_code == 0, done.output
    html = next((tmp_path / "page").glob("*.html")).read_text()
    assert NAME in html
    assert re.search(r"On 64x64, a training step, as a replayed CUDA graph, with CDVFT m=2 p=d\s+takes", html)
    overview = (tmp_path / "page" / "tables" / "overview.csv").read_text().splitlines()
    assert overview[0] == 'method,"64x64, step as a graph, 24 tokens, bf16","64x64, step, eager, 24 tokens, bf16"'
    table = (tmp_path / "page" / "tables" / "records.csv").read_text().splitlines()
    columns: dict[str, Any] = dict(zip(table[0].split(","), range(999), strict=False))
    assert {"lora", "graph_lora", "graph_narrow", "graph_frozen", "gpu_clock", "gpu_watts"} <= set(columns)


def test_no_profile_holds_what_was_emulated() -> None:
    for path in PROFILES.rglob("*.jsonl*"):
        data = path.read_bytes()
        text = gzip.decompress(data) if path.suffix == ".gz" else data
        assert b"EMULATED" not in text, path
