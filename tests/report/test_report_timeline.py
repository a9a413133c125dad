"""Timelines of real traces: the launches of a record, each once, in their place."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from cdvft_bench.core.errors import UserError
from cdvft_bench.core.record import Record
from cdvft_bench.report.page.dataset import launches_by_family
from cdvft_bench.report.page.timeline import MAX_LAUNCHES, Timeline, kept_traces, timeline, timeline_columns
from cdvft_bench.sweep.store import Store
from tests.report.report_records import HOSTILE

STORE = Path(__file__).parents[2] / "profiles" / "cpu-2026-11-25" / "records.jsonl.gz"


@pytest.fixture(scope="module")
def records() -> dict[str, Record]:
    with Store(STORE) as store:
        return {record.case.key: record for record in store.records()}


@pytest.mark.parametrize("path", kept_traces(STORE), ids=lambda path: path.name[:32])
def test_a_kept_trace_shows_every_launch_of_its_record(path: Path, records: dict[str, Record]) -> None:
    shown = timeline(path, records)
    record = records[shown.key]
    assert path.name.split(".json")[0].endswith(shown.key)
    assert shown.title.startswith(f"{record.label}, {record.case.subject}, {record.case.pass_}")
    assert record.timed is not None
    assert record.timed.trace is not None
    assert (len(shown.launches), shown.left_out) == (record.timed.trace.launches, 0)
    assert Counter(launch.family for launch in shown.launches) == launches_by_family(record)
    ends = 0.0
    assert shown.launches[0].start == 0
    for launch in shown.launches:  # one thread: one after the other
        assert launch.duration > 0
        assert launch.start >= ends - 0.001
        ends = launch.start + launch.duration


def test_columns_hold_a_row_a_launch(records: dict[str, Record]) -> None:
    shown = [timeline(path, records) for path in kept_traces(STORE)[:2]]
    columns = {column.name: list(column.values) for column in timeline_columns(shown)}
    launches = [launch for one in shown for launch in one.launches]
    assert columns["name"] == [launch.name for launch in launches]
    assert columns["trace"] == [one.title for one in shown for _ in one.launches]


def changed(tmp_path: Path, file: str, **fields: object) -> Timeline:
    """The first kept trace, fields of its operators changed."""
    document = json.loads(gzip.decompress(kept_traces(STORE)[0].read_bytes()))
    for event in document["traceEvents"]:
        if event.get("cat") == "cpu_op":
            event |= fields
    path = tmp_path / f"{file}.json"
    path.write_text(json.dumps(document))
    return timeline(path, {})


def test_names_of_a_hostile_trace_are_cleaned_and_its_record_is_not_guessed(tmp_path: Path) -> None:
    shown = changed(tmp_path, "<script>", name=f"aten::{HOSTILE}")
    assert shown.key == ""
    assert shown.title == shown.name == "<script>"
    assert shown.launches
    for launch in shown.launches:
        assert "\x00" not in launch.name
        assert "\u202e" not in launch.name


def test_a_long_trace_is_cut(tmp_path: Path, records: dict[str, Record]) -> None:
    document = json.loads(gzip.decompress(kept_traces(STORE)[0].read_bytes()))
    events = [event for event in document["traceEvents"] if event.get("name") == "aten::addmm"]
    document["traceEvents"] = [{**events[0], "ts": 10.0 * i, "dur": 5.0} for i in range(MAX_LAUNCHES + 7)]
    path = tmp_path / "long.json"
    path.write_text(json.dumps(document))
    shown = timeline(path, records)
    assert (len(shown.launches), shown.left_out) == (MAX_LAUNCHES, 7)


def test_a_file_that_is_no_trace_is_told(tmp_path: Path) -> None:
    path = tmp_path / "no.json"
    path.write_text("[1, 2")
    with pytest.raises(UserError, match=r"no\.json"):
        timeline(path, {})
