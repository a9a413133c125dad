"""What a run measures: named lists of jobs, seeds and sizes fixed."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cdvft_bench.core.io.reading import packaged, parse_toml
from cdvft_bench.core.names import not_known
from cdvft_bench.expressivity.fitting.targets import ENSEMBLES, read_changes


@dataclass(frozen=True)
class Job:
    """One call of an experiment.

    Attributes:
        kind: key of ``experiments.EXPERIMENTS``.
        settings: its keyword arguments, plain values.
    """

    kind: str
    settings: dict[str, Any]

    @property
    def key(self) -> str:
        """Stable name: kind and settings, without the place of a file."""
        named = {name: value for name, value in self.settings.items() if name != "path"}
        return f"{self.kind} {json.dumps(named, sort_keys=True)}"


@dataclass(frozen=True)
class Preset:
    """Sizes of a run.

    Attributes:
        plans: for each width n a dict from block size to the numbers m of diagonals to fit.
        draws: targets drawn for each ensemble.
        solver: options of the search, see ``solver.SolverOptions``.
        recovery: (n, k, m) of planted products.
        low_rank: (n, r) of random matrices of rank r, looked for with m = 2 to r + 1.
        reach: widths n on which m runs to the theorem's n, and one more.
        factorisation: widths of the constructive factorisation.
        dimension: widths on which dimensions are counted exactly.
        classes: widths on which the discrete redundancies of m = 2 are counted.
        conditioning: (n, m, block_size).
        train_width, train_steps, train_seeds, learning_rates: of the small task.
    """

    plans: dict[int, dict[int, list[int]]]
    draws: int
    solver: dict[str, Any]
    recovery: list[tuple[int, int, int]]
    low_rank: list[tuple[int, int]]
    reach: list[int]
    factorisation: list[int]
    dimension: list[int]
    classes: list[int]
    conditioning: list[tuple[int, int, int]]
    train_width: int
    train_steps: int
    train_seeds: int
    learning_rates: list[float]


def _preset(plans: dict[str, dict[str, list[int]]], **given: Any) -> Preset:
    return Preset({int(n): {int(p): ms for p, ms in plan.items()} for n, plan in plans.items()}, **given)


PRESETS = {name: _preset(**given) for name, given in parse_toml(packaged(__package__, "presets.toml")).items()}
"""By name, of ``presets.toml``."""


def _divisors(n: int) -> list[int]:
    return [p for p in range(1, n + 1) if n % p == 0]


def _approximation_jobs(preset: Preset, seed: int) -> Iterator[Job]:
    for n, plan in preset.plans.items():
        top = max(max(ms) for ms in plan.values())
        # Budgets: CDVFT's own parameter counts, so that every peer can be held against each m and p.
        counts = {n + (m - 1) * n + (m - 1) * n * n // p for p, ms in plan.items() for m in ms}
        budgets = sorted(counts | {(2 * m - 1) * n for m in range(2, top + 1)})
        yield Job("fourier_floor", {"n": n, "draws": preset.draws, "seed": seed})
        for ensemble in ENSEMBLES:
            common = {"ensemble": ensemble, "n": n, "draws": preset.draws, "seed": seed}
            yield Job("approximation_peers", {**common, "budgets": budgets})
            for p, ms in plan.items():
                yield Job("approximation", {**common, "block_size": p, "ms": ms, "solver": preset.solver})


def _theorem_jobs(preset: Preset, seed: int) -> Iterator[Job]:
    more = {**preset.solver, "relaxed": 8 * preset.solver["relaxed"]}
    for n, k, m in preset.recovery:
        for field in ("real", "complex"):
            settings: dict[str, Any] = {"n": n, "k": k, "m": m, "field": field, "draws": preset.draws, "seed": seed}
            restarts = {"restarts": more["relaxed"]} if field == "complex" else {}
            yield Job("recovery", {**settings, "solver": {**more, **restarts}})
    for n, rank in preset.low_rank:
        settings = {"n": n, "rank": rank, "ms": list(range(2, rank + 2)), "draws": preset.draws, "seed": seed}
        yield Job(
            "low_rank",
            {
                **settings,
                "solver": {**preset.solver, "restarts": 12, "relaxed": 12, "steps": 2 * preset.solver["steps"]},
            },
        )
    for n in preset.reach:
        for field in ("real", "complex"):
            ms = list(range(1, n + 2))
            settings = {"n": n, "ms": ms, "field": field, "draws": 4 * preset.draws, "seed": seed}
            yield Job("reach", {**settings, "solver": {**preset.solver, "restarts": 8, "relaxed": 8}})
    for n in preset.factorisation:
        yield Job("factorisation", {"n": n, "draws": 4 * preset.draws, "seed": seed})
    yield Job("boundary", {"gaps": [1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6]})
    yield Job("real_2x2", {"draws": 2000, "seed": seed})


def _structure_jobs(preset: Preset, seed: int) -> Iterator[Job]:
    for n in preset.dimension:
        for p in _divisors(n) if n <= 8 else [n]:
            for m in range(1, (n + 1) // 2 + 3):
                yield Job("dimension", {"n": n, "m": m, "block_size": p, "seed": seed})
    for n in preset.classes:
        for field in ("real", "complex"):
            yield Job("classes", {"n": n, "field": field, "starts": 16 * n, "seed": seed})
    for n, m, p in preset.conditioning:
        for point in ("normal", "zero_diagonal", "zero_circulant", "random"):
            settings: dict[str, Any] = {"n": n, "m": m, "block_size": p, "point": point}
            yield Job("conditioning", {**settings, "draws": preset.draws, "seed": seed})


def _training_jobs(preset: Preset, seed: int) -> Iterator[Job]:
    n = preset.train_width
    sizes = [p for p in _divisors(n) if p > 1]
    for source in ("independent", "constant", "gaussian", "low_rank"):
        settings: dict[str, Any] = {"n": n, "block_sizes": sizes, "source": source}
        yield Job("gradient", {**settings, "draws": preset.draws, "seed": seed})
    adapters: list[dict[str, Any]] = [
        {"family": "cdvft", "m": m, "block_size": n, "init": init}
        for m in (2, 3, 4)
        for init in ("zero_diagonal", "zero_circulant", "random")
    ]
    adapters.append({"family": "cdvft", "m": 2, "block_size": n // 2, "init": "zero_diagonal"})
    adapters += [{"family": "block_circulant", "block_size": p} for p in (n, n // 2)]
    adapters += [{"family": "lora", "rank": r} for r in (1, 2)] + [{"family": "full"}]
    # As many parameters as CDVFT with m = 2: 3 n coefficients, or n + 2 n entries of two vectors.
    adapters += [{"family": "fourierft", "rank": 3 * n}, {"family": "vera", "rank": 2 * n}]
    snapshots = sorted({0, 1, 2, 3, 10, preset.train_steps // 3, preset.train_steps})
    for ensemble in ("gaussian", "low_rank"):
        for adapter in adapters:
            settings = {"n": n, "ensemble": ensemble, "adapter": adapter, "snapshots": snapshots}
            rates = {"learning_rates": preset.learning_rates, "seeds": preset.train_seeds}
            yield Job("training", {**settings, **rates})


def jobs_of(preset_name: str, seed: int = 0) -> list[Job]:
    """All jobs of a preset, cheap and load-bearing ones first.

    Raises:
        UserError: the preset is not known.
    """
    if preset_name not in PRESETS:
        raise not_known("preset", preset_name, PRESETS)
    preset = PRESETS[preset_name]
    return [
        *_structure_jobs(preset, seed),
        *_theorem_jobs(preset, seed),
        *_training_jobs(preset, seed),
        *_approximation_jobs(preset, seed),
    ]


# --- real weight changes ---------------------------------------------------------------------


def change_jobs(path: Path, seed: int) -> list[Job]:
    """A job an array of the file.

    Raises:
        UserError: see :func:`targets.read_changes`.
    """
    names = list(read_changes(path))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
    return [Job("change", {"path": str(path), "digest": digest, "name": name, "seed": seed}) for name in names]
