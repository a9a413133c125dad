"""Verdicts as rows, as a Markdown table, and on a terminal."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cdvft_bench.claims.ledger.text import setting, value_text
from cdvft_bench.claims.verdict import Reading, Verdict, Verification

if TYPE_CHECKING:
    from rich.console import Console

THIS_SUITE = "this suite"
"""The "paper" of claims that the suite makes itself."""


@dataclass(frozen=True)
class VerdictRow:
    """One claim's verdict in words, for tables.

    Attributes:
        id: of the claim. statement: what is claimed. origin: paper and section.
        verdict: its word, of ``terms.WORDS``, with the assumption that a "holds only if" rests on.
        detail: what the verdict rests on. numbers: the sources' at the settings it rests on.
        as_pinned: it is the ledger's; else ``pinned`` says how not.
    """

    id: str
    statement: str
    origin: str
    verdict: str
    detail: str
    numbers: str
    as_pinned: bool
    pinned: str


def rows(verification: Verification) -> list[VerdictRow]:
    """A row a claim, in the ledger's order."""
    return [_row(v) for v in verification.verdicts]


def verdict_table(verification: Verification) -> str:
    """The verdicts as a Markdown table, ending in a newline."""
    lines = ["| claim | verdict | numbers |", "|---|---|---|"]
    for row in rows(verification):
        claim = f"{row.statement} ({row.origin})"
        verdict = f"**{row.verdict}**: {row.detail}" if row.detail else f"**{row.verdict}**"
        if not row.as_pinned:
            verdict += f" — **not as pinned**: {row.pinned}"
        lines.append("| " + " | ".join(_cell(c) for c in (claim, verdict, row.numbers or "—")) + " |")
    return "\n".join(lines) + "\n"


def short_table(verification: Verification) -> str:
    """Statements and verdicts alone of what others claim, as a Markdown table that ends in a newline."""
    lines = ["| claim | verdict |", "|---|---|"]
    others = [row for row in rows(verification) if not row.origin.startswith(f"{THIS_SUITE},")]
    lines += [f"| {_cell(row.statement)} | {_cell(row.verdict)} |" for row in others]
    return "\n".join(lines) + "\n"


def show_verification(verification: Verification, console: Console | None = None) -> None:
    """Print the verdicts as a table, and under it those that the ledger does not expect."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = console or Console()
    colours = {"holds": "green", "holds only if": "yellow", "fails": "red", "not measured": "dim"}
    table = Table(title=escape(verification.title), title_justify="left", header_style="bold", show_lines=True)
    for name, ratio in (("claim", 3), ("verdict", 4), ("numbers", 4)):
        table.add_column(name, overflow="fold", ratio=ratio)
    for row, verdict in zip(rows(verification), verification.verdicts, strict=True):
        colour = colours[verdict.word]
        pinned = "" if row.as_pinned else f"\n[bold red]not as pinned: {escape(row.pinned)}[/]"
        table.add_row(
            f"[bold]{escape(row.id)}[/]\n{escape(row.statement)}\n[dim]{escape(row.origin)}[/]",
            f"[bold {colour}]{escape(row.verdict)}[/]\n{escape(row.detail)}{pinned}",
            escape(row.numbers),
        )
    console.print(table)
    console.print(escape(summary(verification)))


def summary(verification: Verification) -> str:
    """One line: how many of each verdict, and whether all are as pinned."""
    words = [v.word for v in verification.verdicts]
    counts = ", ".join(f"{words.count(w)} {w}" for w in ("holds", "holds only if", "fails", "not measured"))
    other = [v.claim.id for v in verification.verdicts if not v.as_pinned]
    pinned = "all as pinned" if not other else f"NOT as pinned: {', '.join(other)}"
    return f"{len(words)} claims: {counts}; {pinned}; {sum(v.seconds for v in verification.verdicts):.0f} s"


def verdict_words(verdict: Verdict) -> str:
    """The verdict with the assumption it needs: the ledger's words where they are still right, else the axes."""
    if verdict.word == "not measured" and verdict.open:
        return "not measured (not shown either way)"
    if verdict.word != "holds only if":
        return verdict.word
    if verdict.as_pinned and verdict.claim.assumption:
        return f"holds only if {verdict.claim.assumption}"
    return "holds only if " + setting(tuple((a, " or ".join(map(value_text, vs))) for a, vs in verdict.needed))


def numbers_of(reading: Reading) -> str:
    """What the sources give at one setting; those that give the same are named together."""
    said: dict[str, list[str]] = {}
    for t in reading.results:
        said.setdefault(t.text, []).append(t.source)
    return "; ".join(f"{' and '.join(who)}: {text}" for text, who in said.items())


def _row(verdict: Verdict) -> VerdictRow:
    claim = verdict.claim
    return VerdictRow(
        id=claim.id,
        statement=claim.statement,
        origin=f"{claim.origin.paper}, {claim.origin.section}",
        verdict=verdict_words(verdict),
        detail=verdict.detail,
        numbers=_numbers(verdict),
        as_pinned=verdict.as_pinned,
        pinned=verdict.pinned,
    )


def _numbers(verdict: Verdict) -> str:
    """The numbers that the verdict rests on, and beside them the settings that the ledger asks to see."""
    if verdict.word == "not measured":
        found = [(t, r) for r in verdict.readings for t in r.results if t.holds is not None or t.open]
        return " · ".join(f"{t.source}: {t.text}" + (f" [{setting(r.setting)}]" if r.open else "") for t, r in found)
    shown = list(verdict.readings[:1])
    if verdict.word == "holds only if":
        shown += [r for r in verdict.readings if not r.holds and r not in shown][:1]
    shown += [r for r in verdict.readings if r not in shown and r.asked]
    texts = [numbers_of(r) + (f" [{setting(r.setting)}]" if r.setting else "") for r in shown]
    return " · ".join(texts)


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")
