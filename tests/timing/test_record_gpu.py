"""The script that records a GPU: its pieces, quickly; tox -e rehearsal runs all of it on the CPU."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from cdvft_bench.core.case import Case
from cdvft_bench.core.interval import Interval
from cdvft_bench.core.io.log import Log
from cdvft_bench.core.timed import Replays, Samples, Timed, Timing
from cdvft_bench.timing.__main__ import main
from cdvft_bench.timing.machine.environment import read_environment

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "profiles" / "record_gpu.sh"


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    given = {**os.environ, "PYTHON": sys.executable, **variables}
    return subprocess.run(["bash", str(SCRIPT), *arguments], env=given, capture_output=True, text=True, timeout=250)


def test_without_a_part_it_says_how_it_is_used(tmp_path: Path) -> None:
    for arguments in ((), ("4",), ("all",)):
        done = run(*arguments, OUT=str(tmp_path / "out"))
        assert done.returncode == 2
        assert "profiles/record_gpu.sh profile" in done.stderr
    assert list(tmp_path.iterdir()) == []
    done = run("profile", OUT=str(tmp_path / "out"))
    assert done.returncode == 1
    assert "There are no rows in" in done.stdout


def test_what_it_names_is_there() -> None:
    text = SCRIPT.read_text()
    for name in re.findall(r"tests/[\w/]+\.py", text):
        assert "mark.gpu" in (ROOT / name).read_text(), name
    for module in re.findall(r"-m (cdvft_bench[\w.]*)", text):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module
    for grid in re.findall(r"(?:GRID|MODELS)=(gpu[\w-]+)", text):
        assert (ROOT / "cdvft_bench" / "sweep" / "presets" / f"{grid}.toml").is_file(), grid
    assert subprocess.run(["bash", "-n", str(SCRIPT)]).returncode == 0


@pytest.mark.slow
def test_every_part_runs_on_a_cpu_and_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "out"
    for part in ("1", "1", "2", "3", "profile"):
        done = run(part, OUT=str(out), DRY="1")
        assert done.returncode == 0, done.stdout + done.stderr
    names = sorted(path.name for path in out.iterdir())
    assert names == ["log.txt", "models.jsonl", "rates.json", "rows.jsonl", "traces.tar"]
    assert all(re.fullmatch(r"[\w.-]+", name) for name in names)
    assert "0 cases run (0 failed), 2 done before, 0 left" in (out / "log.txt").read_text()
    assert run("2", OUT=str(tmp_path / "new"), FROM=str(out), DRY="1").returncode == 0
    assert (tmp_path / "new" / "rows.jsonl").read_bytes() == (out / "rows.jsonl").read_bytes()


def rows(path: Path) -> Case:
    """Rows of a device that is none, with a case that was replayed, and one that failed."""
    case = Case("cdvft", (("m", 2),), "layer", "768x768", 1, 8192, "bfloat16", "step", "cuda")
    samples = (Samples("cdvft m=2", (1.0,), 1.0, 1.0, 1.0),)
    eager = Timing(samples, {"frozen": Interval(2.5, 2.25, 2.75), "lora r=8": Interval(1.25, None, None)}, 9, "x", 1)
    ratios = {"frozen": Interval(1.5, 1.4, 1.6), "lora r=8": Interval(0.75, 0.7, 0.8), "eager": Interval(0.5, 0.4, 0.6)}
    ratios["lora r=8 bfloat16"] = Interval(1.125, 1.1, 1.15)
    graph = Timing(samples, ratios, 9, "x", 1, clocks_mhz=(1400.0, 1980.0, 1975.0))
    environment = replace(read_environment(), gpus=("EMULATED (GPU) 1",), date="2026-01-02")
    with Log(path) as log:
        log.append({"key": environment.key, "environment": asdict(environment)})
        for replays, one in (
            (None, case),
            (Replays(graph, 3, {}), case),
            (Replays(None, 0, {}, ("no replays: x",)), replace(case, method="fourierft")),
        ):
            timed = Timed(eager, None, None, replays=replays)
            log.append(
                {"record": {"case": asdict(one), "label": one.plain_label, "timed": asdict(timed), "error": None}}
            )
        failed = replace(case, method="c3a", hyperparameters=())
        log.append({"record": {"case": asdict(failed), "label": "c3a", "timed": None, "error": "out of memory"}})
    return case


def test_a_table_of_rows_tells_eager_from_graphs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.jsonl"
    rows(path)
    assert main(["--table", str(path)]) == 0
    _, first, second, third = capsys.readouterr().out.splitlines()
    what = "768x768 8192 bfloat16 step"
    assert re.split(r" +\| +", first) == [
        "2.500±0.250 1.250",
        "1.500±0.100 0.750±0.050 1.125±0.025 0.500±0.100",
        "1975",
        f"{what} cdvft m=2",
    ]
    assert second.endswith(f"| - | {what} fourierft m=2 (no replays: x)")
    assert third == f"{what} c3a: failed, out of memory"
    assert main(["--name", str(path)]) == 0
    assert capsys.readouterr().out == "emulated-gpu-1-2026-01-02\n"
