"""Count an adapted layer or model: parameters, passes as dispatched, fvcore's forward, saved activations."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from cdvft_bench.core.counted import Counted, FvcoreCount, PassCount
from cdvft_bench.counting.dispatch import count_dispatch
from cdvft_bench.tensors import plain_parts, tensors_in


def trainable_parameters(module: nn.Module) -> int:
    """Entries of the parameters that require a gradient; a shared parameter counts once."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def count_layer(module: nn.Module, x: Tensor, gradient: Tensor | None = None) -> Counted:
    """Count one layer.

    Args:
        x: input (..., d_in) that requires a gradient. gradient: of the output (..., d_out), random if not given: what
            compiled kernels do depends on the data.
    """
    return _count(module, lambda: module(x), (x,), gradient)


def count_model(model: nn.Module, inputs: Mapping[str, Any]) -> Counted:
    """Count a model on keyword inputs; of its output :func:`floating_output` takes a random gradient."""
    return _count(model, lambda: model(**inputs), inputs)


def floating_output(output: Any) -> Tensor:
    """The first real or complex tensor of an output, however nested, that needs a gradient; else the first of all.

    Raises:
        TypeError: it has none.
    """
    found = [t for t in tensors_in(output) if t.is_floating_point() or t.is_complex()]
    if not found:
        raise TypeError(f"a {type(output).__name__} holds no floating-point tensor to differentiate")
    return next((t for t in found if t.requires_grad), found[0])


def _count(
    module: nn.Module,
    call: Callable[[], Any],
    inputs: tuple[Any, ...] | Mapping[str, Any],
    gradient: Tensor | None = None,
) -> Counted:
    notes: list[str] = []
    for value in tensors_in(inputs):
        value.grad = None  # adding to an older gradient would be one launch more
    made_in_inference = any(t.is_inference() for t in (*module.parameters(), *module.buffers()))
    if made_in_inference:
        notes.append("parameters were made in inference mode, which records nothing for backward")
    with torch.inference_mode() if made_in_inference else nullcontext(), count_dispatch() as forward:
        kept, output = saved_bytes(module, call)
    trained = [p for p in module.parameters() if p.requires_grad]
    backward, update = _count_rest(module, output, gradient, trained, notes)
    fvcore: FvcoreCount | None = None
    try:
        # Here, since a machine may lack fvcore: its count is then left out, and said so.
        from cdvft_bench.counting.fvcore_counter import count_forward

        fvcore = count_forward(module, inputs)
    except Exception as error:
        notes.append(f"fvcore did not count the forward pass: {type(error).__name__}: {_first_line(error)}")
    return Counted(
        parameters=sum(p.numel() for p in trained),
        forward=forward.result(),
        backward=backward,
        update=update,
        fvcore=fvcore,
        saved_bytes=kept,
        notes=tuple(notes),
    )


def _count_rest(
    module: nn.Module, output: Any, gradient: Tensor | None, trained: list[nn.Parameter], notes: list[str]
) -> tuple[PassCount | None, PassCount | None]:
    """Backward, and the update of what it gave a gradient."""
    try:
        y = floating_output(output)
    except TypeError as error:
        notes.append(f"backward not counted: {error}")
        return None, None
    if not y.requires_grad:
        notes.append("backward not counted: the output needs no gradient")
        return None, None
    module.zero_grad(set_to_none=True)
    gradient = torch.randn_like(y) if gradient is None else gradient
    try:
        with count_dispatch() as counter:
            y.backward(gradient)
    except (RuntimeError, NotImplementedError) as error:  # an operator without a derivative
        notes.append(f"backward not counted: {type(error).__name__}: {_first_line(error)}")
        return None, None
    return counter.result(), _count_update(trained, notes) if trained else None


def _count_update(parameters: list[nn.Parameter], notes: list[str]) -> PassCount | None:
    moved = [p for p in parameters if p.grad is not None]
    if not moved:
        notes.append("update not counted: no trained parameter has a gradient")
        return None
    if any(p.is_meta for p in moved):
        return _count_fused_update(moved)
    reason = ""
    for fused in (True, False):
        # lr = 0 leaves the weights as they are; the first step also makes the state, so the second is counted.
        try:
            optimizer = torch.optim.AdamW(moved, lr=0.0, fused=fused)
            optimizer.step()
            with count_dispatch() as counter:
                optimizer.step()
        except RuntimeError as error:  # complex parameters, sparse gradients
            reason = reason or _first_line(error)
            continue
        if not fused:
            notes.append(f"update counted of AdamW's plain form, not its fused one: {reason}")
        return counter.result()
    notes.append(f"update not counted: {reason}")
    return None


def _count_fused_update(parameters: list[nn.Parameter]) -> PassCount:
    """Fused AdamW without a device to run it: the two operators that it launches for each dtype."""
    with torch.no_grad(), count_dispatch() as counter:
        for dtype in {p.dtype: None for p in parameters}:
            values: list[Tensor] = [p for p in parameters if p.dtype == dtype]
            gradients = [p.grad for p in values if p.grad is not None]
            first, second = ([torch.empty_like(p) for p in values] for _ in range(2))
            steps = [torch.empty((), dtype=torch.float32, device="meta") for _ in values]
            torch._foreach_add_(steps, 1)
            torch._fused_adamw_(
                values,
                gradients,
                first,
                second,
                [],
                steps,
                lr=0.0,
                beta1=0.9,
                beta2=0.999,
                weight_decay=0.0,
                eps=1e-8,
                amsgrad=False,
                maximize=False,
            )
    return counter.result()


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "")


# --- saved activations -----------------------------------------------------------------------


T = TypeVar("T")


def saved_bytes(module: nn.Module, call: Callable[[], T]) -> tuple[int, T]:
    """Run ``call`` and measure what autograd keeps.

    Returns:
        bytes of distinct storages packed for backward, whole storages once each, without those of
        the module's parameters and buffers; and the result of ``call``.
    """
    own = {key for t in (*module.parameters(), *module.buffers()) for key in _storages(t)}
    kept: dict[int, tuple[Tensor, int]] = {}  # holding the tensors keeps a storage from being used twice

    def pack(tensor: Tensor) -> Tensor:
        for key, found in _storages(tensor).items():
            kept.setdefault(key, found)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = call()
    return sum(size for key, (_, size) in kept.items() if key not in own), result


def _storages(tensor: Tensor) -> dict[int, tuple[Tensor, int]]:
    """What a tensor is held in: tensor and bytes by the storage's identity, which a meta tensor has as well."""
    found = {}
    for part in plain_parts(tensor):
        try:
            storage = part.untyped_storage()
        except (RuntimeError, NotImplementedError):  # an opaque layout, as oneDNN's
            found[id(part)] = (part, part.numel() * part.element_size())
        else:
            found[storage._cdata] = (part, storage.nbytes())
    return found
