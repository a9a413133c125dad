"""Tables for a paper: LaTeX with booktabs, and the text of a record made harmless in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cdvft_bench.core.text import clean

if TYPE_CHECKING:
    from pandas import DataFrame

_NAMED = {
    "\\": "backslash",
    "^": "asciicircum",
    "~": "asciitilde",
    "<": "less",
    ">": "greater",
    "|": "bar",
    '"': "quotedbl",
}
_MATHS = {"×": r"\times", "÷": r"\div", "−": "-", "→": r"\to", "±": r"\pm", "·": r"\cdot"}
_ESCAPES = {
    **{c: f"\\{c}" for c in "{}$&#_%"},
    **{c: f"\\text{name}{{}}" for c, name in _NAMED.items()},
    **{c: rf"\({name}\)" for c, name in _MATHS.items()},
    **{"…": r"\ldots{}", "’": "'", "–": "--"},
}


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
        *(r"\toprule", head, r"\midrule", r"\endfirsthead"),
        *(r"\toprule", head, r"\midrule", r"\endhead"),
    ]
    lines += [" & ".join(escape(v) for v in row) + r" \\" for row in frame.itertuples(index=False, name=None)]
    return "\n".join([*lines, r"\bottomrule", r"\end{longtable}", ""])
