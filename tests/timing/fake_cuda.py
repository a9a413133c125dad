"""A CUDA device that is none: graphs, events and streams on the CPU, with the rules that matter.

A graph holds the operators that were dispatched while it was captured, on the tensors that they had, and a replay runs
them again into the same memory, as CUDA does. What a graph cannot hold, a copy from another place that the host waits
for, breaks the capture and leaves the generator unusable.
"""

from __future__ import annotations

import time
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

FORBIDDEN = "aten::_local_scalar_dense"
"""What stands for a synchronising copy: reading a number back (``item``)."""


class _Recorder(TorchDispatchMode):
    def __init__(self, graph: FakeGraph) -> None:
        super().__init__()
        self.graph = graph

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.name() == FORBIDDEN:
            raise RuntimeError("operation not permitted when stream is capturing")
        out = func(*args, **(kwargs or {}))
        self.graph.work.append((func, args, kwargs or {}, out))
        return out


class FakeGraph:
    def __init__(self) -> None:
        self.work: list[tuple[Any, Any, Any, Any]] = []
        self.replays = 0

    def replay(self) -> None:
        self.replays += 1
        with torch.no_grad():
            for func, args, kwargs, out in self.work:
                again = func(*args, **kwargs)
                for old, new in zip(tree_leaves(out), tree_leaves(again), strict=True):
                    if isinstance(old, torch.Tensor) and old.data_ptr() != new.data_ptr():
                        old.detach().copy_(new)


class _Event:
    def __init__(self, enable_timing: bool = False) -> None:
        self.at = 0.0

    def record(self) -> None:
        self.at = time.perf_counter()

    def synchronize(self) -> None: ...

    def elapsed_time(self, other: _Event) -> float:
        return 1e3 * (other.at - self.at)


def install(monkeypatch: Any) -> SimpleNamespace:
    """Put the fake into torch.cuda; what a test may look at: ``graphs`` captured, and whether one was ``broken``."""
    state = SimpleNamespace(graphs=[], broken=False)

    @contextmanager
    def graph(made: FakeGraph) -> Any:
        try:
            with _Recorder(made):
                yield
        except Exception:
            state.broken = True
            raise
        state.graphs.append(made)

    stream = SimpleNamespace(wait_stream=lambda other: None)
    for name, value in {
        "is_available": lambda: True,
        "Event": _Event,
        "CUDAGraph": FakeGraph,
        "graph": graph,
        "Stream": lambda: stream,
        "current_stream": lambda: stream,
        "stream": lambda s: nullcontext(),
        "synchronize": lambda *a: None,
        "device": lambda d: nullcontext(),
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr("cdvft_bench.timing.clock.flush_buffer", lambda device: torch.zeros(8))
    monkeypatch.setattr("cdvft_bench.timing.clock.read_gpu", lambda device: None)
    monkeypatch.setattr("cdvft_bench.timing.graphs.read_gpu", lambda device: SimpleNamespace(clock_mhz=1980.0))
    monkeypatch.setattr("cdvft_bench.timing.graphs._generator_works", lambda device: not state.broken)
    return state
