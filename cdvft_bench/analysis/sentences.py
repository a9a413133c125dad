"""What an overview says in words: sentences made from values and intervals by rule, never written by hand."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cdvft_bench.analysis.overview import SEVERAL, Overview
from cdvft_bench.core.interval import Interval, Side
from cdvft_bench.core.text import listed, plural
from cdvft_bench.core.text import ratio as as_ratio

if TYPE_CHECKING:
    from pandas import DataFrame

Level = Literal["high", "fair", "low", "none"]
SIDES: dict[Side, str] = {"below": "faster", "above": "slower", "undecided": "not told apart"}
COSTS = {
    "parameters": ("trains", "the parameters"),
    "saved_bytes": ("keeps", "the bytes for backward"),
    "launches": ("makes", "the launches"),
}
"""What is said of a method beside its time, over the baseline's."""
WORDS = (*SIDES.values(), "no interval")
WARNED = 0.1
"""Share of warned rows up to which a page may be trusted."""


@dataclass(frozen=True)
class Trust:
    """How far the shown ratios may be trusted: a level, and the facts that it follows from."""

    level: Level
    facts: tuple[str, ...]


@dataclass(frozen=True)
class Headline:
    """The answer: ``before`` and ``after`` the number, which comes with its interval; ``value`` None unmeasured."""

    before: str
    value: str
    after: str
    more: str

    @property
    def text(self) -> str:
        """All of it but what is ``more``."""
        return " ".join(filter(None, (self.before, self.value, self.after)))


def trimmed(ratio: Interval) -> str:
    """A ratio with as many decimals as its interval leaves meaning: one digit of the half-width, one or two."""
    half = ratio.half_width * abs(ratio.value)
    decimals = 2 if not math.isfinite(half) or half <= 0 else min(2, max(1, math.ceil(-math.log10(half))))
    return as_ratio(ratio.value, decimals)


def with_bounds(ratio: Interval) -> str:
    """``0.97 [0.95, 0.99]``, or that there is no interval."""
    if ratio.low is None or ratio.high is None:
        return f"{ratio.value:.2f} [no interval]"
    decimals = max(2, len(trimmed(ratio).partition(".")[2]))
    return f"{as_ratio(ratio.value, decimals)} [{as_ratio(ratio.low, decimals)}, {as_ratio(ratio.high, decimals)}]"


def headline(found: Overview) -> Headline:
    """One sentence with the number, its interval, the machine and the word; and what it costs beside time."""
    seen = found.focused()
    if not seen:
        return Headline("No method is timed beside a baseline in these records.", "", "", "")
    panel, cell = seen[0]
    step = "a training step" if panel.workload.startswith("step") else "a forward pass"
    step += ", as a replayed CUDA graph," if panel.graph else ""
    costs = [f"{said} {cell.costs[name]:.2f} × {what}" for name, (said, what) in COSTS.items() if name in cell.costs]
    more = [f"It {listed(costs)}."] if costs else []
    for machine in found.machines:
        other = next(((p, c) for p, c in seen if p.machine == machine != panel.machine), None)
        if other is not None:
            how = ", as a replayed CUDA graph" if other[0].graph else ""
            more.append(f"On {machine}: {with_bounds(other[1].time)} on {other[0].title}{how}.")
    return Headline(
        before=f"On {panel.title}, {step} with {cell.label} takes",
        value=f"{with_bounds(cell.time)} times",
        after=f"{found.baseline_title}’s time, on {panel.machine}: {word_of(cell.time)}.",
        more=" ".join(more),
    )


def trust(found: Overview, frame: DataFrame) -> Trust:
    """How far the overview may be trusted.

    "high": every ratio has an interval over three processes or more, at most a tenth carry a warning, and formula and
    count agree; "low": more than half carry a warning or have no interval; else "fair".
    """
    cells = {cell.record: cell for row in found.rows for _, cell in found.cells(row) if cell.trust != "not measured"}
    rows = frame.loc[sorted(cells)]
    rows = rows[rows["method"] != "frozen"]
    if not len(rows):
        return Trust("none", ("No ratio of times is recorded.",))
    n, shown = len(rows), [cells[at] for at in rows.index]
    without, warned = sum(cell.trust == "no interval" for cell in shown), sum(cell.warned for cell in shown)
    few, checked = int(rows["processes"].min()), rows[rows["agreement"] != "not measured"]
    differing = int((checked["agreement"] == "differs").sum())
    facts = (
        f"{n - without} of {plural(n, 'ratio')} shown {'has' if n == 1 else 'have'} a 95 % interval.",
        f"The clock warns of {warned} of them.",
        f"Each comes from {plural(few, 'process', 'processes')} or more"
        + (": whether it holds in the next one was not tried." if few == 1 else "."),
        f"Formula and count agree exactly on {len(checked) - differing} of {len(checked)} that were counted."
        if len(checked)
        else "Formula and count were not compared.",
    )
    doubtful = sum(cell.trust in ("doubtful", "no interval") for cell in shown)
    level: Level = "fair"
    if not without and warned <= WARNED * n and few >= SEVERAL and not differing:
        level = "high"
    elif doubtful > n / 2:
        level = "low"
    return Trust(level, facts)


def picture_title(found: Overview) -> str:
    """The message of the picture, in its title: how often the focus is faster, slower, not told apart."""
    words = [word_of(cell.time) for _, cell in found.focused()]
    if not words:
        return f"Time over {found.baseline_title}’s"
    counts = [f"{word} on {words.count(word)}" for word in WORDS if words.count(word)]
    kinds = {panel.kind for panel, _ in found.focused()}
    what = "layers and models" if len(kinds) > 1 else f"{kinds.pop()}{'s' if len(words) > 1 else ''}"
    how = ", as replayed graphs" if all(panel.graph for panel, _ in found.focused()) else ""
    where = f" on {len(found.machines)} machines" if len(found.machines) > 1 else ""
    return f"{found.focus} beside {found.baseline_title}{how}: {listed(counts)}, of {len(words)} {what}{where}"


def three_sentences(found: Overview) -> tuple[str, str, str]:
    """What is faster than the baseline, what is smaller, and what could not be told, method by method."""
    others = [row for row in found.rows if not is_baseline(found, row)]
    name = found.baseline_title
    faster = [said for row in others if (said := _on(found, row, "faster"))]
    smaller = [said for row in others if (said := _smaller(found, row))]
    open_ = [said for row in others if (said := _on(found, row, "not told apart"))]
    bare = [said for row in others if (said := _on(found, row, "no interval"))]
    counted = any("parameters" in cell.costs for row in others for _, cell in found.cells(row))
    unknown = f" Without an interval: {'; '.join(bare)}." if bare else ""
    none = "none" if counted else "not counted yet"
    return (
        f"Faster than {name}: {'; '.join(faster) or 'none'}.",
        f"Fewer trained parameters (bytes kept for backward), over {name}’s: {'; '.join(smaller) or none}.",
        f"Not told apart from {name}: {'; '.join(open_) or 'none'}.{unknown}",
    )


def word_of(ratio: Interval) -> str:
    """Whether a ratio of times says "faster", "slower" or "not told apart"; "no interval" where it has none."""
    return SIDES[ratio.side()] if ratio.bounds else "no interval"


def is_baseline(found: Overview, row: str) -> bool:
    """Whether a row of the overview is one of the two baselines."""
    return row in ("frozen", "LoRA r=8") if found.baseline == "lora" else row == "frozen"


def _on(found: Overview, row: str, word: str) -> str:
    cells = [(panel, cell) for panel, cell in found.cells(row) if word_of(cell.time) == word]
    if not cells:
        return ""
    if len(cells) > 3:
        values = [cell.time.value for _, cell in cells]
        return f"{row} on {len(cells)} of {len(found.cells(row))} ({min(values):.2f} to {max(values):.2f})"
    return f"{row} on {listed([f'{panel.title} ({trimmed(cell.time)})' for panel, cell in cells])}"


def _smaller(found: Overview, row: str) -> str:
    """The share of the baseline's parameters, and of what it keeps for backward, in the first panel."""
    cells = found.cells(row)
    costs = cells[0][1].costs if cells else {}
    parameters, saved = costs.get("parameters"), costs.get("saved_bytes")
    if not parameters or parameters >= 1:
        return ""
    return f"{row} {parameters:.2g}" + (f" ({saved:.2f})" if saved is not None else "")
