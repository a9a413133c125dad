"""The page as a reader has it: in a browser, by pointer and by keyboard, in both themes, on a phone, on paper."""

from __future__ import annotations

import base64
import json
import os
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cdvft_bench.analysis.compare import compare_records
from cdvft_bench.report.page.compare import write_page
from cdvft_bench.report.page.report import Beside, Source, report_stores, write_report
from cdvft_bench.report.page.timeline import Launch, Timeline
from cdvft_bench.sweep.store import Store
from tests.browser.conftest import wait_for
from tests.browser.many_records import MACHINES, many_records
from tests.report.report_records import HOSTILE, failed, make_records

Opened = Callable[[Path], Any]
PROFILES = Path(__file__).parents[2] / "profiles"
FIGURES = ("front", "map", "formula", "families", "timeline")
DRAWN = "return document.querySelector('figure[data-plot={}] .plot .main-svg') !== null"


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    records = make_records(workloads=((8, 128, "step"), (8, 128, "forward")))
    launches = tuple(Launch(f"mm {i}", "matmul" if i % 2 else "fft", "host", 10.0 * i, 4.0) for i in range(20))
    traces = (Timeline("some", "some trace", records[1].case.key, launches, 0),)
    source = Source("records.sqlite", records, MACHINES)
    out = tmp_path_factory.mktemp("page") / "report"
    return write_report([source], out, command="make", beside=Beside(timelines=traces)).html


def in_sight(browser: Any, figure: str) -> None:
    browser.execute_script(f"document.querySelector('figure[data-plot={figure}]').scrollIntoView()")
    wait_for(browser, DRAWN.format(figure))


def complaints(browser: Any) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def requests(browser: Any) -> set[str]:
    """Addresses that the page asked for, itself and data of its own left out."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}
    return {url for url in asked if not url.startswith(("file:", "data:", "blob:", "chrome:"))}


def test_it_opens_without_a_complaint_or_a_request(opened: Opened, page: Path) -> None:
    browser = opened(page)
    assert browser.execute_script("return document.documentElement.dataset.ready") == "yes"
    for figure in FIGURES:
        in_sight(browser, figure)
    assert complaints(browser) == []
    assert requests(browser) == set()


def test_pointing_at_a_mark_says_what_it_is(opened: Opened, page: Path) -> None:
    from selenium.webdriver import ActionChains

    browser = opened(page)
    in_sight(browser, "front")
    mark = browser.find_elements("css selector", "figure[data-plot=front] .plot .points path")[0]
    ActionChains(browser).move_to_element(mark).perform()
    said = wait_for(browser, "return document.querySelector('figure[data-plot=front] .hoverlayer')?.textContent")
    assert "time ÷ frozen" in said
    assert "row " in said


def rows(browser: Any) -> int:
    return int(browser.find_element("css selector", "#records-table .count").text.split()[0].replace(",", ""))


def test_filters_narrow_table_and_figures(opened: Opened, page: Path) -> None:
    browser = opened(page)
    chosen = rows(browser)
    in_sight(browser, "front")
    marks = "return document.querySelectorAll('figure[data-plot=front] .plot .points path').length"
    before = wait_for(browser, marks)
    browser.execute_script("document.querySelector('.chips input[type=checkbox]').click()")
    assert rows(browser) < chosen
    wait_for(browser, f"{marks} < {before}")
    browser.execute_script("document.getElementById('filter-all').click()")
    shown, _, total, *_ = browser.find_element("css selector", "#records-table .count").text.split()
    assert shown == total
    assert "cannot be compared" in browser.find_element("css selector", ".filters .note").text
    box = browser.find_element("id", "filter-text")
    box.send_keys("LoRA r=32")
    assert 0 < rows(browser) < chosen


def column(browser: Any, table: str, n: int) -> list[str]:
    script = (
        f"return [...document.querySelectorAll('{table} tbody tr:not(.spacer)')].map((r) => r.cells[{n}].textContent)"
    )
    return list(browser.execute_script(script))


def test_tables_sort_both_ways_and_what_was_not_measured_stays_last(opened: Opened, page: Path) -> None:
    browser = opened(page)
    head = browser.find_elements("css selector", "#records-table thead button")[3]
    for sign in (1, -1):
        browser.execute_script("arguments[0].click()", head)
        shown = [v for v in column(browser, "#records-table", 3) if v != "not measured"]
        values = [sign * float(v.split()[0]) for v in shown]
        assert values == sorted(values)
        assert "not measured" not in column(browser, "#records-table", 3)[: len(values)]
    browser.execute_script("document.querySelector('table.sortable thead button').click()")
    first = browser.execute_script("return document.querySelector('table.sortable th[aria-sort]').ariaSort")
    assert first == "ascending"


def test_every_row_says_where_it_is_from(opened: Opened, page: Path) -> None:
    browser = opened(page)
    for button in ("#records-table button.source", "table.sortable button.source"):
        browser.execute_script(f"document.querySelector('{button}').click()")
        text = browser.find_element("id", "record").text
        for words in ("records.sqlite", "Example CPU", "2026-01-02T03:04:05Z", "cdvft-bench time"):
            assert words in text
        browser.execute_script("document.querySelector('#record button').click()")
        assert not browser.execute_script("return document.getElementById('record').open")


def test_the_keyboard_reaches_everything(opened: Opened, page: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    browser = opened(page)
    reached: set[str] = set()
    body = browser.find_element("tag name", "body")
    body.send_keys(Keys.TAB)
    for _ in range(400):
        one = browser.switch_to.active_element
        name = "const e = arguments[0]; return e.id || e.closest('[data-plot]')?.dataset.plot + ' ' + e.className"
        reached.add(browser.execute_script(name, one))
        if "records-table" in str(browser.execute_script("return arguments[0].closest('#records-table')?.id", one)):
            break
        one.send_keys(Keys.TAB)
    assert {"theme", "filter-subject", "filter-device", "filter-text", "filter-all", "front-x"} <= reached
    assert any(name.startswith("front plot") for name in reached)
    in_sight(browser, "front")
    plot = browser.find_element("css selector", "figure[data-plot=front] .plot")
    plot.send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert browser.find_element("css selector", "figure[data-plot=front] .said").text.startswith("2 of ")
    plot.send_keys(Keys.ENTER)
    assert browser.execute_script("return document.getElementById('record').open")
    browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    row = browser.find_elements("css selector", "#records-table tbody button")[0]
    row.send_keys(Keys.ARROW_DOWN)
    assert browser.execute_script("return document.activeElement.closest('tr').ariaRowIndex") == "3"


@pytest.mark.parametrize(("scheme", "light"), [("dark", False), ("light", True)])
def test_both_themes(opened: Opened, page: Path, scheme: str, light: bool) -> None:
    browser = opened(page)
    feature = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", feature)
    ground = "return getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).map(Number)[0] > 128"
    assert browser.execute_script(ground) is light
    browser.execute_script("document.getElementById('theme').click()")
    assert browser.execute_script(ground) is not light
    in_sight(browser, "front")
    paper = "return document.querySelector('figure[data-plot=front] .plot .main-svg').style.background.match(/[0-9]+/g)"
    wait_for(browser, f"{paper.replace('return', 'return Number(')}[0]) > 128 === {str(not light).lower()}")
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def test_a_phone_needs_no_sideways_scrolling(opened: Opened, page: Path) -> None:
    browser = opened(page)
    size = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    in_sight(browser, "front")
    wide = browser.execute_script("return document.documentElement.scrollWidth")
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert wide <= 390


def test_it_prints(opened: Opened, page: Path) -> None:
    browser = opened(page)
    in_sight(browser, "front")
    printed = browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    assert base64.b64decode(printed["data"]).startswith(b"%PDF")


def test_packed_sections_unpack_when_they_come_near(
    opened: Opened, page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a page of many records: the same figures and tables, and links land all the same."""
    monkeypatch.setattr("cdvft_bench.report.page.model.MANY", 1)
    records = make_records(workloads=((8, 128, "step"), (8, 128, "forward")))
    packed = write_report([Source("records.sqlite", records, MACHINES)], tmp_path / "r", command="make").html
    assert packed.stat().st_size < page.stat().st_size
    browser = opened(page)
    shown = "return ['table.sortable', '.card svg', '.packed'].map((one) => document.querySelectorAll(one).length)"
    tables, figures, none = browser.execute_script(shown)
    assert none == 0
    browser = opened(packed)
    assert browser.execute_script(shown)[0] < tables
    link = browser.execute_script("return document.querySelector('main section:has(.packed) h2').id")
    browser.execute_script("document.querySelector(`nav.contents a[href='#${arguments[0]}']`).click()", link)
    wait_for(browser, "return document.querySelector('.packed:not(.open)') === null")
    assert browser.execute_script(shown) == [tables, figures, 1]
    top = f"document.getElementById('{link}').getBoundingClientRect().top"
    wait_for(browser, f"return Math.abs({top} - 16) < 3", seconds=5)
    browser.execute_script("document.querySelector('.packed table.sortable thead button').click()")
    sorted_ = browser.execute_script("return document.querySelector('.packed table.sortable th[aria-sort]').ariaSort")
    assert sorted_ == "ascending"
    assert complaints(browser) == []


@pytest.mark.parametrize("packed", [False, True])
def test_hostile_records_run_nothing(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    if packed:
        monkeypatch.setattr("cdvft_bench.report.page.model.MANY", 1)
    nasty = HOSTILE + "</script><script>window.pwned=1</script><a href='javascript:window.pwned=1'>x</a>\u2028"
    records = [replace(r, label=nasty + r.label, created=nasty) for r in make_records(nasty, 32)[:9]]
    records[3] = failed(records[3], nasty)
    source = Source(nasty.replace("/", ""), records, MACHINES)
    browser = opened(write_report([source], tmp_path / "r", command=nasty).html)
    for figure in FIGURES[:4]:
        in_sight(browser, figure)
    browser.execute_script("document.querySelector('main section:nth-last-of-type(3)').scrollIntoView()")
    wait_for(browser, "return document.querySelector('.packed:not(.open)') === null")
    browser.execute_script("document.querySelector('#records-table button.source').click()")
    assert "alert(" in browser.find_element("id", "record").text
    assert browser.execute_script("return window.pwned === undefined")
    assert browser.execute_script("return document.querySelectorAll('img, a[href^=javascript], iframe').length") == 0
    links = "return [...document.querySelectorAll('a')].every((a) => (a.href.baseVal ?? a.href).includes('#'))"
    assert browser.execute_script(links)
    assert complaints(browser) == []


def test_two_campaigns_on_a_page(opened: Opened, tmp_path: Path) -> None:
    before, after = make_records("64x64", 64), make_records("64x64", 64, seed=3)
    write_page(compare_records(before, after), tmp_path / "compare.html", "cdvft-bench compare a b --page compare.html")
    first = (tmp_path / "compare.html").read_bytes()
    write_page(compare_records(before, after), tmp_path / "compare.html", "cdvft-bench compare a b --page compare.html")
    assert (tmp_path / "compare.html").read_bytes() == first
    browser = opened(tmp_path / "compare.html")
    in_sight(browser, "comparison")
    assert rows(browser) == len(before)
    assert complaints(browser) == []


def test_contents_links_land_at_their_sections(opened: Opened, page: Path) -> None:
    """Also past figures and tables that are laid out only when they come near."""
    browser = opened(page)
    links = browser.execute_script("return [...document.querySelectorAll('nav.contents a')].map((a) => a.hash)")
    assert len(links) > 5
    for link in links[:-2]:  # the last ones end the page
        browser.execute_script("document.querySelector(`nav.contents a[href='${arguments[0]}']`).click()", link)
        top = f"document.querySelector('{link}').getBoundingClientRect().top"
        wait_for(browser, f"return Math.abs({top} - 16) < 3", seconds=5)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # the page takes minutes to make, seconds to open
def test_a_hundred_thousand_rows(opened: Opened, browser: Any, tmp_path: Path) -> None:
    """The whole page under 20 MB; how long it takes to open is printed, and recorded on a quiet machine."""
    store, environments = tmp_path / "many" / "records.sqlite", {}
    store.parent.mkdir()
    with Store(PROFILES / "cpu-2026-11-25" / "records.jsonl.gz") as real:
        some = next(iter(real.environments().values()))
    for key, fields in MACHINES.items():
        environments[key] = replace(some, cpu=str(fields["cpu"]), gpus=tuple(fields["gpus"]))
    records = [replace(r, environment=environments[r.environment].key) for r in many_records(100_000)]
    with Store(store, create=True) as made:
        made.take({one.key: one for one in environments.values()}, records)
    shutil.copytree(PROFILES / "cpu-2026-11-25" / "traces", store.parent / "traces")
    html = report_stores(
        [store], tmp_path / "r", command="make", expressivity=PROFILES / "expressivity-cpu",
        accuracy=[PROFILES / "accuracy-cpu-small" / "results.jsonl"],
    ).html  # fmt: skip
    assert html.stat().st_size < 20e6
    taken = []
    for _ in range(7):
        start = time.perf_counter()
        opened(html)
        taken.append(time.perf_counter() - start)
    median, load = statistics.median(taken), os.getloadavg()[0]
    print(f"{html.stat().st_size / 1e6:.1f} MB, ready after {median:.2f} s in the median of {len(taken)}")
    print(f"({min(taken):.2f} to {max(taken):.2f} s, load average {load:.1f})")
    for figure in (*FIGURES, "accuracy"):
        in_sight(browser, figure)
    assert complaints(browser) == []
    browser.execute_script("document.getElementById('filter-all').click()")
    assert rows(browser) == 100_000
    assert len(browser.find_elements("css selector", "#records-table tbody tr")) < 60
