"""The page: self-contained, safe against what records hold, the same bytes every time, and true to the records."""

import base64
import gzip
import hashlib
import json
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from cdvft_bench.analysis.inputs import Campaign
from cdvft_bench.analysis.overview import overview
from cdvft_bench.analysis.sentences import headline
from cdvft_bench.claims.ledger.read import OWN
from cdvft_bench.claims.ledger.terms import WORDS, Origin, Word
from cdvft_bench.claims.verdict import Claimed, Reading, SourceResult, Verdict, Verification
from cdvft_bench.report.page.build import page
from cdvft_bench.report.page.cards import first_clause
from tests.made_records import ENVIRONMENTS, HOSTILE, campaign_of, failed, make_records, with_timing

COMMAND = "cdvft-bench report records.sqlite --output report"
PROFILES = Path(__file__).parents[2] / "profiles"
VOID = {"meta", "br", "hr", "img", "input", "link"}
NASTY = HOSTILE + "</script><!--<script>]]>\u2028'\"&amp;"


class Outline(HTMLParser):
    """Tags, attributes and texts of a page; fails where tags do not nest."""

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

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())

    def values(self, name: str) -> list[str]:
        return [value for _, n, value in self.attributes if n == name]


def verification(text: str = "It is so.", ledger: str = OWN) -> Verification:
    verdicts = []
    for word in WORDS:
        claim = Claimed(
            f"claim-{word.replace(' ', '-')}", text, Origin("A paper", "section 3"), "flops", "equals", word
        )
        reading = Reading((("tokens", 256),), (SourceResult("formula", f"3 of {text}", word == "holds"),))
        verdicts.append(Verdict(claim, word, f"because {text}; and more", (reading,), 2, 2, 1))
    return Verification("A ledger", ledger, tuple(verdicts), "2026-01-02T03:04:05+00:00")


def render(campaign: Campaign, **options: Any) -> str:
    return page(campaign, title=options.pop("title", "A report"), command=options.pop("command", COMMAND), **options)


@pytest.fixture(scope="module")
def plain() -> str:
    records = make_records(workloads=((8, 128, "step"), (8, 128, "forward")))
    records[3] = failed(records[3], "RuntimeError: out of memory")
    return render(campaign_of(records, verification=verification()))


@pytest.fixture(scope="module")
def hostile() -> str:
    records = [replace(r, label=NASTY + r.label, environment=NASTY, created=NASTY) for r in make_records(NASTY, 32)[:9]]
    records = [with_timing(r, warnings=(NASTY,)) for r in records]
    records[3] = failed(records[3], NASTY)
    campaign = campaign_of(records, {NASTY: {NASTY: NASTY, "cpu": NASTY}}, verification=verification(NASTY))
    return render(campaign, title=NASTY, command=NASTY)


def model_of(html: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="model">(.*?)</script>', html, re.DOTALL)
    assert found is not None
    return dict(json.loads(found[1]))


def records_of(html: str) -> dict[str, list[Any]]:
    """The packed records as the page reads them, by column."""
    found = re.search(r'<script type="text/plain" id="records">([A-Za-z0-9+/=]+)</script>', html)
    assert found is not None
    document = json.loads(gzip.decompress(base64.b64decode(found[1])))
    columns = {
        c["name"]: [c["words"][v] for v in c["values"]] if "words" in c else c["values"] for c in document["columns"]
    }
    assert {len(values) for values in columns.values()} == {document["rows"]}
    return columns


def test_it_is_well_formed_and_accessible(plain: str) -> None:
    found = Outline(plain)
    ids = found.values("id")
    assert len(ids) == len(set(ids))
    assert {v[1:] for v in found.values("href") if v.startswith("#")} <= set(ids)
    assert set(found.values("aria-labelledby")) - {"record-title"} <= set(ids)
    assert found.tags["h1"] == found.tags["main"] == found.tags["nav"] == 1
    assert ("html", "lang", "en") in found.attributes
    assert found.tags["th"] == sum(name == "scope" for _, name, _ in found.attributes)


def test_it_asks_nothing_of_the_network(plain: str) -> None:
    found = Outline(plain)
    assert not found.values("src")
    assert all(v.startswith("#") for v in found.values("href"))
    assert not re.search(r"@import|@font-face|url\(", plain)
    assert any("default-src 'none'" in v for v in found.values("content"))
    addresses = set(re.findall(r"https?://[^\"'\s<]+", plain))
    assert addresses <= {"http://www.w3.org/2000/svg"}  # the name of a namespace


def test_the_script_is_the_one_that_the_policy_allows(plain: str) -> None:
    script = re.search(r"<script>(.*?)</script>", plain, re.DOTALL)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    assert f"sha256-{digest}" in plain.replace("&#43;", "+")


def test_it_says_what_was_recorded(plain: str) -> None:
    text = Outline(plain).words
    records = make_records(workloads=((8, 128, "step"), (8, 128, "forward")))
    records[3] = failed(records[3], "RuntimeError: out of memory")
    campaign = campaign_of(records)
    assert campaign.overview is not None
    assert headline(campaign.overview).text in text
    for words in (COMMAND, "records.sqlite", "out of memory", "0123abc", OWN, "Trust:"):
        assert words in text
    assert not re.search(r"\bnan\b|\bNone\b|\binf\b", text)
    assert ".. " not in text
    assert "03:04:05" not in text  # days, not stamps


def test_the_pictures_hold_the_records_values(plain: str) -> None:
    view = model_of(plain)["overview"]
    found = overview(campaign_of(make_records()).frame)
    cells = view["panels"][0]["cells"]
    for name, cell in found.panels[0].cells.items():
        if name == "CDVFT m=2 p=d":
            continue  # of its records one failed
        assert [cells[name][key] for key in ("value", "low", "high")] == pytest.approx(
            [cell.time.value, cell.time.low, cell.time.high], rel=1e-4
        )
    assert {row["method"] for row in view["rows"]} <= set(model_of(plain)["looks"])


def test_the_table_holds_every_record(plain: str) -> None:
    columns = records_of(plain)
    records = make_records(workloads=((8, 128, "step"), (8, 128, "forward")))
    assert sorted(columns["key"]) == sorted(r.case.key for r in records)
    assert columns["status"].count("failed") == 1
    at = columns["status"].index("failed")
    assert columns["lora"][at] is columns["parameters"][at] is None
    assert set(columns["store"]) == {"records.sqlite"}
    assert set(columns["recorded"]) == {"2026-01-02"}


def test_claims_stand_with_those_to_see_first(plain: str) -> None:
    found = Outline(plain)
    cards: list[str] = [v for t, n, v in found.attributes if t == "article" and n == "data-word"]
    assert cards == ["fails", "not identifiable", "holds only if", "holds", "undecided", "not measured"]
    assert found.text.count("fails") >= 1
    assert "because It is so." in found.words
    assert "A paper, section 3" in found.words


def test_a_reason_is_cut_at_no_semicolon_within_brackets() -> None:
    assert (
        first_clause("chosen together (needed; not each will do); by chance")
        == "chosen together (needed; not each will do)"
    )
    assert first_clause("off by 3 %; at 4096 (and; more)") == "off by 3 %"
    assert first_clause("") == ""


def test_without_verdicts_it_says_how_to_judge_and_without_claims_nothing() -> None:
    campaign = campaign_of(make_records("64x64", 64))
    text = Outline(render(campaign)).words
    assert "Not judged" in text
    assert "cdvft-bench verify --records" in text
    assert "Not predicted" in text
    silent = Outline(render(campaign, claims=False))
    for words in ("judged", "reviewers", "Claims"):
        assert words not in silent.words.replace("Verdicts Holds", "")
    assert "claims" not in silent.values("id")


def test_a_users_own_ledger_is_shown_and_no_other(plain: str) -> None:
    words: tuple[Word, ...] = WORDS
    found = [v for t, n, v in Outline(plain).attributes if t == "article" and n == "id"]
    assert sorted(found) == sorted(f"claim-claim-{word.replace(' ', '-')}" for word in words)


def test_of_a_users_own_ledger_no_reviewer_of_cdvft_asks() -> None:
    records = make_records("64x64", 64)
    ours = Outline(render(campaign_of(records, verification=verification())))
    mine = Outline(render(campaign_of(records, verification=verification(ledger="mine.toml"))))
    assert "questions" in ours.values("id")
    assert "questions" not in mine.values("id")
    claimed = [{v for t, n, v in found.attributes if t == "article" and n == "id"} for found in (ours, mine)]
    assert claimed[0] == claimed[1]


def test_hostile_records_inject_nothing(hostile: str) -> None:
    found = Outline(hostile)
    kinds = [v for t, n, v in found.attributes if t == "script" and n == "type"]
    assert kinds == ["application/json", "text/plain"]
    assert found.tags["script"] == len(kinds) + 1
    assert not found.tags["img"]
    assert not [n for _, n, _ in found.attributes if n.startswith("on")]
    assert not set(hostile) & set("\x00\u202e\u2028")
    block = re.search(r'id="model">(.*?)</script>', hostile, re.DOTALL)
    assert block is not None
    assert not set(block[1]) & set("<>")
    assert 'alert("x")' in found.words, "it is shown as text"
    assert "alert(" in records_of(hostile)["label"][0]


def test_same_records_in_any_order_give_the_same_bytes() -> None:
    records = make_records("64x64", 64)
    assert render(campaign_of(records)) == render(campaign_of(records[::-1]))


def test_records_of_failures_alone_still_make_a_page() -> None:
    records = [failed(r, "no such layer") for r in make_records("64x64", 64)]
    text = Outline(render(campaign_of(records, {}))).words
    assert "Failed cases" in text
    assert "no such layer" in text


def test_untimed_records_make_a_page_without_the_picture() -> None:
    records = [replace(r, timed=None) for r in make_records("64x64", 64)]
    html = render(campaign_of(records))
    assert model_of(html)["overview"] is None
    assert 'id="overview"' not in html
    assert 'id="leaderboard"' in html


def test_machines_stand_beside_each_other() -> None:
    here, there = make_records("64x64", 64), make_records("64x64", 64, environment="b", seed=4, device="cuda")
    machines = {**ENVIRONMENTS, "b": {"gpus": ("Example GPU",)}}
    html = render(campaign_of([*here, *there, *here], machines))
    assert {panel["machine"] for panel in model_of(html)["overview"]["panels"]} == {"not recorded", "Example GPU"}
    text = Outline(html).words
    assert "2 machines" in text
    assert f"{len(here)} older rows are left out" in text
