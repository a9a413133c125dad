"""The table over workloads on a terminal, and what each front tells apart."""

from __future__ import annotations

from rich.console import Console

from cdvft_bench.analysis.inputs import Campaign
from cdvft_bench.core.text import clean
from cdvft_bench.report.ranks import left_out_said, ranking_table
from cdvft_bench.report.terminal.console import open_console, table


def show_ranking(campaign: Campaign, console: Console | None = None) -> None:
    """Print the table, what it says of each front, and which workloads do not count."""
    console = console or open_console()

    def say(text: str) -> None:
        console.print(clean(text), highlight=False, markup=False)

    found = ranking_table(campaign.ranking)
    if found is not None:
        shown = table(found.title, found.columns)
        for row in found.rows:
            shown.add_row(*row)
        console.print(shown)
        say(found.caption)
    for study in campaign.studies:
        told = [front.told for front in study.fronts if front.told]
        if told:
            say(f"\n{study.name}")
        for sentence in told:
            say(f"  {sentence}")
    say("")
    for sentence in left_out_said(campaign.ranking, campaign.plans):
        say(sentence)
