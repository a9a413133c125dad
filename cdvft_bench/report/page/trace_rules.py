"""The classifier's table as Markdown, for the documentation: every rule in its order, with names that it knows."""

from __future__ import annotations

from cdvft_bench.core.text import markdown, shorten
from cdvft_bench.timing.traces.names.rules import families, rules

EXAMPLES = 3
"""Names that a row shows."""
WIDTH = 72


def rules_table() -> str:
    """One row a rule: its family, how much a name tells, and some of the names that it knows."""
    lines = ["| rule | family | tells of | names |", "|---|---|---|---|"]
    tells = {3: "a purpose", 2: "a means", 1: "a form", 0: "nothing"}
    for number, rule in enumerate(rules(), 1):
        names = ", ".join(f"`{_code(name)}`" for name in rule.examples[:EXAMPLES])
        lines.append(f"| {number} | {rule.family} | {tells[rule.weight]} | {names} |")
    return "\n".join(lines)


def families_table() -> str:
    """One row a family: what belongs to it."""
    rows = [f"| {name} | {markdown(what)} |" for name, what in families().items()]
    return "\n".join(["| family | what belongs to it |", "|---|---|", *rows])


def _code(name: str) -> str:
    """A name inside of a table's code span."""
    return shorten(name, WIDTH).replace("|", "\\|")
