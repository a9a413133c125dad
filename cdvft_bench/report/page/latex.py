"""Tables for a paper: LaTeX with booktabs, and the text of a record made harmless in it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from cdvft_bench.analysis.agreement import (
    adapter_flops,
    counted_launches,
    ratio_to_frozen,
    ratio_to_lora8,
    trainable,
)
from cdvft_bench.analysis.groups import Section, is_frozen
from cdvft_bench.core.text import NOT_MEASURED, clean, integer, prefixed
from cdvft_bench.core.timed import Interval
from cdvft_bench.report.figures.panels import CONVENTION

if TYPE_CHECKING:
    from pandas import DataFrame

_ESCAPES = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "$": r"\$", "&": r"\&", "#": r"\#", "^": r"\textasciicircum{}",
    "_": r"\_", "~": r"\textasciitilde{}", "%": r"\%", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "×": r"\(\times\)", "÷": r"\(\div\)", "−": r"\(-\)",
    "→": r"\(\to\)", "…": r"\ldots{}", "±": r"\(\pm\)",
}  # fmt: skip


def escape(value: object) -> str:
    """Text that LaTeX prints as it is; a character outside of ASCII that it may not know is named by its number."""
    return "".join(_ESCAPES.get(c) or (c if c.isascii() else f"[U+{ord(c):04X}]") for c in clean(value))


def latex_table(frame: DataFrame, caption: str, label: str) -> str:
    """A frame as a ``longtable`` (packages booktabs and longtable): texts left, figures right."""
    columns = [str(c) for c in frame.columns]
    head = " & ".join(escape(c) for c in columns) + r" \\"
    lines = [
        "% needs \\usepackage{booktabs,longtable} and \\usepackage[T1]{fontenc}",
        rf"\begin{{longtable}}{{{'l' * min(2, len(columns))}{'r' * max(0, len(columns) - 2)}}}",
        rf"\caption{{{escape(caption)}}}\label{{tab:{label}}}\\",
        r"\toprule", head, r"\midrule", r"\endfirsthead",
        r"\toprule", head, r"\midrule", r"\endhead",
    ]  # fmt: skip
    lines += [" & ".join(escape(v) for v in row) + r" \\" for row in frame.itertuples(index=False, name=None)]
    return "\n".join([*lines, r"\bottomrule", r"\end{longtable}", ""])


def paper_table(section: Section) -> DataFrame:
    """The figures of one section that a paper would print: one row a setting and workload, rounded."""
    from pandas import DataFrame

    rows = [
        {
            "setting": clean(record.label),
            "workload": where.short,
            "parameters": _whole(trainable(record)),
            f'adapter FLOPs, "{CONVENTION}"': _large(adapter_flops(record, CONVENTION)),
            "launches": _whole(counted_launches(record)),
            "time ÷ frozen": "1" if is_frozen(record.case) else _interval(ratio_to_frozen(record)),
            "time ÷ LoRA r=8": _interval(ratio_to_lora8(record)),
            "kept for backward [bytes]": _large(record.counted.saved_bytes if record.counted else None),
            "peak of a call [bytes]": _large(
                record.timed.memory.peak_bytes if record.timed and record.timed.memory else None
            ),
        }
        for where, records in section.workloads().items()
        for record in records
    ]
    return DataFrame(rows, dtype=object)


def paper_tables(sections: Iterable[Section], rows: int) -> dict[str, DataFrame]:
    """The tables of the sections by file name, those of at most ``rows`` rows; an empty section has none."""
    made = {f"paper-{section.anchor}": paper_table(section) for section in sections if len(section.ok) <= rows}
    return {name: frame for name, frame in made.items() if len(frame)}


def paper_caption(sections: Sequence[Section], name: str) -> str:
    """Caption of a section's table."""
    titles = {f"paper-{section.anchor}": section.title for section in sections}
    return (
        f"{titles.get(name, name)}: costs by formula and count; time as the median of ratios paired by round, with "
        "95 % bootstrap intervals."
    )


def _whole(value: float | None) -> str:
    return NOT_MEASURED if value is None else integer(value)


def _large(value: float | None) -> str:
    return NOT_MEASURED if value is None else prefixed(value)


def _interval(ratio: Interval | None) -> str:
    if ratio is None:
        return NOT_MEASURED
    if ratio.low is None or ratio.high is None:
        return f"{ratio.value:.2f}"
    return f"{ratio.value:.2f} [{ratio.low:.2f}, {ratio.high:.2f}]"
