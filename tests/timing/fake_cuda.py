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
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

from cdvft_bench.timing import trace as recording
from cdvft_bench.timing.machine.gpu import GpuState
from tests.timing.cuda_trace import kernel, launch

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


class _Stream:
    def wait_stream(self, other: _Stream) -> None: ...


class _Device(nullcontext[None]):
    def __init__(self, device: Any) -> None:
        super().__init__()


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

    stream = _Stream()
    for name, value in {
        "is_available": lambda: True,
        "Event": _Event,
        "CUDAGraph": FakeGraph,
        "graph": graph,
        "Stream": _Stream,
        "current_stream": lambda: stream,
        "stream": lambda s: nullcontext(),
        "synchronize": lambda *a: None,
        "device": _Device,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr("cdvft_bench.timing.clock.flush_buffer", lambda device: torch.zeros(8))
    monkeypatch.setattr("cdvft_bench.timing.clock.looking", lambda device: lambda: GpuState(1980.0, (), 400.0))
    monkeypatch.setattr("cdvft_bench.timing.graphs._generator_works", lambda device: not state.broken)
    return state


# --- a whole campaign on it ------------------------------------------------------------------

NAME = "EMULATED GPU (no device; a test)"


class _OnCpu(TorchFunctionMode):
    """Whatever is asked of a CUDA device goes to the CPU."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.device:  # a name, which what measures asks for
            return func(*args, **(kwargs or {}))
        return func(*tree_map(_moved, args), **tree_map(_moved, kwargs or {}))


class _Generator(torch.Generator):
    def __new__(cls, device: Any = "cpu") -> Any:
        return super().__new__(cls, _moved(torch.device(device)))


def _moved(value: Any) -> Any:
    if isinstance(value, torch.device) and value.type == "cuda":
        return torch.device("cpu")
    return "cpu" if isinstance(value, str) and value.startswith("cuda") else value


@contextmanager
def emulated(monkeypatch: Any, l2_bytes: int = 1536) -> Any:
    """Cases of device "cuda" run on the CPU, and what measures them takes it for a GPU.

    Operators stand for kernels in its traces, each launched as it began.
    """
    state = install(monkeypatch)
    properties = SimpleNamespace(L2_cache_size=l2_bytes, uuid="GPU-0", name=NAME, multi_processor_count=1)
    for name, value in {
        "device_count": lambda: 1,
        "get_device_name": lambda *a: NAME,
        "get_device_properties": lambda *a: properties,
        "empty_cache": lambda: None,
        "memory_allocated": lambda *a: 0,
        "max_memory_allocated": lambda *a: 4096,
        "reset_peak_memory_stats": lambda *a: None,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    monkeypatch.setattr(torch, "Generator", _Generator)
    monkeypatch.setattr("cdvft_bench.timing.machine.memory.nvml", lambda device: None)
    monkeypatch.setattr("cdvft_bench.timing.inputs.l2_bytes", lambda device: l2_bytes)
    recorded = recording.record

    def record(call: Any, device: Any = "cpu", **options: Any) -> Any:
        document = recorded(call, "cpu", **options)
        return {**document, "traceEvents": [*document["traceEvents"], *_kernels(document["traceEvents"])]}

    monkeypatch.setattr("cdvft_bench.timing.trace.record", record)
    monkeypatch.setattr("cdvft_bench.timing.machine.memory.record", record)
    with _OnCpu():
        yield state


def _kernels(events: list[Any]) -> list[Any]:
    """A launch and a kernel for every operator that calls no other."""
    operators = [e for e in events if e.get("cat") == "cpu_op" and e.get("dur", 0) > 0]
    starts = sorted((e["tid"], e["ts"], e["ts"] + e["dur"]) for e in operators)
    made: list[Any] = []
    for i, (tid, start, end) in enumerate(starts):
        inner = i + 1 < len(starts) and starts[i + 1][0] == tid and starts[i + 1][1] < end
        if not inner:
            pid = operators[0]["pid"]
            made.append(launch(start, start + (end - start) / 4, 10_000 + i, (pid, tid)))
            made.append(kernel(f"emulated_kernel_{i % 7}", start + (end - start) / 2, end, 10_000 + i))
    return made
