"""Watching a layer run: its FFTs, what a weight change consists of, every allocation."""

import ctypes
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cdvft_bench.claims.ledger.quantities import TALLIED
from cdvft_bench.claims.ledger.terms import Value
from cdvft_bench.claims.sources.source import NotAvailable
from cdvft_bench.counting.dispatch import count_dispatch
from cdvft_bench.counting.prices import Transform, exact_flops
from cdvft_bench.execution.scratch import release_buffers

FFTS = ("_fft_r2c", "_fft_c2r", "_fft_c2c")
"""FFT operators: real forward, real inverse, complex."""


def tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in an operator's arguments or results."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors(item)
    elif isinstance(value, Mapping):
        yield from tensors(list(value.values()))


def _name(func: Any) -> str:
    return str(func._schema.name.partition("::")[2])


def _transform(name: str, args: Any, out: Tensor, of_input: bool = True) -> Transform:
    sizes = args[0].shape if name == "_fft_r2c" else out.shape
    dims = tuple(int(sizes[d]) for d in args[1])
    return Transform(dims, math.prod(sizes) // math.prod(dims), name != "_fft_c2c", of_input)


class _Mode(TorchDispatchMode):
    """Runs every operator and looks at it."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        self.see(func, args, kwargs or {}, out)
        return out

    def see(self, func: Any, args: Any, kwargs: Mapping[str, Any], out: Any) -> None:
        """Called after each operator."""


class watch_transforms(_Mode):  # noqa: N801 - reads as the verb it is in a with statement
    """Context manager: lists the FFTs that run inside."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[Transform] = []

    def see(self, func: Any, args: Any, kwargs: Mapping[str, Any], out: Any) -> None:
        name = _name(func)
        if name in FFTS and out.numel():
            self.found.append(_transform(name, args, out))


# --- memory ---------------------------------------------------------------------------------


def _storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _span(tensor: Tensor) -> tuple[int, int]:
    """First byte of a tensor in its storage, and the one after its last."""
    start = int(tensor.storage_offset())
    end = start + sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride(), strict=True)) + 1
    return start * tensor.element_size(), end * tensor.element_size()


def covered(spans: Iterable[tuple[int, int]]) -> int:
    """Length of the union of intervals."""
    total = reached = 0
    for start, end in sorted(spans):
        total += max(0, end - max(start, reached))
        reached = max(reached, end)
    return total


class watch_allocations(_Mode):  # noqa: N801
    """Context manager: the most bytes of one storage that operators inside allocate, or write into a given one.

    A tensor written piece by piece, or into memory that was there before, exists as much as one that is returned.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.allocated = 0
        self._written: dict[int, set[tuple[int, int]]] = {}

    @property
    def largest(self) -> int:
        """Bytes."""
        written = [covered(spans) for spans in self._written.values()]
        return max([self.allocated, *written])

    def see(self, func: Any, args: Any, kwargs: Mapping[str, Any], out: Any) -> None:
        schema = func._schema.arguments
        given = {_storage(t) for t in tensors((args, kwargs))}
        named = dict(zip((a.name for a in schema), args, strict=False)) | dict(kwargs)
        for argument in schema:
            if argument.alias_info is not None and argument.alias_info.is_write:
                for tensor in tensors(named.get(argument.name)):
                    if tensor.numel():
                        self._written.setdefault(_storage(tensor), set()).add(_span(tensor))
        for tensor in tensors(out):
            if _storage(tensor) not in given:  # else a view, or written in place
                self.allocated = max(self.allocated, int(tensor.untyped_storage().nbytes()))


def largest_allocation(call: Callable[[], object]) -> int:
    """Bytes of the largest single tensor that ``call`` makes or writes; it is made twice, from empty scratch memory.

    Operators' results and targets are seen by dispatch, what a kernel allocates for itself through torch by the
    profiler. What a library allocates by its own means shows in :func:`resident_growth` alone.
    """
    from cdvft_bench.timing.trace import record

    release_buffers()
    seen = watch_allocations()
    with seen:
        call()
    release_buffers()
    events = record(call, shapes=False, memory=True)["traceEvents"]
    profiled = [int(e["args"]["Bytes"]) for e in events if e.get("name") == "[memory]"]
    if not any(b > 0 for b in profiled):
        raise RuntimeError(f"torch.profiler recorded no allocation among {len(events)} events")
    return max(seen.largest, *profiled)


def resident_growth(call: Callable[[], object]) -> int:
    """Bytes by which the process's resident memory grows at most while ``call`` is made once.

    Whoever allocates them, and by whatever means; from empty scratch memory. Linux alone can say.

    Raises:
        NotAvailable: this system does not tell.
    """
    release_buffers()
    _trim()
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = _status("VmRSS")
        call()
        return max(0, _status("VmHWM") - before)
    except (OSError, StopIteration) as error:
        raise NotAvailable(
            "this system does not tell a process's peak of resident memory", "judge this claim on Linux"
        ) from error


def _trim() -> None:
    """Give free memory of the heap back: what is resident already does not grow by being used again."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(key)).split()[1])


# --- what a weight change consists of -------------------------------------------------------


@dataclass(frozen=True)
class Observed:
    """What the forward pass of a weight change did, as it ran.

    Attributes:
        macs: multiply-adds of real matrix products. transforms: FFTs.
        diagonals: products of activations with the entries of a vector.
        bins: products of complex spectra, at the n // 2 + 1 frequencies of real data.
        entries: the same at all n frequencies.
    """

    macs: int
    transforms: tuple[Transform, ...] = ()
    diagonals: int = 0
    bins: int = 0
    entries: int = 0


@dataclass
class _Flow:
    """What of a pass depends on the layer's input, and what on its parameters alone."""

    of_input: set[int]
    alive: list[Tensor] = field(default_factory=list)  # an address must not be used twice
    transforms: list[Transform] = field(default_factory=list)
    diagonals: int = 0
    bins: int = 0
    complex_macs: int = 0


class _watch_flow(_Mode):  # noqa: N801
    def __init__(self, x: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flow = _Flow({_storage(x)})

    def see(self, func: Any, args: Any, kwargs: Mapping[str, Any], out: Any) -> None:
        flow, name = self.flow, _name(func)
        given = list(tensors(args))
        flows = [_storage(t) in flow.of_input for t in given]
        results = list(tensors(out))
        flow.alive += results
        if any(flows):
            flow.of_input |= {_storage(t) for t in results}
        if name in FFTS:
            flow.transforms.append(_transform(name, args, out, any(flows)))
        elif name == "mul" and any(flows) and len(flows) == 2:
            if out.is_complex():
                flow.bins += out.numel()
            elif any(not of_input and t.ndim == 1 for t, of_input in zip(given, flows, strict=True)):
                flow.diagonals += out.numel()
        elif name == "bmm" and out.is_complex():
            products = out.numel() * args[0].shape[-1]
            flow.complex_macs += products
            flow.bins += products if any(flows) else 0


def observe(module: Callable[[Tensor], Tensor], frozen: Callable[[Tensor], Tensor] | None, x: Tensor) -> Observed:
    """Watch a module's forward pass, without that of the frozen layer inside it.

    Raises:
        ValueError: transforms of several lengths, so that bins cannot be told as entries.
    """
    with torch.no_grad():
        with count_dispatch() as whole, _watch_flow(x) as watched:
            module(x)
        base = 0
        if frozen is not None:
            with count_dispatch() as alone:
                frozen(x)
            base = alone.result().macs
    flow = watched.flow
    entries = flow.bins
    if flow.bins:
        # Where all transforms are real, spectra have n // 2 + 1 of n frequencies.
        lengths = {(t.dims[0], t.real) for t in flow.transforms if len(t.dims) == 1}
        if len({n for n, _ in lengths}) != 1:
            raise ValueError(f"transforms of {sorted(lengths)} points in one pass")
        n = next(iter(lengths))[0]
        entries = flow.bins // (n // 2 + 1) * n if all(real for _, real in lengths) else flow.bins
    macs = whole.result().macs - base - 4 * flow.complex_macs
    return Observed(macs, tuple(flow.transforms), flow.diagonals, flow.bins, entries)


def price(observed: Observed, options: Mapping[str, Value], tokens: int) -> float:
    """FLOPs of what ran at the prices of the quantity "priced_flops"; what each option means: see ``priced``."""
    total = float(observed.macs if options["mac"] == 1 else 2 * observed.macs)
    for transform in observed.transforms:
        times = 1
        if not transform.of_input and len(transform.dims) == 1:
            times = {"per batch": 1, "per token": tokens, "never": 0}[str(options["spectrum_of_c"])]
        if times:
            total += times * _price(transform, options)
    if options["diagonals"]:
        total += observed.diagonals
    products = options["products"]
    return total + (0 if products == "none" else observed.entries if products == "per entry" else 6 * observed.bins)


def _price(transform: Transform, options: Mapping[str, Value]) -> float:
    half = options["real_fft"] == "half"
    if options["fft"] == TALLIED:
        return float(exact_flops(transform, half))
    n = transform.points
    logarithm = math.log2(n)
    if len(transform.dims) > 1 and options["plane"] == "n log2 d":
        logarithm = math.log2(n ** (1 / len(transform.dims)))
    saved = 2 if transform.real and half else 1
    return transform.batch * float(str(options["fft"])) * n * logarithm / saved
