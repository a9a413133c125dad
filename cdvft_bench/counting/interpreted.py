"""Loads and stores of Triton kernels, counted entry by entry while Triton's interpreter runs them on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from cdvft_bench.core.errors import UserError


@dataclass
class Argument:
    """One pointer argument of one launch, of ``entries`` entries (holes between them included) of ``size`` bytes.

    Attributes:
        read, written: bytes moved; an entry that is read again counts again.
    """

    address: int
    size: int
    entries: int
    read: int = 0
    written: int = 0

    def note(self, addresses: np.ndarray, stores: bool) -> None:
        """Note those of the addresses that lie in this argument."""
        at = addresses.astype(np.int64) - self.address
        moved = int(np.count_nonzero((at >= 0) & (at < self.entries * self.size))) * self.size
        if stores:
            self.written += moved
        else:
            self.read += moved


@dataclass(frozen=True)
class Launched:
    """One launch: the kernel's name and its pointer arguments by name."""

    kernel: str
    arguments: dict[str, Argument] = field(default_factory=dict)


@contextmanager
def watch_launches() -> Iterator[list[Launched]]:
    """Note what every launch in the block moves; of two arguments that are one tensor the first is charged.

    Raises:
        UserError: TRITON_INTERPRET=1 was not set before Triton was imported.
    """
    from triton.runtime import interpreter as interpreter_

    from cdvft_bench.execution.triton import kernels as triton_kernels

    interpreter: Any = interpreter_
    if not isinstance(triton_kernels.fold_kernel, interpreter.InterpretedFunction):
        raise UserError("kernels are not interpreted here; set TRITON_INTERPRET=1 before Python starts")
    builder, function = interpreter.InterpreterBuilder, interpreter.InterpretedFunction
    load, store, run = builder.create_masked_load, builder.create_masked_store, function.run
    seen: list[Launched] = []

    def noted(pointers: Any, mask: Any, stores: bool) -> None:
        addresses = pointers.data[mask.data]
        for argument in seen[-1].arguments.values():
            argument.note(addresses, stores)

    def counted_load(self: Any, pointers: Any, mask: Any, *rest: Any) -> Any:
        noted(pointers, mask, False)
        return load(self, pointers, mask, *rest)

    def counted_store(self: Any, pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        noted(pointers, mask, True)
        return store(self, pointers, value, mask, *rest)

    def counted_run(self: Any, *args: Any, **kwargs: Any) -> Any:
        launched = Launched(self.fn.__name__)
        taken = set()
        for name, value in [*zip(self.arg_names, args, strict=False), *kwargs.items()]:
            if isinstance(value, torch.Tensor) and value.numel() and value.data_ptr() not in taken:
                taken.add(value.data_ptr())
                span = 1 + sum((n - 1) * s for n, s in zip(value.shape, value.stride(), strict=True))
                launched.arguments[name] = Argument(value.data_ptr(), value.element_size(), span)
        seen.append(launched)
        return run(self, *args, **kwargs)

    builder.create_masked_load, builder.create_masked_store, function.run = counted_load, counted_store, counted_run
    try:
        yield seen
    finally:
        builder.create_masked_load, builder.create_masked_store, function.run = load, store, run


@contextmanager
def sampled(choose: Callable[[str, tuple[int, ...]], Iterable[tuple[int, ...]]]) -> Iterator[None]:
    """Run of every launch in the block only the programs that ``choose`` picks, by the kernel's name and its grid.

    Inside of :func:`watch_launches` each of them is noted as a launch of its own.
    """
    from triton.runtime import interpreter as interpreter_

    interpreter: Any = interpreter_
    builder, function = interpreter.InterpreterBuilder, interpreter.InterpretedFunction
    set_dim, set_idx, run = builder.set_grid_dim, builder.set_grid_idx, function.run

    def some(self: Any, *args: Any, grid: tuple[int, ...], **kwargs: Any) -> None:
        builder.set_grid_dim = lambda self, *_: set_dim(self, *(*grid, 1, 1)[:3])
        try:
            for program in choose(self.fn.__name__, grid):
                at = (*program, 0, 0)[:3]
                builder.set_grid_idx = lambda self, *_, at=at: set_idx(self, *at)
                run(self, *args, grid=(1,), **kwargs)
        finally:
            builder.set_grid_dim, builder.set_grid_idx = set_dim, set_idx

    function.run = some
    try:
        yield
    finally:
        function.run = run
