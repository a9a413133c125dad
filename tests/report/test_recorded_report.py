"""The committed report, and one made anew of the recorded profiles in a process that loads no torch."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from cdvft_bench.analysis.inputs import Campaign, read
from cdvft_bench.analysis.sentences import headline
from tests.report.test_page import Outline, model_of, records_of
from tests.texts import same_text

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


MADE = """
import sys
from cdvft_bench.analysis import inputs
from cdvft_bench.cli import main

def loaded(*names):
    return [name for name in names if name in sys.modules]

profiles, output = sys.argv[1:]
campaign = inputs.read(profiles)
assert len(campaign.frame) > 400 and campaign.overview and campaign.studies[0].scores and campaign.findings
assert not (found := loaded("torch", "transformers", "matplotlib", "jinja2", "plotly", "rich")), found
inputs.read = lambda *_, **__: campaign  # what it works out is worked out once
main(["report", profiles, "--output", output], standalone_mode=False)
print("=====")
main(["dev", "questions", profiles], standalone_mode=False)
assert not (found := loaded("torch", "transformers", "peft", "matplotlib", "plotly")), found
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """Page and questions, made anew."""
    output = tmp_path_factory.mktemp("report") / "r"
    command = [sys.executable, "-c", MADE, str(ROOT / "profiles"), str(output)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    return (output / "report.html").read_text(encoding="utf-8"), done.stdout.split("=====\n")[1]


def test_the_recorded_profiles_make_a_small_page(made: tuple[str, str]) -> None:
    page, _ = made
    assert len(page) < 1.5e6
    view = model_of(page)
    assert len(view["overview"]["panels"]) > 5
    assert len(view["studies"]) >= 2
    assert len(view["maps"]) == 6
    text = Outline(page).words
    for words in ("minilm on tweets", "smollm2-135m", "What reviewers asked", "paper's backward"):
        assert words in text or words in page
    for private in ("witness", "foot ", "voice", "handwritten"):
        assert private not in text.lower()


def test_the_page_of_questions_is_current(made: tuple[str, str]) -> None:
    same_text((ROOT / "docs" / "questions.md").read_text(encoding="utf-8"), made[1])


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
    able = [study.name for study in profiles.studies if study.scores and not study.cannot_rank]
    assert [study["name"] for study in view["studies"]] == able
    assert len(able) >= 2
    assert profiles.verification is not None
    words = [value for tag, name, value in found.attributes if tag == "article" and name == "data-word"]
    assert sorted(words) == sorted(verdict.word for verdict in profiles.verification.verdicts)


def test_the_pictures_have_their_messages(profiles: Campaign) -> None:
    from cdvft_bench.analysis.sentences import picture_title

    assert profiles.overview is not None
    for name in ("overview", "overview-dark"):
        text = (REPORTS / "figures" / f"{name}.svg").read_text(encoding="utf-8")
        assert picture_title(profiles.overview) in text
