"""The script that records a GPU: its pieces, quickly; tox -e rehearsal runs all of it on the CPU."""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import time
import zipfile
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from cdvft_bench.core.case import Case
from cdvft_bench.core.flight import DIED
from cdvft_bench.core.interval import Interval
from cdvft_bench.core.io.log import Log
from cdvft_bench.core.timed import Replays, Samples, Timed, Timing
from cdvft_bench.execution.planner import BUILT_IN
from cdvft_bench.timing.__main__ import main
from cdvft_bench.timing.machine.environment import read_environment

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "profiles" / "record_gpu.sh"


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    given = {**os.environ, "PYTHON": sys.executable, **variables}
    return subprocess.run(["bash", str(SCRIPT), *arguments], env=given, capture_output=True, text=True, timeout=800)


def test_without_a_part_it_says_how_it_is_used(tmp_path: Path) -> None:
    for arguments in ((), ("4",), ("all",)):
        done = run(*arguments, OUT=str(tmp_path / "out"))
        assert done.returncode == 2
        assert "profiles/record_gpu.sh profile" in done.stderr
    assert list(tmp_path.iterdir()) == []
    done = run("profile", OUT=str(tmp_path / "out"))
    assert done.returncode == 1
    assert "There are no rows in" in done.stdout


def bare_python(folder: Path, *packages: str) -> Path:
    """An interpreter that has these packages alone, and what comes with torch."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (target,) = folder.glob("lib/python*/site-packages")
    for name in packages:
        for entry in Path(importlib.import_module(name).__file__ or "").resolve().parent.parent.iterdir():
            if entry.name.split("-")[0].split(".")[0].lower() in WITH_TORCH and not (target / entry.name).exists():
                (target / entry.name).symlink_to(entry)
    return folder / "bin" / "python"


def checkout(folder: Path) -> Path:
    """The files without their repository; the script of them."""
    for name in ("cdvft_bench", "reference"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    (folder / "profiles").mkdir()
    shutil.copy(SCRIPT, folder / "profiles")
    return folder / "profiles" / SCRIPT.name


def wheel(folder: Path, name: str, **files: str) -> None:
    with zipfile.ZipFile(folder / f"{name}-9.9-py3-none-any.whl", "w") as made:
        made.writestr(f"{name}-9.9.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9\n")
        for path, text in files.items():
            made.writestr(f"{name}/{path}.py", text)


WITH_TORCH = {"torch", "torchgen", "functorch", "numpy", "typing_extensions", "sympy", "mpmath", "networkx"}
WITH_TORCH |= {"jinja2", "markupsafe", "filelock", "fsspec"}
TOOLS = [
    "bash",
    "cat",
    "chmod",
    "cp",
    "dirname",
    "find",
    "mkdir",
    "mktemp",
    "mv",
    "rm",
    "sed",
    "sort",
    "tar",
    "tee",
    "timeout",
]
TOOLS += ["wc"]


def test_on_a_node_with_torch_and_numpy_alone_only_notes_are_lost(tmp_path: Path) -> None:
    """No git, compiler, nvidia-smi, pytest, peft, msgspec or plotly, no home, and what was handed over is read-only."""
    tools, wheels, given = (tmp_path / name for name in ("tools", "wheels", "given"))
    for folder in (tools, wheels, given):
        folder.mkdir()
    for name in TOOLS:
        (tools / name).symlink_to(str(shutil.which(name)))
    wheel(wheels, "fvcore", __init__="")
    wheel(wheels, "numpy", __init__="raise ImportError('a wheel has taken the place of what is installed')")
    (given / "rates.json").write_text(json.dumps({**BUILT_IN["cpu"].to_json(), "source": "measured"}))
    (given / "rates.json").chmod(0o444)
    out = tmp_path / "out"
    variables = {"PATH": str(tools), "HOME": "/proc/none", "DRY": "1", "OUT": str(out), "FROM": str(given)}
    variables |= {"PYTHON": str(bare_python(tmp_path / "venv", "torch", "numpy")), "WHEELS": str(wheels)}
    script = checkout(tmp_path / "node")
    for part in ("1", "3"):
        done = subprocess.run(
            ["bash", str(script), part], env=variables, cwd=tmp_path, capture_output=True, text=True, timeout=800
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "set CDVFT_BENCH_REVISION" in done.stderr
    said = (out / "log.txt").read_text()
    for note in (
        "pytest is missing: no tests",
        "peft or transformers is missing: no models",
        "msgspec is not installed",
        "fvcore==9.9",
        "Triton: the package triton is not installed",
        "Triton keeps what it compiles in /tmp",
        "2 cases run (0 failed), 0 done before, 0 left",
        "0 cases run (0 failed), 2 done before, 0 left",
    ):
        assert note in said, said
    assert "no calibrated rates" not in said
    assert (out / "rates.json").stat().st_mode & stat.S_IWUSR
    assert sorted(path.name for path in out.iterdir()) == ["log.txt", "rates.json", "rows.jsonl"]
    held = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    assert [row["record"]["status"] for row in held if "record" in row] == ["ok", "ok"]


def test_what_no_part_can_do_without_is_said_in_seconds(tmp_path: Path) -> None:
    def stopped(**variables: str) -> str:
        done = run("1", OUT=str(tmp_path / "out"), **variables)
        assert done.returncode == 2, done.stdout + done.stderr
        assert list((tmp_path / "out").iterdir()) == []
        return done.stderr.strip().splitlines()[-1]

    assert "has no torch or no numpy" in stopped(DRY="1", PYTHON=str(bare_python(tmp_path / "venv")))
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.version_info = (3, 10, 4)\n")
    assert "is too old" in stopped(DRY="1", PYTHONPATH=str(tmp_path))
    if not torch.cuda.is_available():
        assert stopped() == "torch finds no CUDA device here (DRY=1 rehearses on the CPU)."
    (tmp_path / "file").touch()
    done = run("1", OUT=str(tmp_path / "file"), DRY="1")
    assert (done.returncode, done.stderr.splitlines()[-1][:4]) == (2, "OUT=")


def test_a_step_that_fails_or_hangs_ends_alone_and_cases_that_are_left_say_so(tmp_path: Path) -> None:
    """An interpreter whose tests fail, whose calibration gives nonsense and whose slices are never done."""
    fake = tmp_path / "python"
    fake.write_text(
        f'#!/bin/bash\ncase "$*" in *calibrate*) echo "{{}}" > "${{@: -1}}" ;; *"-m pytest"*) exit 1 ;; '
        f'*"cdvft_bench.timing --grid"*) exit 3 ;; *) exec {sys.executable} "$@" ;; esac\n'
    )
    fake.chmod(0o755)
    out = tmp_path / "out"
    done = run("1", OUT=str(out), DRY="1", PYTHON=str(fake))
    assert done.returncode == 3  # go on: what failed is in the log
    said = (out / "log.txt").read_text()
    for line in ("correctness on the device ended with 1", "no calibrated rates", "the cases that decide ended with 3"):
        assert line in said


HANGING = """
import ctypes, sys
from cdvft_bench.timing import slice as slices
from cdvft_bench.timing.__main__ import main

real = slices.time_case
def time_case(case, *rest):
    if dict(case.hyperparameters).get("path") == "auto":
        ctypes.PyDLL(None).sleep(600)
    return real(case, *rest)
slices.time_case = time_case
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_case_that_hangs_for_ever_costs_itself_alone(tmp_path: Path) -> None:
    """In a driver that takes no signal: its process is ended, and a new one goes past it in the same part."""
    fake, hanging, out = tmp_path / "python", tmp_path / "hanging.py", tmp_path / "out"
    hanging.write_text(HANGING)
    fake.write_text(
        f'#!/bin/bash\ncase "$*" in *calibrate*|*"-m pytest"*) exit 0 ;; *"-m cdvft_bench.timing --grid"*) shift 2; '
        f'exec {sys.executable} {hanging} "$@" ;; *) exec {sys.executable} "$@" ;; esac\n'
    )
    fake.chmod(0o755)
    done = run("1", OUT=str(out), DRY="1", PYTHON=str(fake), HANG="20")
    assert done.returncode == 1, done.stdout + done.stderr  # a case failed, none is left
    held = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    found = {row["record"]["label"]: row["record"]["error"] for row in held if "record" in row}
    assert found == {"cdvft m=2 path=auto": f"NoAnswerError: {DIED}", "cdvft m=2 path=merged_dense": None}
    assert "in time_case" in (out / "log.txt").read_text()
    assert sorted(path.name for path in out.iterdir()) == ["log.txt", "rows.jsonl"]


@pytest.mark.slow
def test_a_part_that_is_killed_leaves_whole_files_and_the_next_one_goes_on(tmp_path: Path) -> None:
    rows, end = tmp_path / "rows.jsonl", time.monotonic() + 300
    given = {**os.environ, "PYTHON": sys.executable, "OUT": str(tmp_path), "DRY": "1"}
    with subprocess.Popen(["bash", str(SCRIPT), "2"], env=given, start_new_session=True, stdout=-3, stderr=-3) as part:
        while not rows.exists() or b'"record"' not in rows.read_bytes():
            assert time.monotonic() < end
            time.sleep(0.01)
        os.killpg(part.pid, signal.SIGKILL)
    done = run("2", OUT=str(tmp_path), DRY="1")
    assert done.returncode in (0, 1), done.stdout + done.stderr  # what was in flight has failed
    found = [json.loads(line) for line in rows.read_text().splitlines()]
    held = {row["record"]["label"]: row["record"]["error"] for row in found if "record" in row}
    assert list(held) == ["cdvft m=2 path=auto", "cdvft m=2 path=merged_dense"]
    assert held["cdvft m=2 path=auto"] is None
    assert held["cdvft m=2 path=merged_dense"] in (None, f"NoAnswerError: {DIED}")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["log.txt", "rows.jsonl"]


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
    assert names == ["log.txt", "models.jsonl", "rates.json", "rows.jsonl"]
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
