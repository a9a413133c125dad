"""Peak memory of one call, above what was live before it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile

from cdvft_bench.timing.result import Memory


def peak_memory(call: Callable[[], object], device: str = "cpu") -> Memory:
    """Peak bytes that tensors took during ``call``, above what was live before.

    On a GPU the CUDA allocator says it; on a CPU the allocations that torch.profiler records are
    added up in order.
    """
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return Memory(torch.cuda.max_memory_allocated() - before, "cuda allocator")
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    live = peak = 0
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]  # type: ignore[union-attr]
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return Memory(peak, "profiler")
