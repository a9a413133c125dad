"""How values become text: numbers with units, names that cannot break a page, a table or a figure."""

import codecs
import html
import math
import re
import unicodedata
from collections.abc import Iterable, Sequence

from cdvft_bench.core.interval import Interval

NOT_MEASURED = "not measured"
"""Stands wherever a source is not available: never an empty cell, a zero or a NaN."""

ESCAPE = "cdvft_bench.escape"
"""Name of the handler of characters that a stream's encoding lacks: signs as plain letters, the rest escaped."""

_PLAIN = {
    "×": "x",
    "·": "*",
    "−": "-",
    "–": "-",
    "—": "-",
    "…": "...",
    "±": "+/-",
    "≤": "<=",
    "≥": ">=",
    "≈": "~",
    "→": "->",
    "µ": "u",
    "μ": "u",
    "Δ": "d",
    "²": "^2",
    "³": "^3",
    "⁻": "^-",
    "√": "sqrt",
    "’": "'",
    "█": "#",
}


def _escaped(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lost = error.object[error.start : error.end]
    return "".join(_PLAIN.get(c) or c.encode("unicode_escape", "surrogatepass").decode() for c in lost), error.end


codecs.register_error(ESCAPE, _escaped)

_HIDDEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}
_MARKDOWN = re.compile(r"([\\`*_\[\]|#~])")
_PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"))


def clean(value: object) -> str:
    """One printable line: line breaks become spaces; control, format and surrogate characters their escapes."""
    text = str(value)
    if text.isprintable():  # no line break, no control character
        return text
    text = re.sub(r"[\r\n\t]+", " ", text)
    return "".join(c if unicodedata.category(c) not in _HIDDEN else f"\\u{ord(c):04x}" for c in text)


def shorten(value: object, limit: int = 44) -> str:
    """``clean`` text of at most ``limit`` characters, for a figure or one line of another's message."""
    text = clean(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def whole_number(text: str, digits: int = 12) -> int | None:
    """The number that a text of at most so many decimal digits is; None for any other text, signs and "²" included."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= digits else None


def markdown(value: object) -> str:
    """Text that Markdown shows as it is: no markup, no HTML, no table cell ended."""
    text = clean(value).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _MARKDOWN.sub(r"\\\1", text)


def table_cell(value: object) -> str:
    """Markdown in one line that ends no cell of a table."""
    return " ".join(str(value).split()).replace("|", "\\|")


def markdown_table(columns: Iterable[object], rows: Iterable[Iterable[object]]) -> list[str]:
    """The lines of a Markdown table; its cells are Markdown already, see ``markdown`` and ``table_cell``."""
    head = [*map(str, columns)]
    first, *rest = (f"| {' | '.join(cells)} |" for cells in (head, *(map(str, row) for row in rows)))
    return [first, "|" + "---|" * len(head), *rest]


def html_table(title: object, columns: Sequence[object], rows: Iterable[Sequence[object]], below: object = "") -> str:
    """A table for a notebook; every text is escaped."""

    def line(cells: Sequence[object], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(clean(cell))}</{tag}>" for cell in cells) + "</tr>"

    body = "".join(line(row, "td") for row in rows)
    caption, last = html.escape(clean(title)), html.escape(clean(below))
    return f"<table><caption>{caption}</caption><thead>{line(columns, 'th')}</thead><tbody>{body}</tbody></table>{last}"


# The wide forms of East Asian writing among them.
_FORMULAS = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")


def harmless(value: object) -> object:
    """A cell of a CSV file: a text that a spreadsheet would run as a formula gets an apostrophe in front."""
    return f"'{value}" if isinstance(value, str) and value.lstrip().startswith(_FORMULAS) else value


def integer(value: float) -> str:
    """``1234567`` as ``1,234,567``."""
    return f"{round(value):,}"


def significant(value: float, digits: int = 4) -> str:
    """``value`` to ``digits`` significant digits, with thousands commas and no exponent where it stays short."""
    if value == 0:
        return "0"
    exponent = math.floor(math.log10(abs(value)))
    if exponent < -5 or exponent > 14:
        return f"{value:.{digits - 1}e}"
    return f"{value:,.{max(0, digits - 1 - exponent)}f}"


def prefixed(value: float) -> str:
    """``23456789`` as ``23.46 M``; up to a million in full."""
    for size, prefix in _PREFIXES:
        if abs(value) >= size:
            return f"{significant(value / size)} {prefix}"
    return integer(value) if float(value).is_integer() else significant(value)


def times(value: float) -> str:
    """A ratio, two decimals: ``1.32×``."""
    return f"{ratio(value)}×"


def ratio(value: float, decimals: int = 2) -> str:
    """Two decimals: none of a hundred or more, one digit of what would read as nothing."""
    if 0 < value < 0.5 * 10**-decimals:
        return significant(value, 1)
    return f"{value:.{0 if value >= 99.5 else decimals}f}"


def interval(value: float, low: float | None, high: float | None) -> str:
    """A ratio with its interval: ``1.32× [1.30, 1.35]``; without one it says so."""
    if low is None or high is None:
        return f"{times(value)} [no interval]"
    return f"{times(value)} [{ratio(low)}, {ratio(high)}]"


def percent_bounds(found: Interval) -> str:
    """The bounds of a share or a difference of shares in points: `` [-0.3, +1.2]``; says so where there are none."""
    if found.low is None or found.high is None:
        return " [no interval]"
    return f" [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"


def listed(items: Sequence[str], conjunction: str = "and") -> str:
    """``a, b and c``."""
    if len(items) < 2:
        return "".join(items)
    return f"{', '.join(items[:-1])} {conjunction} {items[-1]}"


def plural(n: int, one: str, many: str | None = None) -> str:
    """``1 case``, ``3 cases``."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"
