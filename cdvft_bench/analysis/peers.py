"""CDVFT beside its peers, setting by setting; and the ways of executing one setting beside each other."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING, Any

from cdvft_bench.analysis.cases import path_title, title_of
from cdvft_bench.analysis.frame import COMPARABLE, between, entries
from cdvft_bench.analysis.sentences import word_of
from cdvft_bench.core.text import interval, plural

if TYPE_CHECKING:
    from pandas import DataFrame

PEERS = ("lora", "fourierft", "c3a")
"""Methods that CDVFT is held against; LoRA at rank 8."""

LEAST = 3
"""Paths of one setting that make a comparison."""


def crossover(frame: DataFrame, peer: str) -> DataFrame:
    """Every timed setting of CDVFT beside a peer: one row a setting, with the peer's fastest one.

    Args:
        frame: of ``records_frame``. peer: one of ``PEERS``.

    Returns:
        the columns of ``COMPARABLE``, machine, label, m, p, peer (its label), ratio, low, high, and "word": whether
        CDVFT's step is "faster", "slower", "not told apart", or "no interval".
    """
    import pandas as pd

    made: list[dict[str, Any]] = []
    done = frame[(frame["status"] == "ok") & frame["frozen"].notna()]
    for _, rows in done.groupby(list(COMPARABLE), sort=False):
        theirs = rows[(rows["setting"] == "LoRA r=8") if peer == "lora" else (rows["method"] == peer)]
        for ours in entries(rows[rows["method"] == "cdvft"]):
            ratios = [(other, ratio) for other in entries(theirs) if (ratio := between(ours, other))]
            if not ratios:
                continue
            other, ratio = max(ratios, key=lambda pair: pair[1].value)  # the fastest peer is the hardest to beat
            made.append(
                {name: ours[name] for name in (*COMPARABLE, "tokens", "machine", "label", "m", "p", "path")}
                | {"peer": other["label"], "ratio": ratio.value, "low": ratio.low, "high": ratio.high}
                | {"word": word_of(ratio)}
            )
    columns = (*COMPARABLE, "tokens", "machine", "label", "m", "p", "path", "peer", "ratio", "low", "high", "word")
    return pd.DataFrame(made, columns=list(columns))


def crossover_said(found: DataFrame, peer: str) -> str:
    """One sentence on where CDVFT takes less time than the peer; "not measured" where nothing was.

    Args:
        found: of :func:`crossover`, of one pass, dtype, device and machine.
    """
    name = f"{title_of(peer)}{' of rank 8' if peer == 'lora' else ''}"
    if not len(found):
        return f"CDVFT beside {name}: not measured."
    words = list(found["word"])
    best = min(entries(found), key=lambda row: row["ratio"])
    low, high = (None if bound != bound else bound for bound in (best["low"], best["high"]))
    where = f"{best['subject']} at {best['batch']:.0f} × {best['sequence']:,.0f} tokens"
    open_ = words.count("not told apart") + words.count("no interval")
    return (
        f"CDVFT beside {name}: faster in {words.count('faster'):,} of {plural(len(words), 'measured setting')}, slower "
        f"in {words.count('slower'):,}, not told in {open_:,}. Lowest is {best['label']} on {where}, "
        f"{interval(best['ratio'], low, high)}."
    )


def ways(frame: DataFrame) -> DataFrame:
    """Settings that at least ``LEAST`` paths executed: one row a path.

    Returns:
        the columns of ``COMPARABLE``, setting, path, "way" (the path in words), the ratios to LoRA r = 8 and to the
        frozen subject with their intervals, launches, saved bytes, and "regret" on rows of ``auto``: its time over
        the fastest other path's, less 1; the clock's noise is part of it.
    """
    import pandas as pd

    ratios = [f"{name}{end}" for name in ("lora", "frozen") for end in ("", "_low", "_high")]
    columns = [*COMPARABLE, "machine", "setting", "path", *ratios, "launches", "saved_bytes"]
    done = frame[(frame["status"] == "ok") & (frame["path"] != "") & frame["frozen"].notna()]
    made = []
    for _, rows in done.groupby([*COMPARABLE, "method", "setting"], sort=False):
        if rows["path"].nunique() < LEAST:
            continue
        rows = rows[columns].sort_values("frozen").drop_duplicates("path")
        others = rows[rows["path"] != "auto"]["frozen"].min()
        regret = [row.frozen / others - 1 if row.path == "auto" else float("nan") for row in rows.itertuples()]
        made.append(rows.assign(way=[path_title(path) or "auto" for path in rows["path"]], regret=regret))
    return pd.concat(made, ignore_index=True) if made else pd.DataFrame(columns=[*columns, "way", "regret"])


def regret_said(found: DataFrame) -> str:
    """What the planner's picks lose against the fastest path, in words; "" where nothing was planned."""
    picks = found[found["regret"].notna()]
    if not len(picks):
        return ""
    worst = max(entries(picks), key=lambda row: row["regret"])
    where = f"{worst['setting']} on {worst['subject']}, {worst['batch']:.0f} × {worst['sequence']:,.0f} tokens"
    return (
        f"The planner's pick (path auto) takes {100 * median(picks['regret']):.1f} % longer than the fastest path in "
        f"the median over {plural(len(picks), 'setting')}, at worst {100 * worst['regret']:.1f} % ({where}); the "
        "clock's noise is part of both figures."
    )
