"""The three witnesses of a case: predict by closed form, count what runs, time it.

A layer is one ``nn.Linear`` with random normal weights inside a network: its input needs a
gradient. A model is the one of the model table, with its real weights. Adapters start where PEFT or
the paper starts them, but a trainable tensor that starts at exactly zero is drawn from N(0, 0.02)
instead, so that nothing is counted or timed on zeros.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cdvft_bench.analytic.conventions import CONVENTIONS
from cdvft_bench.analytic.cost import flops, total
from cdvft_bench.analytic.kernels import Kernels
from cdvft_bench.analytic.models import layer_shape, model_shape, model_spec
from cdvft_bench.core.case import Case
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.record import Predicted, PredictedPass
from cdvft_bench.sweep.grid import FROZEN
from cdvft_bench.sweep.model_cost import case_cost, case_method

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cdvft_bench.core.counted import Counted
    from cdvft_bench.core.timed import Mode, Timed
    from cdvft_bench.timing.measure import Target

LORA = "lora r=8"
"""Name of the second foot of every ratio."""


def label(case: Case) -> str:
    """How tables call the case's method."""
    method = case_method(case)
    return "frozen" if method is None else method.label


# --- formula -------------------------------------------------------------------------------


def _summed(kernels: Kernels) -> PredictedPass:
    sums = total(kernels)
    adapter = tuple(k for k in kernels if k.scope != "base")
    operators: Counter[str] = Counter()
    for k in kernels:
        operators[k.op] += int(k.launches)
    return PredictedPass(
        macs=int(sums.macs),
        elementwise_flops=int(sums.elementwise_flops),
        ffts=int(sums.ffts),
        launches=int(sums.launches),
        read=int(sums.read),
        written=int(sums.written),
        flops={name: float(flops(kernels, name)) for name in CONVENTIONS},
        fft_flops={name: float(flops(kernels, name, "fft")) for name in CONVENTIONS},
        operators={name: n for name, n in sorted(operators.items()) if n},
        adapter_flops={name: float(flops(adapter, name)) for name in CONVENTIONS},
        adapter_launches=int(total(adapter).launches),
    )


def predict(case: Case) -> Predicted:
    """The closed form of a case; no tensor is touched.

    Raises:
        UserError: the method does not fit the subject.
    """
    cost = case_cost(case)
    layer = case.kind == "layer"
    covers = "linear layers and attention products, backward down to the embeddings; not norms, softmax, activations"
    return Predicted(
        parameters=int(cost.parameters),
        forward=_summed(cost.forward),
        backward=_summed(cost.backward),
        update=_summed(cost.update),
        saved_bytes=int(cost.saved_bytes) if layer else None,
        optimizer_bytes=int(cost.optimizer_bytes),
        covers="whole layer" if layer else covers,
    )


# --- the thing itself ----------------------------------------------------------------------


@dataclass(frozen=True)
class Subject:
    """A built case: a module, its inputs, and how to run a pass.

    Attributes:
        module: the adapted (or frozen) layer or model.
        inputs: positional inputs of a layer, or keyword inputs of a model.
        forward: runs the forward pass with autograd recording and returns its output.
        step: runs forward, backward, and an AdamW update where anything is trained.
        advance: goes on to the next input, of which a layer on a GPU has several.
        optimizer: of what is trained, or None.
    """

    module: nn.Module
    inputs: Any
    forward: Callable[[], Tensor]
    step: Callable[[], object]
    advance: Callable[[], None] | None = None
    optimizer: Any = None


def require_device(device: str) -> None:
    """Raise UserError unless torch can use the device."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device 'cuda' is not to be had: torch sees no GPU here; use --device cpu")


@cache
def _base_layer(subject: str, dtype: str, device: str, seed: int) -> nn.Linear:
    import torch
    from torch import nn

    shape = layer_shape(subject)
    layer = nn.utils.skip_init(
        nn.Linear, int(shape.d_in), int(shape.d_out), bias=shape.bias, dtype=getattr(torch, dtype), device=device
    )
    generator = torch.Generator(device).manual_seed(seed)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.normal_(std=int(shape.d_in) ** -0.5, generator=generator)
    if shape.quantised:
        _quantise(layer)
    return layer.requires_grad_(False)


def _quantise(layer: nn.Linear) -> None:
    """Hold the weight as int8 with a scale a row, in place."""
    try:
        from torchao.quantization import Int8WeightOnlyConfig, quantize_
    except ImportError as error:
        raise UserError(f"a layer of int8 needs torchao ({error}); pip install 'cdvft-bench[quantised]'") from error
    quantize_(layer, Int8WeightOnlyConfig())


@cache
def _base_model(subject: str, dtype: str, device: str, seed: int) -> nn.Module:
    from cdvft_bench.accuracy.models import PACKAGED, load_model

    # Real weights where a package has them; times and counts do not depend on them.
    real = subject in PACKAGED
    return load_model(subject, pretrained=real, dtype=dtype, device=device, seed=seed).requires_grad_(False)


def _leave_zero(module: nn.Module, seed: int) -> None:
    import torch

    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad and not parameter.any():
                generator = torch.Generator(parameter.device).manual_seed(seed + 1)
                parameter.normal_(std=0.02, generator=generator)


def build(case: Case) -> Subject:
    """Build a case on its device.

    For the frozen model, the backward pass runs down to the input embeddings, which then need a
    gradient: what any adapter in the first layer makes autograd do.
    """
    import copy

    import torch

    require_device(case.device)
    tokens = model_shape(case.subject).image_tokens if case.kind == "model" else None
    if tokens is not None and case.sequence != tokens:
        raise UserError(f"{case.subject} makes {tokens} tokens of an image; give sequence = {tokens}")
    method = case_method(case)
    key = (case.subject, case.dtype, case.device, case.seed)
    generator = torch.Generator(case.device).manual_seed(case.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(case.seed)
        if case.kind == "layer":
            base = copy.deepcopy(_base_layer(*key))
            module: nn.Module = base if method is None else method.adapt_linear(base)
        else:
            model = _twin(_base_model(*key), case)
            module = model if method is None else method.adapt_model(model, model_spec(case.subject).targets)
    module.train()
    for part in module.modules():  # dropout off: its cost is the base's own, and randomness hides differences
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0
    _leave_zero(module, case.seed)
    dtype = getattr(torch, case.dtype)
    if case.kind == "layer":
        shape = (case.batch, case.sequence, int(layer_shape(case.subject).d_in))
        x = torch.randn(shape, dtype=dtype, device=case.device, generator=generator).requires_grad_()
        return _subject(module, (x,), module, x)
    return _build_model(case, module, generator)


def _twin(model: nn.Module, case: Case) -> nn.Module:
    """A copy of a model; on a GPU it shares the frozen weights, of which a large model's fit there once.

    Methods that train or overwrite the base's own weights get a copy of their own.
    """
    import copy

    from torch import nn

    if case.device == "cpu" or case.method in ("full", "bitfit"):
        return copy.deepcopy(model)
    shared = {id(p): nn.Parameter(p.data, requires_grad=False) for p in model.parameters()}
    return copy.deepcopy(model, dict(shared))


def _build_model(case: Case, module: nn.Module, generator: Any) -> Subject:
    import torch

    from cdvft_bench.counting.count import floating_output

    vocabulary = model_shape(case.subject).vocabulary
    inputs: dict[str, Tensor] = {}
    extra: Tensor | None = None
    if vocabulary is None:
        config: Any = module.config
        size = (case.batch, config.num_channels, config.image_size, config.image_size)
        dtype = getattr(torch, case.dtype)
        inputs["pixel_values"] = torch.randn(size, dtype=dtype, device=case.device, generator=generator)
        if case.method == FROZEN:  # the backward pass ends at the embeddings, as with text
            module.get_submodule("embeddings").register_forward_hook(lambda *found: found[-1].requires_grad_())
        return _subject(module, inputs, lambda: floating_output(module(**inputs)), extra)
    shape = (case.batch, case.sequence)
    ids = torch.randint(0, vocabulary, shape, device=case.device, generator=generator)
    inputs["attention_mask"] = torch.ones_like(ids)
    if case.method == FROZEN:
        extra = module.get_input_embeddings()(ids).detach().requires_grad_()  # type: ignore[operator]
        inputs["inputs_embeds"] = extra
    else:
        inputs["input_ids"] = ids
    return _subject(module, inputs, lambda: floating_output(module(**inputs)), extra)


def _subject(module: nn.Module, inputs: Any, forward: Callable[..., Tensor], x: Tensor | None) -> Subject:
    import torch

    from cdvft_bench.timing.inputs import rotated

    trained = [p for p in module.parameters() if p.requires_grad]
    # Capturable: a CUDA graph may hold the update; the fused kernel is the same either way.
    cuda = any(p.is_cuda for p in trained)
    optimizer = torch.optim.AdamW(trained, lr=1e-6, fused=True, capturable=cuda) if trained else None
    gradients: list[Tensor] = []
    turn = rotated(x) if isinstance(inputs, tuple) and x is not None else None

    def run() -> Tensor:
        return forward() if turn is None else forward(turn.current)

    def step() -> None:
        leaf = x if turn is None else turn.current
        if leaf is not None:
            leaf.grad = None
        if optimizer is not None:
            optimizer.zero_grad(set_to_none=True)
        y = run()
        if not gradients:
            gradients.append(torch.randn_like(y))
        y.backward(gradients[0])
        if optimizer is not None:
            optimizer.step()

    def advance() -> None:
        if turn is not None:
            turn.current.grad = None
            turn.advance()

    return Subject(module, inputs, run, step, advance if turn is not None and len(turn) > 1 else None, optimizer)


# --- count ---------------------------------------------------------------------------------


def count(case: Case) -> Counted:
    """Count the case: parameters, dispatched passes, fvcore's forward, saved activations."""
    from cdvft_bench.counting.count import count_layer, count_model

    subject = build(case)
    if case.kind == "layer":
        return count_layer(subject.module, *subject.inputs)
    return count_model(subject.module, subject.inputs)


# --- time ----------------------------------------------------------------------------------


def _feet(case: Case) -> dict[str, Case]:
    """What the case is timed beside: the frozen subject and LoRA of rank 8."""
    from dataclasses import replace

    feet = {
        FROZEN: replace(case, method=FROZEN, hyperparameters=()),
        LORA: replace(case, method="lora", hyperparameters=(("rank", 8),)),
    }
    return {name: foot for name, foot in feet.items() if foot != case}


def time_case(
    case: Case,
    *,
    budget_s: float = 2.0,
    precision: float = 0.05,
    trace: bool = True,
    modes: Sequence[Mode] | None = None,
    prepare_s: float | None = None,
    trace_to: Path | None = None,
) -> Timed:
    """Time the case, interleaved with the frozen subject and LoRA r = 8; then its trace, memory, energy and modes.

    What fails after the times is left out, and said in the notes: the times stand without it.

    Args:
        case: its pass says what one call is.
        budget_s, precision: see ``timing.clock.time_interleaved``.
        trace, modes, prepare_s, trace_to: see ``timing.measure.Plan``.
    """
    from cdvft_bench.timing.measure import Plan, measure

    plan = Plan(budget_s, precision, None if modes is None else tuple(modes), None, trace, trace_to, prepare_s,
                seed=case.seed)  # fmt: skip
    return measure(
        _target(label(case), case),
        lambda: [_target(name, foot) for name, foot in _feet(case).items()],
        case.device, plan,
    )  # fmt: skip


def _target(name: str, case: Case) -> Target:
    from cdvft_bench.timing.measure import Target

    built = build(case)
    fixed = built.step if case.pass_ == "step" else built.forward
    advance = built.advance

    def call() -> object:
        assert advance is not None
        advance()
        return fixed()

    return Target(name, built.module, fixed if advance is None else call, fixed, built.optimizer)


def keep_trace(case: Case) -> bytes:
    """The compressed Chrome trace of one call of a case, at most 1 MB.

    Raises:
        UserError: it is larger.
    """
    import tempfile

    from cdvft_bench.timing.scopes import scoped
    from cdvft_bench.timing.trace import export_trace

    target = _target(label(case), case)
    with tempfile.TemporaryDirectory() as folder, scoped(target.module):
        path = Path(folder) / "trace.json.gz"
        export_trace(target.call, path, case.device, warm_ups=2)
        return path.read_bytes()
