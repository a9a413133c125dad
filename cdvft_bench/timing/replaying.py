"""Replays of a bare node's case in a process of their own: a capture that fails takes nothing else with it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from cdvft_bench.core.case import Case, baselines, case_from
from cdvft_bench.core.io.decode import decode
from cdvft_bench.core.timed import Replays
from cdvft_bench.timing.bare import build
from cdvft_bench.timing.built import Target, built_layer
from cdvft_bench.timing.graphs import time_replays

STARTING_S = 120.0
"""Seconds that a process may take beside its timing: to start, to compile kernels, to capture."""


def targets(case: Case) -> list[Target]:
    """The case, the frozen layer, LoRA with PEFT's float32 factors and, on a 16-bit base, with those of its dtype."""
    found = [build(case).target(case.plain_label, case.pass_)]
    for name, other in baselines(case).items():
        found.append(build(other).target(name, other.pass_))
        if other.method == "lora" and case.dtype in ("bfloat16", "float16"):
            found.append(_narrow(other).target(f"{name} {case.dtype}", other.pass_))
    return found


def _narrow(case: Case) -> Any:
    """A case whose trained tensors are of the base's dtype."""
    built = build(case)
    return built_layer(built.module.to(getattr(torch, case.dtype)), built.inputs[0].detach(), case.seed)


def replays_apart(case: Case, budget_s: float, precision: float, command: Sequence[str] = ()) -> Replays:
    """Time a case's replays in a new process; what goes wrong there is a note.

    Args:
        case: on a CUDA device. budget_s, precision: of the timing. command: what to run instead, for tests.
    """
    asked = json.dumps({"case": asdict(case), "budget_s": budget_s, "precision": precision})
    run = [*command] or [sys.executable, "-m", "cdvft_bench.timing.replaying"]
    try:
        done = subprocess.run(run, input=asked, capture_output=True, text=True, timeout=STARTING_S + 2 * budget_s)
    except subprocess.TimeoutExpired as late:
        return Replays(None, 0, {}, (f"no replays: they took longer than {late.timeout:g} s",))
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        said = done.stderr.strip().splitlines() or [f"its process ended with {done.returncode}"]
        return Replays(None, 0, {}, (f"no replays: {said[-1][:300]}",))
    found: Replays = decode(Replays, json.loads(lines[-1]))
    return found


def serve(asked: Mapping[str, Any]) -> dict[str, Any]:
    """What the process answers."""
    case = case_from(asked["case"])
    made = time_replays(
        targets(case), device=case.device, budget_s=asked["budget_s"], precision=asked["precision"], seed=case.seed
    )
    return asdict(made)


if __name__ == "__main__":
    print(json.dumps(serve(json.loads(sys.stdin.read()))))
