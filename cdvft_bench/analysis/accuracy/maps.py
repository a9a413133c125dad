"""Maps of accuracy over m, p and learning rate, and the gradient's growth with p: what they hold, and figures."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cdvft_bench.accuracy.trial import TrialResult
from cdvft_bench.core.text import listed, significant
from cdvft_bench.core.ties import mean_share
from cdvft_bench.report.figures.panels import Plot, drawn
from cdvft_bench.report.figures.style import INK, KNOWN, SETTINGS, Drawn, blank, exact_ticks, log_axis

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LIFT = 0.22
"""Cells: their figures stand so much above the middle, where lines pass."""
NAMES = {"adamw": "AdamW", "sgd": "SGD"}
RULES = {-1.0: "the rule of 1/p", -0.5: "a rule of 1/√p", 0.0: "one rate for every p",
         0.5: "a rate that grows with the root of p, against the rule of 1/p",
         1.0: "a rate that grows with p, against the rule of 1/p"}  # fmt: skip
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
    for run in runs:
        trial = run.trial
        given = dict(trial.hyperparameters)
        if trial.method not in TITLES or run.error:
            continue
        m = int(given.get("m", 2)) if trial.method == "cdvft" else 0
        p = int(given.get("block_size") or _width(trial.model))
        init = str(given.get("init", "zero_diagonal" if trial.method == "cdvft" else "zero"))
        grouped[trial.method, trial.optimizer, m, p, init, trial.lr].append(run)
    made = []
    for key, some in sorted(grouped.items()):
        accuracies = [r.accuracy for r in some]
        whole = [a for a in accuracies if a is not None]
        norms = [r.gradient_rms for r in some if r.gradient_rms is not None]
        made.append(
            Cell(*key, mean_share(whole) if len(whole) == len(some) else None, len(some),
                 float(np.mean(norms)) if norms else None)
        )  # fmt: skip
    return made


def _width(model: str) -> int:
    from cdvft_bench.analytic.models import model_shape, target_linears

    shape = target_linears(model_shape(model))[0].shape
    return min(int(shape.d_in), int(shape.d_out))


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


# --- figures -------------------------------------------------------------------------------


def _heat(
    axes: Axes, rows: Sequence[str], columns: Sequence[str], values: Mapping[tuple[int, int], float],
    stars: Collection[tuple[int, int]] = (), lift: float = 0.0,
) -> None:  # fmt: skip
    """Cells with their accuracy in per cent, some starred; empty ones were not run or diverged."""
    low, high = 100 * min(values.values()), 100 * max(values.values())
    table = np.full((len(rows), len(columns)), np.nan)
    for (i, j), value in values.items():
        table[i, j] = 100 * value
    axes.imshow(table, cmap="viridis", vmin=low, vmax=high, aspect="auto", origin="lower")
    axes.grid(False)
    for (i, j), value in values.items():
        bright = (100 * value - low) / (high - low or 1.0)
        text, color = f"{100 * value:.1f}" + ("*" if (i, j) in stars else ""), "black" if bright > 0.55 else "white"
        axes.text(j, i + lift, text, ha="center", va="center", fontsize=8.5, color=color)
    axes.set_xticks(range(len(columns)), list(columns))
    axes.set_yticks(range(len(rows)), list(rows))


def setting_map(found: Sequence[Cell]) -> Drawn | None:
    """Accuracy over (m, p) at each cell's best learning rate."""
    import matplotlib

    plain = [c for c in found if c.method == "cdvft" and c.init == "zero_diagonal" and c.optimizer == "adamw"]
    best = best_by(plain)
    ms, ps = sorted({m for m, _, _ in best}), sorted({p for _, p, _ in best})
    if len(ms) < 2 or len(ps) < 2:
        return None
    values = {(ms.index(m), ps.index(p)): c.accuracy for (m, p, _), c in best.items() if c.accuracy is not None}
    if 1 in ms:  # one diagonal has no block: the same value whatever p
        single = next(c.accuracy for (m, _, _), c in best.items() if m == 1)
        values |= {(ms.index(1), j): single for j in range(len(ps)) if single is not None}
    stars = {(ms.index(m), j) for (m, p, _), c in best.items() if _at_end(c, plain)
             for j in (range(len(ps)) if m == 1 else [ps.index(p)])}  # fmt: skip
    with matplotlib.rc_context(SETTINGS):
        figure, (axes,) = blank(1, 1, 1.6 + 0.55 * len(ms))
        _heat(axes, [f"m = {m}" for m in ms], [f"p = {p}" for p in ps], values, stars)
        axes.set_xlabel("block size")
        axes.set_ylabel("diagonals")
        caption = (
            "CDVFT's mean accuracy [%] over seeds on the validation split, each cell at its best learning rate of "
            "those tried; a star says that this is the smallest or largest of them. With m = 1 there is no circulant "
            "factor, so its row is one value."
        )
        top = max(values, key=lambda key: values[key])
        alt = f"Best at m = {ms[top[0]]}, p = {ps[top[1]]}: {100 * values[top]:.1f} %."
        return drawn("map-m-p", "Accuracy over m and p", Plot(figure, caption, alt))


def rate_maps(found: Sequence[Cell]) -> list[Drawn]:
    """Accuracy over (learning rate, p), with BCA's rule drawn in."""
    import matplotlib

    made = []
    kinds = sorted({(c.method, c.m, c.optimizer) for c in found if c.init in ("zero", "zero_diagonal")})
    for method, m, optimizer in kinds:
        some = [c for c in found if (c.method, c.m, c.optimizer) == (method, m, optimizer)
                and c.init in ("zero", "zero_diagonal")]  # fmt: skip
        ps, lrs = sorted({c.p for c in some}), sorted({c.lr for c in some})
        if len(ps) < 3 or len(lrs) < 3:
            continue
        title = TITLES[method] + (f" m = {m}" if m else "")
        values = {(lrs.index(c.lr), ps.index(c.p)): c.accuracy for c in some if c.accuracy is not None}
        best = {p: c for (_, p, _), c in best_by(some).items()}
        with matplotlib.rc_context(SETTINGS):
            figure, (axes,) = blank(1, 1, 4.2)
            _heat(axes, [significant(lr, 2) for lr in lrs], [f"p = {p}" for p in ps], values, lift=LIFT)
            marks = [(j, lrs.index(best[p].lr) + LIFT) for j, p in enumerate(ps) if p in best]
            axes.plot([x for x, _ in marks], [y for _, y in marks], "s", markersize=24, markerfacecolor="none",
                      markeredgecolor="#d55e00", markeredgewidth=2, linestyle="none")  # fmt: skip
            for power, style, name in ((1.0, "-", "1/p"), (0.5, "--", "1/√p")):
                line = [_place(best[ps[0]].lr * (ps[0] / p) ** power, lrs) for p in ps]
                axes.plot(range(len(ps)), line, style, color="white", linewidth=3.2)
                label = f"best rate at p = {ps[0]} · {name}"
                axes.plot(range(len(ps)), line, style, color=INK, linewidth=1.6, label=label)
            axes.set_ylim(-0.5, len(lrs) - 0.5)
            axes.set_ylabel("learning rate")
            axes.set_xlabel("block size")
            figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
            caption = (
                f"{title}'s mean accuracy [%] over seeds on the validation split, {NAMES[optimizer]}; a frame marks "
                f"each block size's best rate. The lines start at the best rate of p = {ps[0]}: the block-circulant "
                f"paper's rule divides the rate by p (full), a rule by the root of p (dashed). {rate_verdict(some)}."
            )
            alt = "Best rates: " + ", ".join(f"p = {p}: {best[p].lr:g}" for p in ps if p in best) + "."
            name = f"map-rate-{method}{m or ''}-{optimizer}".replace("_", "-")
            made.append(drawn(name, f"Accuracy over learning rate and p: {title}, {NAMES[optimizer]}",
                              Plot(figure, caption, alt)))  # fmt: skip
    return made


def _place(rate: float, lrs: Sequence[float]) -> float:
    """Where a rate lies on the axis of the tried ones, beyond its ends too."""
    steps = np.diff(np.log(lrs))
    if rate < lrs[0]:
        return float(math.log(rate / lrs[0]) / steps[0])
    return float(np.interp(math.log(rate), np.log(lrs), np.arange(len(lrs))))


def gradient_figure(found: Sequence[Cell]) -> tuple[Drawn, float] | None:
    """The gradient entries of block-circulant weights over p, and the exponent of their growth."""
    import matplotlib

    norms = {c.p: c.gradient_rms for c in found if c.method == "block_circulant" and c.gradient_rms}
    if len(norms) < 3:
        return None
    ps = sorted(norms)
    ratios = [(norms[p] or 0.0) / (norms[ps[0]] or 1.0) for p in ps]
    power = slope(ps, ratios)
    with matplotlib.rc_context(SETTINGS):
        figure, (axes,) = blank(1, 1, 3.8)
        style = KNOWN["block_circulant"]
        axes.plot(ps, [p / ps[0] for p in ps], "-", color=INK, label="factor p, as the block-circulant paper has it")
        roots = [math.sqrt(p / ps[0]) for p in ps]
        axes.plot(ps, roots, "--", color=INK, label="factor √p, if a block's entries were unrelated")
        axes.plot(ps, ratios, style.marker, color=style.color, markersize=8, label="measured, first step")
        exact_ticks(axes, ps)
        log_axis(axes, "y")
        axes.set_xlabel("block size p")
        axes.set_ylabel(f"root mean square of the gradient's entries,\nover that at p = {ps[0]}")
        axes.legend(loc="upper left")
        caption = (
            "Gradient of the circulant vectors in the first step, from a weight change of zero, mean over seeds. It "
            f"grows as p to the power {power:.2f}: a gradient entry sums the p entries of a dense gradient that share "
            "its weight; were they equal it would grow by p, were they unrelated by the root of p."
        )
        alt = ", ".join(f"p = {p}: {r:.2f}" for p, r in zip(ps, ratios, strict=True))
        return drawn("gradient-p", "Growth of the gradient with p", Plot(figure, caption, alt)), power
