"""Count what the operator dispatcher sees: every operator of a pass, ATen's, this suite's own, or anybody else's."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from functools import cache
from typing import Any

from torch import Tensor
from torch._C import DispatchKey
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode

from cdvft_bench.core.counted import PassCount
from cdvft_bench.counting.handles import Price
from cdvft_bench.counting.operator_prices import price_of
from cdvft_bench.execution.native import Counts, counting
from cdvft_bench.tensors import plain_parts, tensors_in

_NO_KERNEL = {
    "as_strided_",
    "_unsafe_view",
    "detach",
    "alias",
    "lift_fresh",
    "_local_scalar_dense",
    "is_same_size",
    "sym_size",
} | {"_sparse_coo_tensor_with_dims_and_tensors"}
_WITHOUT_OUTPUT = {"_linalg_check_errors"}  # reads a solver's error codes back


class Tally:
    """Launches added up; ``macs`` are their multiply-adds by operator."""

    def __init__(self) -> None:
        self._operators: Counter[str] = Counter()
        self.macs: Counter[str] = Counter()
        self._unpriced: Counter[str] = Counter()
        self._macs = 0
        self._elementwise = 0
        self._ffts = 0
        self._fft_flops = 0.0
        self._read = 0
        self._written = 0
        self._compiled_additions = 0
        self._compiled_multiplications = 0
        self._unpriced_bytes = 0

    def add(self, name: str, moved: tuple[int, int], price: Price | None) -> None:
        """Count a launch: its operator, the bytes that it reads and writes, and its arithmetic, None where unpriced."""
        self._operators[name] += 1
        self._read += moved[0]
        self._written += moved[1]
        if price is None:
            self._unpriced[name] += 1
            self._unpriced_bytes += sum(moved)
            return
        self._macs += price.macs
        self.macs[name] += price.macs
        self._elementwise += price.flops
        self._ffts += price.transforms
        self._fft_flops += price.fft_flops

    def add_seen(self, name: str, seen: Sequence[Counts]) -> None:
        """An operator of this suite, by what its kernels were seen to do."""
        self._operators[name] += 1
        for counts in seen:
            self._elementwise += counts.elementwise
            self._ffts += counts.transforms
            self._fft_flops += fft_flops(counts)
            self._read += counts.read
            self._written += counts.written
            self._compiled_additions += counts.additions
            self._compiled_multiplications += counts.multiplications

    def result(self) -> PassCount:
        """What was counted so far."""
        return PassCount(
            macs=self._macs,
            elementwise_flops=self._elementwise,
            ffts=self._ffts,
            fft_flops=self._fft_flops,
            launches=sum(self._operators.values()),
            operators=dict(sorted(self._operators.items())),
            unpriced=dict(sorted(self._unpriced.items())),
            read=self._read,
            written=self._written,
            compiled_additions=self._compiled_additions,
            compiled_multiplications=self._compiled_multiplications,
            unpriced_bytes=self._unpriced_bytes,
        )


class count_dispatch(TorchDispatchMode):  # noqa: N801 - reads as the verb it is in a with statement
    """Context manager: counts every operator dispatched inside, see ``PassCount``.

    An operator that is only a name for others (``linear`` in inference mode) is counted as those. One of another
    library counts as a launch; its arithmetic is unpriced unless
    :func:`cdvft_bench.counting.operator_prices.register_price` says what it is.

    Usage::

        with count_dispatch() as counter:
            y = module(x)
        print(counter.result())
    """

    supports_higher_order_operators = True

    def __init__(self) -> None:
        super().__init__()
        self._tally = Tally()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if _is_composite(func) and not any(t.is_nested for t in tensors_in(args)):
            with self:
                return func.decompose(*args, **kwargs)
        with watched() if _is_ours(func) else nullcontext(()) as seen:
            out = func(*args, **kwargs)
        launched = launch_of(func, args, kwargs, out)
        if seen:
            self._count_seen(func._schema.name.partition("::")[2], seen)
        elif launched is not None:
            self._count(*launched, func, args, kwargs)
        return out

    def result(self) -> PassCount:
        """What was counted so far."""
        return self._tally.result()

    def _count_seen(self, name: str, seen: Sequence[Counts]) -> None:
        self._tally.add_seen(name, seen)

    def _count(self, name: str, outputs: list[Tensor], func: Any, args: Any, kwargs: Mapping[str, Any]) -> None:
        self._tally.add(name, traffic(name, args, kwargs, outputs), price_of(name, func, args, kwargs, outputs))


def _is_ours(func: Any) -> bool:
    return isinstance(func, OpOverload) and func._schema.name.startswith(f"{NAMESPACE}::")


@cache
def _is_composite(func: Any) -> bool:
    """Whether an operator is written in others alone; below autograd the dispatcher shows it whole."""
    if not isinstance(func, OpOverload) or func.has_kernel_for_dispatch_key(DispatchKey.CPU):
        return False
    return func.has_kernel_for_dispatch_key(DispatchKey.CompositeImplicitAutograd)


def launch_of(func: Any, args: Any, kwargs: Mapping[str, Any], out: Any) -> tuple[str, list[Tensor]] | None:
    """Name and results of an operator that launches a kernel; None of views, bare allocations and empty tensors.

    The name is ATen's own, or has its namespace before it.
    """
    outputs = list(tensors_in(out))
    if not isinstance(func, OpOverload):  # a higher-order operator, as flex attention: one kernel where it is compiled
        return (func.name(), outputs) if any(t.numel() for t in outputs) else None
    namespace, _, name = func._schema.name.partition("::")
    if namespace not in ("aten", NAMESPACE):
        # What another library's operator writes it may return or be given; both show that it did something.
        touched = outputs or list(tensors_in((args, kwargs)))
        if func.is_view or not any(t.numel() for t in touched):
            return None
        return func._schema.name, outputs or _written_arguments(func, args, kwargs)
    if func.is_view or name in _NO_KERNEL or "empty" in name:
        return None
    if not outputs and name.startswith(("_foreach", "_fused")):
        outputs = list(tensors_in(args[0]))
    if not any(t.numel() for t in outputs) and name not in _WITHOUT_OUTPUT:
        return None
    return name, outputs


def _written_arguments(func: OpOverload, args: Any, kwargs: Mapping[str, Any]) -> list[Tensor]:
    given = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | dict(kwargs)
    written = [a.name for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write]
    return [t for name in written for t in tensors_in(given.get(name))]


def _bytes(tensors: Iterable[Tensor]) -> int:
    """Bytes of tensors, each once, an expanded dimension at the size it is stored in."""
    distinct: dict[object, int] = {}
    for tensor in tensors:
        for t in plain_parts(tensor):
            if t.is_nested or not _has_storage(t):
                distinct[id(t)] = t.numel() * t.element_size()
                continue
            stored = math.prod(n for n, stride in zip(t.shape, t.stride(), strict=True) if stride) if t.numel() else 0
            where = (t.untyped_storage()._cdata, t.storage_offset(), t.shape, t.stride(), t.dtype)
            distinct[where] = stored * t.element_size()
    return sum(distinct.values())


def _has_storage(tensor: Tensor) -> bool:
    try:
        tensor.untyped_storage()
    except (RuntimeError, NotImplementedError):
        return False
    return True


def traffic(name: str, args: Any, kwargs: Mapping[str, Any], outputs: list[Tensor]) -> tuple[int, int]:
    """Bytes that an operator must read and write."""
    given = tuple(value for key, value in kwargs.items() if key != "out")  # written, not read
    read, written = _bytes(tensors_in((args, given))), _bytes(outputs)
    if name.startswith(("new_", "zeros", "ones", "full", "eye")) or name in ("fill_", "zero_"):
        read = 0
    elif name == "copy_":  # the destination is not read
        read = _bytes([args[1]])
    elif name == "constant_pad_nd":  # a crop reads what it keeps
        read = min(read, written)
    elif name == "index":
        read = written + _bytes(tensors_in(args[1]))
    elif name in ("embedding", "index_select"):  # rows of a table
        read = written + _bytes([args[1 if name == "embedding" else 2]])
    elif name == "index_put_":
        read = _bytes(tensors_in(args[1:]))
        written = _bytes([args[2]])
    elif name == "native_layer_norm_backward" and list(args[-1]) == [False, True, False]:  # the gain is not used
        read = _bytes(tensors_in((args[:2], args[3:5])))
    elif name == "_fused_adamw_":  # parameters and moments are written; gradients and step counters only read
        written = _bytes(tensors_in((args[0], args[2], args[3])))
    return read, written


# --- this suite's own operators --------------------------------------------------------------
# No form over shapes: while :func:`watched` is on, the operators run kernels in which every addition, multiplication,
# transform and access to an operand counts itself (``execution/native/numbers.h``). So the counts are those of the
# data.


NAMESPACE = "cdvft"


def fft_flops(seen: Counts) -> float:
    """The transforms at 5 n log2 n each."""
    return 5.0 * seen.points * math.log2(seen.points) * seen.transforms


@contextmanager
def watched() -> Iterator[list[Counts]]:
    """Yields the counts of each call of an operator inside, in order."""
    with counting() as seen:
        yield seen
