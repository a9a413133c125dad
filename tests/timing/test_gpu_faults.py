"""What goes wrong on a GPU costs one case: on a CUDA device that is emulated, since no real one is broken at will."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from cdvft_bench.core.case import Case
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.timed import Replays
from cdvft_bench.timing import built, calibrate, clock, graphs, measure, modes
from cdvft_bench.timing import slice as slices
from cdvft_bench.timing.__main__ import BROKEN, main
from cdvft_bench.timing.machine.environment import read_environment
from cdvft_bench.timing.trace import read_trace, write_document
from tests.timing.fake_cuda import emulated

ILLEGAL = "CUDA error: an illegal memory access was encountered"
METHODS = "lora,cdvft:m=1+2"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """An emulated GPU whose context ``broken`` breaks, until a new process has a new one."""

    class Here:
        def __init__(self, build: str) -> None: ...
        def __call__(self, case: Case, *_: float) -> Replays:
            return Replays(None, 0, {}, ("not here",))

        def close(self) -> None: ...

    monkeypatch.setattr(slices, "Replayer", Here)
    with emulated(monkeypatch) as state:
        state.sticky = False
        state.emptied = 0

        def raising(real: Any) -> Any:
            def call(*args: Any, **named: Any) -> Any:
                if state.sticky:
                    raise RuntimeError(ILLEGAL)
                return real(*args, **named)

            return call

        def emptied() -> None:
            state.emptied += 1

        monkeypatch.setattr(torch.cuda, "synchronize", raising(torch.cuda.synchronize))
        monkeypatch.setattr(torch.cuda, "empty_cache", raising(emptied))
        yield state


def run(path: Path, *options: str) -> int:
    given = ["--layers", "32x24", "--tokens", "8", "--passes", "forward", "--methods", METHODS, "--device", "cuda"]
    given += ["--output", str(path), "--case-budget", "0.01", "--selftest", "0", "--energy", "0", "--no-trace"]
    return main([*given, *options])


def rows(path: Path) -> list[dict[str, Any]]:
    entries = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [entry["record"] for entry in entries if "record" in entry]


@pytest.mark.parametrize("when", ["while it ran", "after its times"])
def test_a_case_that_breaks_cuda_costs_itself_alone(
    tmp_path: Path, gpu: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    path, real = tmp_path / "rows.jsonl", slices.time_case

    def time_case(case: Case, *rest: Any) -> Any:
        found = real(case, *rest)
        if case.plain_label == "cdvft m=1":
            gpu.sticky = True
            if when == "while it ran":
                raise RuntimeError(ILLEGAL)
        return found

    monkeypatch.setattr(slices, "time_case", time_case)
    assert run(path) == BROKEN
    assert [row["label"] for row in rows(path)] == ["lora", "cdvft m=1"]
    assert rows(path)[1]["error"] == (f"RuntimeError: {ILLEGAL}" if when == "while it ran" else None)
    # Before the first case of a process it is no case's fault, and blamed on none.
    assert run(path) == 2
    assert len(rows(path)) == 2
    gpu.sticky = False
    assert run(path) == 0
    assert [row["label"] for row in rows(path)] == ["lora", "cdvft m=1", "cdvft m=2"]
    assert rows(path)[2]["status"] == "ok"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["rows.jsonl"]


def test_a_case_that_runs_out_of_memory_gives_it_back(
    tmp_path: Path, gpu: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, real = tmp_path / "rows.jsonl", slices.time_case

    def time_case(case: Case, *rest: Any) -> Any:
        if case.plain_label == "cdvft m=1":
            gpu.emptied = 0
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB")
        if case.plain_label == "cdvft m=2":
            assert gpu.emptied == 1
        return real(case, *rest)

    monkeypatch.setattr(slices, "time_case", time_case)
    assert run(path) == 1
    assert [row["status"] for row in rows(path)] == ["ok", "failed", "ok"]
    assert rows(path)[1]["error"].startswith("out of memory: OutOfMemoryError")


def test_the_process_of_replays_answers_with_a_broken_context_too(gpu: SimpleNamespace, monkeypatch: Any) -> None:
    def broken(*_: Any) -> Replays:
        gpu.sticky = True
        raise RuntimeError(f"{ILLEGAL}\nCompile with TORCH_USE_CUDA_DSA to enable device-side assertions.")

    monkeypatch.setattr(graphs, "replays", broken)
    asked = {"case": asdict(one()), "build": "cdvft_bench.timing.bare:build", "budget_s": 1, "precision": 1}
    answer = graphs.answer(asked)
    assert answer["broken"]
    assert ILLEGAL in answer["replays"]["notes"][0]


def one(**changes: Any) -> Case:
    return replace(Case("cdvft", (("m", 2),), "layer", "32x32", 1, 16, "bfloat16", "step", "cuda"), **changes)


# --- what a case takes ----------------------------------------------------------------------------


def test_what_one_case_makes(gpu: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each of the four that are timed: two turns round the inputs, one capture, and then samples alone."""
    case, done = one(), Counter[str]()
    real = built.built_layer

    def built_layer(*args: Any) -> Any:
        made = real(*args)
        for name in ("forward", "step"):
            call = getattr(made, name)
            made = replace(made, **{name: lambda call=call: (done.update(["calls"]), call())[1]})
        return made

    monkeypatch.setattr("cdvft_bench.timing.bare.built_layer", built_layer)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: done.update(["synchronised"]))
    monkeypatch.setattr(subprocess, "Popen", lambda *a, **k: pytest.fail("a process"))
    samples: list[int] = []

    def timed(contenders: Any, **options: Any) -> Any:
        samples.append(len(contenders))
        assert [one.queued for one in contenders] == [True] * 4 + [False]
        return SimpleNamespace(samples=(), ratios={})

    monkeypatch.setattr(graphs, "time_interleaved", timed)
    monkeypatch.setattr(graphs, "_a_call", lambda timing, turns: None)
    from cdvft_bench.timing.bare import build

    found = graphs.replays(case, build, 1.0, 1.0)
    assert found.notes == ()
    assert found.inputs == 4
    assert samples == [5]  # with the case's eager calls
    assert len(gpu.graphs) == 4
    assert [graph.replays for graph in gpu.graphs] == [1] * 4  # whose gradients are compared
    assert done["calls"] == 4 * 3 * found.inputs
    assert done["synchronised"] == 0  # but those of torch's own captures


def test_what_was_timed_beside_a_case_is_freed_before_its_replays(gpu: SimpleNamespace) -> None:
    from cdvft_bench.timing.bare import build
    from cdvft_bench.timing.built import beside

    def replays() -> Replays:
        assert gpu.emptied == 1
        return Replays(None, 0, {}, ())

    plan = measure.Plan(0.01, 1.0, ("eager", "graph"), 0.0, False)
    found = measure.measure(
        build(one()).target("case", "step"), lambda: beside(one(), build), "cuda", plan, (), replays
    )
    assert found.notes == ()
    assert gpu.emptied == 1


def test_the_clock_is_tested_once_in_an_environment(
    tmp_path: Path, gpu: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, made = tmp_path / "rows.jsonl", Counter[int]()
    real = slices.selftest

    def selftest(**options: Any) -> Any:
        made[options["comparisons"]] += 1
        return real(**options)

    monkeypatch.setattr(slices, "selftest", selftest)
    assert run(path, "--selftest", "2", "--methods", "lora") == 0
    assert run(path, "--selftest", "2", "--methods", "lora,cdvft:m=1") == 0
    assert run(path, "--selftest", "1", "--methods", "lora,cdvft:m=1+2") == 0
    assert made == {2: 1}
    found = [row["timed"]["selftest"] for row in rows(path)]
    assert found == [found[0]] * 3
    assert run(path, "--selftest", "3", "--methods", "cdvft:m=3") == 0  # more are asked for
    now = read_environment()
    monkeypatch.setattr(slices, "read_environment", lambda: replace(now, revision="another"))
    assert run(path, "--selftest", "2", "--methods", "frozen") == 0
    assert made == {2: 2, 3: 1}


def test_rates_are_measured_once_in_an_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, made = tmp_path / "rates.json", Counter[str]()
    here = read_environment()

    def measured(device: str, threads: int | None) -> dict[str, Any]:
        made[device] += 1
        return {"environment": asdict(here)}

    monkeypatch.setattr(calibrate, "calibrate", measured)
    for _ in range(2):
        assert calibrate.main(["--keep", "--output", str(path)]) == 0
    assert made["cpu"] == 1
    path.write_text(json.dumps({"environment": asdict(replace(here, date="1970-01-01"))}))
    assert calibrate.main(["--keep", "--output", str(path)]) == 0
    assert made["cpu"] == 1
    for other in (asdict(replace(here, gpus=("another",))), {**asdict(here), "revision": "another"}, {}, None):
        path.write_text(json.dumps({"environment": other}))
        assert calibrate.main(["--keep", "--output", str(path)]) == 0
    path.write_text("{")
    assert calibrate.main(["--keep", "--output", str(path)]) == 0
    assert calibrate.main(["--output", str(path)]) == 0
    assert made["cpu"] == 7


@pytest.mark.parametrize("queued", [True, False])
def test_a_replay_is_queued_behind_other_work_and_an_eager_call_finds_an_idle_device(
    gpu: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, queued: bool
) -> None:
    log: list[str] = []

    class Event:
        def __init__(self, enable_timing: bool) -> None: ...
        def record(self) -> None:
            log.append("event")

        def synchronize(self) -> None: ...
        def elapsed_time(self, other: Any) -> float:
            return 2.0

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda *_: log.append("idle"))
    monkeypatch.setattr(clock, "flush_buffer", lambda _: SimpleNamespace(zero_=lambda: log.append("flush")))
    taken = clock.CudaClock()(clock.Contender("replay", lambda: log.append("call"), queued=queued), 3)
    assert taken == pytest.approx(2e-3)
    before = ["flush", "idle", *["flush"] * clock.QUEUED * queued]
    assert log == [*before, "event", "call", "call", "call", "event"]


# --- captures -------------------------------------------------------------------------------------


def test_a_capture_that_cannot_be_ended_gives_the_stream_back_and_the_first_error(
    gpu: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As torch's own: it raises once more at its end, and does not leave its stream then."""
    current: list[Any] = ["default"]

    class Restores:
        def __init__(self, given: Any) -> None:
            self.before, self.given = current[0], given

        def __enter__(self) -> None:
            current[0] = self.given

        def __exit__(self, *_: Any) -> None:
            current[0] = self.before

    class Graph:
        def __init__(self, graph: Any) -> None: ...
        def __enter__(self) -> None:
            current[0] = "capture"

        def __exit__(self, *_: Any) -> None:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")

    monkeypatch.setattr(torch.cuda, "stream", Restores)
    monkeypatch.setattr(torch.cuda, "graph", Graph)

    def copies() -> None:
        if current[0] == "capture":
            raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(
        torch.cuda, "current_stream", lambda: SimpleNamespace(wait_stream=lambda s: None, at=current[0])
    )
    with pytest.raises(UserError, match="not permitted when stream is capturing"):
        modes.capture(copies)
    assert current == ["default"]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3 GiB"), "failed in its capture"),
        (RuntimeError(ILLEGAL), "failed in its capture"),
        (RuntimeError("operation not permitted when stream is capturing"), graphs.UNCAPTURED),
    ],
)
def test_only_what_a_graph_cannot_hold_is_refused_on_other_sizes(
    gpu: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, error: Exception, said: str
) -> None:
    capturing, real = [False], torch.cuda.graph

    @contextmanager
    def graph(made: Any) -> Iterator[None]:
        capturing[0] = True
        try:
            with real(made):
                yield
        finally:
            capturing[0] = False

    class Fails(torch.nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if capturing[0]:
                raise error
            return super().forward(x)

    monkeypatch.setattr(torch.cuda, "graph", graph)
    case = one()
    bad, good = (
        built.built_layer(layer(32, 32).requires_grad_(False), torch.randn(1, 16, 32))
        for layer in (Fails, torch.nn.Linear)
    )
    targets = [bad.target(case.plain_label, "step"), good.target("frozen", "step")]
    found = graphs.time_replays(targets, budget_s=0.01)
    assert found.timing is None
    assert found.notes[0].startswith(f"{case.plain_label} {said}: after ")
    assert str(error) in found.notes[0]
    answer = json.loads(json.dumps({"replays": asdict(found), "broken": True}))
    monkeypatch.setattr("cdvft_bench.core.helper.Helper.ask", lambda *_: answer)
    replayer = graphs.Replayer("module:build")
    replayer(case, 1.0, 1.0)
    again = replayer(replace(case, sequence=8), 1.0, 1.0).notes[0]
    assert again.startswith("no replays: as before") == (said == graphs.UNCAPTURED)


# --- files ----------------------------------------------------------------------------------------


def test_traces_go_into_an_archive_one_by_one(tmp_path: Path) -> None:
    archive = tmp_path / "traces.tar"
    event = {"ph": "X", "cat": "cpu_op", "pid": 1, "tid": 1, "ts": 0, "dur": 5, "args": {}}
    for name in ("one", "two", "one"):
        write_document({"traceEvents": [{**event, "name": f"aten::{name}"}]}, archive / f"{name}.json.gz")
    with tarfile.open(archive) as found:
        assert found.getnames() == ["two.json.gz", "one.json.gz"]
        for name in found.getnames():
            held = found.extractfile(name)
            assert held is not None
            (tmp_path / name).write_bytes(held.read())
    assert read_trace(tmp_path / "one.json.gz").device == "cpu"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["one.json.gz", "traces.tar", "two.json.gz"]
    archive.write_bytes(b"no archive")
    with pytest.raises(UserError, match="is no archive to add a trace to"):
        write_document({"traceEvents": []}, archive / "one.json.gz")
    assert archive.read_bytes() == b"no archive"


@pytest.mark.parametrize(("code", "starts"), [(4, 3), (134, 3), (1, 1), (3, 1)])
def test_the_script_goes_on_in_the_same_part_where_a_process_came_to_a_bad_end(
    tmp_path: Path, code: int, starts: int
) -> None:
    """While rows come: a process that ends badly without one would do so for ever."""
    root = Path(__file__).parents[2]
    fake, out = tmp_path / "python", tmp_path / "out"
    fake.write_text(
        f'#!/bin/bash\ncase "$*" in *calibrate*|*"-m pytest"*|*--table*) exit 0 ;; '
        f'*"cdvft_bench.timing --grid"*) echo start >> {tmp_path}/starts; '
        f'[ "$(wc -l < {tmp_path}/starts)" = 3 ] || echo "{{}}" >> {out}/rows.jsonl; exit {code} ;; '
        f'*"import numpy, torch"*|*json*) exit 0 ;; *) exec {sys.executable} "$@" ;; esac\n'
    )
    fake.chmod(0o755)
    environment = {**os.environ, "PYTHON": str(fake), "OUT": str(out), "DRY": "1"}
    (out / "x").parent.mkdir()
    for left in (".rows.jsonl.begun.x7.part", "triton.tar.gz.part"):
        (out / left).touch()
    command = ["bash", str(root / "profiles" / "record_gpu.sh"), "1"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == (3 if code == 3 else 1), done.stdout + done.stderr
    assert len((tmp_path / "starts").read_text().splitlines()) == starts
    assert sorted(p.name for p in out.iterdir()) == ["log.txt", "rows.jsonl"]


def test_the_process_of_replays_finds_the_reference_of_a_bare_checkout() -> None:
    code = """if 1:
        import os
        from cdvft_bench.timing import __main__ as bare
        bare.importlib.util.find_spec = lambda name: None  # nothing is installed
        bare._find_reference()
        print(os.environ["PYTHONPATH"])
    """
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", code], cwd=root, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == f"{root / 'reference'}{os.pathsep}{root}", done.stderr


def test_a_table_of_rows_does_not_wait_for_torch(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").touch()
    code = """if 1:
        import sys
        from cdvft_bench.timing.__main__ import main
        assert main(["--table", sys.argv[1]]) == 0
        assert "torch" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "rows.jsonl")], check=True)
