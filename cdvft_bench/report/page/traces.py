"""A trace's analysis as one HTML file that asks nothing of the network and runs no script."""

from collections.abc import Sequence
from pathlib import Path

from cdvft_bench.analysis.trace_tables import Shown, comparison_tables, facts, tables
from cdvft_bench.core.io.files import write_file
from cdvft_bench.core.text import clean, markdown, markdown_table, shorten
from cdvft_bench.core.timed import TraceSummary
from cdvft_bench.timing.traces.analysis import Comparison
from cdvft_bench.timing.traces.names.families import families, rules
from cdvft_bench.timing.traces.summary.result import Detail

ROWS = 200
"""Rows of kernels, operators and the like on a page."""


def write_trace_page(path: Path, summary: TraceSummary, detail: Detail, name: str) -> None:
    """Write the page of one trace.

    Raises:
        UserError: it cannot be written.
    """
    shown = [facts(summary, detail), *tables(summary, detail, ROWS)]
    _write(path, f"Trace {name}", f"{summary.verdict}: {summary.reason}", shown, summary.notes)


def write_comparison_page(path: Path, found: Comparison, names: tuple[str, str]) -> None:
    """Write the page of what changed from the second of two traces to the first.

    Raises:
        UserError: it cannot be written.
    """
    lead = f"{found.verdicts[0]} before, {found.verdicts[1]} now"
    _write(path, f"{names[0]} against {names[1]}", lead, comparison_tables(found, names, ROWS), found.notes)


def _write(path: Path, title: str, lead: str, shown: Sequence[Shown], notes: Sequence[str]) -> None:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    from cdvft_bench import __version__

    environment = Environment(
        loader=PackageLoader("cdvft_bench.report.page"),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    # Control and surrogate characters of names become their escapes; what is left, the template escapes.
    rows = [[[clean(cell) for cell in row] for row in one.rows] for one in shown]
    page = environment.get_template("trace.html.j2").render(
        title=clean(title),
        lead=clean(lead),
        shown=list(zip(shown, rows, strict=True)),
        notes=[clean(n) for n in notes],
        version=__version__,
    )
    write_file(path, page)


# --- the classifier's table, for the documentation -------------------------------------------


EXAMPLES = 3
"""Names that a row shows."""
WIDTH = 72


def rules_table() -> str:
    """One row a rule: its family, how much a name tells, and some of the names that it knows."""
    tells = {3: "a purpose", 2: "a means", 1: "a form", 0: "nothing"}
    rows = (
        (number, rule.family, tells[rule.weight], ", ".join(f"`{_code(name)}`" for name in rule.examples[:EXAMPLES]))
        for number, rule in enumerate(rules(), 1)
    )
    return "\n".join(markdown_table(("rule", "family", "tells of", "names"), rows))


def families_table() -> str:
    """One row a family: what belongs to it."""
    rows = ((name, markdown(what)) for name, what in families().items())
    return "\n".join(markdown_table(("family", "what belongs to it"), rows))


def _code(name: str) -> str:
    """A name inside of a table's code span."""
    return shorten(name, WIDTH).replace("|", "\\|")
