"""What is measured of a built case beside its times, and the profiles that are kept."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cdvft_bench.core.case import Case, CasePass
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.timed import Replays
from cdvft_bench.sweep import evaluate as sources
from cdvft_bench.sweep.grid import make_case
from cdvft_bench.timing import inputs, measure
from cdvft_bench.timing import trace as recording
from cdvft_bench.timing.bare import build
from cdvft_bench.timing.built import Target
from cdvft_bench.timing.measure import Plan, describe
from cdvft_bench.timing.trace import analyse_events, export_trace, read_trace

PASSES: tuple[CasePass, ...] = ("forward", "step")


def bare(method: str, pass_: CasePass, **values: int) -> Target:
    case = Case(method, tuple(sorted(values.items())), "layer", "32x24", 1, 8, pass_=pass_)
    return build(case).target(case.plain_label, pass_)


def test_memory_above_the_frozen_subject_is_what_the_method_keeps_and_the_peak() -> None:
    lora = sources.time_case(make_case("lora", {"rank": 4}, "layer", "32x24", sequence=8), budget_s=0.02).memory
    assert lora is not None
    parameters = 4 * (32 + 24)
    assert lora.kept_bytes == 4 * (3 * parameters) + 2 * 4  # with both moments, and two step counters
    frozen = sources.time_case(make_case("frozen", {}, "layer", "32x24", sequence=8), budget_s=0.02).memory
    assert frozen is not None
    assert frozen.kept_bytes == 0
    fft = sources.time_case(make_case("cdvft", {}, "layer", "32x32", sequence=8), budget_s=0.02).memory
    assert fft is not None
    assert fft.workspace_bytes is not None


@pytest.mark.parametrize("pass_", PASSES)
def test_each_call_on_a_gpu_takes_another_input(monkeypatch: pytest.MonkeyPatch, pass_: CasePass) -> None:
    """Played on a CPU that claims to have a cache; a graph's call keeps to one input, and old gradients are dropped."""
    monkeypatch.setattr(inputs, "l2_bytes", lambda device: 4096)
    seen: list[int] = []
    gradients: list[torch.Tensor] = []

    def look(module: Any, given: tuple[torch.Tensor, ...]) -> None:
        seen.append(given[0].data_ptr())
        gradients[:] = [x for x in [*gradients, given[0]] if x.grad is not None] or [given[0]]

    built = bare("lora", pass_, rank=2)
    built.module.register_forward_pre_hook(look)
    own = sources.target(make_case("lora", {"rank": 2}, "layer", "32x24", sequence=8, pass_=pass_), "lora")
    own.module.register_forward_pre_hook(look)
    for target in (built, own):
        seen.clear()
        gradients.clear()
        for _ in range(9):
            target.call()
        assert len(set(seen)) == 9
        assert len(gradients) <= 2
        seen.clear()
        target.fixed()
        target.fixed()
        assert len(set(seen)) == 1


def test_a_kept_trace_reads_back(tmp_path: Path) -> None:
    case = make_case("cdvft", {"m": 2}, "layer", "32x32", sequence=8)
    path = tmp_path / "t.json.gz"
    path.write_bytes(sources.keep_trace(case))
    summary = read_trace(path)
    timed = sources.time_case(case, budget_s=0.02)
    assert timed.trace is not None
    assert summary.launches == timed.trace.launches
    assert summary.by_operator == timed.trace.by_operator
    assert {name: part.launches for name, part in summary.parts.items()} == {
        name: part.launches for name, part in timed.trace.parts.items()
    }


def test_a_trace_larger_than_a_megabyte_is_slimmed_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(4, 4)

    def call() -> None:
        for _ in range(40):
            torch.fft.irfft(torch.fft.rfft(x)) @ x

    whole = tmp_path / "whole.json.gz"
    expected = export_trace(call, whole)
    document = json.loads(gzip.decompress(whole.read_bytes()))
    assert any(e.get("ph") == "M" for e in document["traceEvents"])
    monkeypatch.setattr(recording, "LARGEST", whole.stat().st_size - 1)
    slim = tmp_path / "slim.json.gz"
    recording.write_document(document, slim)
    assert slim.stat().st_size < whole.stat().st_size
    kept = json.loads(gzip.decompress(slim.read_bytes()))["traceEvents"]
    assert analyse_events(kept, document=document) == expected
    monkeypatch.setattr(recording, "LARGEST", 100)
    with pytest.raises(UserError, match="more than 100; trace a smaller call"):
        export_trace(call, tmp_path / "none.json.gz")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["slim.json.gz", "whole.json.gz"]


def test_what_is_timed_comes_before_the_profiler_and_a_trace_with_lost_kernels_is_made_once_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a GPU that is emulated: once attached, the profiler slows what is timed later."""
    order: list[str] = []
    lost = iter([3, 0])
    real = measure.trace_call

    def traced(call: Any, device: Any) -> Any:
        order.append("trace")
        return replace(real(call, "cpu"), lost=next(lost))

    def said(what: str, answer: Any) -> Any:
        return lambda *args, **options: order.append(what) or answer

    monkeypatch.setattr(measure, "trace_call", traced)
    for name in ("measure_energy", "time_modes", "peak_memory"):
        monkeypatch.setattr(measure, name, said(name, None))
    replays = Replays(None, 0, {}, ("a note",))
    plan = Plan(modes=("eager", "graph", "compile"))
    timed = describe(bare("lora", "step", rank=2), "cuda", plan, replays=said("replays", replays))
    assert order == ["measure_energy", "replays", "time_modes", "trace", "trace", "peak_memory"]
    assert timed.replays == replays
    assert timed.trace is not None
    assert timed.trace.lost == 0
    assert "3 launches had no kernel in the first trace; it was recorded once more" in timed.notes
