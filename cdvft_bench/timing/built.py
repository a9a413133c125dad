"""Modules as they are counted and timed: one rule for their weights, their inputs and their step.

A layer is one ``nn.Linear`` with random normal weights inside a network: its input needs a gradient. Adapters start
where PEFT or the paper starts them, but a trainable tensor that starts at exactly zero is drawn from N(0, 0.02)
instead, so that nothing is counted or timed on zeros. Torch alone is needed, so a bare node builds the same.
"""

from __future__ import annotations

import contextlib
import copy
import gc
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from cdvft_bench.core.case import LORA, Case, CasePass, baselines
from cdvft_bench.timing.inputs import rotated

T = TypeVar("T", bound=nn.Module)

DEVIATION = 0.02
"""Standard deviation of a trainable tensor that would start at zero."""


@dataclass(frozen=True)
class Target:
    """What is measured.

    Attributes:
        name: of the case. module: it. call: one pass. fixed: the same on one input, as a graph needs it.
        optimizer: of what is trained, or None. turns: inputs that ``call`` goes round.
        gradients: of the last call: its input's, where it takes one, then those of what is trained; empty after a
            forward pass.
    """

    name: str
    module: nn.Module
    call: Callable[[], object]
    fixed: Callable[[], object]
    optimizer: torch.optim.Optimizer | None = None
    turns: int = 1
    gradients: Callable[[], list[Tensor]] = list


@dataclass(frozen=True)
class Built:
    """A built case: a module, its inputs, and how to run a pass.

    Attributes:
        module: the adapted (or frozen) layer or model.
        inputs: positional inputs of a layer, or keyword inputs of a model.
        forward: runs the forward pass with autograd recording and returns its output.
        step: runs forward, backward, and an AdamW update where anything is trained.
        advance: goes on to the next input, of which a layer on a GPU has several; None where there is one.
        optimizer: of what is trained; None where nothing is. turns: inputs that there are.
        leaf: the input whose turn it is, where it takes a gradient.
    """

    module: nn.Module
    inputs: Any
    forward: Callable[[], Tensor]
    step: Callable[[], object]
    advance: Callable[[], None] | None = None
    optimizer: torch.optim.Optimizer | None = None
    turns: int = 1
    leaf: Callable[[], Tensor | None] = lambda: None

    def gradients(self) -> list[Tensor]:
        """Of the last step: the input's, where it takes one, then those of what is trained."""
        tensors = [self.leaf(), *(p for p in self.module.parameters() if p.requires_grad)]
        return [t.grad for t in tensors if t is not None and t.grad is not None]

    def target(self, name: str, pass_: CasePass) -> Target:
        """The pass to measure, on another input each time where there are several."""
        fixed = self.step if pass_ == "step" else self.forward
        advance = self.advance

        def call() -> object:
            assert advance is not None
            advance()
            return fixed()

        taken = self.gradients if pass_ == "step" else list
        call_ = fixed if advance is None else call
        return Target(name, self.module, call_, fixed, self.optimizer, self.turns, taken)


def collect() -> None:
    """Free what a case has left in cycles.

    What is there after the first case, packages above all, is not looked through again after each further one.
    """
    gc.collect()
    if not gc.get_freeze_count():
        gc.freeze()


def freed() -> None:
    """Leave the memory to the next case, in another process too; a CUDA context that the last one broke refuses."""
    collect()
    with contextlib.suppress(Exception):
        torch.cuda.empty_cache()


NARROW = ("bfloat16", "float16")


def beside(case: Case, build: Callable[[Case], Built]) -> list[Target]:
    """What a case is timed beside: the frozen subject, and LoRA of rank 8 as PEFT keeps it.

    On a GPU, where the time of a layer is the bytes that it moves, a base of 16 bits has LoRA with factors of its own
    dtype, too: PEFT's are of 32 bits, and cost twice the bytes. It is called "lora r=8 bfloat16".
    """
    found = [build(other).target(name, other.pass_) for name, other in baselines(case).items()]
    if case.dtype in NARROW and torch.device(case.device).type == "cuda":
        other = replace(case, method="lora", hyperparameters=(("rank", 8),))
        built = build(other)
        for parameter in built.module.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.to(getattr(torch, case.dtype))
        found.append(built.target(f"{LORA} {case.dtype}", other.pass_))
    return found


def random_linear(
    d_in: int,
    d_out: int,
    *,
    bias: bool = True,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    seed: int = 0,
) -> nn.Linear:
    """A frozen layer whose weight (d_out, d_in) and bias (d_out,) are drawn from N(0, 1 / d_in)."""
    layer: nn.Linear = nn.utils.skip_init(nn.Linear, d_in, d_out, bias=bias, dtype=dtype, device=device)
    generator = torch.Generator(device).manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(std=d_in**-0.5, generator=generator)
    return layer.requires_grad_(False)


def prepared(module: nn.Module, seed: int = 0) -> nn.Module:
    """The module in training mode, without dropout, and with no trainable tensor at exactly zero.

    Dropout's cost is the base's own, and its randomness hides differences.
    """
    module.train()
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
    generators: dict[torch.device, torch.Generator] = {}
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad and not parameter.any():
                device = parameter.device
                generator = generators.setdefault(device, torch.Generator(device).manual_seed(seed + 1))
                parameter.normal_(std=DEVIATION, generator=generator)
    return module


def copy_with_shared_weights(module: T) -> T:
    """A copy with parameters and buffers of its own that share the module's weights; for what leaves these as they are.

    The parameters of the copy are frozen.
    """
    shared: dict[int, Any] = {id(p): nn.Parameter(p.data, requires_grad=False) for p in module.parameters()}
    return copy.deepcopy(module, shared)


def built_layer(module: nn.Module, x: Tensor, seed: int = 0) -> Built:
    """How to run a layer on an input (batch, sequence, d_in), on a GPU on several like it in turn.

    Args:
        module: prepared. x: floating; it is made a leaf that takes a gradient. seed: of the output's gradient.
    """
    turn = rotated(x.requires_grad_())

    def advance() -> None:
        turn.current.grad = None
        turn.advance()

    return _built(
        module,
        (x,),
        lambda: module(turn.current),
        lambda: turn.current,
        advance if len(turn) > 1 else None,
        seed,
        len(turn),
    )


def built_model(
    module: nn.Module, inputs: dict[str, Tensor], forward: Callable[[], Tensor], leaf: Tensor | None, seed: int = 0
) -> Built:
    """How to run a model.

    Args:
        module: prepared. inputs: its keyword inputs. forward: calls it and returns what the backward pass starts from.
        leaf: an input that takes a gradient, which every step drops; None where there is none.
        seed: of the output's gradient.
    """
    return _built(module, inputs, forward, lambda: leaf, None, seed)


def _built(
    module: nn.Module,
    inputs: Any,
    forward: Callable[[], Tensor],
    leaf: Callable[[], Tensor | None],
    advance: Callable[[], None] | None,
    seed: int,
    turns: int = 1,
) -> Built:
    trained = [p for p in module.parameters() if p.requires_grad]
    # Capturable: a CUDA graph may hold the update; the fused kernel is the same either way.
    cuda = any(p.is_cuda for p in trained)
    optimizer = torch.optim.AdamW(trained, lr=1e-6, fused=True, capturable=cuda) if trained else None
    gradients: list[Tensor] = []

    def step() -> None:
        x = leaf()
        if x is not None:
            x.grad = None
        if optimizer is not None:
            optimizer.zero_grad(set_to_none=True)
        y = forward()
        if not gradients:
            generator = torch.Generator(y.device).manual_seed(seed + 2)
            gradients.append(torch.randn(y.shape, dtype=y.dtype, device=y.device, generator=generator))
        y.backward(gradients[0])
        if optimizer is not None:
            optimizer.step()

    return Built(module, inputs, forward, step, advance, optimizer, turns, leaf)
