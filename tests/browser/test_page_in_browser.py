"""The page as a reader has it: in a browser, by pointer and by keyboard, in both themes, on a phone, on paper."""

import base64
import json
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cdvft_bench.analysis.compare import compare_records
from cdvft_bench.analysis.inputs import read
from cdvft_bench.claims.ledger.terms import WORDS
from cdvft_bench.report.page.compare import write_page
from cdvft_bench.report.write import write_report
from tests.browser.conftest import wait_for
from tests.browser.many_records import MACHINES, many_records
from tests.made_records import HOSTILE, campaign_of, failed, make_records
from tests.report.test_page import verification

Opened = Callable[[Path], Any]
PROFILES = Path(__file__).parents[2] / "profiles"
SCREENS = [
    pytest.param(width, height, scheme, id=f"{width}-{scheme}")
    for width, height in ((1280, 900), (390, 844))
    for scheme in ("light", "dark")
]

OVERLAPPING = """
const found = [], inside = (e) => e.checkVisibility({ visibilityProperty: true }) && e.textContent.trim();
for (const svg of document.querySelectorAll(".plot svg")) {
  const boxes = [...svg.querySelectorAll("text")].filter(inside).map((e) => [e.textContent, e.getBoundingClientRect()]);
  for (const [i, [one, a]] of boxes.entries())
    for (const [other, b] of boxes.slice(i + 1)) {
      const wide = Math.min(a.right, b.right) - Math.max(a.left, b.left);
      const high = Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top);
      if (wide > 1 && high > 3) found.push(`${one} | ${other}`);  // a line's box is taller than its letters
    }
}
return found;
"""
CUT = """
const found = [];
for (const svg of document.querySelectorAll(".plot svg")) {
  const card = svg.closest(".card").getBoundingClientRect();
  for (const text of svg.querySelectorAll("text")) {
    const box = text.getBoundingClientRect();
    if (box.width && (box.left < card.left - 1 || box.right > card.right + 1)) found.push(text.textContent);
  }
}
return found;
"""
MISLABELLED = """
const away = (x, y, b) => Math.hypot(Math.max(b.x - x, 0, x - b.x - b.width), Math.max(b.y - y, 0, y - b.y - b.height));
return [...document.querySelectorAll("svg text[data-x]")].filter((e) => {
  const b = e.getBBox(), own = away(Number(e.dataset.x), Number(e.dataset.y), b);
  const marks = [...e.closest("svg").querySelectorAll("circle.hit")];
  return marks.some((c) => away(Number(c.getAttribute("cx")), Number(c.getAttribute("cy")), b) + 9 < own);
}).map((e) => e.textContent);
"""
CUT_NAMES = """
return [...document.querySelectorAll("#overview svg text, #accuracy svg text")].map((e) => e.textContent)
  .filter((text) => text.includes("…"))
"""
CONTRAST = """
const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
const rgb = (colour) => {
  canvas.clearRect(0, 0, 1, 1);
  canvas.fillStyle = colour;
  canvas.fillRect(0, 0, 1, 1);
  return canvas.getImageData(0, 0, 1, 1).data;
};
const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
const light = (c) => [0.2126, 0.7152, 0.0722].reduce((sum, part, i) => sum + part * linear(c[i] / 255), 0);
const ground = (e) => {
  for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c[3] > 250) return c; }
  return rgb("white");
};
const found = new Set();
for (const e of document.querySelectorAll("h1, h2, h3, p, li, button, td, th, summary, svg text, .badge, .tag")) {
  if (!e.textContent.trim() || !e.checkVisibility()) continue;
  const style = getComputedStyle(e), ink = rgb(e instanceof SVGElement ? style.fill : style.color);
  const [a, b] = [light(ink), light(ground(e))].sort((x, y) => y - x), ratio = (a + 0.05) / (b + 0.05);
  const wanted = e.matches(".facts, .origin, small, .absent, button:disabled") ? 3 : 4.5;
  if (ratio < wanted) found.add(`${e.tagName}.${e.getAttribute("class") ?? ""}: ${ratio.toFixed(2)}`);
}
return [...found];
"""


@pytest.fixture(scope="session")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    records = [
        *make_records(workloads=((8, 128, "step"), (8, 128, "forward"), (2, 32, "step"))),
        *make_records("4096x4096", 4096, seed=1),
        *make_records("384x384", 384, seed=2),
    ]
    records[3] = failed(records[3], "RuntimeError: out of memory")
    campaign = campaign_of(records, verification=verification())
    return write_report(campaign, tmp_path_factory.mktemp("page") / "report", command="make").html


@pytest.fixture(scope="session")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The committed profiles' own page."""
    campaign = replace(read(PROFILES), verification=verification())
    return write_report(campaign, tmp_path_factory.mktemp("recorded") / "report", command="make").html


@pytest.fixture
def screen(browser: Any) -> Any:
    """Sets the size of the screen and its scheme of colours, for one test."""

    def set_(width: int, height: int, scheme: str = "light") -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        chosen = {"prefers-color-scheme": scheme, "prefers-reduced-motion": "reduce"}
        features = [{"name": name, "value": value} for name, value in chosen.items()]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    yield set_
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})


def complaints(browser: Any) -> list[str]:
    return [entry["message"] for entry in browser.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")]


def requests(browser: Any) -> set[str]:
    """Addresses that the page asked for, itself and data of its own left out."""
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = {m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"}
    return {url for url in asked if not url.startswith(("file:", "data:", "blob:", "chrome:"))}


def draw_all(browser: Any) -> None:
    """Open every fold and go past every figure, so that all are drawn."""
    browser.execute_script("document.querySelectorAll('details.fold').forEach((d) => { d.open = true; })")
    for _ in range(2):  # what is drawn late moves what comes after it
        browser.execute_async_script(
            """const done = arguments[0], places = [...document.querySelectorAll("main section, main .card")];
            const go = () => { const one = places.shift(); if (!one) return done();
              one.scrollIntoView({ behavior: "instant" }); requestAnimationFrame(() => requestAnimationFrame(go)); };
            go();"""
        )


def bottom(browser: Any, selector: str) -> float:
    return float(browser.execute_script(f"return document.querySelector({selector!r}).getBoundingClientRect().bottom"))


def rows(browser: Any) -> int:
    return int(browser.find_element("css selector", "#board .count").text.split()[0].replace(",", ""))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_one_screen_answers(opened: Opened, recorded: Path, screen: Any, scheme: str) -> None:
    """The sentence, the badge, the picture with its costs, the front and the verdicts, without scrolling."""
    screen(1280, 900, scheme)
    browser = opened(recorded)
    for part in ("#answer h1 b", "#trust-open", "#overview .below", "#front .below", ".verdicts button:last-child"):
        assert 0 < bottom(browser, part) <= 900, part
    heads = [e.text for e in browser.find_elements("css selector", "#overview svg text.head")]
    assert {"parameters", "saved bytes", "launches"} <= set(heads)
    assert len(browser.find_elements("css selector", "#overview svg .mark")) > 20
    assert len(browser.find_elements("css selector", ".verdicts button")) >= 3


@pytest.mark.parametrize(("width", "height", "scheme"), SCREENS)
def test_no_label_overlaps_is_cut_or_makes_the_page_wide(
    opened: Opened, recorded: Path, page: Path, screen: Any, width: int, height: int, scheme: str
) -> None:
    for one in (recorded, page) if scheme == "light" else (page,):
        screen(width, height, scheme)
        browser = opened(one)
        draw_all(browser)
        assert len(browser.find_elements("css selector", ".plot svg")) > (10 if one == recorded else 2)
        assert browser.execute_script(OVERLAPPING) == []
        assert browser.execute_script(MISLABELLED) == []
        assert browser.execute_script(CUT) == []
        assert browser.execute_script("return document.documentElement.scrollWidth") <= width
        assert browser.execute_script(CUT_NAMES) == []
        assert complaints(browser) == []


def test_axes_have_five_ticks_at_most(opened: Opened, recorded: Path, screen: Any) -> None:
    screen(1280, 900)
    browser = opened(recorded)
    draw_all(browser)
    found = browser.execute_script(
        """const most = new Map();
        for (const tick of document.querySelectorAll(".plot:not(.heat .plot) svg text.tick[text-anchor=middle]")) {
          if (!/^[+\\u2212-]?[\\d.,]+[kMGTP]?$/.test(tick.textContent)) continue;
          const panel = tick.closest("[data-panel]") ?? tick.closest("svg"), y = Math.round(tick.getAttribute("y"));
          if (!most.has(panel)) most.set(panel, new Map());
          most.get(panel).set(y, (most.get(panel).get(y) ?? 0) + 1);
        }
        return [...most.values()].flatMap((lines) => [...lines.values()]);"""
    )
    assert found
    assert max(found) <= 5


def test_it_opens_without_a_complaint_or_a_request(opened: Opened, page: Path) -> None:
    browser = opened(page)
    draw_all(browser)
    assert complaints(browser) == []
    assert requests(browser) == set()


def test_pointing_at_a_mark_says_what_it_is(opened: Opened, page: Path) -> None:
    from selenium.webdriver import ActionChains

    browser = opened(page)
    mark = browser.find_elements("css selector", "#overview svg [tabindex]")[1]
    ActionChains(browser).move_to_element(mark).perform()
    wait_for(browser, "return !document.getElementById('tip').hidden")
    assert "LoRA r=8" in browser.find_element("id", "tip").text


def test_verdicts_are_filters(opened: Opened, page: Path) -> None:
    browser = opened(page)
    shown = "return [...document.querySelectorAll('.claim')].filter((e) => !e.hidden).map((e) => e.dataset.word)"
    first = browser.execute_script(shown)
    assert first[0] == "fails"
    assert "holds" not in first, "what simply holds waits until it is asked for"
    for word in WORDS:
        browser.execute_script(f"document.querySelector('.verdicts button[data-word=\"{word}\"]').click()")
        assert browser.execute_script(shown) == [word]
        browser.execute_script(f"document.querySelector('.verdicts button[data-word=\"{word}\"]').click()")
    browser.execute_script("document.getElementById('claim-all').click()")
    assert sorted(browser.execute_script(shown)) == sorted(WORDS)
    browser.find_element("id", "claim-search").send_keys("claim-fails")
    assert browser.execute_script(shown) == ["fails"]


def test_the_leaderboard_filters_sorts_and_chooses_columns(opened: Opened, page: Path) -> None:
    browser = opened(page)
    chosen = rows(browser)
    first = browser.find_element("css selector", "#board tbody tr")
    assert first.get_attribute("class") == "pinned"
    assert first.text.startswith("LoRA r=8")
    browser.find_element("css selector", "#board input[type=search]").send_keys("LoRA")
    assert 0 < rows(browser) < chosen
    browser.execute_script(
        """const s = document.querySelector("#board select"); s.value = ""; s.dispatchEvent(new Event("change"));
        const i = document.querySelector("#board input"); i.value = ""; i.dispatchEvent(new Event("input"));"""
    )
    assert rows(browser) > 3 * chosen
    for direction in ("ascending", "descending"):
        browser.execute_script("document.querySelector('#board [data-name=parameters]').click()")
        th = "return document.querySelector('#board th[aria-sort]')"
        assert browser.execute_script(f"{th}.ariaSort") == direction
        values = browser.execute_script(
            f"""const n = {th.removeprefix("return ")}.cellIndex;
            return [...document.querySelectorAll("#board tbody tr")].map((r) => r.cells[n].textContent);"""
        )
        numbers = [int(v.replace(",", "")) for v in values if v != "not measured"]
        assert numbers == sorted(numbers, reverse=direction == "descending")
    columns = len(browser.find_elements("css selector", "#board thead th"))
    browser.execute_script("document.querySelector('#board .menu input:not(:checked)').click()")
    assert len(browser.find_elements("css selector", "#board thead th")) == columns + 1


def test_every_row_says_where_it_is_from(opened: Opened, page: Path) -> None:
    browser = opened(page)
    browser.execute_script("document.querySelector('#board td button.name').click()")
    text = browser.find_element("id", "record").text
    for words in ("records.sqlite", "2026-01-02", "cdvft-bench time"):
        assert words in text
    browser.execute_script("document.querySelector('#record button').click()")
    assert not browser.execute_script("return document.getElementById('record').open")


def test_the_keyboard_reaches_everything(opened: Opened, page: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    browser = opened(page)
    reached: list[str] = []
    browser.find_element("tag name", "body").send_keys(Keys.TAB)
    for _ in range(80):
        one = browser.switch_to.active_element
        name = "const e = arguments[0]; return e.id || e.closest('figure, .verdicts, #board')?.id || e.className"
        reached.append(browser.execute_script(name, one))
        if "board" in reached[-1]:
            break
        one.send_keys(Keys.TAB)
    wanted = ["skip", "guide-open", "theme", "trust-open", "overview", "board"]
    assert [name for name in dict.fromkeys(reached) if name in wanted] == wanted
    mark = browser.find_element("css selector", "#overview svg [tabindex='0']")
    browser.execute_script("arguments[0].focus()", mark)
    mark.send_keys(Keys.ARROW_DOWN)
    assert browser.execute_script("return document.activeElement !== arguments[0]", mark)
    browser.switch_to.active_element.send_keys(Keys.ENTER)
    assert browser.execute_script("return document.getElementById('record').open")
    browser.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert not browser.execute_script("return document.getElementById('record').open")


@pytest.mark.parametrize(("scheme", "light"), [("dark", False), ("light", True)])
def test_both_themes(opened: Opened, page: Path, screen: Any, scheme: str, light: bool) -> None:
    """Ground and marks change, by the system's choice and by the button."""
    screen(1280, 900, scheme)
    browser = opened(page)
    ground = "return getComputedStyle(document.body).backgroundColor.match(/[0-9]+/g).map(Number)[0] > 128"
    ink = "return getComputedStyle(document.querySelector('#overview svg .mark')).stroke"
    assert browser.execute_script(ground) is light
    before = browser.execute_script(ink)
    browser.execute_script("document.getElementById('theme').click()")
    assert browser.execute_script(ground) is not light
    assert browser.execute_script(ink) != before


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (1280, "dark"), (390, "light")])
def test_texts_are_told_from_their_ground(opened: Opened, page: Path, screen: Any, width: int, scheme: str) -> None:
    """A contrast of 4.5, as WCAG asks, of every text of the page; 3 of what is only marginal."""
    screen(width, 900, scheme)
    browser = opened(page)
    low = browser.execute_script(CONTRAST)
    assert low == []


def test_what_nobody_scrolled_to_is_drawn_too(opened: Opened, recorded: Path, screen: Any) -> None:
    """So that a picture of the whole page, or the page on paper, has no empty panel."""
    screen(1280, 900)
    browser = opened(recorded)
    empty = """return [...document.querySelectorAll(".card .plot, #explorer")]
      .filter((e) => e.checkVisibility() && !e.querySelector("svg")).length === 0"""
    wait_for(browser, empty, seconds=20)
    assert browser.execute_script("return scrollY") == 0


def test_it_prints(opened: Opened, page: Path) -> None:
    printed = opened(page).execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    assert base64.b64decode(printed["data"]).startswith(b"%PDF")


def test_links_land_at_their_sections(opened: Opened, recorded: Path, screen: Any) -> None:
    """Also past figures that are drawn only when they come near."""
    screen(1280, 900)
    browser = opened(recorded)
    links = browser.execute_script("return [...document.querySelectorAll('.top nav a')].map((a) => a.hash)")
    assert len(links) > 5
    for link in links[:-2]:  # the last ones end the page
        browser.execute_script(f"document.querySelector(\".top nav a[href='{link}']\").click()")
        top = f"document.querySelector('{link}').getBoundingClientRect().top"
        wait_for(browser, f"return Math.abs({top} - 60) < 4", seconds=8)


def test_hostile_records_run_nothing(opened: Opened, tmp_path: Path) -> None:
    nasty = HOSTILE + "</script><script>window.pwned=1</script><a href='javascript:window.pwned=1'>x</a>\u2028"
    records = [replace(r, label=nasty + r.label, created=nasty) for r in make_records(nasty, 32)[:9]]
    records[3] = failed(records[3], nasty)
    campaign = campaign_of(records, {"x": {nasty: nasty}}, verification=verification(nasty))
    browser = opened(write_report(campaign, tmp_path / "r", command=nasty, title=nasty).html)
    draw_all(browser)
    browser.execute_script("document.querySelector('#board td button.name').click()")
    assert "alert(" in browser.find_element("id", "record").text
    assert browser.execute_script("return window.pwned === undefined")
    assert browser.execute_script("return document.querySelectorAll('img, a[href^=javascript], iframe').length") == 0
    assert browser.execute_script("return [...document.querySelectorAll('a')].every((a) => a.hash)")
    assert complaints(browser) == []


def test_two_campaigns_on_a_page(opened: Opened, tmp_path: Path, screen: Any) -> None:
    before, after = make_records("64x64", 64), make_records("64x64", 64, seed=3)
    target = tmp_path / "compare.html"
    pages = []
    for _ in range(2):
        write_page(compare_records(before, after), target, "cdvft-bench compare a b --page compare.html")
        pages.append(target.read_bytes())
    assert pages[0] == pages[1]
    screen(390, 844)
    browser = opened(target)
    draw_all(browser)
    assert len(browser.find_elements("css selector", "#cases tbody tr")) == len(before)
    assert browser.execute_script(OVERLAPPING) == []
    assert browser.execute_script("return document.documentElement.scrollWidth") <= 390
    assert complaints(browser) == []


@pytest.mark.slow
@pytest.mark.timeout(1800)  # the page takes minutes to make, seconds to open
def test_a_hundred_thousand_rows(opened: Opened, tmp_path: Path) -> None:
    """The whole page under 20 MB; how long it takes to open is printed."""
    html = write_report(campaign_of(many_records(100_000), MACHINES), tmp_path / "r", command="make").html
    assert html.stat().st_size < 20e6
    taken = []
    for _ in range(5):
        start = time.perf_counter()
        browser = opened(html)
        taken.append(time.perf_counter() - start)
    print(f"{html.stat().st_size / 1e6:.1f} MB, ready after {statistics.median(taken):.2f} s in the median of 5")
    print(f"({min(taken):.2f} to {max(taken):.2f} s, load average {os.getloadavg()[0]:.1f})")
    browser.execute_script(
        'const s = document.querySelector("#board select"); s.value = ""; s.dispatchEvent(new Event("change"));'
    )
    assert rows(browser) == 100_000
    assert len(browser.find_elements("css selector", "#board tbody tr")) < 60
    assert complaints(browser) == []
