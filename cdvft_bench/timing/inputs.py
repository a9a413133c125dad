"""Inputs to time with: random, never zero, and enough copies to keep them out of a cache."""

from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

import torch
from torch import Tensor

from cdvft_bench.core.errors import UserError

T = TypeVar("T")


def random_inputs(
    shape: Sequence[int],
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    seed: int = 0,
    copies: int | None = 1,
    requires_grad: bool = False,
) -> list[Tensor]:
    """Tensors of random values, drawn on the device; the same seed gives the same values on the same kind of device.

    Zeros and constants are no substitute: kernels run faster on them than on real data, and they hide
    outputs that were never written.

    Args:
        shape: of each tensor.
        dtype: floating or complex: standard normal; integer: uniform on 1 … 127.
        device: where they go.
        seed: of the values.
        copies: how many different tensors; None for enough to exceed twice the device's L2 cache (1 on a CPU).
        requires_grad: whether each is a leaf that takes a gradient.

    Raises:
        UserError: copies < 1, or torch.bool, which cannot be drawn without making zeros.
    """
    if copies is not None and copies < 1:
        raise UserError(f"copies = {copies} is too small; it must be >= 1, or None to exceed the cache")
    if dtype == torch.bool:
        raise UserError("random_inputs draws no booleans; draw integers and compare them")
    generator = torch.Generator(device).manual_seed(seed)

    def draw() -> Tensor:
        if dtype.is_complex or dtype.is_floating_point:
            wide = dtype if dtype in (torch.float64, torch.complex64, torch.complex128) else torch.float32
            values = torch.randn(*shape, dtype=wide, device=device, generator=generator)
        else:
            values = torch.randint(1, 128, tuple(shape), device=device, generator=generator)
        return values.to(dtype).requires_grad_(requires_grad)

    tensors = [draw()]
    if copies is None:
        size = tensors[0].numel() * tensors[0].element_size()
        copies = -(-2 * l2_bytes(device) // max(size, 1)) + 1
    tensors += [draw() for _ in range(copies - 1)]
    return tensors


def l2_bytes(device: str | torch.device) -> int:
    """Bytes of the device's L2 cache; 0 on a CPU, where torch does not know it."""
    place = torch.device(device)
    if place.type != "cuda":
        return 0
    return int(torch.cuda.get_device_properties(place).L2_cache_size)


class Rotation(Generic[T]):
    """Goes round a list: hand ``advance`` to a contender as ``before``, and read ``current`` in its call.

    Usage::

        inputs = Rotation(random_inputs((1024, 768), copies=8))
        Contender("linear", lambda: layer(inputs.current), before=inputs.advance)
    """

    def __init__(self, items: Iterable[T]) -> None:
        self._items = list(items)
        if not self._items:
            raise UserError("a rotation of no inputs cannot be timed; give it at least one")
        self._at = 0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def current(self) -> T:
        """The item whose turn it is."""
        return self._items[self._at]

    def advance(self) -> None:
        """Go on to the next item."""
        self._at = (self._at + 1) % len(self._items)


def rotated(x: Tensor) -> Rotation[Tensor]:
    """A rotation of ``x`` and enough random tensors like it to exceed twice the L2 cache; ``x`` alone on a CPU.

    Args:
        x: floating or complex; it stays the first.
    """
    size = max(x.numel() * x.element_size(), 1)
    more = -(-2 * l2_bytes(x.device) // size)
    made = random_inputs(x.shape, x.dtype, x.device, seed=1, copies=more, requires_grad=x.requires_grad) if more else []
    return Rotation([x, *made])
