"""The committed report: one page and the pictures that README and docs show, of the profiles as they are, and small."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from cdvft_bench.analysis.inputs import Campaign, read
from cdvft_bench.analysis.sentences import headline
from tests.report.test_page import Outline, model_of, records_of

ROOT = Path(__file__).parents[2]
REPORTS = ROOT / "reports"
MOST = 6e6
"""Bytes of the committed files together."""


@pytest.fixture(scope="module")
def profiles() -> Campaign:
    return read(ROOT / "profiles")


@pytest.fixture(scope="module")
def html() -> str:
    return (REPORTS / "report.html").read_text(encoding="utf-8")


def kept() -> list[Path]:
    """Files of reports/ that git keeps."""
    done = subprocess.run(["git", "ls-files", "reports"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode or not done.stdout:
        pytest.skip("no git checkout to ask which files are kept")
    return [ROOT / name for name in done.stdout.split()]


def test_it_is_one_page_and_what_readme_and_docs_show() -> None:
    files = kept()
    assert sum(path.stat().st_size for path in files) < MOST
    assert [path.name for path in files if path.parent == REPORTS] == ["report.html"]
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    shown = {
        (page.parent / name).resolve()
        for page in pages
        for name in re.findall(r"""(?:src|srcset)="([^"]+)"|!\[[^]]*\]\(([^)]+)\)""", page.read_text(encoding="utf-8"))
        for name in name
        if name and "reports/" in name
    }
    assert shown, "the README shows a picture"
    assert shown <= set(files)


def test_it_shows_the_profiles_as_they_are(html: str, profiles: Campaign) -> None:
    found = Outline(html)
    assert profiles.overview is not None
    assert headline(profiles.overview).text in found.words
    assert sorted(records_of(html)["key"]) == sorted(record.case.key for record in profiles.records)
    view = model_of(html)
    assert [panel["title"] for panel in view["overview"]["panels"]] == [p.title for p in profiles.overview.panels]
    assert len(view["studies"]) == sum(bool(study.scores) for study in profiles.studies)
    assert profiles.verification is not None
    words = [value for tag, name, value in found.attributes if tag == "article" and name == "data-word"]
    assert sorted(words) == sorted(verdict.word for verdict in profiles.verification.verdicts)


def test_the_pictures_have_their_messages(profiles: Campaign) -> None:
    from cdvft_bench.analysis.sentences import picture_title

    assert profiles.overview is not None
    for name in ("overview", "overview-dark"):
        text = (REPORTS / "figures" / f"{name}.svg").read_text(encoding="utf-8")
        assert picture_title(profiles.overview) in text
