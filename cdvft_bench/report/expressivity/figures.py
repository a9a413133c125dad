"""Figures of the report, from a profile alone."""

from pathlib import Path
from typing import Any

from cdvft_bench.core.student import mean_interval
from cdvft_bench.expressivity.budget import FAMILIES, TITLES
from cdvft_bench.expressivity.findings.measured import approximations, best_rate, mean, widths
from cdvft_bench.expressivity.fitting.targets import ENSEMBLES
from cdvft_bench.expressivity.profile import Profile

_FAMILY_COLOURS = dict(zip(FAMILIES, ("#d62728", "#ff7f0e", "#1f77b4", "#9467bd", "#c5b0d5", "#2ca02c"), strict=True))
_FIELD_COLOURS = {"real": "#1f77b4", "complex": "#d62728"}
FLOOR = 1e-4
"""Errors below this are drawn at it on logarithmic axes."""


def _pyplot() -> Any:
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "cdvft-bench"  # the same file from the same rows
    matplotlib.rcParams["svg.fonttype"] = "none"
    from matplotlib import pyplot

    return pyplot


def _save(figure: Any, folder: Path, name: str) -> list[Path]:
    paths = []
    for kind, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
        path = folder / f"{name}.{kind}"
        figure.savefig(path, dpi=110, bbox_inches="tight", metadata=metadata)
        paths.append(path)
    _pyplot().close(figure)
    return paths


def budget_figure(profile: Profile, folder: Path, n: int, axis: str) -> list[Path]:
    """Error of every family against parameters or FLOPs, one panel an ensemble."""
    plt = _pyplot()
    names = [e for e in ENSEMBLES if approximations(profile, e, n)]
    figure, axes = plt.subplots(2, -(-len(names) // 2), figsize=(11, 6.2), sharex=True, squeeze=False)
    for panel, ensemble in zip(axes.flat, names, strict=False):
        rows = approximations(profile, ensemble, n)
        for family in FAMILIES:
            mine = sorted((r for r in rows if r["family"] == family), key=lambda r: float(r[axis]))
            points = [(r[axis], mean_interval(r["errors"])) for r in mine]
            if not points:
                continue
            x = [p[0] for p in points]
            y = [max(p[1].value, FLOOR) for p in points]
            half = [0.0 if p[1].high is None else p[1].high - p[1].value for p in points]
            below = [min(h, v - FLOOR / 2) for h, v in zip(half, y, strict=True)]
            panel.errorbar(
                x,
                y,
                yerr=[below, half],
                color=_FAMILY_COLOURS[family],
                label=TITLES[family],
                marker="o",
                ms=3.5,
                lw=0 if family == "cdvft" else 1,
                elinewidth=0.8,
                capsize=2,
            )
        panel.set_title(ensemble.replace("_", " "), fontsize=10)
        panel.set_xscale("log", base=2)
        panel.set_ylim(-0.03, 1.08)
        panel.grid(alpha=0.3)
    for panel in axes[:, 0]:
        panel.set_ylabel("relative error")
    for panel in axes[-1]:
        panel.set_xlabel("parameters" if axis == "parameters" else "FLOPs a token (convention flop)")
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncol=6, fontsize=9, bbox_to_anchor=(0.5, -0.06))
    return _save(figure, folder, f"error-{'parameters' if axis == 'parameters' else 'flops'}-n{n}")


def reach_figure(profile: Profile, folder: Path) -> list[Path]:
    """Error on Gaussian targets for rising m, real against complex factors."""
    plt = _pyplot()
    rows = profile.of("reach")
    sizes = sorted({row["n"] for row in rows})
    figure, axes = plt.subplots(1, len(sizes), figsize=(3 * len(sizes), 3), sharey=True, squeeze=False)
    for panel, n in zip(axes.flat, sizes, strict=True):
        for field, colour in _FIELD_COLOURS.items():
            points = sorted((r["m"], r["errors"]) for r in rows if r["n"] == n and r["field"] == field)
            offset = -0.06 if field == "real" else 0.06
            for m, errors in points:
                panel.scatter([m + offset] * len(errors), [max(e, 1e-13) for e in errors], s=6, color=colour, alpha=0.5)
            means = [max(mean(errors), 1e-13) for _, errors in points]
            panel.plot([m for m, _ in points], means, color=colour, lw=1, label=f"{field} factors")
        panel.axvline((n + 1) // 2 + 1, color="grey", ls=":", label="dimensions suffice")
        panel.axvline(n, color="black", ls="--", lw=0.8, label="theorem's m = n")
        panel.set_yscale("log")
        panel.set_title(f"n = {n}", fontsize=10)
        panel.set_xlabel("m")
        panel.grid(alpha=0.3)
    axes[0, 0].set_ylabel("relative error")
    axes[0, 0].legend(fontsize=7)
    return _save(figure, folder, "reach")


def training_figure(profile: Profile, folder: Path) -> list[Path]:
    """Loss and stable rank along the small training, each adapter at its best learning rate."""
    plt = _pyplot()
    rows = profile.of("training")
    ensembles = list(dict.fromkeys(row["ensemble"] for row in rows))
    figure, axes = plt.subplots(2, len(ensembles), figsize=(5.5 * len(ensembles), 6.4), sharex=True, squeeze=False)
    labels = list(dict.fromkeys(row["adapter"] for row in rows))
    colours = plt.get_cmap("tab20").colors
    for column, ensemble in enumerate(ensembles):
        for k, label in enumerate(labels):
            mine = [r for r in rows if r["adapter"] == label and r["ensemble"] == ensemble]
            rate = best_rate(mine)
            paths = [r["snapshots"] for r in mine if r["learning_rate"] == rate]
            steps = [s["step"] for s in paths[0]]
            for panel, field in zip(axes[:, column], ("loss", "stable_rank"), strict=True):
                y = [mean([path[i][field] for path in paths if i < len(path)]) for i in range(len(steps))]
                panel.plot(steps, y, color=colours[k % 20], label=label, lw=1.2)
        axes[0, column].set_title(f"teacher's change: {ensemble.replace('_', ' ')}", fontsize=10)
        axes[0, column].set_xscale("symlog", linthresh=1)
        axes[0, column].set_yscale("log")
        axes[0, column].set_ylim(bottom=FLOOR)
        axes[1, column].set_xlabel("step")
    axes[0, 0].set_ylabel("loss, no change = 1")
    axes[1, 0].set_ylabel("stable rank of dW")
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, loc="center left", bbox_to_anchor=(0.92, 0.5), fontsize=8)
    return _save(figure, folder, "training")


def gradient_figure(profile: Profile, folder: Path) -> list[Path]:
    """Size of dL/dc over the dense gradient's against p."""
    plt = _pyplot()
    rows = profile.of("gradient")
    figure, panel = plt.subplots(figsize=(4.6, 3.4))
    for source in dict.fromkeys(row["source"] for row in rows):
        chosen = sorted((r for r in rows if r["source"] == source), key=lambda r: int(r["block_size"]))
        mine = [(r["block_size"], mean_interval(r["ratios"])) for r in chosen]
        name = source if source in ("independent", "constant") else f"task, {source.replace('_', ' ')} teacher"
        y = [i.value for _, i in mine]
        half = [0.0 if i.high is None else i.high - i.value for _, i in mine]
        panel.errorbar([p for p, _ in mine], y, yerr=half, marker="o", ms=4, capsize=2, label=name)
    sizes = sorted({row["block_size"] for row in rows})
    panel.plot(sizes, sizes, color="grey", ls="--", lw=0.8, label="p")
    panel.plot(sizes, [p**0.5 for p in sizes], color="grey", ls=":", label="square root of p")
    panel.set_xscale("log", base=2)
    panel.set_yscale("log", base=2)
    panel.set_xlabel("block size p")
    panel.set_ylabel("rms of dL/dc over rms of dL/d(dW)")
    panel.legend(fontsize=7)
    panel.grid(alpha=0.3)
    return _save(figure, folder, "gradient")


def write_figures(profile: Profile, folder: Path) -> list[Path]:
    """All figures as PNG and SVG; what was not measured is left out."""
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    for n in widths(profile):
        for axis in ("parameters", "flops_per_token"):
            paths += budget_figure(profile, folder, n, axis)
    if profile.of("reach"):
        paths += reach_figure(profile, folder)
    if profile.of("training"):
        paths += training_figure(profile, folder)
    if profile.of("gradient"):
        paths += gradient_figure(profile, folder)
    return paths
