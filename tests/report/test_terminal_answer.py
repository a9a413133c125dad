"""The main job's answer on a terminal: the page's numbers, in 80 columns, whatever the records hold."""

import io

from rich.console import Console

from cdvft_bench.analysis.sentences import three_sentences
from cdvft_bench.core.interval import Interval
from cdvft_bench.report.terminal.overview import show_campaign
from tests.made_records import HOSTILE, campaign_of, failed, make_records, with_ratios


def printed(records: list, width: int = 80) -> str:
    out = io.StringIO()
    show_campaign(campaign_of(records), Console(file=out, width=width))
    return out.getvalue()


def test_it_holds_methods_marks_and_sentences() -> None:
    records = [with_ratios(r, lora=Interval(0.8, 0.79, 0.81)) if r.label == "BCA p=d" else r for r in make_records()]
    text = printed([*records, *make_records("64x64", 64)], 200)
    found = campaign_of([*records, *make_records("64x64", 64)]).overview
    assert found is not None
    for panel in found.panels:
        assert panel.title in text
    assert "0.80*" in text
    for sentence in three_sentences(found):
        assert sentence in " ".join(text.split())


def test_it_fits_the_width_and_says_what_is_left_out() -> None:
    records = [r for d in (64, 96, 128, 192, 256, 384) for r in make_records(f"{d}x{d}", d)]
    text = printed(records)
    assert max(map(len, text.splitlines())) <= 80
    assert "further layers and models are in the report." in text


def test_failures_are_named_and_hostile_text_is_harmless() -> None:
    records = make_records()
    text = printed([*records[1:], failed(records[0], HOSTILE)], 300)
    assert "failed: frozen on 768x768" in text
    assert not set(text) & set("\x00\u202e\x1b")
    assert "No case is timed beside a baseline." in printed([failed(r, "no") for r in records])
