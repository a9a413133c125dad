"""Findings checked again, in a second or a few each: what ``claims/ledgers/expressivity.toml`` calls.

Every function measures anew, from nothing but its arguments, and returns a number or a vector of float64 (for the
quantities "figure" and "difference" of a ledger). Settings are smaller than those of the recorded profile.
"""

import math
from statistics import fmean

import torch
from torch import Tensor, nn

from cdvft_bench.expressivity import experiments, structure, theorem
from cdvft_bench.expressivity.budget import cost_of
from cdvft_bench.expressivity.experiments import REACHED, conditioning, peer_rows
from cdvft_bench.expressivity.findings.measured import best_within, log_slope
from cdvft_bench.expressivity.fitting import training
from cdvft_bench.expressivity.fitting.solver import SolverOptions, fit_cdvft
from cdvft_bench.expressivity.fitting.targets import draw_targets
from cdvft_bench.expressivity.fitting.training import circulant_gradient
from cdvft_bench.expressivity.structure import class_count, classes_found
from cdvft_reference import BlockCirculantLinear, CDVFTLinear
from cdvft_reference.cdvft import FactorShapes

_SEED = 77  # never that of the search's own starts
_SHORT = SolverOptions(restarts=2, relaxed=2, steps=60)
"""Enough for m = 2 at these widths."""


def _target(name: str, n: int, draws: int) -> Tensor:
    """An ensemble of ``targets``, or "rank r"."""
    if name.startswith("rank "):
        return experiments.low_rank_targets(n, int(name.removeprefix("rank ")), draws, _SEED)
    return draw_targets(name, n, draws, _SEED)


# --- dimensions and redundancies ---------------------------------------------------------------


def _square_shapes(n: int) -> list[FactorShapes]:
    return [FactorShapes(n, n, m, p) for p in range(1, n + 1) if n % p == 0 for m in range(1, n // 2 + 3)]


def rank_of_layer(shapes: FactorShapes) -> int:
    """Rank of the Jacobian of the reference layer's change, by its FFTs and autograd, at one point in float64.

    Entries of the diagonals and of the circulants' spectra are of about one size: far better conditioned than normal
    ones, and as generic, so that the rank is plain to see.
    """
    base = nn.Linear(shapes.d_in, shapes.d_out, bias=False, dtype=torch.float64)
    layer = CDVFTLinear(base, shapes.m, shapes.block_size, path="fft")
    generator = torch.Generator().manual_seed(_SEED)

    def sizes(x: Tensor) -> Tensor:
        return (0.3 * torch.randn(x.shape, dtype=torch.float64, generator=generator)).exp()

    with torch.no_grad():
        base.weight.zero_()
        for a in layer.diagonals:
            normal = torch.randn(a.shape, dtype=torch.float64, generator=generator)
            a.copy_(normal.sign() * sizes(normal))
        for c in layer.circulants:
            spectrum = torch.fft.rfft(torch.randn(c.shape, dtype=torch.float64, generator=generator))
            c.copy_(torch.fft.irfft(spectrum / spectrum.abs() * sizes(spectrum), n=c.shape[-1]))
    trained = [p for p in layer.parameters() if p.requires_grad]
    change = layer(torch.eye(shapes.d_in, dtype=torch.float64)).flatten()
    units = torch.eye(len(change), dtype=torch.float64)
    rows = torch.autograd.grad(change, trained, units, is_grads_batched=True)
    values = torch.linalg.svdvals(torch.cat([r.flatten(1) for r in rows], dim=1))
    return int((values > 1e-9 * values[0]).sum())


def ranks_of_layers(n: int) -> Tensor:
    """Rank of the reference layer's Jacobian for every m up to n / 2 + 2 and every p that divides n."""
    return torch.tensor([float(rank_of_layer(s)) for s in _square_shapes(n)])


def counted_dimensions(n: int) -> Tensor:
    """``min(n^2, P - (2m - 2) n / p)`` for the same shapes."""
    return torch.tensor(
        [float(min(n * n, structure.parameter_count(s) - (2 * s.m - 2) * n // s.block_size)) for s in _square_shapes(n)]
    )


def rank_of_layer_at_m2(n: int) -> float:
    """Rank of the reference layer's Jacobian for m = 2, p = n."""
    return float(rank_of_layer(FactorShapes(n, n, 2, n)))


def dimension_at_m2(n: int) -> float:
    """``3 n - 2``, n >= 2."""
    return 3.0 * n - 2


def first_full_layer(n: int) -> float:
    """Least m for which the reference layer's Jacobian has rank n^2, p = n."""
    return float(next(m for m in range(n // 2, n + 2) if m and rank_of_layer(FactorShapes(n, n, m, n)) == n * n))


def counted_full_m(n: int) -> float:
    """``ceil(n / 2) + 1``, n >= 2."""
    return float(math.ceil(n / 2) + 1)


def m2_classes(n: int, field: str = "real") -> float:
    """How many classes of factors, scalings apart, a search finds for one planted product with m = 2."""
    return float(classes_found(n, field, starts=64, seed=_SEED))


def counted_classes(n: int, field: str = "real") -> float:
    """``n`` over the complex numbers; over the reals 2 for even n, 1 for odd n."""
    return float(class_count(n, field))


# --- the theorem, and what the factors reach ----------------------------------------------------


def growth_of_factors(gap: float) -> float:
    """Largest over smallest entry of three factors of ``[[gap, 1], [1, 1]]``; infinite where the product is not it."""
    (row,) = experiments.boundary([gap])
    return math.inf if row["residual"] > REACHED else float(row["spread"])


def construction_residual(n: int, draws: int = 5) -> float:
    """Worst relative residual of the constructive factorisation of complex Gaussian matrices."""
    return float(max(experiments.factorise(n, draws, _SEED)[0]["residuals"]))


def searched_2x2(draws: int = 12) -> Tensor:
    """Least errors that a search finds for real Gaussian 2 x 2 matrices with real factors, m = 2."""
    return fit_cdvft(draw_targets("gaussian", 2, draws, _SEED), 2, 2, SolverOptions(restarts=16)).error


def closed_2x2(draws: int = 12) -> Tensor:
    """The same by the closed form."""
    return torch.tensor([theorem.real_error_2x2(t) for t in draw_targets("gaussian", 2, draws, _SEED)])


def missed_gaussians(n: int, field: str, more: int = 0, draws: int = 8) -> float:
    """Share of real Gaussian targets that are not reached at m = ceil(n / 2) + 1 + more."""
    ms = list(range(1, structure.generic_full_m(n) + more + 1))
    errors = experiments.reach(n, ms, field, draws, _SEED, {"restarts": 4, "relaxed": 4})[-1]["errors"]
    return float(sum(e > REACHED for e in errors) / draws)


def change_of_layer(target: str, n: int) -> Tensor:
    """What the reference layer of m = 2, p = n, computes with factors that are written down for the target: (n, n)."""
    wanted = contained_target(target, n)
    layer = CDVFTLinear(nn.Linear(n, n, bias=False, dtype=torch.float64), 2, n, path="fft")
    one = torch.ones(n, dtype=torch.float64)
    # circ(c) between diagonals of ones; of rank one, the circulant is all ones.
    factors = (one, one, wanted[:, 0]) if target == "circulant" else (wanted[0], wanted[:, 0] / wanted[0, 0], one)
    with torch.no_grad():
        layer.base.weight.zero_()
        for held, value in zip((*layer.diagonals, *layer.circulants), factors, strict=True):
            held.copy_(value.reshape(held.shape))
        change: Tensor = layer(torch.eye(n, dtype=torch.float64)).T
    return change


def contained_target(target: str, n: int) -> Tensor:
    """A circulant matrix, or one of "rank 1": (n, n)."""
    return _target(target, n, 1)[0]


def error_at(target: str, n: int, m: int, draws: int = 3) -> float:
    """Median over draws of CDVFT's least error, p = n."""
    options = _SHORT if m == 2 else SolverOptions(restarts=8, relaxed=8)
    return float(fit_cdvft(_target(target, n, draws), m, n, options).error.median())


def gain_of_a_third_diagonal(target: str, n: int = 6, draws: int = 2) -> float:
    """Mean error with m = 2 less that with m = 3, p = n, as a share of the target's norm."""
    targets = _target(target, n, draws)
    two = fit_cdvft(targets, 2, n, _SHORT)
    return float((two.error - fit_cdvft(targets, 3, n, _SHORT, two).error).mean())


def planted_error(n: int, m: int, field: str, draws: int = 3) -> float:
    """Worst error on planted products of m diagonals, looked for with the same m."""
    effort = {"restarts": 4, "relaxed": 4, "steps": 100}
    return float(max(experiments.recover(n, m, m, field, draws, _SEED, effort)[0]["errors"]))


def starts_that_find(n: int, m: int, field: str, draws: int = 3) -> float:
    """Share of starts that find a planted product."""
    found = experiments.recover(n, m, m, field, draws, _SEED, {"restarts": 8, "relaxed": 8})
    return float(found[0]["share_of_starts"])


def fourierft_with_all_coefficients(n: int) -> Tensor:
    """FourierFT's least errors on Gaussian targets, every frequency trained."""
    return torch.tensor(experiments.fourier_floor(n, 4, _SEED)[0]["errors"], dtype=torch.float64)


def distance_from_even(n: int) -> Tensor:
    """Distances of the same targets from the matrices with T[r, s] = T[-r, -s]."""
    return torch.tensor(experiments.fourier_floor(n, 4, _SEED)[0]["even_distances"], dtype=torch.float64)


def behind_best_peer(target: str, budget: str, n: int = 12, draws: int = 3) -> float:
    """CDVFT's mean error less that of the nearest peer within one budget, as a share of the target's norm.

    ``budget``: "parameters" or "flops_per_token" of m = 2, p = n; or "parameters 4d", those of p = n / 2.
    FourierFT at its best positions is no peer: it draws them before it sees a target.
    """
    targets = _target(target, n, draws)
    axis = budget.removesuffix(" 4d")
    settings = [{"m": 2, "block_size": p} for p in ((n, n // 2) if budget.endswith(" 4d") else (n,))]
    errors = [float(fit_cdvft(targets, 2, s["block_size"], _SHORT).error.mean()) for s in settings]
    parameters, flops = cost_of("cdvft", settings[-1], n, n)
    allowed = parameters if axis == "parameters" else flops
    rows = [r for r in peer_rows(targets, [parameters], _SEED) if r["family"] != "fourierft_best"]
    best = best_within(rows, axis, allowed)
    assert best is not None
    return min(errors) - sum(best["errors"]) / draws


# --- gradients, starts, training ------------------------------------------------------------------


def gradient_by_autograd(n: int, p: int) -> Tensor:
    """dL/dc of a block-circulant layer, by autograd through the reference's FFT product."""
    layer, dense = _circulant_layer(n, p)
    (layer.delta_weight() * dense).sum().backward()
    assert layer.circulant.grad is not None
    return layer.circulant.grad.reshape(-1)


def gradient_by_sums(n: int, p: int) -> Tensor:
    """The same as sums of p entries of the dense gradient."""
    return circulant_gradient(_circulant_layer(n, p)[1], p).reshape(-1)


def _circulant_layer(n: int, p: int) -> tuple[BlockCirculantLinear, Tensor]:
    base = nn.Linear(n, n, bias=False, dtype=torch.float64)
    return BlockCirculantLinear(base, p), draw_targets("gaussian", n, 1, _SEED)[0]


def gradient_exponent(teacher: str, n: int = 16, draws: int = 10) -> float:
    """Exponent of p in the size of dL/dc over that of the dense gradient, first gradient of the small task."""
    sizes = [p for p in range(2, n + 1) if n % p == 0]
    return log_slope(sizes, [fmean(row["ratios"]) for row in experiments.gradients(n, sizes, teacher, draws, _SEED)])


def rank_at_start(m: int, n: int = 16) -> float:
    """Rank of the Jacobian at the zero-diagonal start: directions in which the first step can move ``dW``."""
    return float(conditioning(n, m, n, "zero_diagonal", 1, _SEED)[0]["ranks"][0])


def condition_ratio(m: int, n: int = 16, draws: int = 5) -> float:
    """Geometric mean of the Jacobian's condition at normal factors, m over m + 1."""
    logs = []
    for k in (m, m + 1):
        conditions = conditioning(n, k, n, "normal", draws, _SEED)[0]["conditions"]
        logs.append(fmean(map(math.log, conditions)))
    return math.exp(logs[0] - logs[1])


def loss_after(steps: int, init: str, teacher: str, seeds: int = 3, n: int = 16) -> float:
    """Mean loss of m = 2, p = n on the small task after some steps at learning rate 0.1; 1 is no change at all."""
    adapter = training.Adapter("cdvft", 2, n, init)  # type: ignore[arg-type]
    tasks = [training.make_task(n, 16 * n, teacher, _SEED + k) for k in range(seeds)]
    return fmean(training.train(task, adapter, 0.1, [steps], k)[0].loss for k, task in enumerate(tasks))


def excess_over_zero_diagonal(init: str, teacher: str, steps: int = 10) -> float:
    """Loss after the first steps from the zero-diagonal start over that from another start."""
    return loss_after(steps, "zero_diagonal", teacher) / loss_after(steps, init, teacher)


def stable_rank_share(m: int, teacher: str, n: int = 16) -> float:
    """Stable rank of the trained weight change over the width; 1 where its numerical rank is 2 or less."""
    task = training.make_task(n, 16 * n, teacher, _SEED)
    last = training.train(task, training.Adapter("cdvft", m, n), 0.01, [200], 0)[0]
    return last.stable_rank / n if last.rank > 2 else 1.0
