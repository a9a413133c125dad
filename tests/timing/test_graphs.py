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
from cdvft_bench.timing.bare import build
from cdvft_bench.timing.built import Target, beside
from cdvft_bench.timing.graphs import Replayer, time_replays
from tests.timing.fake_cuda import install


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch):
    # Two inputs of 64 KiB more than a cache of so many bytes takes.
    monkeypatch.setattr("cdvft_bench.timing.inputs.l2_bytes", lambda device: 2**16)
    return install(monkeypatch)


def targets(given: Case) -> list[Target]:
    """On this CPU, and beside as many as on a GPU."""
    there = beside(replace(given, device="cuda"), lambda case: build(replace(case, device="cpu")))
    return [build(given).target(given.plain_label, given.pass_), *there]


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
    assert [s.name for s in found.timing.samples] == [*names, "eager"]
    assert set(found.timing.ratios) == {*names[1:], "eager"}
    assert found.inputs == made[0].turns > 1
    assert len(cuda.graphs) == len(names)
    assert all(graph.replays > 1 for graph in cuda.graphs)
    # AdamW has moved what is trained by 1e-6 a call in between.
    assert all(d is not None and d < (0.1 if dtype == "bfloat16" else 1e-3) for d in found.differences.values())
    assert found.timing.clocks_mhz == (1980.0,) * found.timing.rounds
    assert found.timing.watts == (400.0,) * found.timing.rounds
    assert json.loads(json.dumps(asdict(found)))["inputs"] == found.inputs


def test_a_replay_is_of_so_many_calls(cuda) -> None:
    made = targets(case(pass_="forward"))
    found = time_replays(made, budget_s=0.1)
    assert found.differences == dict.fromkeys([t.name for t in made])  # a forward pass leaves no gradient
    assert found.timing is not None
    for sample in found.timing.samples:
        assert sample.median > 0
        assert found.timing.calls[sample.name] >= 1
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


ECHO = """
import sys, os
from cdvft_bench.core.helper import serve
from cdvft_bench.core.timed import Replays
from dataclasses import asdict

def answer(asked):
    print("a library says something")
    tokens = asked["case"]["sequence"]
    if tokens == 13:
        print("CUDA error: misaligned", file=sys.stderr)
        sys.stderr.flush()
        os._exit(3)
    if tokens == 14:
        import time
        time.sleep(60)
    if tokens == 16:
        made = Replays(None, os.getpid(), {}, ("cdvft m=2 path=fused cannot be captured: after aten.x: Error",))
        return {"replays": asdict(made), "broken": True}
    made = Replays(None, os.getpid(), {"frozen": None}, ("a note",))
    return {"replays": asdict(made), "broken": tokens == 15}

serve(answer)
"""


def test_one_process_times_case_after_case_and_another_after_what_broke_it(monkeypatch) -> None:
    replayer = Replayer("cdvft_bench.timing.bare:build", [sys.executable, "-c", ECHO])

    def process(tokens: int = 8) -> int:
        found = replayer(case(sequence=tokens), 0.1, 0.05)
        assert found == Replays(None, found.inputs, {"frozen": None}, ("a note",))
        return found.inputs

    first = process()
    assert process() == first
    assert process(15) == first  # broken: not used again
    second = process()
    assert second != first
    assert replayer(case(sequence=13), 0.1, 0.05) == Replays(None, 0, {}, ("no replays: CUDA error: misaligned",))
    assert process() not in (first, second)
    monkeypatch.setattr("cdvft_bench.timing.graphs.STARTING_S", 0.2)
    (note,) = replayer(case(sequence=14), 0.1, 0.05).notes
    assert note == "no replays: it took longer than 0.4 s"
    monkeypatch.undo()
    # What cannot be captured is not tried again, on other sizes neither; another path of the method is.
    third = process()
    assert replayer(case(sequence=16), 0.1, 0.05).inputs == third
    (note,) = replayer(case(sequence=8, subject="32x32"), 0.1, 0.05).notes
    assert note == "no replays: as before, cdvft m=2 path=fused cannot be captured: after aten.x: Error"
    other = replayer(case(hyperparameters=(("m", 2), ("path", "merged"))), 0.1, 0.05)
    assert other.notes == ("a note",)
    assert other.inputs != third
    replayer.close()


def test_the_real_process_says_why_there_are_no_replays() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU, which has replays")
    replayer = Replayer("cdvft_bench.timing.bare:build")
    try:
        for given in (case(device="cuda"), case(device="cuda", method="nosuch")):
            (note,) = replayer(given, 0.1, 0.05).notes
            assert note.startswith("no replays: ")
    finally:
        replayer.close()
