"""Watching a layer run: its FFTs, what a weight change consists of, every allocation."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cdvft_bench.claims.sources.pricing import Terms, Transform
from cdvft_bench.counting.dispatch import count_dispatch

_FFTS = ("_fft_r2c", "_fft_c2r", "_fft_c2c")


def tensors(value: Any) -> Iterable[Tensor]:
    """The tensors in an operator's arguments or results."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors(item)


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def transform_of(name: str, args: Any, out: Tensor, of_input: bool = True) -> Transform:
    """The transforms that one FFT operator does."""
    sizes = args[0].shape if name == "_fft_r2c" else out.shape
    dims = tuple(int(sizes[d]) for d in args[1])
    return Transform(dims, math.prod(sizes) // math.prod(dims), name != "_fft_c2c", of_input)


class watch_transforms(TorchDispatchMode):  # noqa: N801 - reads as the verb it is in a with statement
    """Context manager: lists the FFTs that run inside."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[Transform] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func._schema.name.partition("::")[2]
        if name in _FFTS and out.numel():
            self.found.append(transform_of(name, args, out))
        return out


class watch_allocations(TorchDispatchMode):  # noqa: N801
    """Context manager: notes the largest storage that an operator inside returns anew, in bytes."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.largest: int = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {_address(t) for t in tensors((args, tuple((kwargs or {}).values())))}
        for tensor in tensors(out):
            if _address(tensor) not in given:  # a view, or in place: nothing new
                self.largest = max(self.largest, int(tensor.untyped_storage().nbytes()))
        return out


def largest_allocation(call: Callable[[], object]) -> int:
    """Bytes of the largest single allocation of ``call``, which is made twice.

    Operators' results are seen by dispatch, what a kernel allocates for itself through torch by the
    profiler; what a library such as MKL allocates by its own means is not seen.
    """
    from cdvft_bench.timing.traces.recording import record

    with watch_allocations() as seen:
        call()
    events = record(call, shapes=False, memory=True)["traceEvents"]
    profiled = [int(e["args"]["Bytes"]) for e in events if e.get("name") == "[memory]"]
    if not any(b > 0 for b in profiled):
        raise RuntimeError(f"torch.profiler recorded no allocation among {json.dumps(len(events))} events")
    return max(int(seen.largest), *profiled)


class _Flow(TorchDispatchMode):
    """Tells what depends on the layer's input from what depends on its parameters alone."""

    def __init__(self, x: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._of_input = {_address(x)}
        self._alive: list[Tensor] = []  # an address must not be used twice
        self.transforms: list[Transform] = []
        self.diagonals = self.bins = self.complex_macs = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func._schema.name.partition("::")[2]
        flows = [_address(t) in self._of_input for t in tensors(args)]
        results = list(tensors(out))
        self._alive += results
        if any(flows):
            self._of_input |= {_address(t) for t in results}
        if name in _FFTS:
            self.transforms.append(transform_of(name, args, out, any(flows)))
        elif name == "mul" and any(flows) and len(flows) == 2:
            if out.is_complex():
                self.bins += out.numel()
            elif any(not flow and t.ndim == 1 for t, flow in zip(tensors(args), flows, strict=True)):
                self.diagonals += out.numel()
        elif name == "bmm" and out.is_complex():
            products = out.numel() * args[0].shape[-1]
            self.complex_macs += products
            self.bins += products if any(flows) else 0
        return out


def count_terms(module: Callable[[Tensor], Tensor], frozen: Callable[[Tensor], Tensor] | None, x: Tensor) -> Terms:
    """Terms of a module's forward pass as it runs, without those of the frozen layer inside it.

    Raises:
        ValueError: transforms of several lengths, so that bins cannot be told as entries.
    """
    with torch.no_grad():
        with count_dispatch() as whole, _Flow(x) as flow:
            module(x)
        base = 0
        if frozen is not None:
            with count_dispatch() as alone:
                frozen(x)
            base = alone.result().macs
    # Where all transforms are real, spectra have n // 2 + 1 of n frequencies.
    lengths = {(t.dims[0], t.real) for t in flow.transforms if len(t.dims) == 1}
    if flow.bins and len({n for n, _ in lengths}) != 1:
        raise ValueError(f"transforms of {sorted(lengths)} points in one pass")
    entries = flow.bins
    if flow.bins:
        n = next(iter(lengths))[0]
        real = all(r for _, r in lengths)
        entries = flow.bins // (n // 2 + 1) * n if real else flow.bins
    return Terms(
        whole.result().macs - base - 4 * flow.complex_macs, tuple(flow.transforms), flow.diagonals, flow.bins, entries
    )
