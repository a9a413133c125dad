"""Predicted order and ratios of methods against training times that others published."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cdvft_bench.accuracy.published import MODEL, SOURCE, PublishedRun, published_runs
from cdvft_bench.analytic.cost import flops
from cdvft_bench.analytic.models import target_linears
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.ties import steady
from cdvft_bench.methods import Method, make_method
from cdvft_bench.predictor.devices import Target, find_target
from cdvft_bench.predictor.evaluation import error
from cdvft_bench.predictor.memory import budget
from cdvft_bench.predictor.pricing import Pricer
from cdvft_bench.predictor.results import PublishedComparison, PublishedPrediction, Range
from cdvft_bench.predictor.transformer import Transformer, find_model, rest_backward, rest_forward
from cdvft_bench.sweep.model_cost import model_cost

REFERENCE = "lora-rank32"
BATCH, SEQUENCE, LONGEST, DTYPE = 4, 210, 768, "bfloat16"
DRAWS, FEWEST = 2000, 5
ASSUMPTIONS = (
    "bfloat16, batch 4, at most 768 tokens a sequence: the comparison's default_training_params.json",
    "210 tokens a sequence on average: 4,197,579 training tokens in 20,000 samples, as one of its result files says; "
    "padding is not known and taken as none, since batches are made of samples of like length",
    "adapters in float32, PEFT's default for a bfloat16 base; AdamW counted in its fused form",
    "the training time there also holds loading of data, two passes over a small text and the test set's generation, "
    "which are the same work for every method and are not predicted: ratios there lie closer to 1",
    "peak memory there is the allocator's reserved memory, here the budget of one batch of 4 x 768 tokens",
    "datasheet rates, no efficiency fitted: this GPU was not measured",
)
_VARIANTS = ("mica", "bdlora", "bat", "mini")


@dataclass(frozen=True)
class _Run:
    run: PublishedRun
    method: Method
    seconds: float
    flops: float
    bytes_: int


def as_method(run: PublishedRun) -> Method:
    """This suite's method of a published run.

    Raises:
        UserError: there is none, or the run is of a variant that no closed form covers.
    """
    variant = [part for part in run.experiment.split("-") if part in _VARIANTS]
    if variant:
        raise UserError(f"variant {variant[0]} of {run.method} has no closed form")
    given, kind = run.hyperparameters, run.method
    rank = {"rank": given["r"]} if "r" in given else {}
    if kind == "LORA":
        if "lorafa" in run.experiment:
            return make_method("lora_fa", rank)
        return make_method("dora" if given.get("use_dora") else "rslora" if given.get("use_rslora") else "lora", rank)
    if kind in ("DELORA", "LOHA", "MISS", "RANDLORA", "VERA", "GRALORA"):
        return make_method(kind.lower(), rank)
    if kind == "LOKR":
        return make_method("lokr", {**rank, "decompose_factor": given.get("decompose_factor", -1)})
    if kind == "OFT":
        return make_method("oft", {"block_size": given["oft_block_size"] or _width(run) // given["r"]})
    if kind == "BOFT":
        return make_method("boft", {"block_size": given["boft_block_size"]})
    if kind == "C3A":
        return make_method("c3a", {"block_size": given["block_size"]})
    if kind in ("FOURIERFT", "WAVEFT"):
        return make_method(kind.lower(), {"n_frequency": given["n_frequency"]})
    if kind in ("FULL", "ROAD", "IA3"):
        return make_method(kind.lower())
    raise UserError(f"{kind} has no closed form in this suite")


def _width(run: PublishedRun) -> int:
    targets = run.target_modules if isinstance(run.target_modules, tuple) else (run.target_modules,)
    return int(target_linears(find_model(MODEL).shape, targets)[0].shape.d_in)


def _predicted(run: PublishedRun, model: Transformer, target: Target) -> _Run:
    method = as_method(run)
    targets = run.target_modules if isinstance(run.target_modules, tuple) else (run.target_modules,)
    cost = model_cost(model.shape, method, BATCH, SEQUENCE, DTYPE, targets, device=target.kind)
    if int(cost.parameters) != run.trainable_params:
        raise UserError(
            f"the closed form has {int(cost.parameters):,} trainable parameters, the run {run.trainable_params:,}"
        )
    workload = (model, BATCH, SEQUENCE, DTYPE)
    kernels = cost.kernels("step") + rest_forward(*workload, loss=True) + rest_backward(*workload, loss=True)
    seconds = run.steps * Pricer(target.rates, DTYPE).seconds(kernels)
    longest = model_cost(model.shape, method, BATCH, LONGEST, DTYPE, targets, device=target.kind)
    memory = budget(model, method, longest, BATCH, LONGEST, DTYPE, device=target.kind, targets=targets)
    return _Run(run, method, seconds, float(flops(kernels, "flop")), memory.total)


def compare_published(runs: Sequence[PublishedRun] | None = None, gpu: str = "l40s") -> PublishedComparison:
    """Compare order and ratios of methods; a run counts only where the closed form has its trainable parameters.

    Args:
        runs: of Llama-3.2-3B on one GPU; None reads those that come with the suite. gpu: theirs.

    Raises:
        UserError: the reference run (LoRA r = 32) is not among those that a closed form covers, or they are too few.
    """
    model, target = find_model(MODEL), find_target(gpu)
    found: list[_Run] = []
    left_out: list[tuple[str, str]] = []
    for run in published_runs() if runs is None else runs:
        try:
            found.append(_predicted(run, model, target))
        except UserError as reason:
            left_out.append((run.experiment, str(reason)))
    found.sort(key=lambda r: r.run.train_time_s)
    references = [r for r in found if r.run.experiment == REFERENCE]
    if not references:
        raise UserError(f"the run {REFERENCE!r}, to which ratios are taken, is not among those that are covered")
    if len(found) < FEWEST:
        raise UserError(f"{len(found)} runs are covered by closed forms; an order needs at least {FEWEST}")
    reference = references[0]
    made = tuple(
        PublishedPrediction(
            r.run.experiment,
            r.method.label,
            r.run.train_time_s,
            r.seconds,
            r.run.train_time_s / reference.run.train_time_s,
            r.seconds / reference.seconds,
            r.flops / reference.flops,
            r.run.peak_memory_bytes,
            r.bytes_,
        )
        for r in found
    )
    others = [p for p in made if p.experiment != REFERENCE]
    ratios = [error(p.predicted_ratio / p.published_ratio) for p in others]
    by_flops = [error(p.flops_ratio / p.published_ratio) for p in others]
    memory = [error(p.predicted_bytes / p.published_bytes) for p in made]
    times = np.array([p.published_s for p in made])
    return PublishedComparison(
        SOURCE,
        target.name,
        REFERENCE,
        made,
        tuple(left_out),
        rank_correlation(np.array([p.predicted_s for p in made]), times),
        rank_correlation(np.array([p.flops_ratio for p in made]), times),
        *_spread(ratios),
        *_spread(by_flops),
        *_spread(memory),
        ASSUMPTIONS,
    )


def _spread(errors: Sequence[float]) -> tuple[float, float]:
    return float(np.median(errors)), float(np.quantile(errors, 0.9))


def rank_correlation(x: NDArray[np.float64], y: NDArray[np.float64], seed: int = 0) -> Range:
    """Spearman's rank correlation with a 95 % bootstrap interval over the pairs."""
    draws = np.random.default_rng(seed).integers(0, len(x), (DRAWS, len(x)))
    found = [_spearman(x[d], y[d]) for d in draws]
    low, high = np.nanquantile(found, [0.025, 0.975])
    return Range(_spearman(x, y), float(low), float(high))


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
