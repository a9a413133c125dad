"""Campaigns on a terminal: what is faster, what is smaller, what could not be told; and the ranks over workloads."""

from functools import partial
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cdvft_bench.analysis.accuracy.study import fronted
from cdvft_bench.analysis.inputs import Campaign, read
from cdvft_bench.analysis.overview import Overview, Panel
from cdvft_bench.analysis.sentences import is_baseline, three_sentences, trimmed
from cdvft_bench.core.text import plural, shorten
from cdvft_bench.report.ranks import left_out_said, ranking_table
from cdvft_bench.report.terminal.console import open_console, table
from cdvft_bench.report.terminal.console import say as say_on

MARKS = {"best": "*", "tied": "~", "": " "}


def show_store(path: Path) -> None:
    """Print the answer of a store."""
    show_campaign(read(path))


def show_campaign(campaign: Campaign, console: Console | None = None) -> None:
    """Print methods as rows and layers and models as columns, then three sentences, then what failed."""
    console = console or Console()
    say = partial(say_on, console=console)
    found = campaign.overview
    if found is None:
        say("No case is timed beside a baseline.")
    else:
        shown = found.panels[: _columns(console.width, found)]
        console.print(_table(found, shown))
        more = len(found.panels) - len(shown)
        say("* lowest of its column, ~ not told apart from it; in brackets: the clock warned, or no interval")
        say("")
        for sentence in three_sentences(found):
            say(sentence)
        if more:
            say(f"{plural(more, 'further layer or model is', 'further layers and models are')} in the report.")
    failed = [record for record in campaign.records if record.status == "failed"]
    for record in failed[:10]:
        cause = record.error or "no cause recorded"
        say(f"failed: {record.label} on {record.case.subject}, {record.case.pass_}: {cause}")
    if len(failed) > 10:
        say(f"{len(failed) - 10:,} more failed")


def _columns(width: int, found: Overview) -> int:
    """Columns that fit: names take up to 28, each column 16."""
    return max(1, min(len(found.panels), (width - 30) // 16))


def _table(found: Overview, shown: tuple[Panel, ...]) -> Table:
    table = Table(title=f"time ÷ {found.baseline_title}", title_justify="left", header_style="bold", box=None)
    table.add_column("", overflow="fold", min_width=12)
    for panel in shown:
        title = "\n".join((shorten(panel.title, 18), *found.under(panel)))
        table.add_column(Text(title), justify="right", overflow="fold")
    for row in found.rows:
        if not any(row in panel.cells for panel in shown):
            continue
        cells = [_cell(panel, row) for panel in shown]
        style = "bold" if row == found.focus else "dim" if is_baseline(found, row) else ""
        table.add_row(Text(shorten(row, 28), style=style), *cells)
    return table


def _cell(panel: Panel, row: str) -> Text:
    cell = panel.cells.get(row)
    if cell is None:
        return Text("– ", style="dim")
    value = trimmed(cell.time)
    shown = f"({value})" if cell.trust in ("doubtful", "no interval") else value
    colour = {"below": "green", "above": "", "undecided": ""}[cell.time.side()]
    return Text(f"{shown}{MARKS[cell.rank]}", style=f"bold {colour}".strip() if cell.rank == "best" else colour)


# --- ranks over workloads -------------------------------------------------------------------


def show_ranking(campaign: Campaign, console: Console | None = None) -> None:
    """Print the table, what it says of each front, and which workloads do not count."""
    console = console or open_console()
    say = partial(say_on, console=console)
    found = ranking_table(campaign.ranking)
    if found is not None:
        shown = table(found.title, found.columns)
        for row in found.rows:
            shown.add_row(*row)
        console.print(shown)
        say(found.caption)
    for study in fronted(campaign.studies):
        told = [front.told for front in study.fronts if front.told]
        if told:
            say(f"\n{study.name}")
        for sentence in told:
            say(f"  {sentence}")
    say("")
    for sentence in left_out_said(campaign.ranking, campaign.plans):
        say(sentence)
