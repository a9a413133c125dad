"""Run a module's real forward and backward without its numbers: on the meta device, as it would run on another.

Tensors have a shape and no data. What a forward pass reads to decide what to do keeps its values beside them: token
ids, masks, positions, grids, lengths, and whatever is worked out of these. A value that hangs on weights or
activations is not known; a model that branches on one ends in :class:`NeedsDataError`.

Values stand beside storages, so views and writes in place find them: a meta tensor's storage has a shadow of the same
size on the CPU, or none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from cdvft_bench.core.errors import UserError

META = torch.device("meta")
aten: Any = torch.ops.aten

LARGEST = 2**24
"""Bytes of a tensor up to which its values are worked out; beyond they count as not known."""


class NeedsDataError(UserError):
    """The forward pass reads values that weights or activations decide."""


@contextmanager
def without_data(counter: TorchDispatchMode | None = None, device: str = "cpu") -> Iterator[None]:
    """Inside, new tensors have no data, and operators run on shapes.

    Args:
        counter: sees every operator as it would be dispatched on ``device``.
        device: whose fused attention is taken, "cpu" or "cuda".

    Raises:
        NeedsDataError: the code inside asks for a value that is not known.
    """
    try:
        with META, _Functions(device), _OnShapes():
            if counter is None:
                yield
            else:
                with counter:
                    yield
    except (RuntimeError, NotImplementedError) as error:
        if not any(sign in str(error) for sign in _ASKS):
            raise
        reason = str(error).partition("\n")[0]
        raise NeedsDataError(f"its forward pass decides by values of weights or activations ({reason})") from error


@contextmanager
def same_functions(device: str) -> Iterator[None]:
    """Inside, attention and constants are as in :func:`without_data`, which autograd leaves when it calls a hook.

    Args:
        device: whose fused attention is taken, "cpu" or "cuda".
    """
    with META, _Functions(device):
        yield


_ASKS = ("cannot be called on meta tensors", "out of meta tensor", "on meta tensors", "data-dependent", "meta device")


# --- values --------------------------------------------------------------------------------

_SHADOWS: dict[int, tuple[StorageWeakRef, torch.UntypedStorage]] = {}
_SWEEP = 4096


def known(tensor: Tensor) -> Tensor | None:
    """The values of a tensor: of one with data itself; of one without, a view of what stands beside it, or None."""
    if not tensor.is_meta:
        return tensor
    shadow = _SHADOWS.get(tensor.untyped_storage()._cdata)
    if shadow is None:
        return None
    view = torch.empty(0, dtype=tensor.dtype, device="cpu")
    return view.set_(shadow[1], tensor.storage_offset(), tensor.shape, tensor.stride())


def forget(tensors: Iterable[Tensor]) -> None:
    """Drop what is known of these and of their views."""
    for tensor in tensors:
        if tensor.is_meta:
            _SHADOWS.pop(tensor.untyped_storage()._cdata, None)


def _remember(tensor: Tensor, values: Tensor) -> None:
    if len(_SHADOWS) % _SWEEP == _SWEEP - 1:
        for key in [k for k, (storage, _) in _SHADOWS.items() if storage.expired()]:
            del _SHADOWS[key]
    storage = tensor.untyped_storage()
    beside = torch.UntypedStorage(storage.nbytes())
    view = torch.empty(0, dtype=tensor.dtype, device="cpu")
    view.set_(beside, tensor.storage_offset(), tensor.shape, tensor.stride())
    view.copy_(values)
    _SHADOWS[storage._cdata] = (StorageWeakRef(storage), beside)


class _OnShapes(TorchDispatchMode):
    """Runs operators on shapes, and on values where all of them are known."""

    supports_higher_order_operators = True

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        given = [t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        target = kwargs.get("device")
        to_meta = target is not None and torch.device(target).type == "meta"
        if not to_meta and not any(t.is_meta for t in given):
            return func(*args, **kwargs)
        if getattr(func, "is_view", False):  # a view finds the values of its base
            return _without_data(func, *_shaped(args, kwargs))
        if func in _BY_MASK:
            args = (args[0], _numbers(args[1]), *args[2:])
            given = [t for t in pytree.tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        values = None if func in _RANDOM or func in _EMPTY else [known(t) for t in given]
        all_known = values is not None and all(v is not None for v in values)
        if func in _READS or (func is aten._to_copy.default and target is not None and not to_meta):
            if not all_known:
                raise NeedsDataError(f"its forward pass decides by values of weights or activations ({func})")
            return _of_values(func, args, kwargs)
        shaped = _without_data(func, *_shaped(args, kwargs))
        written = _written(func, args, kwargs)
        if all_known and _size([*written, *pytree.tree_leaves(shaped)]) <= LARGEST:
            return _with_values(func, args, kwargs, shaped, written)
        forget(written)
        return shaped


def _without_data(func: Any, args: Any, kwargs: Any) -> Any:
    shape = _SHAPES.get(func)
    return func(*args, **kwargs) if shape is None else shape(args, kwargs)


def _numbers(indices: Any) -> list[Any]:
    """Masks that select entries as the numbers of these, which say how many they are."""
    found: list[Any] = []
    for index in indices:
        if not isinstance(index, Tensor) or index.dtype not in (torch.bool, torch.uint8):
            found.append(index)
            continue
        values = known(index)
        if values is None:
            raise NeedsDataError("its forward pass selects entries by a mask that weights or activations decide")
        found += torch.nonzero(values, as_tuple=True)
    return found


def _shaped(args: Any, kwargs: Any) -> tuple[Any, Any]:
    """Arguments, all without data."""

    def empty(tensor: Tensor) -> Tensor:
        if tensor.is_meta:
            return tensor
        made = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=META)
        _remember(made, tensor)
        return made

    return pytree.tree_map_only(Tensor, empty, (args, kwargs))


def _size(values: Iterable[Any]) -> int:
    return max((t.untyped_storage().nbytes() for t in values if isinstance(t, Tensor)), default=0)


@cache
def _writes(func: Any) -> tuple[tuple[int, str], ...]:
    arguments = getattr(getattr(func, "_schema", None), "arguments", ())
    return tuple((i, a.name) for i, a in enumerate(arguments) if a.alias_info is not None and a.alias_info.is_write)


def _written(func: Any, args: Any, kwargs: Any) -> list[Tensor]:
    found = [args[i] if i < len(args) else kwargs.get(name) for i, name in _writes(func)]
    return [t for t in pytree.tree_leaves(found) if isinstance(t, Tensor)]


def _real(args: Any, kwargs: Any) -> tuple[Any, Any]:
    args, kwargs = pytree.tree_map_only(Tensor, known, (args, kwargs))
    if "device" in kwargs:
        kwargs["device"] = "cpu"
    return args, kwargs


def _with_values(func: Any, args: Any, kwargs: Any, shaped: Any, written: list[Tensor]) -> Any:
    real_args, real_kwargs = _real(args, kwargs)
    real = func(*real_args, **real_kwargs)  # writes in place go to what stands beside
    own = {t.untyped_storage()._cdata for t in written}
    for made, values in zip(pytree.tree_leaves(shaped), pytree.tree_leaves(real), strict=True):
        if isinstance(made, Tensor) and made.untyped_storage()._cdata not in own:
            _remember(made, values)
    return shaped


def _of_values(func: Any, args: Any, kwargs: Any) -> Any:
    """What is read from values: numbers, tensors with data, or tensors whose shape hangs on values."""
    away = func is aten._to_copy.default and torch.device(kwargs.get("device") or "meta").type == "cpu"
    real_args, real_kwargs = _real(args, kwargs)
    real = func(*real_args, **real_kwargs)
    if away:
        return real

    def empty(values: Tensor) -> Tensor:
        made = torch.empty_strided(values.shape, values.stride(), dtype=values.dtype, device=META)
        if _size([made]) <= LARGEST:
            _remember(made, values)
        return made

    return pytree.tree_map_only(Tensor, empty, real)


def _overloads(text: str) -> set[OpOverload]:
    packets = (getattr(aten, name) for name in text.split() if hasattr(aten, name))
    return {getattr(packet, name) for packet in packets for name in packet.overloads()}


_BY_MASK = _overloads("index index_put index_put_ _index_put_impl_ _unsafe_index _unsafe_index_put")
_EMPTY = _overloads("empty empty_like empty_strided new_empty new_empty_strided empty_permuted")
_RANDOM = _overloads(
    """
    rand randn rand_like randn_like normal normal_ uniform_ bernoulli bernoulli_ exponential_ native_dropout
    log_normal_ cauchy_ geometric_ trunc_normal_ random random_ multinomial
    """
)
_READS = _overloads(
    """
    _local_scalar_dense nonzero nonzero_numpy masked_select equal is_nonzero unique_dim unique_consecutive _unique
    _unique2 repeat_interleave bincount unique_dim_consecutive
    """
)


def _grouped_product(args: Any, kwargs: Mapping[str, Any]) -> Tensor:
    a, b = args[:2]
    groups: Any = args[2] if len(args) > 2 else kwargs.get("offs")
    if a.dim() == b.dim() == 2:
        return a.new_empty((groups.shape[0], a.shape[0], b.shape[1]))
    if a.dim() == 3 and b.dim() == 2:
        return a.new_empty((a.shape[1], b.shape[1]))
    return a.new_empty((*a.shape[:-1], b.shape[-1]))


_SHAPES: dict[Any, Callable[[Any, Mapping[str, Any]], Tensor]] = dict.fromkeys(
    _overloads("_grouped_mm"),
    _grouped_product,  # torch has its shape for bfloat16 alone
)


# --- attention -----------------------------------------------------------------------------


def _value(tensor: Tensor) -> Tensor:
    with torch._C._DisableTorchDispatch():  # no operator of the network's
        values = known(tensor)
        values = None if values is None else values.clone()
    if values is None:
        raise NeedsDataError("its forward pass makes a tensor of values that weights or activations decide")
    return values


class _Functions(TorchFunctionMode):
    """Constants keep their values, and fused attention is the one that the device would take."""

    def __init__(self, device: str) -> None:
        super().__init__()
        self._device = device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.tensor, torch.as_tensor, torch.from_numpy):
            if func is not torch.from_numpy:
                kwargs["device"] = "cpu"
                args = pytree.tree_map_only(Tensor, _value, args)
            return func(*args, **kwargs)
        if func is functional.scaled_dot_product_attention:
            return self._attention(*args, **kwargs)
        return func(*args, **kwargs)

    def _attention(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        given: dict[str, Any] = {"scale": scale}
        if enable_gqa:
            given["enable_gqa"] = True
        plain = (attn_mask, dropout_p, is_causal)
        if not query.is_meta or (attn_mask is not None and attn_mask.requires_grad):
            return functional.scaled_dot_product_attention(query, key, value, *plain, **given)
        kernel = self._kernel(query, key, value, *plain, **given)
        if kernel is None:
            return functional.scaled_dot_product_attention(query, key, value, *plain, **given)
        mask = _additive(attn_mask, query)
        if kernel == "cpu":
            flash = aten._scaled_dot_product_flash_attention_for_cpu
            return flash(query, key, value, dropout_p, is_causal, attn_mask=mask, scale=scale)[0]
        if kernel == "flash":  # which shares keys among heads itself
            return aten._scaled_dot_product_flash_attention(query, key, value, dropout_p, is_causal, scale=scale)[0]
        if enable_gqa and key.shape[-3] != query.shape[-3]:
            key, value = (t.repeat_interleave(query.shape[-3] // t.shape[-3], -3) for t in (key, value))
        if mask is not None:
            mask = mask.expand(*query.shape[:-1], key.shape[-2])
        efficient = aten._scaled_dot_product_efficient_attention
        return efficient(query, key, value, mask, True, dropout_p, is_causal, scale=scale)[0]

    def _kernel(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, dropout: float, causal: bool, **given: Any
    ) -> str | None:
        """The fused kernel for these; None where products and a softmax are launched one after the other."""
        if self._device == "cpu":
            asked = tuple(_Layout(t.shape, t.stride(), t.dtype, t.requires_grad) for t in (query, key, value))
            masked = None if mask is None else _Layout(mask.shape, mask.stride(), mask.dtype, False)
            return "cpu" if _cpu_is_fused(asked, masked, dropout, causal, tuple(given.items())) else None
        if query.dim() != 4 or not query.shape[-1] == key.shape[-1] == value.shape[-1]:
            return None
        half = query.dtype in (torch.float16, torch.bfloat16)
        return "flash" if mask is None and half and query.shape[-1] <= 256 else "efficient"


class _Layout(tuple[Any, ...]):
    """Shape, stride, dtype and whether a gradient is needed."""

    def __new__(cls, *values: Any) -> _Layout:
        return super().__new__(cls, (tuple(values[0]), *values[1:]))


@cache
def _cpu_is_fused(
    layouts: tuple[_Layout, ...], mask: _Layout | None, dropout: float, causal: bool, given: tuple[tuple[str, Any], ...]
) -> bool:
    """Whether a CPU fuses attention of these layouts; torch is asked, on memory that nobody touches."""

    def made(layout: _Layout) -> Tensor:
        shape, stride, dtype, gradient = layout
        return torch.empty_strided(shape, stride, dtype=dtype, device="cpu", requires_grad=gradient)

    with torch._C._DisableTorchDispatch(), torch._C.DisableTorchFunction():
        tensors = [made(layout) for layout in layouts]
        added: Any = None if mask is None else made(mask)
        ask: Any = torch._fused_sdp_choice
        choice = ask(*tensors, added, dropout, causal, **dict(given))
    return choice == int(torch.nn.attention.SDPBackend.FLASH_ATTENTION.value)


def _additive(mask: Tensor | None, query: Tensor) -> Tensor | None:
    """A mask as it is added to the scores; a boolean one takes a kernel more."""
    if mask is None or mask.dtype != torch.bool:
        return mask
    zero, never = (torch.scalar_tensor(x, dtype=query.dtype) for x in (0.0, float("-inf")))
    return torch.where(mask, zero, never)
