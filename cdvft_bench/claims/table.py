"""Verdicts as rows, as a Markdown table, and on a terminal."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from cdvft_bench.claims.ledger.terms import UNSETTLED, WORDS, Setting, Word
from cdvft_bench.claims.ledger.text import number, setting, share_text, value_text
from cdvft_bench.claims.verdict import Reading, Verdict, Verification
from cdvft_bench.core.text import markdown_table, plural, table_cell

if TYPE_CHECKING:
    from rich.console import Console


THIS_SUITE = "this suite"
"""The "paper" of claims that the suite makes itself."""

_COLOURS: dict[Word, str] = {
    "holds": "green",
    "holds only if": "yellow",
    "not identifiable": "magenta",
    "fails": "red",
    "undecided": "cyan",
    "not measured": "dim",
}


@dataclass(frozen=True)
class VerdictRow:
    """One claim's verdict in words, for tables.

    Attributes:
        id: of the claim. statement: what is claimed. origin: paper and section.
        verdict: its word, of ``terms.WORDS``, with the assumption that a "holds only if" rests on, what it does not
            reach, and the chance of hitting a figure that nobody claimed.
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
    lines = []
    for row in rows(verification):
        claim = f"{row.statement} ({row.origin})"
        verdict = f"**{row.verdict}**: {row.detail}" if row.detail else f"**{row.verdict}**"
        if not row.as_pinned:
            verdict += f" — **not as pinned**: {row.pinned}"
        lines.append(map(table_cell, (claim, verdict, row.numbers or "—")))
    return "\n".join(markdown_table(("claim", "verdict", "numbers"), lines)) + "\n"


def short_table(verification: Verification) -> str:
    """Of what others claim, what fails or holds only if, as a Markdown table; then the rest in a sentence a verdict.

    Of the rest, what holds is listed where it stands on records: claims of time and of accuracy.
    """
    lines = []
    rest: dict[Word, list[str]] = {word: [] for word in ("not identifiable", *UNSETTLED, "holds")}
    for row, verdict in zip(rows(verification), verification.verdicts, strict=True):
        recorded = _recorded(verdict)
        if row.origin.startswith(f"{THIS_SUITE},") or (verdict.word == "holds" and not recorded):
            continue
        if verdict.word in rest:
            parts = [row.verdict.removeprefix(verdict.word).strip(" ()"), *map(_briefly, recorded)]
            known = "; ".join(filter(None, parts))
            rest[verdict.word].append(f"{row.statement.rstrip('.')}{f' ({known})' if known else ''}.")
        else:
            lines.append((table_cell(row.statement), table_cell("; ".join([row.verdict, *recorded]))))
    sentences = [f"- **{word}**: {' '.join(map(table_cell, some))}" for word, some in rest.items() if some]
    shown = markdown_table(("claim", "verdict"), lines)
    return "\n".join([*shown, *([""] if sentences else []), *sentences]) + "\n"


def _briefly(recorded: str) -> str:
    """A workload or machine and its figure without what they rest on, but for a reason that they cannot rank."""
    doubt = "not shown to rank methods"
    return re.sub(r" \([^()]* examples\b[^()]*\)", "", recorded) + (f", {doubt}" if doubt in recorded else "")


def _recorded(verdict: Verdict) -> list[str]:
    """What was measured on each workload or machine: one figure with what it rests on, or the range of several."""
    groups: dict[str, list[str]] = {}
    values: dict[str, list[float]] = {}
    for reading in verdict.readings:
        for axis, name in reading.setting:
            if axis in ("workload", "machine"):
                groups.setdefault(str(name), []).extend(r.text for r in reading.results)
                values.setdefault(str(name), []).extend(r.value for r in reading.results if r.value is not None)
    return [
        f"{name}: {texts[0].rpartition(' = ')[2]}"
        if len(texts) == 1
        else f"{name}: {number(min(values[name]), 3)} to {number(max(values[name]), 3)} in {len(texts)} settings"
        for name, texts in groups.items()
    ]


def show_verification(verification: Verification, console: Console | None = None, failed: bool = False) -> None:
    """Print the verdicts one below the other, for any width of terminal, and a summary.

    Args:
        verification: what was judged. console: where to; None is the standard output.
        failed: only verdicts that the ledger does not expect.
    """
    from rich.console import Console
    from rich.padding import Padding
    from rich.text import Text

    console = console or Console()
    console.print(Text(verification.title, style="bold"))
    for row, verdict in zip(rows(verification), verification.verdicts, strict=True):
        if failed and row.as_pinned:
            continue
        console.print()
        console.print(Text.assemble((row.verdict, f"bold {_COLOURS[verdict.word]}")))
        lines = [Text(f"{row.id}: {row.statement}"), Text(row.detail, style="dim"), Text(row.numbers, style="dim")]
        if not row.as_pinned:
            lines.append(Text(f"not as pinned: {row.pinned}", style="bold red"))
        for line in lines:
            if line:
                console.print(Padding(line, (0, 0, 0, 4), expand=False))
    console.print()
    console.print(Text(summary(verification)))


def summary(verification: Verification) -> str:
    """One line: how many of each verdict, and whether all are as pinned."""
    found = Counter(v.word for v in verification.verdicts)
    counts = ", ".join(f"{found[word]} {word}" for word in WORDS if found[word])
    other = [v.claim.id for v in verification.verdicts if not v.as_pinned]
    pinned = "all as pinned" if not other else f"NOT as pinned: {', '.join(other)}"
    seconds = sum(v.seconds for v in verification.verdicts)
    return f"{plural(sum(found.values()), 'claim')}: {counts}; {pinned}; {seconds:.0f} s"


def verdict_words(verdict: Verdict) -> str:
    """The verdict with the assumption it needs: the ledger's words where they are still right, else the axes."""
    claim = verdict.claim
    words: str = verdict.word
    if verdict.word == "holds" and claim.for_all:
        words += f" on the {verdict.judged} tried: a conjecture for {claim.for_all}, checked on {verdict.judged}"
    if verdict.word == "holds only if":
        terms = verdict.needed or verdict.wherever
        by_axes = setting(tuple((axis, " or ".join(map(value_text, values))) for axis, values in terms))
        words += f" {claim.assumption if verdict.as_pinned and claim.assumption else by_axes}"
    if verdict.chance is not None:
        words += f" (a figure that nobody claimed is hit with a chance of {share_text(verdict.chance)})"
    return words


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
    if verdict.word in UNSETTLED:
        found = [(t, r) for r in verdict.readings for t in r.results if t.holds is not None or t.open]
        return " · ".join(f"{t.source}: {t.text}" + (f" [{setting(r.setting)}]" if r.open else "") for t, r in found)
    shown: list[Reading] = list(verdict.readings[:1])
    if verdict.word in ("holds only if", "not identifiable"):
        shown += [r for r in verdict.readings if not r.holds and r not in shown][:1]
    shown += [r for r in verdict.readings if r not in shown and r.asked]
    texts = [numbers_of(r) + (f" [{setting(r.setting)}]" if r.setting else "") for r in shown]
    return " · ".join(texts)


# --- as JUnit XML ----------------------------------------------------------------------------


# What XML 1.0 cannot hold.
_CONTROL = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_junit(verification: Verification) -> str:
    """JUnit XML: a claim is a test case; it fails unless its verdict is as pinned, and is skipped when unsettled."""
    suite = ET.Element("testsuite", name=_clean(verification.title))
    failures = skipped = 0
    for verdict in verification.verdicts:
        claim = verdict.claim
        stem = Path(verification.ledger).stem
        case = ET.SubElement(
            suite, "testcase", classname=_clean(f"claims.{stem}"), name=claim.id, time=f"{verdict.seconds:.3f}"
        )
        told = _clean(told_of(verdict))
        if not verdict.as_pinned:
            failures += 1
            ET.SubElement(case, "failure", message=_clean(verdict.pinned), type=verdict.word).text = told
        elif verdict.word in UNSETTLED:
            skipped += 1
            ET.SubElement(case, "skipped", message=_clean(verdict.detail))
        ET.SubElement(case, "system-out").text = told
    suite.attrib |= {
        "tests": str(len(verification.verdicts)),
        "failures": str(failures),
        "errors": "0",
        "skipped": str(skipped),
        "time": f"{sum(v.seconds for v in verification.verdicts):.3f}",
    }
    root = ET.Element("testsuites")
    root.append(suite)
    ET.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def told_of(verdict: Verdict) -> str:
    """A verdict in several lines: claim, source, verdict, numbers."""
    claim = verdict.claim
    lines = [
        claim.statement,
        f"source: {claim.origin.paper}, {claim.origin.section}",
        f"verdict: {verdict_words(verdict)}" + (f" ({verdict.detail})" if verdict.detail else ""),
        *([f"not as pinned: {verdict.pinned}"] if verdict.pinned else []),
        *(f"  {'+' if r.holds else '-'} {_at(r.setting)}{numbers_of(r)}" for r in verdict.readings),
    ]
    return "\n".join(lines)


def _at(at: Setting) -> str:
    return f"[{setting(at)}] " if at else ""


def _clean(text: str) -> str:
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text)
