"""Predicted order and ratios of methods against training times that others published."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cdvft_bench.accuracy.published.flux import DOUBLE, MODEL, SINGLE, WIDTH, image_linears, image_parameters
from cdvft_bench.accuracy.published.methods import adapted
from cdvft_bench.accuracy.published.reading import (
    IMAGES,
    MATHS,
    TABLES,
    Published,
    campaign,
    is_published,
    read_published,
)
from cdvft_bench.accuracy.published.run import PublishedRun
from cdvft_bench.analytic.cost import Cost, flops
from cdvft_bench.analytic.kernels import ITEMSIZE, Kernel, Kernels, times
from cdvft_bench.analytic.linear import LinearShape
from cdvft_bench.analytic.models import MODELS
from cdvft_bench.analytic.training import adamw_foreach, clipping
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.interval import Interval
from cdvft_bench.core.text import plural
from cdvft_bench.core.ties import steady
from cdvft_bench.methods import Method
from cdvft_bench.predictor.devices import Target, by_name, find_target
from cdvft_bench.predictor.evaluation import error
from cdvft_bench.predictor.memory import budget
from cdvft_bench.predictor.pricing import Pricer
from cdvft_bench.predictor.results import MemoryBudget, PublishedComparison, PublishedPrediction
from cdvft_bench.predictor.transformer import Transformer, find_model, rest_backward, rest_forward
from cdvft_bench.sweep.model_cost import layer_cost, model_cost

DRAWS, FEWEST = 2000, 5
ASSUMPTIONS = (
    "sequences of a batch are taken as of equal length, the average of the training tokens: no padding",
    "adapters in float32, PEFT's default for a bfloat16 base; AdamW as PyTorch takes it where nothing is said, an "
    "operator at a time over all tensors; gradients clipped where the run says so",
    "peak memory there is the allocator's reserved memory, here the budget of one batch of the longest sequences",
    "datasheet rates, no efficiency fitted: this GPU was not measured",
)


PICTURES = (
    "a picture of (resolution / 16)² tokens beside a prompt of 512; linear layers and attention alone, so that times "
    "and memory are lower bounds; every block computed again where the run says so",
)
EVALUATIONS = (
    "the training time there also holds loading of data, evaluations and the test set's generation, which are the same "
    "work for every method and are not predicted: ratios there lie closer to 1"
)
FAR = 1.2
"""Factor between a published ratio and the predicted one from which on a reason is looked for."""


@dataclass(frozen=True)
class _Run:
    run: PublishedRun
    method: Method
    target: Target
    seconds: float
    flops: float
    bytes_: int
    launches: int


def _uniform(run: PublishedRun, model: Transformer) -> Method:
    """The method of a run, alike on all layers that it adapts.

    Raises:
        UserError: there is none, it differs from layer to layer, or its closed form has another number of parameters.
    """
    chosen = adapted(run, model.shape.linears)
    method = chosen[0][1]
    if any(other != method for _, other in chosen):
        raise UserError(f"its {method.title} differs from layer to layer")
    return method


_GIVEN = ("dtype", "device", "steps", "train_time_s", "trainable_params")


def _given(run: PublishedRun, *names: str) -> None:
    """Raise UserError where a prediction needs what the run does not say."""
    for name in names:
        if not getattr(run, name):
            raise UserError(f"its {name} is not given, which a prediction needs")


def _model_of(run: PublishedRun) -> Transformer:
    """The model of the table that a run is of.

    Raises:
        UserError: there is none, or what a prediction needs of the run is not given.
    """
    _given(run, "model", "batch", "tokens", *_GIVEN)
    name = run.model.rsplit("/", 1)[-1].lower()
    if name not in MODELS:
        raise UserError(f"its model {run.model} is not in the table of models")
    return find_model(name)


def _updating(run: PublishedRun, cost: Cost) -> Kernels:
    """The optimiser's kernels, and those that clip the gradients before."""
    given = int(cost.parameters), int(cost.tensors), cost.parameter_dtype
    update = cost.update if "fused" in run.optimizer.lower() else adamw_foreach(*given)
    return (clipping(*given) if run.clipping else ()) + update


def _predicted(run: PublishedRun) -> _Run:
    device = by_name(run.device)
    if run.device and device is None:
        raise UserError(f"its device {run.device} is not in the table of devices")
    if run.model.rsplit("/", 1)[-1].lower() == MODEL:
        _given(run, "batch", "resolution", *_GIVEN)
        target = find_target(run.device)
        cost = image_cost(run, target.kind)
        kernels = cost.forward + cost.backward
        method = adapted(run, image_linears())[0][1]
        memory = image_memory(run, cost, method.trains_all)
    else:
        model = _model_of(run)
        target = find_target(run.device)
        method = _uniform(run, model)
        dtype, batch, sequence = run.dtype, run.batch or 0, max(1, round(run.tokens or 0))
        targets = run.target_modules if isinstance(run.target_modules, tuple) else (run.target_modules,)
        cost = model_cost(model.shape, method, batch, sequence, dtype, targets, device=target.kind)
        workload = (model, batch, sequence, dtype)
        kernels = cost.forward + cost.backward
        kernels += rest_forward(*workload, loss=True) + rest_backward(*workload, loss=True)
        longest = run.longest or sequence
        widest = model_cost(model.shape, method, batch, longest, dtype, targets, device=target.kind)
        memory = budget(model, method, widest, batch, longest, dtype, device=target.kind, targets=targets)
    if int(cost.parameters) != run.trainable_params:
        raise UserError(
            f"the closed form has {int(cost.parameters):,} trainable parameters, the run {run.trainable_params:,}"
        )
    kernels += _updating(run, cost)
    seconds = (run.steps or 0) * Pricer(target.rates, run.dtype).seconds(kernels)
    own = sum(int(k.launches) * int(k.starts) for k in kernels if k.scope != "base")
    work = (run.steps or 0) * float(flops(kernels, "flop"))
    return _Run(run, method, target, seconds, work, memory.total, own)


def compare_published(found: Published | None = None) -> PublishedComparison:
    """Compare order and ratios of methods; a run counts only where the closed form has its trainable parameters.

    Args:
        found: a comparison; None is PEFT's on MetaMathQA, which comes with the suite.

    Raises:
        UserError: no run of LoRA is among those that a closed form covers, or they are too few.
    """
    comparison = found or campaign()
    covered: list[_Run] = []
    left_out: list[tuple[str, str]] = []
    for run in comparison.runs:
        try:
            covered.append(_predicted(run))
        except UserError as reason:
            left_out.append((run.experiment, str(reason)))
    where = f"{comparison.name}: {len(covered)} of {plural(len(comparison.runs), 'run')} covered by closed forms"
    if len(covered) < FEWEST:
        first = f"; left out: {left_out[0][0]}: {left_out[0][1]}" if left_out else ""
        raise UserError(f"{where}; an order needs at least {FEWEST}{first}")
    alone = all(r.run.loop_time_s for r in covered)  # evaluations, the same for all, draw ratios to 1
    taken = {r.run.experiment: (r.run.loop_time_s if alone else r.run.train_time_s) or 0 for r in covered}
    covered.sort(key=lambda r: taken[r.run.experiment])
    reference = _reference(covered)
    if reference is None:
        raise UserError(f"{where}, none of LoRA, to which ratios are taken")
    time = taken[reference.run.experiment]
    made = tuple(
        PublishedPrediction(
            r.run.experiment,
            r.method.label,
            taken[r.run.experiment],
            r.seconds,
            taken[r.run.experiment] / time,
            r.seconds / reference.seconds,
            r.flops / reference.flops,
            r.run.peak_memory_bytes,
            r.bytes_,
            _reason(r, reference, taken[r.run.experiment], time, alone),
        )
        for r in covered
    )
    others = [p for p in made if p.experiment != reference.run.experiment]
    ratios = [error(p.predicted_ratio / p.published_ratio) for p in others]
    by_flops = [error(p.flops_ratio / p.published_ratio) for p in others]
    memory = [error(p.predicted_bytes / p.published_bytes) for p in made if p.published_bytes]
    times = np.array([p.published_s for p in made])
    return PublishedComparison(
        comparison.source,
        reference.target.name,
        reference.run.experiment,
        made,
        tuple(left_out),
        rank_correlation(np.array([p.predicted_s for p in made]), times),
        rank_correlation(np.array([p.flops_ratio for p in made]), times),
        *_spread(ratios),
        *_spread(by_flops),
        _spread(memory)[0] if memory else None,
        _spread(memory)[1] if memory else None,
        _assumed(covered, alone),
    )


def compare_all(
    paths: Sequence[Path], columns: Mapping[str, str] | None = None
) -> tuple[tuple[PublishedComparison, ...], list[Path]]:
    """The comparisons among files, or PEFT's where there are none; and the other files.

    Raises:
        UserError: one is not as it should be, or as :func:`compare_published`.
    """
    mine = [path for path in paths if is_published(path)]
    tables = [path for path in mine if path.name.endswith(TABLES)]
    if columns and not tables:
        raise UserError("a column map goes with a table of runs, .csv or .tsv, and none is given")
    found = [read_published(path, columns if path in tables else None) for path in mine]
    made = tuple(map(compare_published, found or map(campaign, (MATHS, IMAGES))))
    return made, [path for path in paths if path not in mine]


def _reason(run: _Run, reference: _Run, taken: float, time: float, alone: bool) -> str:
    """Why a published ratio is far from the predicted one, as far as the run itself tells; empty where it is near.

    A rule from what the formula knows of the run, not a fit: the largest part that the prediction leaves out.
    """
    off = taken / time / (run.seconds / reference.seconds)
    if 1 / FAR < off < FAR:
        return ""
    steps = run.run.steps or 1
    there, here = (1e3 * value / steps for value in (taken - time, run.seconds - reference.seconds))
    added = f"adds {there:.0f} ms a step to {reference.method.label} there, {here:.0f} ms by formula"
    if off < 1:
        longer = 1e3 * (time - reference.seconds) / steps
        why = "" if alone else ", with work that is the same for all and not predicted"
        return f"{added}: to a step that is {longer:.0f} ms longer{why}"
    if run.method.name == "lora_fa":
        return f"{added}: PEFT's optimiser for it is a loop over layers in Python, of several small operators each"
    return (
        f"{added}: {run.launches:,} device kernels of its own a step are priced by the assumed interval between "
        "launches alone: the host's work for each (views, autograd, modules of PEFT) is not"
    )


def _reference(runs: Sequence[_Run]) -> _Run | None:
    """The run of LoRA on the layers that most runs adapt, of the lowest rank; the first of equals."""
    layers = Counter(r.run.target_modules for r in runs)
    plain = [r for r in runs if r.method.name == "lora"]
    return min(plain, key=lambda r: (-layers[r.run.target_modules], r.run.trainable_params or 0), default=None)


def _assumed(covered: Sequence[_Run], alone: bool) -> tuple[str, ...]:
    pictures = PICTURES if any(r.run.resolution for r in covered) else ()
    return (*ASSUMPTIONS, *pictures, *(() if alone else (EVALUATIONS,)))


def _spread(errors: Sequence[float]) -> tuple[float, float]:
    return float(np.median(errors)), float(np.quantile(errors, 0.9))


def rank_correlation(x: NDArray[np.float64], y: NDArray[np.float64], seed: int = 0) -> Interval:
    """Spearman's rank correlation with a 95 % bootstrap interval over the pairs."""
    draws = np.random.default_rng(seed).integers(0, len(x), (DRAWS, len(x)))
    found = [_spearman(x[d], y[d]) for d in draws]
    known = [value for value in found if value == value]
    low, high = np.quantile(known, [0.025, 0.975]).tolist() if known else (None, None)
    return Interval(_spearman(x, y), low, high)


def _spearman(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    one, other = _ranks(x), _ranks(y)
    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return float("nan")
    return float(np.corrcoef(one, other)[0, 1])


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks, ties sharing their mean; values that differ by rounding errors alone are ties."""
    _, index, counts = np.unique([steady(v) for v in values.tolist()], return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[index], dtype=np.float64)


# --- image generation ------------------------------------------------------------------------
# Linear layers (adapted ones too) and attention products; norms, modulations, activations and rotary positions are not
# listed, so that times and memory are lower bounds. Every block is computed again in the backward pass.


WORDS = 512
"""Tokens of a prompt, which is padded to as many."""
PATCH = 16
"""Pixels a side of a token: the encoder halves an image three times, and tokens are two by two of what is left."""


def image_cost(run: PublishedRun, device: str) -> Cost:
    """Both passes of a step, with the method on the layers that the run adapts.

    Raises:
        UserError: the suite has no such method, or it does not fit a layer.
    """
    pixels = ((run.resolution or 0) // PATCH) ** 2
    batch, everything = run.batch or 0, False
    methods = {linear.name: method for linear, method in adapted(run, image_linears())}
    groups: Counter[tuple[LinearShape, int, bool, Method | None]] = Counter()
    for linear in image_linears():
        method = methods.get(linear.name)
        everything = everything or (method is not None and method.trains_all)
        groups[linear.shape, batch * _rows(linear.name, pixels), "blocks." in linear.name, method] += 1
    tokens = pixels + WORDS
    attention = Kernel("scaled_dot_product_attention", "matmul", DOUBLE + SINGLE, scope="base")
    macs = batch * WIDTH * tokens * tokens  # heads times their width is the width of the model
    forward: Kernels = (replace(attention, macs=2 * macs),)
    again = forward
    backward: Kernels = (replace(attention, macs=5 * macs),)
    adapters: Cost | None = None
    for (shape, rows, inside, method), n in groups.items():
        one = layer_cost(shape, rows, run.dtype, method, device=device)
        forward += times(one.forward, n)
        again += times(one.forward, n) if inside else ()
        backward += times(one.backward, n)
        if method is not None:
            adapters = one * n if adapters is None else adapters + one * n
    if adapters is None:
        raise UserError("it adapts no layer")
    parameters = image_parameters() if everything else adapters.parameters
    return replace(
        adapters,
        parameters=parameters,
        forward=forward,
        backward=(*backward, *(again if run.checkpointing else ())),
    )


def image_memory(run: PublishedRun, cost: Cost, everything: bool) -> MemoryBudget:
    """Bytes of a step: of activations the inputs of blocks, and what the adapters of one block keep."""
    size, parameters = ITEMSIZE[cost.parameter_dtype], int(cost.parameters)
    blocks = DOUBLE + SINGLE
    tokens = ((run.resolution or 0) // PATCH) ** 2 + WORDS
    entered = blocks * (run.batch or 0) * tokens * WIDTH * ITEMSIZE[run.dtype]
    own = int(cost.saved_bytes) // (blocks if run.checkpointing else 1)
    return MemoryBudget(
        weights=image_parameters() * ITEMSIZE[run.dtype] + (0 if everything else parameters * size),
        gradients=parameters * size,
        optimizer=int(cost.optimizer_bytes),
        activations=entered + own,
        workspace=0,
        overhead=0,
        capacity=None,
    )


def _rows(name: str, pixels: int) -> int:
    """Rows of an image that pass through a layer: of its tokens, of its prompt's, of both, or one."""
    if name.startswith("single_transformer_blocks."):
        return pixels + WORDS
    if name.startswith("transformer_blocks."):
        of_words = any(part in name for part in (".add_", ".to_add_out", ".ff_context."))
        return WORDS if of_words else pixels
    return {"x_embedder": pixels, "proj_out": pixels, "context_embedder": WORDS}.get(name, 1)
