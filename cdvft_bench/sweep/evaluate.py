"""The three sources of a case: predict by closed form, count what runs, time it; also by the processor's own counters.

Layers and adapters are built as ``timing.built`` says; a model is the one of the model table, with its real weights.
"""

from __future__ import annotations

import copy
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from cdvft_bench.analytic.conventions import CONVENTIONS
from cdvft_bench.analytic.cost import flops, total
from cdvft_bench.analytic.kernels import Kernels
from cdvft_bench.analytic.linear import itemsize
from cdvft_bench.analytic.models import layer_shape, model_shape, model_spec
from cdvft_bench.core.case import FROZEN, Case, baselines, case_from
from cdvft_bench.core.counted import Counted
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.record import Predicted, PredictedPass
from cdvft_bench.core.timed import Mode, Replays, Timed
from cdvft_bench.sweep.model_cost import case_cost, case_method
from cdvft_bench.timing.machine.environment import memory_gib

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cdvft_bench.counting.hardware import Executed
    from cdvft_bench.timing.built import Built, Target


T = TypeVar("T", bound="nn.Module")


def label(case: Case) -> str:
    """How tables call the case's method."""
    method = case_method(case)
    return "frozen" if method is None else method.label


# --- formula -------------------------------------------------------------------------------


def summed(kernels: Kernels) -> PredictedPass:
    """A pass by its kernels."""
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
        forward=summed(cost.forward),
        backward=summed(cost.backward),
        update=summed(cost.update),
        saved_bytes=int(cost.saved_bytes) if layer else None,
        optimizer_bytes=int(cost.optimizer_bytes),
        covers="whole layer" if layer else covers,
    )


# --- the thing itself ----------------------------------------------------------------------


def require_device(device: str) -> None:
    """Raise UserError unless torch can use the device."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("device 'cuda' is not available: torch sees no GPU here; use --device cpu")


@cache
def _base_layer(subject: str, dtype: str, device: str, seed: int) -> nn.Linear:
    import torch

    from cdvft_bench.timing.built import random_linear

    shape = layer_shape(subject)
    layer = random_linear(
        int(shape.d_in), int(shape.d_out), bias=shape.bias, dtype=getattr(torch, dtype), device=device, seed=seed
    )
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
    from cdvft_bench.accuracy.training.models import PACKAGED, load_model

    # Real weights where a package has them; times and counts do not depend on them.
    real = subject in PACKAGED
    return load_model(subject, pretrained=real, dtype=dtype, device=device, seed=seed).requires_grad_(False)


def build(case: Case, share: bool = False) -> Built:
    """Build a case on its device.

    With ``share`` it shares the frozen weights with what else is built so, on a CPU too, unless its method writes them.

    For the frozen model, the backward pass runs down to the input embeddings, which then need a
    gradient: what any adapter in the first layer makes autograd do.
    """
    import torch

    from cdvft_bench.timing.built import built_layer, prepared

    require_device(case.device)
    check_fits(case)
    tokens = model_shape(case.subject).image_tokens if case.kind == "model" else None
    if tokens is not None and case.sequence != tokens:
        raise UserError(f"{case.subject} makes {tokens} tokens of an image; give sequence = {tokens}")
    method = case_method(case)
    key = (case.subject, case.dtype, case.device, case.seed)
    generator = torch.Generator(case.device).manual_seed(case.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(case.seed)
        if case.kind == "layer":
            base = _copied(_base_layer(*key), case, share)
            module: nn.Module = base if method is None else method.adapt_linear(base)
        else:
            model = _copied(_base_model(*key), case, share or case.device != "cpu")
            module = model if method is None else method.adapt_model(model, model_spec(case.subject).targets)
    module = prepared(module, case.seed)
    if case.kind == "layer":
        shape = (case.batch, case.sequence, int(layer_shape(case.subject).d_in))
        x = torch.randn(shape, dtype=getattr(torch, case.dtype), device=case.device, generator=generator)
        return built_layer(module, x, case.seed)
    return _build_model(case, module, generator)


def _copied(module: T, case: Case, share: bool) -> T:
    """A copy that may share the frozen weights; a model's on a GPU does, where those of a large one fit once.

    Methods that train or overwrite the base's own weights get a copy of their own.
    """

    from cdvft_bench.timing.built import copy_with_shared_weights

    method = case_method(case)
    quantised = case.kind == "layer" and layer_shape(case.subject).quantised
    if not share or quantised or (method is not None and method.writes_base):
        return copy.deepcopy(module)
    return copy_with_shared_weights(module)


def _build_model(case: Case, module: nn.Module, generator: Any) -> Built:
    import torch

    from cdvft_bench.counting.count import floating_output
    from cdvft_bench.timing.built import built_model

    vocabulary = model_shape(case.subject).vocabulary
    inputs: dict[str, Tensor] = {}
    leaf: Tensor | None = None
    if vocabulary is None:
        config: Any = module.config
        size = (case.batch, config.num_channels, config.image_size, config.image_size)
        dtype = getattr(torch, case.dtype)
        inputs["pixel_values"] = torch.randn(size, dtype=dtype, device=case.device, generator=generator)
        if case.method == FROZEN:  # the backward pass ends at the embeddings, as with text
            module.get_submodule("embeddings").register_forward_hook(lambda *found: found[-1].requires_grad_())
    else:
        ids = torch.randint(0, vocabulary, (case.batch, case.sequence), device=case.device, generator=generator)
        # No attention mask: of ones it says nothing, but under capture it is made whole, and takes another kernel.
        if case.method == FROZEN:
            leaf = module.get_input_embeddings()(ids).detach().requires_grad_()  # type: ignore[operator]
            inputs["inputs_embeds"] = leaf
        else:
            inputs["input_ids"] = ids
    return built_model(module, inputs, lambda: floating_output(module(**inputs)), leaf, case.seed)


# --- count ---------------------------------------------------------------------------------


def count(case: Case) -> Counted:
    """Count the case: parameters, dispatched passes, fvcore's forward, saved activations."""
    from cdvft_bench.counting.count import count_layer, count_model

    subject = build(case)
    if case.kind == "layer":
        return count_layer(subject.module, *subject.inputs)
    return count_model(subject.module, subject.inputs)


# --- time ----------------------------------------------------------------------------------


def time_case(
    case: Case,
    others: Sequence[Case] = (),
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
        case: its pass says what one call is. others: cases of the same workload to time beside it, too.
        budget_s, precision: see ``timing.clock.time_interleaved``.
        trace, modes, prepare_s, trace_to: see ``timing.measure.Plan``.
    """
    from cdvft_bench.timing.built import beside
    from cdvft_bench.timing.graphs import replays
    from cdvft_bench.timing.measure import Plan, measure

    known = baselines(case).values()
    plan = Plan(
        budget_s, precision, None if modes is None else tuple(modes), None, trace, trace_to, prepare_s, seed=case.seed
    )
    return measure(
        target(case),
        lambda: [*beside(case, build), *(target(other) for other in others if other not in known)],
        case.device,
        plan,
        replays=lambda: replays(case, build, budget_s, precision),
    )


def describe_case(
    case: Case,
    *,
    budget_s: float = 2.0,
    precision: float = 0.05,
    modes: Sequence[Mode] | None = None,
    prepare_s: float | None = None,
    replays: Callable[[Case, float, float], Replays] | None = None,
) -> Timed:
    """The trace, memory, energy and modes of a case, without its times; arguments as of :func:`time_case`.

    ``replays`` times those of a case, of a budget and a precision; None for a graph of the case alone.
    """
    from cdvft_bench.timing.machine.memory import tensor_bytes
    from cdvft_bench.timing.measure import Plan, describe

    plan = Plan(budget_s, precision, None if modes is None else tuple(modes), prepare_s=prepare_s, seed=case.seed)
    frozen = tensor_bytes(build(replace(case, method=FROZEN, hyperparameters=()), share=True).module)
    timed = None if replays is None else partial(replays, case, budget_s, precision)
    return describe(target(case, share=True), case.device, plan, frozen, replays=timed)


def target(case: Case, name: str | None = None, share: bool = False) -> Target:
    """The pass of a case to measure; ``share`` as of :func:`build`."""
    return build(case, share).target(name or label(case), case.pass_)


def keep_trace(case: Case) -> bytes:
    """The compressed Chrome trace of one call of a case, at most 1 MB.

    Raises:
        UserError: it is larger.
    """

    from cdvft_bench.timing.scopes import scoped
    from cdvft_bench.timing.trace import export_trace

    traced = target(case)
    with tempfile.TemporaryDirectory() as folder, scoped(traced.module):
        path = Path(folder) / "trace.json.gz"
        export_trace(traced.call, path, case.device, warm_ups=2)
        return path.read_bytes()


# --- whether it fits -------------------------------------------------------------------------


def least_bytes(case: Case) -> int:
    """What a case takes at the least: the frozen weights, one input, and one output or hidden state of each layer."""
    size = itemsize(case.dtype)
    if case.kind == "layer":
        shape = layer_shape(case.subject)
        return size * int(shape.d_in * shape.d_out + case.tokens * (shape.d_in + shape.d_out))
    model = model_shape(case.subject)
    return size * (model.total_parameters + case.tokens * model.hidden)


def check_fits(case: Case) -> None:
    """Refuse a case whose tensors are larger than the whole memory; a GPU says so itself.

    Raises:
        UserError: it is; names the workload, what it takes and what there is.
    """
    there = memory_gib()
    least = least_bytes(case) / 2**30
    if case.device == "cpu" and there is not None and least > there:
        raise UserError(
            f"batch = {case.batch} sequences of {case.sequence} tokens on {case.subject} take {least:,.0f} GiB at the "
            f"least, and this machine has {there:g} GiB; give fewer sequences or tokens, or a smaller subject"
        )


def count_executed(case: Case) -> Executed:
    """Floating-point operations that one pass of the case executes, in a process of its own.

    Raises:
        UserError: the case cannot be built here.
        RuntimeError: it fails.
    """
    from cdvft_bench.counting import hardware

    require_device(case.device)
    setup = f"from cdvft_bench.sweep.evaluate import pass_of\nrun = pass_of({json.dumps(asdict(case))!r})\nrun()"
    return hardware.count_executed("run()", setup, case.device)


def pass_of(text: str) -> Callable[[], object]:
    """The pass of a case that is given as JSON, to be run again and again."""
    case = case_from(json.loads(text))
    built = build(case)
    return built.step if case.pass_ == "step" else built.forward
