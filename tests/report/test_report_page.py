"""The page and its folder: self-contained, safe against what records hold, the same bytes every time."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from cdvft_bench.analysis.tables import time_table
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.record import Record
from cdvft_bench.report.figures.style import Styles
from cdvft_bench.report.page import views
from cdvft_bench.report.page.report import ReportPaths, Source, csv, report_stores, write_report
from tests.report.report_records import ENVIRONMENT, ENVIRONMENTS, HOSTILE, failed, make_records

COMMAND = "cdvft-bench report records.sqlite --output report"
FINE_TUNED = Path(__file__).parents[2] / "profiles" / "accuracy-cpu-small" / "results.jsonl"
VOID = {"meta", "br", "hr", "img", "input", "link"}


class Outline(HTMLParser):
    """Tags, attributes and ids of a page; fails where tags do not nest."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)

    def values(self, name: str) -> list[str]:
        return [value for _, n, value in self.attributes if n == name]


def write(records: list[Record], out: Path, environments: dict[str, object] | None = None) -> ReportPaths:
    source = Source(
        "some/where/records.sqlite", records, environments if environments is not None else {**ENVIRONMENTS}
    )
    return write_report([source], out, command=COMMAND)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> ReportPaths:
    records = make_records(workloads=((8, 128, "step"), (8, 128, "forward")))
    records[3] = failed(records[3], "RuntimeError: out of memory")
    return write(records, tmp_path_factory.mktemp("plain") / "report")


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> ReportPaths:
    records = make_records(HOSTILE, 32)[:9]
    records = [replace(r, label=HOSTILE + r.label, environment=HOSTILE, created=HOSTILE) for r in records]
    assert records[2].timed is not None
    records[2] = replace(records[2], timed=replace(records[2].timed, notes=(HOSTILE,)))
    records[3] = failed(records[3], HOSTILE)
    environments: dict[str, object] = {HOSTILE: {HOSTILE: HOSTILE}}
    return write(records, tmp_path_factory.mktemp("hostile") / "report", environments)


def test_all_files_are_there(plain: ReportPaths) -> None:
    assert plain.html.is_file()
    assert plain.markdown.is_file()
    assert {p.suffix for p in plain.figures} == {".svg", ".png", ".pdf"}
    assert {p.stem for p in plain.tables} >= {"time", "launches", "flops-flop", "witnesses", "memory", "failures"}
    assert {p.suffix for p in plain.tables if p.stem.startswith("paper-")} == {".csv", ".tex"}
    for path in (*plain.figures, *plain.tables):
        assert path.stat().st_size > 0
    assert sorted(p.name for p in plain.directory.iterdir()) == ["figures", "report.html", "report.md", "tables"]
    assert not [p for p in plain.directory.parent.iterdir() if p != plain.directory]


def test_page_is_well_formed_and_accessible(plain: ReportPaths) -> None:
    page = Outline(plain.html.read_text())
    ids = page.values("id")
    assert len(ids) == len(set(ids))
    links = [v for v in page.values("href") if v.startswith("#")]
    assert links
    assert {v[1:] for v in links} <= set(ids)
    used = set(re.findall(r"url\(#([^)]+)\)", plain.html.read_text()))
    assert used
    assert used <= set(ids)
    assert set(page.values("aria-labelledby")) <= set(ids)
    named = [t for t, n, v in page.attributes if n == "aria-label" and v and t == "svg"]
    interactive = page.values("data-plot")
    assert len(named) == page.tags["svg"] == page.tags["figcaption"] - len(interactive) > 0
    assert {"front", "map", "formula", "families"} <= set(interactive)
    reached = [n for t, n, v in page.attributes if t == "div" and n == "tabindex" and v == "0"]
    assert len(reached) >= len(interactive)
    assert page.tags["h1"] == page.tags["main"] == page.tags["nav"] == 1
    assert ("html", "lang", "en") in page.attributes


def test_page_asks_nothing_of_the_network(plain: ReportPaths) -> None:
    html = plain.html.read_text()
    assert "http://" not in html  # plotly.js is packed, and the policy lets nothing be fetched
    assert "https://" not in html
    page = Outline(html)
    assert not page.values("src")
    assert all(v.startswith("#") for name in ("href", "xlink:href") for v in page.values(name))
    assert not re.search(r"@import|@font-face|url\((?!#)", html)
    assert any("default-src 'none'" in v for v in page.values("content"))


def test_page_says_what_was_recorded(plain: ReportPaths) -> None:
    text = " ".join(Outline(plain.html.read_text()).text)
    for words in (COMMAND, "records.sqlite", "2026-01-02T03:04:05Z", "0123abc", "out of memory", "CDVFT m=2 p=d"):
        assert words in text
    assert "some/where" not in text
    assert not re.search(r"\bnan\b|\bNone\b|\binf\b", text)
    assert ".. " not in text


def test_disagreements_come_first(plain: ReportPaths) -> None:
    table = plain.markdown.read_text().split("### Do formula and count agree?")[1].split("##")[0]
    head, _, *rows = [line.split(" | ") for line in table.splitlines() if line.startswith("|")]
    agreement = [row[head.index("agreement")] for row in rows]
    assert agreement[0] == "differs"
    assert agreement == sorted(agreement, key=["differs", "not measured", "exact"].index)


def test_markdown_has_the_same_sections(plain: ReportPaths) -> None:
    text = plain.markdown.read_text()
    heads = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert heads == [
        "Headline findings",
        "How to read this",
        "Reviewers' questions",
        "768x768, float32, cpu",
        "Failures and notes",
        "Provenance",
    ]
    for path in re.findall(r"!\[.*?\]\((\S+?)\)", text):
        assert (plain.directory / path).is_file()
    for line in text.splitlines():
        if line.startswith("|"):
            assert line.endswith("|")
    assert "more rows are in [tables/witnesses.csv](tables/witnesses.csv)" in text


def test_hostile_records_inject_nothing(hostile: ReportPaths) -> None:
    html = hostile.html.read_text()
    page = Outline(html)
    blocks = [v for t, n, v in page.attributes if t == "script" and n == "type"]
    assert set(blocks) == {"application/gzip"}
    assert page.tags["script"] == len(blocks) + 1
    for block in re.findall(r'<script type="application/gzip" id="[a-z-]+">(.*?)</script>', html, re.DOTALL):
        assert re.fullmatch(r"[A-Za-z0-9+/]+=*", block)
    assert not page.tags["img"]
    assert not [n for _, n, _ in page.attributes if n.startswith("on")]
    assert "\x00" not in html
    assert "\u202e" not in html
    assert 'alert("x")' in " ".join(page.text), "it is shown as text"
    markdown = hostile.markdown.read_text()
    assert "<script" not in markdown
    assert "<img" not in markdown
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert rows
    for path in hostile.figures:
        assert re.fullmatch(r"[a-z0-9-]+\.(svg|png|pdf)", path.name)


def test_hostile_cells_do_not_end_markdown_tables(hostile: ReportPaths) -> None:
    block: list[int] = []
    for line in [*hostile.markdown.read_text().splitlines(), ""]:
        if line.startswith("|"):
            block.append(len(re.findall(r"(?<!\\)\|", line)))
        elif block:
            assert len(set(block)) == 1
            block = []


def test_script_is_the_one_that_the_policy_allows(plain: ReportPaths) -> None:
    html = plain.html.read_text()
    script = re.search(r"<script>(.*?)</script>", html, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"sha256-{digest}" in html.replace("&#43;", "+")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_same_records_in_any_order_give_the_same_bytes(tmp_path: Path) -> None:
    records = make_records("64x64", 64)[:6]
    write(records, tmp_path / "a")
    write(records[::-1], tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_report_replaces_a_report_as_a_whole(tmp_path: Path) -> None:
    write(make_records("64x64", 64)[:2], tmp_path / "r")
    (tmp_path / "r" / "figures" / "stale.svg").write_text("old")
    write(make_records("96x96", 96)[:2], tmp_path / "r")
    found = contents(tmp_path / "r")
    assert "figures/stale.svg" not in found
    assert all("64x64" not in name for name in found)


@pytest.mark.parametrize("foreign", ["thesis.tex", "figures/mine.pdf", "tables/notes.txt"])
def test_foreign_files_are_never_lost(tmp_path: Path, foreign: str) -> None:
    path = tmp_path / "r" / foreign
    path.parent.mkdir(parents=True)
    path.write_text("years of work")
    with pytest.raises(UserError, match=path.name):
        write(make_records("64x64", 64)[:2], tmp_path / "r")
    assert contents(tmp_path / "r") == {foreign: b"years of work"}


def test_a_failed_write_leaves_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(make_records("64x64", 64)[:2], tmp_path / "r")
    before = contents(tmp_path / "r")

    rename = Path.rename

    def broken(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise OSError("no space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", broken)
    with pytest.raises(OSError, match="no space"):
        write(make_records("96x96", 96)[:2], tmp_path / "r")
    assert contents(tmp_path / "r") == before
    assert [p.name for p in tmp_path.iterdir()] == ["r"]


def test_no_records_is_the_users_to_mend(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no record"):
        write([], tmp_path / "r")
    assert not list(tmp_path.iterdir())


def test_records_of_failures_alone_still_make_a_report(tmp_path: Path) -> None:
    records = [failed(r, "no such layer") for r in make_records("64x64", 64)]
    paths = write(records, tmp_path / "r", {})
    text = " ".join(Outline(paths.html.read_text()).text)
    assert f"{len(records)} of {len(records)} cases failed" in text
    assert "not drawn, because" in text


def test_several_stores_and_machines(tmp_path: Path) -> None:
    here, there = make_records("64x64", 64)[:3], make_records("64x64", 64, environment="b", seed=4)[:3]
    sources = [
        Source("a.sqlite", [*here, *here], ENVIRONMENTS),
        Source("b.sqlite", there, {"b": {"gpu": "Example GPU"}}),
    ]
    paths = write_report(sources, tmp_path / "r", command=COMMAND)
    text = " ".join(Outline(paths.html.read_text()).text)
    for words in ("64x64, float32, cpu, machine 1", "machine 2", "a.sqlite", "b.sqlite", "Example GPU", ENVIRONMENT):
        assert words in text
    assert f"{len(here)} older rows" in text


def test_long_tables_say_what_they_leave_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(views, "MAX_ROWS_HTML", 5)
    records = make_records("64x64", 64)
    table = views.view(time_table(records), "Time", "time", "Caption.", Styles([]))
    assert (len(table.rows), table.left_out) == (5, len(records) - 5)


def test_shared_columns_move_to_the_caption_and_intervals_join_their_value() -> None:
    frame = time_table(make_records("64x64", 64))
    table = views.view(frame, "Time", "time", "Caption.", Styles([]), said=("device",))
    assert "cpu" not in table.caption
    names = [name for name, _ in table.columns]
    assert "dtype" not in names
    assert "dtype float32" in table.caption
    assert "ratio to frozen, low" not in names
    cell = table.rows[1][names.index("ratio to frozen")]
    assert re.fullmatch(r"\d\.\d\d \[\d\.\d\d, \d\.\d\d\]", cell.text)
    assert float(cell.sort) == pytest.approx(float(cell.text.split()[0]), abs=0.006)


def test_stores_are_read_and_set_beside_the_published_figures(tmp_path: Path) -> None:
    from cdvft_bench.core.environment import Environment
    from cdvft_bench.sweep.store import Store

    machine = Environment(
        "Example CPU", 2, 24.0, 2, (), None, None, "Linux", "3.11", "2.13.0", "2.4.6", {"peft": "0.21.2"}, "0123abc",
        "2026-01-02",
    )  # fmt: skip
    path = tmp_path / "store" / "records.sqlite"
    with Store(path, create=True) as store:
        key = store.put_environment(machine)
        for record in make_records("64x64", 64)[:4]:
            store.put(replace(record, environment=key))
        store.export_text(tmp_path / "records.jsonl.gz")
    for one in (path, tmp_path / "records.jsonl.gz"):
        paths = report_stores((one,), tmp_path / "r", command=COMMAND, accuracy=(FINE_TUNED,))
        text = " ".join(Outline(paths.html.read_text()).text)
        for words in (
            one.name,
            "Example CPU",
            "0123abc",
            "458,752 parameters by formula, accuracy not measured",
            "PEFT",
            "run more seeds, or score more test examples",  # the claims on accuracy are judged by the runs
        ):
            assert words in text
        assert (tmp_path / "r" / "tables" / "published.csv").is_file()
        assert {p.stem for p in paths.figures} >= {"published-parameters", "published-time", "published-memory"}
    with pytest.raises(UserError, match="missing"):
        report_stores((tmp_path / "missing.sqlite",), tmp_path / "other", command=COMMAND)
    assert not (tmp_path / "other").exists()


def test_csv_is_no_spreadsheet_formula() -> None:
    import pandas as pd

    frame = pd.DataFrame({"a": ["=1+1", "@x", "fine", -3, " +2", "\uff1dcmd"]}, dtype=object)
    assert csv(frame).decode() == "a\n'=1+1\n'@x\nfine\n-3\n' +2\n'\uff1dcmd\n"


def test_every_number_has_its_source(plain: ReportPaths) -> None:
    import pandas as pd

    records = pd.read_csv(plain.directory / "tables" / "records.csv", keep_default_na=False)
    assert set(records["store"]) == {"records.sqlite"}
    assert set(records["machine"]) == {"not recorded"}  # this environment row names no CPU of its own
    assert all(command.startswith("cdvft-bench time ") for command in records["measured again by"])
    keys = {(key, recorded) for key, recorded in zip(records["case key"], records["recorded"], strict=True)}
    for name in ("time", "launches", "flops-flop", "memory", "witnesses", "failures"):
        frame = pd.read_csv(plain.directory / "tables" / f"{name}.csv", keep_default_na=False)
        assert set(zip(frame["case key"], frame["recorded"], strict=True)) <= keys
    buttons = {v.split("/")[0] for v in Outline(plain.html.read_text()).values("data-key")}
    assert buttons <= set(records["case key"])
    assert buttons
