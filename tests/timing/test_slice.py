"""Slices on a bare node: nothing but torch and numpy is imported, rows come one by one, and work goes on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cdvft_bench.core.case import Case, case_from
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.flight import DIED
from cdvft_bench.core.io.log import Log, encode_line, read_log
from cdvft_bench.core.timed import Timed
from cdvft_bench.sweep import evaluate as sources
from cdvft_bench.sweep.grid import make_case
from cdvft_bench.timing import slice as slices
from cdvft_bench.timing.__main__ import main, seconds
from cdvft_bench.timing.bare import PASSES, build, expand, parse_method
from cdvft_bench.timing.graphs import Replayer
from cdvft_bench.timing.slice import Settings, run_slice
from cdvft_bench.timing.trace import read_trace, trace_call

ROOT = Path(__file__).parents[2]
QUICK = Settings(case_s=0.01, trace=False, comparisons=0)
METHODS = [
    "frozen",
    "lora:rank=4",
    "cdvft:m=1+3:block_size=d+d/4",
    "cdvft:path=handwritten+merged",
    "block_circulant",
    "block_circulant:path=fused",
]


def cases(*methods: str, **options: Any) -> list[Case]:
    entries = list(expand(["32x24"], [8], methods or METHODS, **options))
    assert all(isinstance(e, Case) for e in entries)
    return [e for e in entries if isinstance(e, Case)]


def rows(path: Path) -> list[dict[str, Any]]:
    return [entry for _, entry in read_log(path)]


def run(path: Path, given: list[Case], settings: Settings = QUICK) -> tuple[slices.SliceResult, list[str]]:
    said: list[str] = []
    return run_slice(given, path, settings, said.append), said


BARE = """
import runpy, sys
FORBIDDEN = {"peft", "transformers", "pandas", "fvcore", "msgspec", "rich", "click", "matplotlib", "jinja2"}
# Nothing is installed: neither these, nor the reference, which lies in the checkout.
sys.path[:] = [p for p in sys.path if not p.rstrip("/").endswith("/reference")]

class Bare:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, *rest):
        return None if name.split(".")[0] in FORBIDDEN else self.finder.find_spec(name, *rest)

sys.meta_path[:] = [Bare(finder) for finder in sys.meta_path]
for name in FORBIDDEN:
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    raise SystemExit(f"{name} could be imported")
sys.argv[0] = "cdvft_bench.timing"
try:
    runpy.run_module("cdvft_bench.timing", run_name="__main__")
finally:
    print("ROOMS", sorted({".".join(m.split(".")[:2]) for m in sys.modules if m.startswith("cdvft_bench")}))
"""


def test_a_bare_node_needs_torch_and_numpy_alone(tmp_path: Path) -> None:
    output = tmp_path / "rows.jsonl"
    command = [
        sys.executable,
        "-c",
        BARE,
        "--layers",
        "32x24,16x16",
        "--tokens",
        "8",
        "--methods",
        "frozen,lora,cdvft:m=2:block_size=d+d/2,block_circulant:path=handwritten+merged",
        "--output",
        str(output),
        "--case-budget",
        "0.02s",
        "--threads",
        "1",
        "--budget",
        "1m",
        "--selftest",
        "2",
        "--traces",
        str(tmp_path / "traces"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    rooms = set(re.findall(r"'cdvft_bench\.(\w+)'", done.stdout))
    assert {"core", "execution", "timing"} <= rooms <= {"core", "execution", "timing", "analytic", "tensors"}
    found = rows(output)
    assert [sorted(row) for row in found] == [["environment", "key"], *([["record"]] * 24)]
    assert len(list((tmp_path / "traces").iterdir())) == 24
    for row in found[1:]:
        record = row["record"]
        assert record["status"] == "ok"
        assert record["timed"]["timing"]["rounds"] >= 1
        path = dict(record["case"]["hyperparameters"]).get("path")
        assert (record["timed"]["trace"]["parts"]["base"]["launches"] > 0) == (path != "merged")
        assert ("under adapter" in str(record["timed"]["notes"])) == (path == "merged")
        assert record["timed"]["memory"]["peak_bytes"] > 0
        assert record["timed"]["selftest"]["comparisons"] == 2
        adapter = record["timed"]["trace"]["parts"]["adapter"]["launches"]
        assert (adapter > 0) == (record["case"]["method"] != "frozen")


def test_a_bare_node_runs_a_grid_and_says_what_peers_need(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid, output = tmp_path / "grid.toml", tmp_path / "rows.jsonl"
    methods = "".join(f"[[block.method]]\n{given}\n" for given in GIVEN)
    grid.write_text(f'[grid]\nname = "g"\n[[block]]\nkind = "layer"\nsubjects = ["32x32"]\nsequence = [8]\n{methods}')
    options = ["--grid", str(grid), "--output", str(output), "--case-budget", "0.02s", "--selftest", "0"]
    done = subprocess.run([sys.executable, "-c", BARE, *options], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1, done.stderr
    found = {row["record"]["label"]: row["record"] for row in rows(output)[1:]}
    assert [found[label]["status"] for label in ("cdvft m=2 path=auto", "lora rank=8", "c3a")] == ["ok", "ok", "failed"]
    assert found["c3a"]["error"] == "UserError: c3a on 32x32 needs the packages peft and transformers"
    assert main([*options, "--layers", "8x8"]) == 2
    assert "leave --layers and --tokens out" in capsys.readouterr().err


def test_a_peft_that_cannot_be_imported_costs_its_own_methods_alone(tmp_path: Path) -> None:
    grid, output = tmp_path / "grid.toml", tmp_path / "rows.jsonl"
    methods = "".join(f"[[block.method]]\n{given}\n" for given in GIVEN)
    grid.write_text(f'[grid]\nname = "g"\n[[block]]\nkind = "layer"\nsubjects = ["32x32"]\nsequence = [8]\n{methods}')
    (tmp_path / "peft").mkdir()
    (tmp_path / "peft" / "__init__.py").write_text("raise RuntimeError('made for another transformers')\n")
    command = [sys.executable, "-m", "cdvft_bench.timing", "--grid", str(grid), "--output", str(output)]
    path = os.pathsep.join(map(str, (tmp_path, ROOT, ROOT / "reference")))
    done = subprocess.run(
        [*command, "--case-budget", "0.02s", "--selftest", "0"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1, done.stderr
    assert "LoRA is plain torch: made for another transformers" in done.stderr
    found = {row["record"]["label"]: row["record"] for row in rows(output)[1:]}
    assert [found[label]["status"] for label in ("cdvft m=2 path=auto", "lora rank=8", "c3a")] == ["ok", "ok", "failed"]


GIVEN = ('name = "cdvft"\nm = 2\npath = "auto"', 'name = "lora"\nrank = 8', 'name = "c3a"')


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("pass_", PASSES)
def test_bare_cases_are_the_suites_own(dtype: str, pass_: str) -> None:
    """The same key, and the same launched operators as PEFT's LoRA and the suite's layers."""
    for case in cases(dtypes=[dtype], passes=[pass_]):
        own = make_case(
            case.method,
            dict(case.hyperparameters),
            "layer",
            case.subject,
            1,
            8,
            dtype,
            pass_,  # type: ignore[arg-type]
        )
        assert case.key == own.key
        subject = sources.build(own)
        expected = trace_call(subject.step if pass_ == "step" else subject.forward)
        found = trace_call(build(case).target(case.plain_label, case.pass_).call)
        assert found.by_operator == expected.by_operator, case.plain_label


def test_plain_lora_computes_what_it_says() -> None:
    case = cases("lora:rank=3:alpha=5")[0]
    module = build(case).module.double()
    x = torch.randn(4, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(5))
    base: Any = module.base
    change = 5 / 3 * (module.b @ module.a)  # type: ignore[operator]
    expected = x @ (base.weight + change).T + base.bias
    assert (module(x) - expected).norm() <= 1e-12 * expected.norm()
    assert (base(x) - expected).norm() > 1e-3 * expected.norm()


def test_work_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.jsonl"
    given = cases()
    first, _ = run(path, given[:3])
    assert first == slices.SliceResult(3, 0, 0, 0)
    before = path.read_bytes()
    # Killed while it wrote: the unfinished line is cut off, nothing else is touched.
    path.write_bytes(
        before + before[-50:-1].replace(b"\n", b"") if before[-50:-49] == b"{" else before + b'{"record":{"ca'
    )
    second, said = run(path, given)
    assert second == slices.SliceResult(len(given) - 3, 0, 3, 0)
    assert path.read_bytes().startswith(before)
    assert said[0].startswith(f"4/{len(given)} ")
    keys = [case_from(row["record"]["case"]).key for row in rows(path) if "record" in row]
    assert keys == [case.key for case in given]
    assert sum("environment" in row for row in rows(path)) == 1
    third, said = run(path, given)
    assert (third, said) == (slices.SliceResult(0, 0, len(given), 0), [])


def test_a_spent_budget_leaves_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    given = cases("frozen", "lora", "cdvft")
    progress, _ = run(path, given, replace(QUICK, budget_s=1e-6))
    assert progress == slices.SliceResult(1, 0, 0, len(given) - 1)  # at least one: it goes forward even so
    progress, _ = run(path, given, replace(QUICK, budget_s=60))
    assert progress.left == 0


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> dict[str, BaseException]:
    """Cases of a label that fail with an error."""
    errors: dict[str, BaseException] = {}
    real = slices.time_case

    def time_case(case: Case, settings: Settings, replayer: Replayer) -> Timed:
        if case.plain_label in errors:
            raise errors[case.plain_label]
        return real(case, settings, replayer)

    monkeypatch.setattr(slices, "time_case", time_case)
    return errors


def test_a_failed_case_costs_itself_alone(tmp_path: Path, failing: dict[str, BaseException]) -> None:
    path = tmp_path / "rows.jsonl"
    given = cases("frozen", "lora", "cdvft", passes=["forward"])
    failing["lora"] = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate\n 3 GiB")
    failing["cdvft"] = RuntimeError("line one\nline two")
    progress, said = run(path, given)
    assert (progress.run, progress.failed) == (3, 2)
    found = [row["record"] for row in rows(path)[1:]]
    assert [r["status"] for r in found] == ["ok", "failed", "failed"]
    assert found[1]["error"].startswith("out of memory: OutOfMemoryError: CUDA out of memory. Tried to allocate 3 GiB")
    assert found[2]["error"] == "RuntimeError: line one line two"
    assert "failed, RuntimeError: line one line two" in said[2]
    failing.clear()
    assert run(path, given)[0].run == 0
    assert run(path, given, replace(QUICK, retry_failed=True))[0] == slices.SliceResult(2, 0, 1, 0)
    assert run(path, given, replace(QUICK, retry_failed=True))[0].run == 0


def test_an_interrupt_leaves_a_sound_file(tmp_path: Path, failing: dict[str, BaseException]) -> None:
    path = tmp_path / "rows.jsonl"
    given = cases("frozen", "lora", passes=["forward"])
    failing["lora"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run(path, given)
    assert len(rows(path)) == 2
    failing.clear()
    assert run(path, given)[0] == slices.SliceResult(1, 0, 1, 0)


HANGING = """
import ctypes, sys
from pathlib import Path
from cdvft_bench.timing import slice as slices
from tests.timing.test_slice import cases, run, replace, QUICK

real = slices.time_case
def time_case(case, *rest):
    if dict(case.hyperparameters).get("m") == 3:
        ctypes.PyDLL(None).sleep(600)  # as a driver that never returns: Python is locked
    return real(case, *rest)
slices.time_case = time_case
path, given = Path(sys.argv[1]), cases("lora", "cdvft:m=3+1", passes=["forward"])
run(path, given[:1])
run(path, given, replace(QUICK, limit_s=float(sys.argv[2])))
"""


@pytest.mark.parametrize("limit", [1.0, 300.0])
def test_a_case_with_which_the_process_dies_is_skipped_at_the_next_start(tmp_path: Path, limit: float) -> None:
    """It ends by its limit, or something outside kills it, as the script's own timeout does."""
    path, begun = tmp_path / "rows.jsonl", tmp_path / "rows.jsonl.begun"
    given = cases("lora", "cdvft:m=3+1", passes=["forward"])
    command = [sys.executable, "-c", HANGING, str(path), str(limit)]
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as process:
        end = time.monotonic() + 120
        while limit > 100 and '"m",3' not in (begun.read_text() if begun.exists() else ""):
            assert time.monotonic() < end
            time.sleep(0.05)
        if limit > 100:
            process.kill()
        assert "time_case" in process.communicate(timeout=120)[1] or limit > 100  # the traceback says where it hung
    assert begun.exists()
    assert process.returncode == (1 if limit < 100 else -9)
    result, said = run(path, given)
    assert result == slices.SliceResult(2, 1, 1, 0)
    assert said[0].endswith(f"cdvft m=3: failed, NoAnswerError: {DIED}")
    found = {row["record"]["label"]: row["record"]["status"] for row in rows(path)[1:]}
    assert found == {"lora": "ok", "cdvft m=3": "failed", "cdvft m=1": "ok"}
    assert not begun.exists()
    assert run(path, given)[0] == slices.SliceResult(0, 0, 3, 0)
    assert run(path, given, replace(QUICK, retry_failed=True))[0] == slices.SliceResult(1, 0, 2, 0)


def test_what_was_in_flight_costs_no_row_that_is_there(tmp_path: Path, failing: dict[str, BaseException]) -> None:
    path, begun = tmp_path / "rows.jsonl", tmp_path / "rows.jsonl.begun"
    given = cases("frozen", "lora", passes=["forward"])
    run(path, given[:1])
    for left in (encode_line(asdict(given[0])), b'{"method": 3}', b"[", b""):  # written just before the kill; damaged
        begun.write_bytes(left)
        assert run(path, given[:1])[0] == slices.SliceResult(0, 0, 1, 0)
        assert not begun.exists()
    failing["lora"] = KeyboardInterrupt()  # an interrupt is no fault of the case's
    with pytest.raises(KeyboardInterrupt):
        run(path, given)
    assert not begun.exists()
    # Timed on a GPU, and killed while it was traced: the times stand.
    case = replace(given[1], device="cuda")
    timed = {"trace": None, "memory": None, "notes": ["before"]}
    lost = slices._lost(case, {"status": "ok", "timed": timed, "seconds": 2.0}, "key")
    assert lost is not None
    assert (lost["status"], lost["timed"]["notes"]) == ("ok", ["before", f"no trace: {DIED}"])
    assert not slices._untraced(case, lost)
    begun.write_bytes(encode_line(asdict(given[1])))  # of another slice's cases: it fails all the same
    assert run(path, given[:1])[0] == slices.SliceResult(0, 0, 1, 0)
    assert rows(path)[-1]["record"]["label"] == "lora"


def test_a_figure_that_is_none_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cdvft_bench.core.timed import Memory

    monkeypatch.setattr(slices, "time_case", lambda *_: Timed(None, None, Memory(1, "x"), (), None, nan_energy()))
    path = tmp_path / "rows.jsonl"
    progress, _ = run(path, cases("frozen", passes=["forward"]))
    assert progress.failed == 1
    assert "cannot be kept" in rows(path)[1]["record"]["error"]


def nan_energy() -> Any:
    from cdvft_bench.core.timed import Energy

    return Energy(float("nan"), "broken counter")


def test_another_environment_gets_a_line_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "rows.jsonl"
    given = cases("frozen", "lora", passes=["forward"])
    run(path, given[:1])
    real = slices.read_environment()
    monkeypatch.setattr(slices, "read_environment", lambda: replace(real, cpu="Another CPU"))
    _, said = run(path, given)
    assert "another environment" in said[0]
    found = rows(path)
    assert [sorted(r) for r in found] == [["environment", "key"], ["record"], ["environment", "key"], ["record"]]
    assert found[3]["record"]["environment"] == found[2]["key"] != found[0]["key"]


def test_foreign_files_are_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    for text in ("my notes", "my notes\nof today\n", '{"record": 3}\n', "[1]\n", '{"record":{"case":{}}}\n'):
        path.write_text(text)
        with pytest.raises(UserError, match="give another file"):
            run(path, cases("frozen"))
        assert path.read_text() == text
    with pytest.raises(UserError, match=r"must end in \.jsonl"):
        run(tmp_path / "rows.csv", cases("frozen"))
    with pytest.raises(UserError, match="cannot be written"):
        run(path / "rows.jsonl", cases("frozen"))


def test_two_slices_do_not_write_to_one_file(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    with Log(path), pytest.raises(UserError, match="another process is writing"):
        run(path, cases("frozen"))


def test_modes_trace_and_notes_reach_the_row(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    settings = replace(QUICK, trace=True, modes=("eager", "graph"), energy_s=0.01)
    run(path, cases("lora", passes=["forward"]), settings)
    timed = rows(path)[1]["record"]["timed"]
    assert timed["modes"]["notes"] == ["graph not run: CUDA graphs need a CUDA device"]
    assert [s["name"] for s in timed["modes"]["timing"]["samples"]] == ["eager"]
    assert timed["trace"]["parts"]["adapter"]["launches"] == 4
    assert timed["energy"]["joules"] is None
    assert "NVIDIA" in timed["energy"]["how"]
    assert any("plain torch" in note for note in timed["notes"])


def test_profiles_are_kept_and_the_clock_is_tested_first(tmp_path: Path) -> None:
    path, folder = tmp_path / "rows.jsonl", tmp_path / "traces"
    given = cases("frozen", "lora", passes=["forward"])
    run(path, given, replace(QUICK, trace=True, traces=folder, comparisons=3))
    records = [row["record"] for row in rows(path)[1:]]
    for record, case in zip(records, given, strict=True):
        assert record["timed"]["selftest"]["comparisons"] == 3
        kept = read_trace(folder / f"{case.plain_label}-{case.key}.json.gz")
        assert kept.launches == record["timed"]["trace"]["launches"]
    assert len(list(folder.iterdir())) == 2
    run(tmp_path / "more.jsonl", given[:1])
    assert rows(tmp_path / "more.jsonl")[1]["record"]["timed"]["selftest"] is None


@pytest.mark.slow
def test_a_compiled_step_runs_in_every_case(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    given = cases("cdvft:m=1+2", passes=["step"])
    run(path, given, replace(QUICK, modes=("eager", "compile")))
    for row in rows(path)[1:]:
        modes = row["record"]["timed"]["modes"]
        assert [s["name"] for s in modes["timing"]["samples"]] == ["eager", "compile"]


# --- what a user writes ----------------------------------------------------------------------


def test_methods_expand() -> None:
    assert parse_method("cdvft:m=1+2:block_size=d/2") == [
        ("cdvft", {"m": 1, "block_size": "d/2"}),
        ("cdvft", {"m": 2, "block_size": "d/2"}),
    ]
    entries = list(expand(["32x24", "32x24"], [8], ["cdvft:block_size=d/5+d/4"], passes=["step"]))
    assert [e if isinstance(e, str) else e.plain_label for e in entries] == [
        "cdvft on 32x24: block_size = 'd/5': 5 does not divide the subject's width 24",
        "cdvft block_size=6",
        "cdvft on 32x24: block_size = 'd/5': 5 does not divide the subject's width 24",
    ]


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"methods": ["nosuch"]}, "nosuch"),
        ({"methods": ["dora:rank=0"]}, "rank = 0"),
        ({"methods": ["dora:q=1"]}, "'q=1' is not NAME=VALUE, once each, of dora, which has alpha, rank"),
        ({"methods": ["lora:r=8"]}, "'r=8' is not NAME=VALUE, once each, of lora, which has alpha, rank"),
        ({"methods": ["frozen:m=2"]}, "no hyperparameter"),
        ({"methods": ["cdvft:m=2:m=3"]}, "once each"),
        ({"methods": ["cdvft:m=0"]}, "m = 0"),
        ({"methods": ["cdvft:path=automatic"]}, "'automatic' is not known; use one of auto, fft"),
        ({"methods": ["cdvft:m=3:path=merged_dense"]}, "merged_dense"),
        ({"methods": ["cdvft:path=dense"]}, "'dense' is not known; use one of auto, fft, handwritten"),
        ({"methods": ["lora:rank=0"]}, "rank = 0"),
        ({"methods": ["cdvft:block_size=half"]}, ""),
        ({"methods": []}, "at least one"),
        ({"layers": ["768"]}, "'768' is not d_in x d_out"),
        ({"layers": ["0x8"]}, "'0x8' is not d_in x d_out"),
        ({"tokens": [0]}, "tokens = 0"),
        ({"dtypes": ["int8"]}, "dtype 'int8'"),
        ({"passes": ["backward"]}, "pass 'backward'"),
    ],
)
def test_mistakes_are_named(given: dict[str, Any], part: str) -> None:
    values: dict[str, Any] = {"layers": ["8x8"], "tokens": [4], "methods": ["cdvft"], **given}
    layers, tokens, methods = (values.pop(k) for k in ("layers", "tokens", "methods"))
    if given.get("methods") == ["cdvft:block_size=half"]:
        assert [isinstance(e, str) for e in expand(layers, tokens, methods, passes=["step"])] == [True]
        return
    with pytest.raises(UserError, match=part):
        list(expand(layers, tokens, methods, **values))


def test_the_command_says_what_it_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.jsonl"
    command = [
        "--layers",
        "16x16",
        "--tokens",
        "4",
        "--methods",
        "frozen,cdvft",
        "--output",
        str(path),
        "--case-budget",
        "0.01",
        "--no-trace",
    ]
    assert main([*command, "--list"]) == 0
    assert not path.exists()
    assert len(capsys.readouterr().out.splitlines()) == 4
    assert main([*command, "--budget", "0.001s"]) == 3
    assert "1 cases run (0 failed), 0 done before, 3 left" in capsys.readouterr().err
    assert main(command) == 0
    assert main([*command, "--modes", "turbo"]) == 2
    assert "mode 'turbo'" in capsys.readouterr().err
    assert main([*command[:2], "--tokens", "4.5", "--output", str(path)]) == 2
    if not torch.cuda.is_available():
        assert main([*command, "--device", "cuda"]) == 2
        assert "torch sees no GPU" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        main([*command, "--budget", "soon"])


def test_times_have_units() -> None:
    assert [seconds(t) for t in ("540", "540s", "9m", "0.5h")] == [540, 540, 540, 1800]


def test_energy_of_no_seconds_is_none_of_it() -> None:
    from cdvft_bench.timing.__main__ import _parser

    least = ["--layers", "8x8", "--tokens", "4", "--methods", "frozen", "--output", "rows.jsonl"]
    assert _parser().parse_args([*least, "--energy", "0"]).energy == 0
    assert _parser().parse_args([*least, "--energy", "3s"]).energy == 3
    with pytest.raises(SystemExit):
        _parser().parse_args([*least, "--energy", "-1"])
