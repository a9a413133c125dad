"""Loads and stores of Triton kernels, counted entry by entry while Triton's interpreter runs them on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from cdvft_bench.core.errors import UserError

_TAG = 48
"""Bits of an address: those above say of which argument a pointer came, whatever was added to it since."""


class OutsideError(RuntimeError):
    """A program reads or writes what is no entry of the argument whose pointer it used."""


@dataclass
class Argument:
    """One pointer argument of one launch, of ``entries`` entries (holes between them included) of ``size`` bytes.

    Attributes:
        held: whether each is the argument's own; None where there is no hole.
        read, written: bytes moved; an entry that is read again counts again.
    """

    address: int
    size: int
    entries: int
    held: np.ndarray | None = None
    read: int = 0
    written: int = 0

    def note(self, addresses: np.ndarray, stores: bool) -> int | None:
        """Note what is moved; the first entry that is none of this argument's, None where all are."""
        at, odd = np.divmod(addresses.astype(np.int64) - self.address, self.size)
        inside = (odd == 0) & (at >= 0) & (at < self.entries)
        if self.held is not None:
            inside &= self.held[at * inside]
        if stores:
            self.written += addresses.size * self.size
        else:
            self.read += addresses.size * self.size
        return None if inside.all() else int(at[~inside][0])


def _argument(tensor: torch.Tensor) -> Argument:
    entries = 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True)) if tensor.numel() else 0
    held = None
    if entries > tensor.numel():
        mask = torch.zeros(entries, dtype=torch.bool)
        mask.as_strided(tensor.shape, tensor.stride()).fill_(True)
        held = mask.numpy()
    return Argument(tensor.data_ptr(), tensor.element_size(), entries, held)


@dataclass(frozen=True)
class Launched:
    """One launch: the kernel's name and its pointer arguments by name."""

    kernel: str
    arguments: dict[str, Argument] = field(default_factory=dict)


@contextmanager
def watch_launches() -> Iterator[list[Launched]]:
    """Note what every launch in the block moves, and see that it stays within the argument whose pointer it was given.

    Of two arguments that are one tensor the first is charged. It does not nest.

    Raises:
        UserError: TRITON_INTERPRET=1 was not set before Triton was imported.
        OutsideError: in the block, as what the interpreter's error says, where a program leaves an argument.
    """
    from triton.runtime import interpreter as interpreter_

    from cdvft_bench.execution.triton import kernels as triton_kernels

    interpreter: Any = interpreter_
    if not isinstance(triton_kernels.fold_kernel, interpreter.InterpretedFunction):
        raise UserError("kernels are not interpreted here; set TRITON_INTERPRET=1 before Python starts")
    builder, function = interpreter.InterpreterBuilder, interpreter.InterpretedFunction
    load, store, run = builder.create_masked_load, builder.create_masked_store, function.run
    convert = interpreter._implicit_cvt
    seen: list[Launched] = []
    tags: dict[Any, int] = {}

    def geometry(tensor: Any) -> Any:
        return tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride()

    def noted(pointers: Any, mask: Any, stores: bool) -> Any:
        """The plain pointers."""
        plain = pointers.data & np.uint64((1 << _TAG) - 1)
        named = [*seen[-1].arguments.items()]
        used, which = plain[mask.data], (pointers.data >> np.uint64(_TAG))[mask.data]
        for tag in np.unique(which):
            name, argument = named[int(tag) - 1]
            entry = argument.note(used[which == tag], stores)
            if entry is not None:
                program, does = interpreter.interpreter_builder.grid_idx, "writes" if stores else "reads"
                has = f"0 to {argument.entries - 1}" + " with holes" * (argument.held is not None)
                raise OutsideError(
                    f"{seen[-1].kernel}, program {program}, {does} entry {entry} of {name}, whose entries are {has}"
                )
        return type(pointers)(plain, pointers.dtype)

    def watched_load(self: Any, pointers: Any, mask: Any, *rest: Any) -> Any:
        return load(self, noted(pointers, mask, False), mask, *rest)

    def watched_store(self: Any, pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        return store(self, noted(pointers, mask, True), value, mask, *rest)

    def tagged(value: Any) -> Any:
        found = convert(value)
        if isinstance(value, torch.Tensor):
            found.handle.data = found.handle.data | np.uint64(tags[geometry(value)] << _TAG)
        return found

    def watched_run(self: Any, *args: Any, **kwargs: Any) -> Any:
        launched = Launched(self.fn.__name__)
        tags.clear()
        for name, value in [*zip(self.arg_names, args, strict=False), *kwargs.items()]:
            if isinstance(value, torch.Tensor) and geometry(value) not in tags:
                launched.arguments[name] = _argument(value)
                tags[geometry(value)] = len(launched.arguments)
        seen.append(launched)
        return run(self, *args, **kwargs)

    builder.create_masked_load, builder.create_masked_store, function.run = watched_load, watched_store, watched_run
    interpreter._implicit_cvt = tagged
    try:
        yield seen
    finally:
        builder.create_masked_load, builder.create_masked_store, function.run = load, store, run
        interpreter._implicit_cvt = convert


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
