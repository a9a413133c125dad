"""Maps of accuracy over m, p and learning rate, and the gradient's growth with p."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from cdvft_bench.accuracy.training.trial import TrialResult
from cdvft_bench.analytic.models import model_spec
from cdvft_bench.core.text import listed, significant
from cdvft_bench.core.ties import mean_share

if TYPE_CHECKING:
    pass

NAMES = {"adamw": "AdamW", "sgd": "SGD"}
RULES = {
    -1.0: "the rule of 1/p",
    -0.5: "a rule of 1/√p",
    0.0: "one rate for every p",
    0.5: "a rate that grows with the root of p, against the rule of 1/p",
    1.0: "a rate that grows with p, against the rule of 1/p",
}
"""By the exponent with which the best learning rate goes with p."""
TITLES = {"block_circulant": "BCA", "cdvft": "CDVFT"}


@dataclass(frozen=True)
class Cell:
    """Runs of one setting at one learning rate.

    Attributes:
        method, optimizer: of the runs. m: diagonals (1 circulant factor alone: 0). p: block size. init: how it begins.
        lr: learning rate. accuracy: mean over seeds, None where a run diverged. seeds: runs.
        gradient_rms: of the first step, mean over seeds.
    """

    method: str
    optimizer: str
    m: int
    p: int
    init: str
    lr: float
    accuracy: float | None
    seeds: int
    gradient_rms: float | None


def cells(runs: Sequence[TrialResult]) -> list[Cell]:
    """One cell a setting and learning rate, in the order of m, p and rate; other methods' runs are left out."""
    grouped: dict[tuple[str, str, int, int, str, float], list[TrialResult]] = defaultdict(list)
    sizes = [int(size) for run in runs if (size := dict(run.trial.hyperparameters).get("block_size"))]
    widest = max(sizes, default=1)  # where a diagonal alone, which has no block, stands: at the largest
    for run in runs:
        trial = run.trial
        given = dict(trial.hyperparameters)
        if trial.method not in TITLES or run.error:
            continue
        m = int(given.get("m", 2)) if trial.method == "cdvft" else 0
        p = int(given.get("block_size") or (m != 1 and _width(trial.model)) or widest)
        init = str(given.get("init", "zero_diagonal" if trial.method == "cdvft" else "zero"))
        grouped[trial.method, trial.optimizer, m, p, init, trial.lr].append(run)
    made = []
    for key, some in sorted(grouped.items()):
        accuracies = [r.accuracy for r in some]
        whole = [a for a in accuracies if a is not None]
        norms = [r.gradient_rms for r in some if r.gradient_rms is not None]
        accuracy = mean_share(whole) if len(whole) == len(some) else None
        made.append(Cell(*key, accuracy, len(some), float(np.mean(norms)) if norms else None))
    return made


def _width(model: str) -> int | None:
    """The width of a model's query projections, by its published configuration; None where that does not say."""
    values = model_spec(model).values
    return next((int(values[name]) for name in ("hidden_size", "n_embd", "d_model") if name in values), None)


def best_by(found: Sequence[Cell]) -> dict[tuple[int, int, str], Cell]:
    """By (m, p, init), the cell of the best learning rate; of equals the smaller rate."""
    best: dict[tuple[int, int, str], Cell] = {}
    for cell in found:
        if cell.accuracy is None:
            continue
        key = cell.m, cell.p, cell.init
        if key not in best or cell.accuracy > (best[key].accuracy or 0.0):
            best[key] = cell
    return best


def slope(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Exponent of a power law through positive points, by least squares of the logarithms.

    Rounded to 9 decimals, so that no rule which an exact power is as near to as to another hangs on its last bits.
    """
    x, y = [math.log(v) for v in xs], [math.log(v) for v in ys]
    middle, level = math.fsum(x) / len(x), math.fsum(y) / len(y)
    rise = math.fsum((a - middle) * (b - level) for a, b in zip(x, y, strict=True))
    return round(rise / math.fsum((a - middle) ** 2 for a in x), 9)


def rate_slope(found: Sequence[Cell]) -> float | None:
    """Exponent with which the best learning rate goes with p; None with fewer than three block sizes.

    The best rate of a block size is the mean of the logarithms of the tried rates, weighted by how close each comes to
    the best accuracy within a point: a grid's steps are coarser than the trend.
    """
    centers = {}
    for p in sorted({c.p for c in found}):
        row = [c for c in found if c.p == p and c.accuracy is not None]
        if row:
            top = max(c.accuracy or 0.0 for c in row)
            weights = [math.exp(-((top - (c.accuracy or 0.0)) / 0.01)) for c in row]
            centers[p] = math.exp(float(np.average([math.log(c.lr) for c in row], weights=weights)))
    return slope(list(centers), list(centers.values())) if len(centers) >= 3 else None


def rate_verdict(found: Sequence[Cell]) -> str:
    """How the best learning rate goes with p, as far as the tried rates decide it."""
    power = rate_slope(found)
    if power is None:
        return "How the best rate goes with p is not measured: it takes three block sizes"
    at_end = sorted(cell.p for cell in best_by(found).values() if _at_end(cell, found))
    if at_end:
        sizes = listed([str(p) for p in at_end])
        return f"How the best rate goes with p is not decided: that of p = {sizes} is at the end of those tried"
    nearest = min(RULES, key=lambda x: round(abs(x - power), 9))
    return f"The best rate goes as p to the power {round(power, 2) + 0.0:+.2f}, nearest to {RULES[nearest]}"


def _at_end(cell: Cell, found: Sequence[Cell]) -> bool:
    rates = [c.lr for c in found if (c.m, c.p, c.init) == (cell.m, cell.p, cell.init)]
    return cell.lr in (min(rates), max(rates))


# --- maps ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class HeatMap:
    """Accuracies over two hyperparameters.

    Attributes:
        title: what it is of. rows, columns: their labels, the first row at the bottom. row_axis, column_axis: names.
        values: accuracy by (row, column); what was not run or diverged is left out.
        starred: cells whose best learning rate is the smallest or largest of those tried.
        framed: the best cell of each column. lines: rules by name, a place on the row axis for each column.
        caption: how to read it, and what it says.
    """

    title: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    row_axis: str
    column_axis: str
    values: Mapping[tuple[int, int], float]
    starred: frozenset[tuple[int, int]] = frozenset()
    framed: tuple[tuple[int, int], ...] = ()
    lines: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    caption: str = ""


def setting_map(found: Sequence[Cell]) -> HeatMap | None:
    """Accuracy over (m, p) at each cell's best learning rate; None without two values of each."""
    plain = [c for c in found if c.method == "cdvft" and c.init == "zero_diagonal" and c.optimizer == "adamw"]
    best = best_by(plain)
    ms, ps = sorted({m for m, _, _ in best}), sorted({p for _, p, _ in best})
    if len(ms) < 2 or len(ps) < 2:
        return None
    values = {(ms.index(m), ps.index(p)): c.accuracy for (m, p, _), c in best.items() if c.accuracy is not None}
    starred = {(ms.index(m), ps.index(p)) for (m, p, _), c in best.items() if _at_end(c, plain)}
    if 1 in ms:  # one diagonal has no block: the same value whatever p
        row, single = ms.index(1), next(c for (m, _, _), c in best.items() if m == 1)
        values |= {(row, j): single.accuracy for j in range(len(ps)) if single.accuracy is not None}
        starred |= {(row, j) for j in range(len(ps)) if _at_end(single, plain)}
    return HeatMap(
        title="CDVFT over m and p",
        rows=tuple(f"m = {m}" for m in ms),
        columns=tuple(f"p = {p}" for p in ps),
        row_axis="diagonals",
        column_axis="block size",
        values=values,
        starred=frozenset(starred),
        caption=(
            "Mean accuracy [%] over seeds on the validation split, each cell at its best learning rate of those tried; "
            "a star says that this is the smallest or largest of them. With m = 1 there is no circulant factor, so its "
            "row is one value."
        ),
    )


def rate_maps(found: Sequence[Cell]) -> list[HeatMap]:
    """Accuracy over (learning rate, p), with BCA's rule: one map a method, m and optimiser with three of each."""
    made = []
    plain = [c for c in found if c.init in ("zero", "zero_diagonal")]
    for method, m, optimizer in sorted({(c.method, c.m, c.optimizer) for c in plain}):
        some = [c for c in plain if (c.method, c.m, c.optimizer) == (method, m, optimizer)]
        ps, lrs = sorted({c.p for c in some}), sorted({c.lr for c in some})
        if len(ps) < 3 or len(lrs) < 3:
            continue
        best = {p: c for (_, p, _), c in best_by(some).items()}
        start = best.get(ps[0])
        rules = {"1/p": 1.0, "1/√p": 0.5} if start else {}
        made.append(
            HeatMap(
                title=f"{TITLES[method]}{f' m = {m}' if m else ''}, {NAMES[optimizer]}: learning rate and p",
                rows=tuple(significant(lr, 2) for lr in lrs),
                columns=tuple(f"p = {p}" for p in ps),
                row_axis="learning rate",
                column_axis="block size",
                values={(lrs.index(c.lr), ps.index(c.p)): c.accuracy for c in some if c.accuracy is not None},
                framed=tuple((lrs.index(best[p].lr), j) for j, p in enumerate(ps) if p in best),
                lines={
                    name: tuple(_place((start.lr if start else 1.0) * (ps[0] / p) ** power, lrs) for p in ps)
                    for name, power in rules.items()
                },
                caption=(
                    "Mean accuracy [%] over seeds on the validation split; a frame marks each block size's best rate. "
                    f"The lines start at the best rate of p = {ps[0]}: the block-circulant paper's rule divides the "
                    f"rate by p (full), a rule by the root of p (dashed). {rate_verdict(some)}."
                ),
            )
        )
    return made


def _place(rate: float, lrs: Sequence[float]) -> float:
    """Where a rate lies on the axis of the tried ones, beyond its ends too."""
    steps = np.diff(np.log(lrs))
    if rate < lrs[0]:
        return float(math.log(rate / lrs[0]) / steps[0])
    return float(np.interp(math.log(rate), np.log(lrs), np.arange(len(lrs))))


def gradient_growth(found: Sequence[Cell]) -> tuple[dict[int, float], float] | None:
    """Gradient entries of block-circulant weights by p, over those at the smallest p, and the exponent of the growth.

    None with fewer than three block sizes.
    """
    norms = {c.p: c.gradient_rms for c in found if c.method == "block_circulant" and c.gradient_rms}
    if len(norms) < 3:
        return None
    ps = sorted(norms)
    ratios = {p: (norms[p] or 0.0) / (norms[ps[0]] or 1.0) for p in ps}
    return ratios, slope(ps, list(ratios.values()))


def maps_said(found: Sequence[Cell]) -> list[str]:
    """Sentences that follow from the cells by rule."""
    said = []
    plain = best_by([c for c in found if c.method == "cdvft" and c.init == "zero_diagonal" and c.optimizer == "adamw"])
    if len(plain) > 1:
        best = max(plain.values(), key=lambda c: c.accuracy or 0.0)
        worst = min(plain.values(), key=lambda c: c.accuracy or 0.0)
        said.append(
            f"m and p: at each setting's best rate the accuracy runs from {100 * (worst.accuracy or 0):.1f} % "
            f"(m = {worst.m}, p = {worst.p}) to {100 * (best.accuracy or 0):.1f} % (m = {best.m}, p = {best.p})."
        )
    for optimizer, name in NAMES.items():
        some = [c for c in found if c.method == "block_circulant" and c.optimizer == optimizer]
        if some:
            said.append(f"BCA's learning rate with {name}: {rate_verdict(some)}.")
    growth = gradient_growth(found)
    if growth is not None:
        near = "the factor p" if growth[1] > 0.75 else "the factor √p" if growth[1] > 0.25 else "no growth"
        said.append(
            f"The gradient's entries grow as p to the power {growth[1]:.2f}, nearest to {near}: an entry sums the p "
            "entries of a dense gradient that share its weight; were they equal it would grow by p, were they "
            "unrelated by the root of p."
        )
    return said
