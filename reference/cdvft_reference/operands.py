"""What every way of executing an adapted layer takes: the one check of its operands, before any of them is read.

For x (..., d_in), m diagonals, their m - 1 circulants of block size p, and the frozen layer's W and b:

- Shapes: the first diagonal (d_in,), the others (d_out,); the first circulant (ceil(d_out / p), ceil(d_in / p), p),
  the others (ceil(d_out / p), ceil(d_out / p), p); W (d_out, d_in), b (d_out,). Nothing is broadcast.
- dtypes: all factors float32, or all float64 (:func:`at_least_float32` comes first where a layer was cast to 16
  bits); x floating-point and no wider than they; W and b as x, unless autocast casts all three.
- All on one device and strided (not sparse, quantised or nested), with any strides: who needs contiguous memory takes
  it from :func:`memory`.

No value is looked at: a check takes some microseconds, and runs at every call of a layer.
"""

from collections.abc import Sequence
from typing import NoReturn

import torch
from torch import Tensor

NO_WIDER = {
    torch.float32: (torch.float32, torch.bfloat16, torch.float16),
    torch.float64: (torch.float64, torch.float32, torch.bfloat16, torch.float16),
}
"""The dtypes that factors may have, and those that x may have under each."""

_HALF = (torch.bfloat16, torch.float16)
_strided = torch.strided


def check_positive(name: str, value: int) -> None:
    """Raise TypeError or ValueError unless ``value`` is an integer of at least 1."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} = {value!r} is not an integer; it must be an integer >= 1")
    if value < 1:
        raise ValueError(f"{name} = {value} is too small; it must be >= 1")


def check_number(diagonals: int, circulants: int) -> None:
    """Raise ValueError unless there are m diagonals and m - 1 circulants, or one circulant alone."""
    if circulants != (diagonals - 1 if diagonals else 1):
        raise ValueError(
            f"{diagonals} diagonals and {circulants} circulants; CDVFT has m >= 1 diagonals and m - 1 circulants, the "
            "block-circulant adapter no diagonal and one circulant"
        )


def check_operands(x: Tensor, diagonals: Sequence[Tensor], circulants: Sequence[Tensor], d_out: int) -> None:
    """Raise unless x and the factors are what the module's docstring says.

    Args:
        x: (..., d_in). diagonals: m vectors, none for the block-circulant adapter.
        circulants: m - 1 factors (q_out, q_in, p), one for the block-circulant adapter.
        d_out: output width.

    Raises:
        ValueError: a number, shape, device or layout. TypeError: a dtype, or what is no tensor.
    """
    count = len(circulants)
    check_number(len(diagonals), count)
    check_positive("d_out", d_out)
    try:
        lead, device = circulants[0] if count else diagonals[0], x.device
        dtype = lead.dtype
        if x.layout is not _strided or not x.ndim:
            refuse_input(x, dtype)
        d_in = int(x.shape[-1])  # int(): tracers hand sizes over as tensors
        if not d_in:
            raise ValueError(f"x has shape {tuple(x.shape)}; its width must be >= 1")
        p = int(lead.shape[-1]) if count and lead.ndim == 3 else 0
        for i, a in enumerate(diagonals):
            if a.dtype is not dtype or a.device != device or a.layout is not _strided:
                _refuse_held(f"diagonals[{i}]", a, dtype, device)
            if a.shape != ((d_out if i else d_in),):
                _refuse_diagonal(i, a, d_in, d_out)
        for i, c in enumerate(circulants):
            if c.dtype is not dtype or c.device != device or c.layout is not _strided:
                _refuse_held(f"circulants[{i}]", c, dtype, device)
            width = d_out if i else d_in
            if not p or c.shape != (-(-d_out // p), -(-width // p), p):
                refuse_circulant(f"circulants[{i}]", c, width, d_out, p)
        if x.dtype not in NO_WIDER.get(dtype, ()):
            refuse_input(x, dtype)
    except (AttributeError, TypeError, RuntimeError):
        _refuse_others(x, ("diagonals", diagonals), ("circulants", circulants))
        raise


Factors = tuple[Sequence[Tensor], Sequence[Tensor]]
"""Diagonals and circulants."""


def at_least_float32(diagonals: Sequence[Tensor], circulants: Sequence[Tensor]) -> Factors:
    """Factors in float32 where all are of one 16-bit dtype, as of a layer that was cast as a whole; else as they are.

    torch's FFT takes no bfloat16. Gradients still have the dtype in which the factors are held.
    """
    lead = circulants[0] if len(circulants) else diagonals[0] if len(diagonals) else None
    dtype = getattr(lead, "dtype", None)
    if dtype not in _HALF or any(t.dtype is not dtype for t in (*diagonals, *circulants)):
        return diagonals, circulants
    return [a.float() for a in diagonals], [c.float() for c in circulants]


def check_base(x: Tensor, weight: Tensor, bias: Tensor | None, cast: bool = False, wrapped: bool = False) -> None:
    """Raise unless the frozen layer's W and b fit each other and x.

    Args:
        x: (..., d_in). weight: (d_out, d_in). bias: (d_out,) or None.
        cast: whether autocast casts all three, which it does unless one is float64.
        wrapped: whether W is a quantised wrapper, which knows its own dtypes and layout.

    Raises:
        ValueError: a shape, device or layout. TypeError: a dtype, or what is no tensor.
    """
    try:
        dtype, device = x.dtype, x.device
        if not dtype.is_floating_point or x.layout is not _strided or not x.ndim:
            refuse_input(x, dtype)
        if weight.ndim != 2:
            raise ValueError(f"weight has shape {tuple(weight.shape)}; it must be (d_out, d_in)")
        d_out, d_in = weight.shape
        if x.shape[-1] != d_in:
            raise ValueError(f"input has width {x.shape[-1]}; this layer has d_in = {d_in}, so x must be (..., {d_in})")
        if wrapped:
            if weight.device != device:
                _refuse_held("weight", weight, weight.dtype, device)
        elif weight.device != device or weight.layout is not _strided:
            _refuse_held("weight", weight, weight.dtype, device)
        elif weight.dtype is not dtype:
            _check_cast("weight", weight.dtype, dtype, cast)
        if bias is None:
            return
        if bias.device != device or bias.layout is not _strided:
            _refuse_held("bias", bias, bias.dtype, device)
        if bias.dtype is not dtype and not wrapped:
            _check_cast("bias", bias.dtype, dtype, cast)
        if bias.shape != (d_out,):
            raise ValueError(
                f"bias has shape {tuple(bias.shape)}; with a weight of {d_out} x {d_in} it must be ({d_out},)"
            )
    except (AttributeError, TypeError, RuntimeError):
        _refuse_others(x, ("weight", (weight,)), ("bias", () if bias is None else (bias,)))
        raise


def check_mixed(
    x: Tensor,
    adapters: Tensor,
    diagonals: Sequence[Tensor],
    circulants: Sequence[Tensor],
    d_out: int,
    values: bool = True,
) -> None:
    """Raise unless these are the operands of a batch whose rows have adapters of their own.

    The one check that looks at values, those of ``adapters``: memory is read by them.

    Args:
        x: (T, ..., d_in), T rows or samples. adapters: (T,), int64: each one's adapter from 0 to K - 1, or -1 for none.
        diagonals: m of (K, width). circulants: (K, q_out, q_in, p) each. The rest of each as :func:`check_operands` has
            it of one adapter, of K alike.
        values: False for stand-ins, which have none.

    Raises:
        ValueError: a number, shape, device, layout or index. TypeError: a dtype, or what is no tensor.
    """
    banks = (*diagonals, *circulants)
    for name, t in (("x", x), ("adapters", adapters), *((f"the bank of factor {i}", t) for i, t in enumerate(banks))):
        if not isinstance(t, Tensor):
            raise TypeError(f"{name} is a {type(t).__name__}; every operand must be a torch.Tensor")
        if t.is_nested or t.layout is not _strided:
            _refuse_held(name, t, t.dtype, t.device)
        if t.ndim < (1 if t is adapters else 2):
            raise ValueError(
                f"{name} has shape {tuple(t.shape)}; in a mixed batch it leads with one entry a row or adapter"
            )
    check_number(len(diagonals), len(circulants))
    known = len(banks[0])
    for i, bank in enumerate(banks):
        if len(bank) != known or not known:
            raise ValueError(
                f"the bank of factor {i} holds {len(bank)} adapters and that of factor 0 {known}; give K >= 1"
            )
    check_operands(x, [a[0] for a in diagonals], [c[0] for c in circulants], d_out)
    if adapters.dtype is not torch.int64 or adapters.shape != x.shape[:1] or adapters.device != x.device:
        raise ValueError(
            f"adapters is {tuple(adapters.shape)} of {_said(adapters.dtype)} on {adapters.device}; it must be int64, "
            f"one index a row of x, ({len(x)},), on {x.device}"
        )
    if values and len(x) and adapters.device.type != "meta":
        least, most = (int(n) for n in torch.aminmax(adapters))
        if least < -1 or most >= known:
            wrong = least if least < -1 else most
            raise ValueError(f"adapters holds {wrong}; there are {known} adapters, 0 to {known - 1}, and -1 is none")


def check_like(name: str, t: Tensor, shape: tuple[int, ...], x: Tensor, dtype: torch.dtype) -> None:
    """Raise unless ``t`` has this shape and dtype, and is strided and on the device of x.

    Raises:
        ValueError: the shape, device or layout. TypeError: the dtype.
    """
    if t.device != x.device or t.layout is not _strided:
        _refuse_held(name, t, t.dtype, x.device)
    if t.dtype is not dtype:
        raise TypeError(f"{name} has dtype {_said(t.dtype)}; it must be {_said(dtype)}")
    if t.shape != shape:
        raise ValueError(f"{name} has shape {tuple(t.shape)}; it must be {shape}")


def memory(name: str, t: Tensor) -> Tensor:
    """``t`` as a kernel reads it through a bare pointer: contiguous, materialised, all of it within its storage.

    Raises:
        ValueError: its storage was freed, or is smaller than its shape says.
    """
    whole, held, start = t.is_contiguous(), t.untyped_storage().nbytes(), t.storage_offset() * t.element_size()
    if whole and held >= start + t.nbytes and not t.is_neg():
        return t
    if t._is_zerotensor():  # zeros that no memory holds
        return t.clone()
    reach = 1 + sum((size - 1) * stride for size, stride in zip(t.shape, t.stride(), strict=True))
    if t.numel() and held < start + reach * t.element_size():
        raise ValueError(
            f"{name} of shape {tuple(t.shape)} reaches beyond its storage of {held} bytes, which was freed or resized; "
            "use it before that, or a copy"
        )
    return t.clone(memory_format=torch.contiguous_format)  # with the sign of a negated view applied


def _said(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def refuse_input(x: Tensor, dtype: torch.dtype) -> NoReturn:
    """Raise ValueError or TypeError: x is no input under factors of this dtype, or factors cannot have it."""
    if x.layout is not _strided or x.is_nested:
        _refuse_held("x", x, x.dtype, x.device)
    if not x.dtype.is_floating_point:
        raise TypeError(f"input dtype {x.dtype} is not floating-point; the layer takes floating-point activations")
    if not x.ndim:
        raise ValueError("x is a scalar; it must have shape (..., d_in)")
    if dtype not in NO_WIDER:
        raise TypeError(f"factors of {dtype}; they must be float32 or float64 (torch's FFT takes no other)")
    raise TypeError(
        f"x of {x.dtype} and factors of {dtype}; give them one dtype, or x a narrower one: "
        f"{', '.join(map(_said, NO_WIDER[dtype]))}"
    )


def _refuse_held(name: str, t: Tensor, dtype: torch.dtype, device: torch.device) -> NoReturn:
    """Say why a tensor is not one of this dtype, on this device, in plain memory."""
    if t.is_nested or t.layout is not _strided:
        layout = "nested" if t.is_nested else _said(t.layout)  # type: ignore[arg-type]
        raise ValueError(f"{name} has layout {layout}; it must be strided (a plain tensor)")
    if t.dtype is not dtype:
        raise TypeError(
            f"{name} has dtype {_said(t.dtype)} and the others {_said(dtype)}; all factors must have one "
            "dtype, float32 or float64"
        )
    raise ValueError(f"{name} is on device {t.device} and x on {device}; all operands must be on one device")


def _refuse_diagonal(i: int, a: Tensor, d_in: int, d_out: int) -> NoReturn:
    wrong = f"which does not map to {d_out} outputs" if i else f"but input has width {d_in}"
    raise ValueError(f"diagonals[{i}] has shape {tuple(a.shape)}, {wrong}; it must be ({d_out if i else d_in},)")


def refuse_circulant(name: str, c: Tensor, width: int, d_out: int, p: int) -> NoReturn:
    """Raise ValueError: ``c`` is no factor of block size ``p`` that maps ``width`` to ``d_out``."""
    shape = tuple(c.shape)
    if c.ndim != 3 or not p:
        raise ValueError(f"{name} has shape {shape}; it must be (ceil(d_out / p), ceil(width / p), p) with p >= 1")
    if shape[2] != p:
        raise ValueError(f"{name} has shape {shape}; its block size p must be {p}, that of circulants[0]")
    needed = (-(-d_out // p), -(-width // p), p)
    what = f"map to {d_out} outputs" if shape[0] != needed[0] else f"take {width} inputs"
    raise ValueError(
        f"{name} has shape {shape}, which does not {what}; widths {width} and {d_out} with p = {p} need "
        f"(q_out, q_in, p) = {needed}"
    )


def _check_cast(name: str, found: torch.dtype, dtype: torch.dtype, cast: bool) -> None:
    if not cast or torch.float64 in (found, dtype) or not found.is_floating_point:
        raise TypeError(
            f"{name} has dtype {_said(found)} and x {_said(dtype)}; they must have one dtype, or under "
            "autocast 16 and 32 bits"
        )


def _refuse_others(x: Tensor, *named: tuple[str, Sequence[Tensor]]) -> None:
    """Raise where x, or one of the named, is no tensor, or a nested one, whose sizes cannot be asked for."""
    for group, given in (("x", (x,)), *named):
        for i, t in enumerate(given):
            name = f"{group}[{i}]" if group in ("diagonals", "circulants") else group
            if not isinstance(t, Tensor):
                raise TypeError(f"{name} is a {type(t).__name__}; every operand must be a torch.Tensor") from None
            if t.is_nested:
                _refuse_held(name, t, t.dtype, t.device)
