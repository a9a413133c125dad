"""The page: expressivity.md, written from a profile alone."""

import math
import re
from collections.abc import Sequence
from pathlib import Path

from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.files import write_file
from cdvft_bench.core.text import NOT_MEASURED, markdown_table, table_cell
from cdvft_bench.expressivity.budget import FAMILIES, TITLES
from cdvft_bench.expressivity.experiments import REACHED, Row
from cdvft_bench.expressivity.findings.algebraic import all_findings
from cdvft_bench.expressivity.findings.finding import Finding
from cdvft_bench.expressivity.findings.measured import (
    approximations,
    best_rate,
    best_within,
    change_arrays,
    change_budget,
    change_errors,
    final_losses,
    mean,
    plus_minus,
    setting,
    widths,
)
from cdvft_bench.expressivity.fitting.targets import ENSEMBLES
from cdvft_bench.expressivity.profile import Profile
from cdvft_bench.report.expressivity.figures import write_figures

_ARGUMENTS = Path(__file__).with_name("arguments.md")


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; "not measured" for one without rows."""
    if not rows:
        return NOT_MEASURED + "\n"
    return "\n".join(markdown_table(header, (map(table_cell, row) for row in rows))) + "\n"


def _number(value: float) -> str:
    if value == 0 or (abs(value) >= 1e-3 and float(value).is_integer() and abs(value) < 1e7):
        return f"{value:,.0f}"
    return f"{value:.3g}" if 1e-3 <= abs(value) < 1e4 else f"{value:.1e}"


def findings_section(found: Sequence[Finding]) -> str:
    """Every finding with its label and verdict, and its figures."""
    verdict = {True: "yes", False: "NO", None: NOT_MEASURED}
    rows = [[f"`{f.id}`", f"{f.statement} *{f.assumptions}*", f.label, verdict[f.holds]] for f in found]
    figures = [
        [f"`{f.id}`", ", ".join(f"{name.replace('_', ' ')} {_number(value)}" for name, value in f.evidence.items())]
        for f in found
        if f.evidence
    ]
    return (
        table(["id", "statement, *assumptions*", "known as", "profile agrees"], rows)
        + "\nFigures behind them:\n\n"
        + table(["id", "figures"], figures)
    )


def _settings(row: Row) -> str:
    names = {"m": "m", "block_size": "p", "rank": "r", "n_frequency": "n"}
    return " ".join(f"{names[k]}={v}" for k, v in row["options"].items())


def budget_table(profile: Profile, n: int, m: int, block_size: int, axis: str) -> str:
    """Least mean errors within the budget of CDVFT at m and p, a row an ensemble."""
    rows = []
    for ensemble in ENSEMBLES:
        own = setting(profile, ensemble, n, m, block_size)
        if own is None:
            continue
        cells = [ensemble.replace("_", " ")]
        for family in FAMILIES:
            candidates = [r for r in approximations(profile, ensemble, n) if r["family"] == family]
            best = best_within(candidates, axis, own[axis])
            cells.append("none fits" if best is None else f"{plus_minus(best['errors'])} ({_settings(best)})")
        rows.append(cells)
    return table(["target", *(TITLES[f] for f in FAMILIES)], rows)


def settings_table(profile: Profile, n: int) -> str:
    """CDVFT's errors by m and p."""
    keys = sorted(
        {(r["options"]["block_size"], r["options"]["m"]) for r in profile.of("approximation", n=n)}, reverse=True
    )
    names = [e for e in ENSEMBLES if profile.of("approximation", n=n, ensemble=e)]
    rows = []
    for p, m in sorted(keys, key=lambda key: (-key[0], key[1])):
        found = [setting(profile, e, n, m, p) for e in names]
        first = next(row for row in found if row is not None)
        errors = [NOT_MEASURED if row is None else plus_minus(row["errors"]) for row in found]
        rows.append([str(p), str(m), f"{first['parameters']:,}", f"{first['flops_per_token']:,.0f}", *errors])
    return table(["p", "m", "parameters", "FLOPs a token", *(e.replace("_", " ") for e in names)], rows)


def approximation_section(profile: Profile) -> str:
    """Equal parameters, equal FLOPs, and CDVFT by m and p, for every width."""
    parts = []
    for n in widths(profile):
        for m, p, axis, title in (
            (2, n, "parameters", "parameters of CDVFT m = 2, p = d: 3d"),
            (2, n // 2, "parameters", "parameters of CDVFT m = 2, p = d / 2, and of LoRA r = 2: 4d"),
            (3, n, "parameters", "parameters of CDVFT m = 3, p = d: 5d"),
            (2, n, "flops_per_token", "FLOPs of CDVFT m = 2, p = d"),
        ):
            parts.append(f"### d = {n}, within the {title}\n\n{budget_table(profile, n, m, p, axis)}\n")
        parts.append(f"### d = {n}: CDVFT by p and m\n\n" + settings_table(profile, n) + "\n")
        parts += [
            f"![error against {a}, d = {n}](expressivity/error-{a}-n{n}.png)\n\n" for a in ("parameters", "flops")
        ]
    return "".join(parts)


def changes_section(profile: Profile) -> str:
    """Real weight changes: every family within the parameters of m = 2, p = half of the smaller width, and FLOPs."""
    parts = []
    for axis, title in (
        ("parameters", "Within the parameters of CDVFT m = 2, p = d / 2, and of LoRA r = 2: 4d"),
        ("flops_per_token", "Within the FLOPs of CDVFT m = 2, p = d"),
    ):
        parts.append(f"{title}:\n\n{_changes_table(profile, axis)}")
    further = []
    for rows in change_arrays(profile):
        found = [r for r in rows if r["family"] == "cdvft"]
        further.append([_layer(rows[0]), *(f"{r['errors'][0]:.3f} ({_settings(r)})" for r in found)])
    parts.append(
        "CDVFT by m and p:\n\n" + table(["layer", *["error"] * (len(further[0]) - 1 if further else 0)], further)
    )
    sources = [f"- {s}\n" for s in dict.fromkeys(row["source"] for row in profile.of("change"))]
    return "\n".join(parts) + ("\nChanges:\n\n" + "".join(sources) if sources else "")


def _layer(row: Row) -> str:
    """A layer's name, and the seed of the fine-tuning where the source names it."""
    seed = re.search(r"seed (\d+)", row["source"])
    return str(row["array"]) + (f", seed {seed[1]}" if seed else "")


def _changes_table(profile: Profile, axis: str) -> str:
    rows = []
    for mine in change_arrays(profile):
        budget = change_budget(mine, axis)
        shape, stable = f"{mine[0]['d_out']}×{mine[0]['d_in']}", f"{mine[0]['stable_rank']:.1f}"
        cells = [_layer(mine[0]), shape, stable, f"{budget:,.0f}"]
        for family in FAMILIES:
            best = best_within([row for row in mine if row["family"] == family], axis, budget)
            cells.append("none fits" if best is None else f"{best['errors'][0]:.3f} ({_settings(best)})")
        rows.append(cells)
    if rows:
        errors = change_errors(profile, axis)
        cells = [plus_minus(errors[f]) if f in errors else "" for f in FAMILIES]
        rows.append([f"mean of {len(rows)}", "", "", "", *cells])
    unit = "parameters" if axis == "parameters" else "FLOPs a token"
    return table(["layer", "shape", "stable rank", f"{unit}, at most", *(TITLES[f] for f in FAMILIES)], rows)


def _reached(errors: Sequence[float]) -> str:
    return f"{sum(e < REACHED for e in errors)} of {len(errors)}"


def theorem_section(profile: Profile) -> str:
    """The construction, rising m, rank, recovery."""
    built = [
        [
            str(r["n"]),
            str(r["factors"]),
            str(len(r["residuals"])),
            f"{max(r['residuals']):.1e}",
            f"{max(r['spreads']):.1e}",
        ]
        for r in profile.of("factorisation")
    ]
    reach = [
        [
            str(r["n"]),
            str(r["m"]),
            str(2 * r["m"] - 1),
            r["field"],
            _reached(r["errors"]),
            plus_minus(r["errors"]),
        ]
        for r in profile.of("reach")
    ]
    low = [
        [str(r["n"]), str(r["rank"]), str(r["m"]), _reached(r["errors"]), plus_minus(r["errors"])]
        for r in profile.of("low_rank")
    ]
    recovery = [
        [str(r["n"]), str(r["m"]), r["field"], _reached(r["errors"]), f"{100 * r['share_of_starts']:.1f} %"]
        for r in profile.of("recovery")
    ]
    return (
        "Constructive factorisation of complex Gaussian matrices:\n\n"
        + table(["d", "factors", "matrices", "worst residual", "largest over smallest factor entry"], built)
        + "\nReal Gaussian targets by real and by complex factors, found by search:\n\n"
        + table(["d", "m", "factors", "field", f"reached ({REACHED:g})", "mean error"], reach)
        + "\n![errors for rising m](expressivity/reach.png)\n"
        + "\nRandom matrices of rank r, real factors:\n\n"
        + table(["d", "r", "m", "reached", "mean error"], low)
        + "\nPlanted products, looked for with their own m: the search's own trustworthiness:\n\n"
        + table(["d", "m", "field", "targets found", "starts that find one"], recovery)
    )


def structure_section(profile: Profile) -> str:
    """Dimensions and conditioning."""
    rows = profile.of("dimension")
    shown = {n for n in (4, 8, 12) if n in {r["n"] for r in rows}} or {r["n"] for r in rows}
    dimensions = [
        [
            str(r["n"]),
            str(r["block_size"]),
            str(r["m"]),
            str(r["parameters"]),
            str(r["redundancy"]),
            str(r["exact"]),
            f"{100 * r['exact'] / r['n'] ** 2:.0f} %",
            f"{100 * r['exact'] / r['parameters']:.0f} %",
        ]
        for r in rows
        if r["n"] in shown
    ]
    conditions = [
        [
            str(r["n"]),
            str(r["block_size"]),
            str(r["m"]),
            r["point"].replace("_", " "),
            f"{min(r['ranks'])}" if min(r["ranks"]) == max(r["ranks"]) else f"{min(r['ranks'])} to {max(r['ranks'])}",
            f"{math.exp(mean([math.log(c) for c in r['conditions']])):.3g}",
        ]
        for r in profile.of("conditioning")
    ]
    return (
        f"Exact dimensions ({len(rows)} shapes counted; widths {', '.join(map(str, sorted(shown)))} shown):\n\n"
        + table(["d", "p", "m", "parameters", "redundant", "dimension", "of d²", "effective"], dimensions)
        + "\nJacobian at the adapter's starts and at normal factors (geometric mean of conditions):\n\n"
        + table(["d", "p", "m", "point", "rank", "condition"], conditions)
    )


def training_section(profile: Profile) -> str:
    """Gradient sizes and the small task."""
    gradients = [
        [
            r["source"].replace("_", " "),
            str(r["block_size"]),
            plus_minus(r["ratios"]),
            plus_minus(r["coherences"]),
        ]
        for r in profile.of("gradient")
    ]
    rows = []
    trainings = profile.of("training")
    rates = sorted({r["learning_rate"] for r in trainings})
    for ensemble, label in dict.fromkeys((r["ensemble"], r["adapter"]) for r in trainings):
        mine = [r for r in trainings if r["ensemble"] == ensemble and r["adapter"] == label]
        losses = final_losses(mine)
        best = best_rate(mine)
        last = [r["snapshots"][-1] for r in mine if r["learning_rate"] == best and r["snapshots"]]
        early = [s["loss"] for r in mine if r["learning_rate"] == best for s in r["snapshots"] if s["step"] == 10]
        rows.append(
            [
                ensemble.replace("_", " "),
                label.replace("_", " "),
                str(mine[0]["parameters"]),
                *(plus_minus(losses[rate]) for rate in rates),
                plus_minus(early) if early else NOT_MEASURED,
                plus_minus([s["rank"] for s in last]),
                plus_minus([s["stable_rank"] for s in last]),
            ]
        )
    header = ["teacher", "adapter", "parameters", *(f"loss, lr {rate:g}" for rate in rates)]
    return (
        "Size of a circulant vector's gradient over the dense gradient's, entry by entry:\n\n"
        + table(["dense gradient", "p", "ratio", "coherence"], gradients)
        + "\n![gradient sizes](expressivity/gradient.png)\n"
        + "\nSmall task: last losses by learning rate (no change = 1); the other columns at the best rate:\n\n"
        + table([*header, "loss after 10 steps", "rank", "stable rank"], rows)
        + "\n![training](expressivity/training.png)\n"
    )


_INTRODUCTION = """# What the factorisation can and cannot express

Generated by `cdvft-bench expressivity report profiles/expressivity-cpu --output docs` from the rows of
`cdvft-bench expressivity run --preset {preset} --output profiles/expressivity-cpu` (seed {seed}, torch
{torch}, {dtype}). Real weight changes come from `python -m
cdvft_bench.expressivity changes` and `run --weights changes.npz`, one 2-D array (tuned minus base) a layer.
Intervals: 95 %, Student's t over target draws or seeds.
"""

_ERRORS = """## How near each family comes

Relative error in the Frobenius norm of the best fit. LoRA, BCA and FourierFT: exact optima. CDVFT and VeRA: least
error found, an upper bound (CDVFT's m = 2 is recovered exactly where planted). FourierFT at its best positions is a
bound on the method, which draws positions before it sees data. FLOPs: forward, the adapter's own, convention `flop`,
512 tokens.
"""


def render(profile: Profile) -> str:
    """The whole page as Markdown."""
    return "\n".join(
        [
            _INTRODUCTION.format(**profile.environment),
            "## Findings\n",
            findings_section(all_findings(profile)),
            _ERRORS,
            approximation_section(profile),
            "### Real weight changes\n",
            changes_section(profile),
            "## The theorem at work\n",
            theorem_section(profile),
            "## Structure\n",
            structure_section(profile),
            "## Gradients, starts, training\n",
            training_section(profile),
            _ARGUMENTS.read_text(encoding="utf-8"),
        ]
    )


def write_report(profile: Profile, folder: Path) -> list[Path]:
    """Write ``expressivity.md`` and the figures next to it; returns the paths.

    Raises:
        UserError: the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder} cannot be made ({error.strerror}); give a folder that can") from None
    page = folder / "expressivity.md"
    figures = write_figures(profile, folder / "expressivity")
    write_file(page, render(profile))
    return [page, *figures]
