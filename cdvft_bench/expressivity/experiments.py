"""The measurements: each takes plain settings and returns plain rows, ready for JSON."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cdvft_bench.expressivity import structure, theorem
from cdvft_bench.expressivity.budget import cost_of
from cdvft_bench.expressivity.factors import Product
from cdvft_bench.expressivity.fitting import families, training
from cdvft_bench.expressivity.fitting.solver import Approximation, SolverOptions, fit_cdvft
from cdvft_bench.expressivity.fitting.targets import draw_targets, read_changes, read_source
from cdvft_bench.expressivity.fitting.training import gradient_scale
from cdvft_reference.cdvft import FactorShapes
from cdvft_reference.layer import CDVFTLinear

Row = dict[str, Any]
_LARGE = 128
"""Widths above this get m = 2 alone, whose sweeps cost no more than reading the matrix."""
_PLANTED = 1_000_003

REACHED = 1e-6
"""Relative error below which a target counts as reached."""


def _approximation_row(family: str, options: Mapping[str, int], errors: Tensor, targets: Tensor) -> Row:
    d_out, d_in = targets.shape[1:]
    parameters, flops = cost_of(family, options, d_in, d_out)
    return {
        "family": family,
        "options": dict(options),
        "d_in": d_in,
        "d_out": d_out,
        "parameters": parameters,
        "flops_per_token": flops,
        "errors": errors.tolist(),
    }


def rising(
    targets: Tensor, p: int, ms: list[int], solver: Mapping[str, Any], beyond: Mapping[str, Any] | None = None
) -> Iterator[tuple[int, Approximation]]:
    """CDVFT's best for rising m, each m starting from the one before too; ``beyond``: options for m > 2."""
    square = targets.shape[1] == targets.shape[2]
    previous: Approximation | None = None
    for m in ms:
        options = SolverOptions(**(solver if beyond is None or m <= 2 else beyond))
        previous = fit_cdvft(targets, m, p, options, previous if square else None)
        yield m, previous


def cdvft_rows(
    targets: Tensor, p: int, ms: list[int], solver: Mapping[str, Any], beyond: Mapping[str, Any] | None = None
) -> list[Row]:
    """CDVFT's least errors for rising m, see :func:`rising`."""
    found = rising(targets, p, ms, solver, beyond)
    return [_approximation_row("cdvft", {"m": m, "block_size": p}, best.error, targets) for m, best in found]


def peer_rows(targets: Tensor, budgets: list[int], seed: int) -> list[Row]:
    """Every peer's least errors at settings that use up each parameter budget as far as they can.

    LoRA and BCA also at settings beyond the budgets, and VeRA at small ranks, so that budgets of FLOPs are
    used up too: LoRA's ranks to 32, BCA's block sizes down to 2.
    """
    d_out, d_in = (int(n) for n in targets.shape[1:])
    small = min(d_in, d_out)
    vera_effort = (1, 10) if small > _LARGE else (4, 100)  # restarts, sweeps
    rows: list[Row] = []

    def add(family: str, options: Mapping[str, int], errors: Tensor) -> None:
        rows.append(_approximation_row(family, options, errors, targets))

    filling = {min(b // (d_in + d_out), small) for b in budgets} - {0}
    lora = families.lora_errors(targets)
    for rank in sorted(filling | set(range(1, min(small, 32) + 1))):
        add("lora", {"rank": rank}, lora[:, rank])
    for p in [p for p in range(2, small + 1) if d_in % p == 0 and d_out % p == 0]:
        add("block_circulant", {"block_size": p}, families.block_circulant_error(targets, p))
    for n in sorted({min(b, d_in * d_out) for b in budgets}):
        add("fourierft_best", {"n_frequency": n}, families.fourierft_best_error(targets, n))
        add("fourierft_random", {"n_frequency": n}, families.fourierft_random_error(targets, n, seed))
    filling = {b - d_out for b in budgets if b > d_out}
    for rank in sorted(filling | {1, 2, 4, 8}):
        add("vera", {"rank": rank}, families.vera_error(targets, rank, seed, *vera_effort))
    return rows


def approximate(
    ensemble: str, n: int, draws: int, seed: int, block_size: int, ms: list[int], solver: Mapping[str, Any]
) -> list[Row]:
    """CDVFT against an ensemble."""
    rows = cdvft_rows(draw_targets(ensemble, n, draws, seed), block_size, ms, solver)
    return [{"ensemble": ensemble, "n": n, **row} for row in rows]


def approximate_peers(ensemble: str, n: int, draws: int, seed: int, budgets: list[int]) -> list[Row]:
    """Its peers against the same draws."""
    rows = peer_rows(draw_targets(ensemble, n, draws, seed), budgets, seed)
    return [{"ensemble": ensemble, "n": n, **row} for row in rows]


def recover(n: int, k: int, m: int, field: str, draws: int, seed: int, solver: Mapping[str, Any]) -> list[Row]:
    """Planted products of k diagonals (normal entries, p = n), looked for with m: how often are they found?"""
    dtype = torch.complex128 if field == "complex" else torch.float64
    product = Product(FactorShapes(n, n, k, n))
    generator = torch.Generator().manual_seed(_PLANTED + seed)  # never the seed of the search's own starts
    targets = product.dense(product.random(draws, dtype, generator))
    found = fit_cdvft(targets, m, n, SolverOptions(**solver))
    share = float((found.all_errors < REACHED).double().mean())
    return [{"n": n, "k": k, "m": m, "field": field, "errors": found.error.tolist(), "share_of_starts": share}]


def reach(n: int, ms: list[int], field: str, draws: int, seed: int, solver: Mapping[str, Any]) -> list[Row]:
    """Real Gaussian targets by real or complex factors, for rising m up to the theorem's n."""
    targets = draw_targets("gaussian", n, draws, seed)
    targets = targets.to(torch.complex128) if field == "complex" else targets
    found = rising(targets, n, ms, solver)
    return [{"n": n, "m": m, "field": field, "errors": best.error.tolist()} for m, best in found]


def low_rank_targets(n: int, rank: int, draws: int, seed: int) -> Tensor:
    """Random real matrices (draws, n, n) of rank r."""
    generator = torch.Generator().manual_seed(_PLANTED + seed)
    left = torch.randn(draws, n, rank, dtype=torch.float64, generator=generator)
    return left @ torch.randn(draws, rank, n, dtype=torch.float64, generator=generator)


def reach_low_rank(n: int, rank: int, ms: list[int], draws: int, seed: int, solver: Mapping[str, Any]) -> list[Row]:
    """The same by real factors, p = n, for rising m."""
    found = rising(low_rank_targets(n, rank, draws, seed), n, ms, solver)
    return [{"n": n, "rank": rank, "m": m, "errors": best.error.tolist()} for m, best in found]


def fourier_floor(n: int, draws: int, seed: int) -> list[Row]:
    """FourierFT with every frequency trained, against the distance of Gaussian targets from even matrices."""
    targets = draw_targets("gaussian", n, draws, seed)
    even = (targets + torch.roll(targets.flip(1, 2), (1, 1), (1, 2))) / 2
    errors = families.fourierft_best_error(targets, n * n).tolist()
    return [{"n": n, "errors": errors, "even_distances": families.relative_error(targets, even).tolist()}]


def _factorised(target: Tensor) -> tuple[float, float]:
    """Relative residual of the constructive factorisation, and the factors' largest over smallest entry but zeros."""
    theta = theorem.factorise(target)
    size = theta.abs()[theta.abs() > 0]
    return theorem.factorisation_residual(target, theta), float(size.max() / size.min())


def factorise(n: int, draws: int, seed: int) -> list[Row]:
    """The constructive factorisation on complex Gaussian matrices."""
    residuals, spreads = [], []
    for k in range(draws):
        g = torch.Generator().manual_seed(seed * 1000 + k)
        target = torch.randn(n, n, dtype=torch.complex128, generator=g)
        residual, spread = _factorised(target)
        residuals.append(residual)
        spreads.append(spread)
    return [{"n": n, "factors": 2 * n - 1, "residuals": residuals, "spreads": spreads}]


def boundary(gaps: list[float]) -> list[Row]:
    """Matrices [[gap, 1], [1, 1]] by three factors: what the factors do as the gap closes."""
    rows = []
    for gap in gaps:
        residual, spread = _factorised(torch.tensor([[gap, 1.0], [1.0, 1.0]], dtype=torch.complex128))
        rows.append({"gap": gap, "residual": residual, "spread": spread})
    return rows


def real_two_by_two(draws: int, seed: int) -> list[Row]:
    """Share of real Gaussian 2 x 2 matrices out of real m = 2's reach, and their exact errors."""
    targets = draw_targets("gaussian", 2, draws, seed)
    errors = torch.tensor([theorem.real_error_2x2(t) for t in targets])
    return [
        {"draws": draws, "share_unreached": float((errors > 0).double().mean()), "mean_error": float(errors.mean())}
    ]


def dimension(n: int, m: int, block_size: int, seed: int) -> list[Row]:
    """Parameters, redundancies and dimension of one square shape."""
    shapes = FactorShapes(n, n, m, block_size)
    return [
        {
            "n": n,
            "m": m,
            "block_size": block_size,
            "parameters": structure.parameter_count(shapes),
            "redundancy": structure.continuous_redundancy(shapes),
            "bound": structure.dimension_bound(shapes),
            "exact": structure.exact_dimension(shapes, seed),
        }
    ]


def classes(n: int, field: str, starts: int, seed: int) -> list[Row]:
    """Classes of factors of one planted product with m = 2, p = n, scalings apart: found, and how many there are."""
    found = structure.classes_found(n, field, starts, seed)
    return [{"n": n, "field": field, "found": found, "counted": structure.class_count(n, field)}]


def conditioning(n: int, m: int, block_size: int, point: str, draws: int, seed: int) -> list[Row]:
    """Rank and conditioning of the Jacobian at the adapter's start or at normal factors ("normal")."""
    shapes = FactorShapes(n, n, m, block_size)
    product = Product(shapes)
    spectra = []
    for k in range(draws):
        g = torch.Generator().manual_seed(seed * 1000 + k)
        if point == "normal":
            theta = product.random(1, torch.float64, g)[0]
        else:
            base = torch.nn.Linear(n, n, bias=False, dtype=torch.float64)
            layer = CDVFTLinear(base, m, block_size, init=point, generator=g)  # type: ignore[arg-type]
            theta = product.join([a.detach() for a in layer.diagonals], [c.detach() for c in layer.circulants])
        spectra.append(structure.jacobian_spectrum(shapes, theta))
    return [
        {
            "n": n,
            "m": m,
            "block_size": block_size,
            "point": point,
            "ranks": [s.rank for s in spectra],
            "conditions": [s.condition for s in spectra],
        }
    ]


def gradients(n: int, block_sizes: list[int], source: str, draws: int, seed: int) -> list[Row]:
    """Size of dL/dc against the dense gradient: independent or constant entries, or a task's first gradient."""
    rows = []
    for p in block_sizes:
        scales = []
        for k in range(draws):
            if source == "constant":
                dense = torch.ones(n, n, dtype=torch.float64)
            elif source == "independent":
                dense = draw_targets("gaussian", n, k + 1, seed)[k]
            else:
                dense = training.dense_gradient(training.make_task(n, 16 * n, source, seed + k))
            scales.append(gradient_scale(dense, p))
        rows.append(
            {
                "n": n,
                "block_size": p,
                "source": source,
                "ratios": [s.ratio for s in scales],
                "coherences": [s.coherence for s in scales],
            }
        )
    return rows


def train(
    n: int, ensemble: str, adapter: Mapping[str, Any], learning_rates: list[float], snapshots: list[int], seeds: int
) -> list[Row]:
    """An adapter on the small task, at every learning rate and seed."""
    chosen = training.Adapter(**adapter)
    rows = []
    for rate in learning_rates:
        for seed in range(seeds):
            task = training.make_task(n, 16 * n, ensemble, seed)
            path = training.train(task, chosen, rate, snapshots, seed)
            parameters = sum(p.numel() for p in training.build(chosen, task.weight, seed)[0])
            rows.append(
                {
                    "n": n,
                    "ensemble": ensemble,
                    "adapter": chosen.label,
                    "settings": dict(adapter),
                    "parameters": parameters,
                    "learning_rate": rate,
                    "seed": seed,
                    "snapshots": [asdict(s) for s in path],
                }
            )
    return rows


def approximate_change(path: str, digest: str, name: str, seed: int) -> list[Row]:
    """One array of a file against CDVFT (m = 2, 3 at p = the smaller width, m = 2 at half of it) and its peers.

    On wide layers m = 3 is descended a few sweeps from what m = 2 reached: an upper bound of its least error.
    ``digest`` only marks the job, so that another file is measured anew.
    """
    target = read_changes(Path(path))[name][None]
    d_out, d_in = (int(n) for n in target.shape[1:])
    small = min(d_in, d_out)
    two = {"restarts": 2, "relaxed": 2, "sweeps": 50, "steps": 0 if small > _LARGE else 100}
    three = {**two, "restarts": 0, "relaxed": 0, "sweeps": 8} if small > _LARGE else two
    rows = cdvft_rows(target, small, [2, 3], two, three)
    if small > 1:
        rows += cdvft_rows(target, small // 2, [2], two)
    rows += peer_rows(target, sorted({row["parameters"] for row in rows}), seed)
    rank, stable = training.ranks(target[0])
    described = {
        "array": name,
        "source": read_source(Path(path)),
        "digest": digest,
        "rank": rank,
        "stable_rank": stable,
    }
    return [{**described, **row} for row in rows]


EXPERIMENTS: dict[str, Callable[..., list[Row]]] = {
    "approximation": approximate,
    "approximation_peers": approximate_peers,
    "recovery": recover,
    "reach": reach,
    "low_rank": reach_low_rank,
    "factorisation": factorise,
    "fourier_floor": fourier_floor,
    "boundary": boundary,
    "real_2x2": real_two_by_two,
    "dimension": dimension,
    "classes": classes,
    "conditioning": conditioning,
    "gradient": gradients,
    "training": train,
    "change": approximate_change,
}
"""Experiments by kind."""
