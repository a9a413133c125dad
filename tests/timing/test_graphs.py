"""Replays of the case, the frozen layer and LoRA side by side, on a CUDA device that is emulated."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace

import pytest
import torch
from torch import nn

from cdvft_bench.core.case import Case
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.timed import Replays
from cdvft_bench.timing.graphs import time_replays
from cdvft_bench.timing.replaying import replays_apart, targets
from tests.timing.fake_cuda import install


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch):
    # Two inputs of 64 KiB more than a cache of so many bytes takes.
    monkeypatch.setattr("cdvft_bench.timing.inputs.l2_bytes", lambda device: 2**16)
    return install(monkeypatch)


def case(**changes: object) -> Case:
    made = Case("cdvft", (("m", 2), ("path", "fused")), "layer", "128x128", 1, 128, "float32", "step", "cpu", 3)
    return replace(made, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("path", ["fft", "fused", "merged", "merged_dense"])
def test_case_frozen_and_lora_are_captured_over_every_input_and_give_eager_gradients(cuda, dtype, path) -> None:
    made = targets(case(dtype=dtype, hyperparameters=(("m", 2), ("path", path))))
    names = [t.name for t in made]
    assert len(names) == (4 if dtype == "bfloat16" else 3)  # on a 16-bit base LoRA in its own dtype, too
    found = time_replays(made, budget_s=0.2)
    assert found.notes == ()
    assert found.timing is not None
    assert [s.name for s in found.timing.samples] == names
    assert set(found.timing.ratios) == set(names[1:])
    assert found.inputs == made[0].turns > 1
    assert len(cuda.graphs) == len(names)
    assert all(graph.replays > 1 for graph in cuda.graphs)
    # AdamW has moved what is trained by 1e-6 a call in between.
    assert all(d is not None and d < (0.1 if dtype == "bfloat16" else 1e-3) for d in found.differences.values())
    assert found.clocks_mhz == (1980.0, 1980.0)
    assert json.loads(json.dumps(asdict(found)))["inputs"] == found.inputs


def test_a_replay_is_of_so_many_calls(cuda) -> None:
    made = targets(case(pass_="forward"))
    found = time_replays(made, budget_s=0.1)
    assert found.differences == dict.fromkeys([t.name for t in made])  # a forward pass leaves no gradient
    assert found.timing is not None
    calls = {name: found.timing.calls[name] for name in found.differences}
    for sample in found.timing.samples:
        assert sample.median > 0
        assert calls[sample.name] >= 1
    forwards = len([1 for func, *_ in cuda.graphs[0].work if "addmm" in str(func)])
    assert forwards == made[1].turns  # the frozen layer: one product an input


class Reads(nn.Linear):
    """Copies a number back to the host in every forward, as a layer does that keeps its indices there."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * float(self.weight.detach().sum().item())


def test_what_a_graph_cannot_hold_is_named_and_the_baselines_come_first(cuda) -> None:
    from cdvft_bench.timing.built import built_layer

    made = targets(case())
    bad = built_layer(Reads(128, 128).requires_grad_(False), torch.randn(1, 128, 128)).target("reads", "step")
    found = time_replays([bad, *made[1:]], budget_s=0.1)
    assert found.timing is None
    (note, broken) = found.notes
    assert note.startswith("reads cannot be captured: after aten.")
    assert "not permitted when stream is capturing" in note
    assert "generator is broken since the capture of reads" in broken
    assert set(found.differences) == {t.name for t in made[1:]}


def test_one_target_and_unequal_inputs_are_refused(cuda) -> None:
    made = targets(case())
    with pytest.raises(UserError, match="no ratio"):
        time_replays(made[:1])
    with pytest.raises(UserError, match="different numbers"):
        time_replays([made[0], replace(made[1], turns=1)])


def test_replays_run_in_another_process_whose_end_is_a_note(tmp_path) -> None:
    dies = replays_apart(case(), 0.1, 0.05, [sys.executable, "-c", "raise SystemExit('CUDA error: misaligned')"])
    assert dies == Replays(None, 0, {}, ("no replays: CUDA error: misaligned",))
    told = Replays(None, 3, {"frozen": None}, ("a note",), (1.0,))
    program = f"import sys; assert 'cdvft' in sys.stdin.read(); print({json.dumps(asdict(told))!r})"
    assert replays_apart(case(), 0.1, 0.05, [sys.executable, "-c", program]) == told
    if not torch.cuda.is_available():  # the real process, on a machine without a GPU
        (note,) = replays_apart(case(device="cuda"), 0.1, 0.05).notes
        assert "cuda" in note.lower()
