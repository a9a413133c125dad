"""What every module of a network does in a forward and a backward pass: its calls, rows, products, launches, bytes.

An operator belongs to the innermost module that runs when it is dispatched. In the backward pass it belongs to the
module in whose forward pass its autograd node was made: nodes are numbered as they are made, so the numbers at which
modules begin and end say whose a node is. What is computed again for a checkpoint belongs to the module that computes
it. What no module owns, as the sum of two gradients of one tensor, stands at the root, "".
"""

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.checkpoint import checkpoint

from cdvft_bench.core.counted import CountedNetwork, Launches, ModuleCount, PassCount
from cdvft_bench.core.errors import UserError
from cdvft_bench.counting.count import floating_output, saved_bytes, trainable_parameters
from cdvft_bench.counting.dispatch import Tally, count_dispatch, traffic
from cdvft_bench.counting.handles import Price, attention_lengths
from cdvft_bench.counting.network.meta import same_functions, without_data
from cdvft_bench.counting.operator_prices import price_of
from cdvft_bench.tensors import tensors_in

FORWARD, BACKWARD = 0, 1
_sequence_number: Callable[[], int] = torch._C._autograd._get_sequence_nr


class _Modules(count_dispatch):
    """Counts by module and pass."""

    def __init__(self) -> None:
        super().__init__()
        self.pass_ = FORWARD
        self.tallies: dict[tuple[str, int], Tally] = {}
        self.calls: Counter[str] = Counter()
        self.rows: dict[str, Counter[int]] = {}
        self.alike: Counter[Launches] = Counter()
        self.linear: frozenset[str] = frozenset()
        self._stack: list[str] = []
        self._starts: list[int] = []  # numbers of autograd nodes from which on they belong to the module beside them
        self._owners: list[str] = []

    def enter(self, name: str, inputs: tuple[Any, ...], width: int | None) -> None:
        self._stack.append(name)
        self._mark(name)
        if self.pass_ == FORWARD:
            self.calls[name] += 1
            x = next(iter(tensors_in(inputs)), None)
            if width and x is not None:
                self.rows.setdefault(name, Counter())[x.numel() // width] += 1

    def leave(self) -> None:
        if self._stack:
            self._stack.pop()
        self._mark(self._stack[-1] if self._stack else "")

    def _mark(self, name: str) -> None:
        self._starts.append(_sequence_number())
        self._owners.append(name)

    def _owner(self) -> str:
        if self._stack:
            return self._stack[-1]
        if self.pass_ == FORWARD:
            return ""
        node = torch._C._current_autograd_node()
        if node is None or node.name() == "struct torch::autograd::AccumulateGrad":
            return ""
        i = bisect_right(self._starts, node._sequence_nr()) - 1
        return self._owners[i] if i >= 0 else ""

    def _count(self, name: str, outputs: list[Tensor], func: Any, args: Any, kwargs: Mapping[str, Any]) -> None:
        if name == "_to_copy" and not (
            args[0].is_meta and outputs[0].is_meta
        ):  # a constant that the program holds on the host
            return
        moved, price = traffic(name, args, kwargs, outputs), price_of(name, func, args, kwargs, outputs)
        owner = self._owner()
        self.tallies.setdefault((owner, self.pass_), Tally()).add(name, moved, price)
        self.whole(self.pass_).add(name, moved, price)
        module = owner if owner in self.linear else ""
        self.alike[_launch(module, self.pass_ == BACKWARD, name, moved, price, args, outputs)] += 1

    def whole(self, pass_: int) -> Tally:
        """Everything of a pass."""
        return self.tallies.setdefault(("*", pass_), Tally())


def _launch(
    module: str,
    backward: bool,
    name: str,
    moved: tuple[int, int],
    price: Price | None,
    args: Any,
    outputs: list[Tensor],
) -> Launches:
    """One launch, as it is summed up with those that are alike."""
    real = next((t for t in outputs if t.is_floating_point() or t.is_complex()), None)
    known = price or Price()
    return Launches(
        module,
        backward,
        name,
        1,
        known.macs,
        known.flops,
        known.transforms,
        known.points,
        *moved,
        priced=price is not None,
        dtype="" if real is None else str(real.dtype).removeprefix("torch."),
        complex_=real is not None and real.is_complex(),
        lengths=attention_lengths(name, args),
        at_most=0 if price is not None else _largest_product(args, outputs),
    )


def _largest_product(args: Any, outputs: list[Tensor]) -> int:
    """Multiply-adds of a matrix product of these sizes: of (m, k), (k, n) and (m, n) the root of all three, multiplied.

    A single operand counts twice.
    """
    sizes = sorted((t.numel() for t in tensors_in(args)), reverse=True) or [0]
    return math.isqrt(sizes[0] * sizes[min(1, len(sizes) - 1)] * max((t.numel() for t in outputs), default=0))


def linear_of(module: nn.Module) -> tuple[int, int, bool] | None:
    """d_in, d_out and bias of a linear layer; None of another module."""
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features, module.bias is not None
    if type(module).__name__ == "Conv1D":  # GPT-2's transposed layer; of others a weight may be worked out when read
        weight = getattr(module, "weight", None)
        if isinstance(weight, Tensor) and weight.dim() == 2:
            return int(weight.shape[0]), int(weight.shape[1]), True
    return None


@contextmanager
def _watched(module: nn.Module, counter: _Modules) -> Iterator[None]:
    handles = []
    for name, part in module.named_modules():
        if not name:
            continue

        def enter(part: nn.Module, args: Any, kwargs: Any, name: str = name) -> None:
            linear = linear_of(part)
            counter.enter(name, (args, kwargs), linear[0] if linear else None)

        def leave(*_: Any) -> None:
            counter.leave()

        handles.append(part.register_forward_pre_hook(enter, with_kwargs=True, prepend=True))
        handles.append(part.register_forward_hook(leave, always_call=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def count_modules(
    module: nn.Module,
    make_inputs: Callable[[], Any],
    *,
    to_embeddings: bool = False,
    checkpointed: int = 0,
    device: str = "cpu",
) -> CountedNetwork:
    """Run a network's forward and backward without its numbers and say what each module did.

    Args:
        module: its parameters on the meta device. make_inputs: returns keywords or a tuple of positional inputs.
        to_embeddings: freeze every parameter, and let the backward pass run down to the outputs of the embeddings (of
            words, patches, frames), as where the first layer is adapted; else what requires a gradient decides.
        checkpointed: keep the input alone of every block that comes to a multiple of it, and compute it again in the
            backward pass; 0 keeps all. device: whose fused attention is taken, "cpu" or "cuda".

    Raises:
        UserError: the network fails on these inputs, or decides by values that are not there.
    """
    counter, notes = _Modules(), []
    counter.linear = frozenset(name for name, part in module.named_modules() if linear_of(part))
    frozen = [p for p in module.parameters() if p.requires_grad] if to_embeddings else []
    hooks = [] if not to_embeddings else _gradients_from_embeddings(module)
    for parameter in frozen:
        parameter.requires_grad_(False)
    parameters = sum(p.numel() for p in module.parameters())
    kept, backward = 0, False
    try:
        with without_data(device=device), checkpointing(module, checkpointed, lambda: same_functions(device)):
            inputs = pytree.tree_map_only(Tensor, lambda x: x.to("meta"), make_inputs())
            with _watched(module, counter), counter:
                kept, output = saved_bytes(module, lambda: _call(module, inputs))
            counter.pass_ = BACKWARD
            y = floating_output(output)
            if y.requires_grad:
                gradient = torch.empty_like(y)
                with _watched(module, counter), counter:
                    torch.autograd.backward(y, gradient)
                backward = True
            else:
                notes.append("backward not counted: the output needs no gradient")
    except UserError:
        raise
    except Exception as error:  # whatever a network of the user's raises on inputs that do not fit it
        line = next((s.strip() for s in str(error).splitlines() if s.strip()), "")
        raise UserError(f"{type(module).__name__} fails on its inputs: {type(error).__name__}: {line}") from error
    finally:
        for hook in hooks:
            hook.remove()
        module.zero_grad(set_to_none=True)
        for parameter in frozen:
            parameter.requires_grad_(True)
    rows = tuple(_row(name, part, counter) for name, part in module.named_modules())
    return CountedNetwork(
        kind=type(module).__name__,
        parameters=parameters,
        trainable=trainable_parameters(module),
        forward=counter.whole(FORWARD).result(),
        backward=counter.whole(BACKWARD).result() if backward else None,
        macs=dict((counter.whole(FORWARD).macs + counter.whole(BACKWARD).macs).most_common()),
        saved_bytes=kept,
        modules=rows,
        notes=tuple(notes),
        launches=tuple(replace(one, times=n) for one, n in counter.alike.items()),
    )


def _call(module: nn.Module, inputs: Any) -> Any:
    return module(**inputs) if isinstance(inputs, Mapping) else module(*inputs)


def _row(name: str, part: nn.Module, counter: _Modules) -> ModuleCount:
    empty = PassCount(0, 0, 0, 0, 0)
    own = [counter.tallies.get((name, p)) for p in (FORWARD, BACKWARD)]
    return ModuleCount(
        name=name,
        kind=type(part).__name__,
        calls=1 if not name else counter.calls[name],
        linear=linear_of(part),
        rows=tuple(sorted(counter.rows.get(name, {}).items())),
        parameters=sum(p.numel() for p in part.parameters(recurse=False)),
        forward=own[0].result() if own[0] else empty,
        backward=own[1].result() if own[1] else empty,
    )


def _gradients_from_embeddings(module: nn.Module) -> list[Any]:
    """Let what embeddings give out need a gradient: every innermost module with weights that none reaches yet."""

    def need(_module: nn.Module, _inputs: Any, output: Any) -> None:
        found = list(tensors_in(output))
        if torch.is_grad_enabled() and not any(t.requires_grad for t in found):
            for tensor in found:
                if tensor.is_floating_point():
                    tensor.requires_grad_()

    inner = [m for m in module.modules() if not list(m.children()) and list(m.parameters(recurse=False))]
    return [m.register_forward_hook(need) for m in inner]


# --- checkpointing -------------------------------------------------------------------------


def blocks_of(module: nn.Module) -> list[nn.Module]:
    """The blocks of a network: the members of its lists of modules of one kind, outermost lists alone."""
    found: list[nn.Module] = []
    for child in module.children():
        same = isinstance(child, nn.ModuleList) and len(child) > 0 and len({type(m) for m in child.children()}) == 1
        found += list(child.children()) if same and list(child.parameters()) else blocks_of(child)
    return found


@contextmanager
def checkpointing(
    module: nn.Module, every: int, recomputing: Callable[[], AbstractContextManager[None]] = nullcontext
) -> Iterator[None]:
    """Inside, every block that comes to a multiple of ``every`` keeps its inputs alone; 0: none.

    What is computed again is computed inside ``recomputing``.
    """
    chosen = blocks_of(module)[every - 1 :: every] if every else []
    if every and not chosen:
        raise UserError(f"{type(module).__name__} has no {every} blocks to checkpoint")
    before = [block.forward for block in chosen]

    def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
        return nullcontext(), recomputing()

    for block, forward in zip(chosen, before, strict=True):

        def again(*args: Any, forward: Any = forward, **kwargs: Any) -> Any:
            return checkpoint(
                forward, *args, use_reentrant=False, preserve_rng_state=False, context_fn=contexts, **kwargs
            )

        block.forward = again
    try:
        yield
    finally:
        for block in chosen:
            del block.forward
