"""A report's folder: written whole or not at all, never over another's work, harmless in a spreadsheet and in LaTeX."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner

from cdvft_bench.analysis.inputs import read
from cdvft_bench.cli import main
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.record import Record
from cdvft_bench.report.figures.pictures import pictures
from cdvft_bench.report.page.cards import environment_table
from cdvft_bench.report.write import ReportPaths, csv, escape, latex_table, notes, write_report
from tests.made_records import ENVIRONMENT, ENVIRONMENTS, HOSTILE, campaign_of, failed, make_records, with_timing

COMMAND = "cdvft-bench report records.sqlite --output report"
PROFILES = Path(__file__).parents[2] / "profiles"
NASTY = (
    HOSTILE,
    "</script><script>alert(1)</script>",
    "\u2028line\u2029",
    "=HYPERLINK(1)",
    "\\end{document}",
    "'; rm -rf ~ #",
    "😀",
    "two\nlines",
)


def write(records: list[Record], out: Path) -> ReportPaths:
    return write_report(campaign_of(records), out, command=COMMAND)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_all_files_are_there(tmp_path: Path) -> None:
    records = make_records("64x64", 64)
    records[3] = failed(records[3], "out of memory")
    made = write(records, tmp_path / "r")
    assert {p.name for p in made.tables} == {
        "records.csv",
        "passes.csv",
        "notes.csv",
        "environments.csv",
        "overview.csv",
        "overview.tex",
    }
    assert sorted(p.name for p in made.directory.iterdir()) == ["report.html", "tables"]
    assert not [p for p in tmp_path.iterdir() if p != made.directory]
    frame = pd.read_csv(made.directory / "tables" / "records.csv", keep_default_na=False)
    assert set(frame["key"]) == {r.case.key for r in records}
    assert "out of memory" in set(pd.read_csv(made.directory / "tables" / "notes.csv")["note"])


def test_same_records_in_any_order_give_the_same_bytes(tmp_path: Path) -> None:
    records = make_records("64x64", 64)[:6]
    write(records, tmp_path / "a")
    write(records[::-1], tmp_path / "b")
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_report_replaces_a_report_as_a_whole(tmp_path: Path) -> None:
    write(make_records("64x64", 64)[:2], tmp_path / "r")
    (tmp_path / "r" / "figures").mkdir()
    (tmp_path / "r" / "figures" / "stale.svg").write_text("old")
    write(make_records("96x96", 96)[:2], tmp_path / "r")
    assert "figures/stale.svg" not in contents(tmp_path / "r")


@pytest.mark.parametrize("foreign", ["thesis.tex", "figures/mine.pdf", "tables/notes.txt"])
def test_foreign_files_are_never_lost(tmp_path: Path, foreign: str) -> None:
    path = tmp_path / "r" / foreign
    path.parent.mkdir(parents=True)
    path.write_text("years of work")
    with pytest.raises(UserError, match=path.name):
        write(make_records("64x64", 64)[:2], tmp_path / "r")
    assert contents(tmp_path / "r") == {foreign: b"years of work"}


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "dangling", "loop"])
def test_names_that_no_folder_can_have_are_refused_in_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(UserError, match=r"cannot be written|is a file|is no name of a folder"):
        write(make_records("64x64", 64)[:2], tmp_path / name)
    assert {path.name for path in tmp_path.iterdir()} == {"dangling", "loop"}


def test_a_failed_write_leaves_the_old_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(make_records("64x64", 64)[:2], tmp_path / "r")
    before, rename = contents(tmp_path / "r"), Path.rename

    def broken(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise OSError("no space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", broken)
    with pytest.raises((OSError, UserError), match="no space"):
        write(make_records("96x96", 96)[:2], tmp_path / "r")
    assert contents(tmp_path / "r") == before
    assert [p.name for p in tmp_path.iterdir()] == ["r"]


def test_no_records_is_the_users_to_mend(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no record to report"):
        write([], tmp_path / "r")
    assert not list(tmp_path.iterdir())


def test_pictures_are_drawn_on_request_alone(tmp_path: Path) -> None:
    options = ["report", str(PROFILES / "accuracy-clothes-vit"), str(PROFILES / "cpu-quick"), "--output"]
    done = CliRunner().invoke(main, [*options, str(tmp_path / "r"), "--figures", "pdf,png"])
    assert done.exit_code == 0, done.output
    written = {p.name: p.read_bytes() for p in (tmp_path / "r" / "figures").iterdir()}
    shown = [f"{name}{dark}" for dark in ("", "-dark") for name in ("overview", "front")]
    assert written.keys() == {f"{name}.{kind}" for name in shown for kind in ("png", "svg", "pdf")}
    campaign = read(PROFILES / "accuracy-clothes-vit", PROFILES / "cpu-quick")
    methods = dict(zip(campaign.frame["setting"], campaign.frame["method"], strict=True))
    again = pictures(campaign.overview, methods, campaign.studies)
    assert [one.name for one in again] == shown
    for one in again:  # the recorded profiles are drawn alike twice
        assert one.alt
        for name, content in one.files(("png", "svg")).items():
            assert written[Path(name).name] == content
    done = CliRunner().invoke(main, [*options, str(tmp_path / "r"), "--figures", "bmp"])
    assert done.exit_code == 2
    assert "'bmp' is no format of pictures; use png, svg, pdf" in done.output


def test_accuracy_pages_are_of_the_same_kind(tmp_path: Path) -> None:
    small, maps = PROFILES / "accuracy-clothes-vit", PROFILES / "accuracy-cpu-maps" / "results.jsonl"
    steps = ["--steps", str(small / "steps.json")]
    done = CliRunner().invoke(main, ["pareto", str(small / "results.jsonl"), *steps, "--output", str(tmp_path / "p")])
    assert done.exit_code == 0, done.output
    assert "on the test split, not told apart from LoRA r=8" in (tmp_path / "p" / "report.html").read_text()
    done = CliRunner().invoke(main, ["maps", str(maps), "--output", str(tmp_path / "m")])
    assert done.exit_code == 0, done.output
    assert "CDVFT over m and p" in (tmp_path / "m" / "report.html").read_text()
    done = CliRunner().invoke(main, ["pareto", str(maps), "--output", str(tmp_path / "no")])
    assert done.exit_code == 2
    assert "holds no finished run on a test split" in done.output


# --- tables -----------------------------------------------------------------------------------


def test_csv_is_no_spreadsheet_formula() -> None:
    frame = pd.DataFrame({"a": ["=1+1", "@x", "fine", -3, " +2", "\uff1dcmd"]}, dtype=object)
    assert csv(frame).decode() == "a\n'=1+1\n'@x\nfine\n-3\n' +2\n'\uff1dcmd\n"


@pytest.mark.parametrize("text", NASTY)
def test_latex_prints_texts_as_they_are(text: str) -> None:
    plain = escape(text)
    assert plain.isascii()
    for control in ("\\end{document}", "$\\frac"):
        assert control not in plain
    lines = latex_table(pd.DataFrame({"a": [text], "b & c": [1]}), text, "t").splitlines()
    row = next(line for line in lines if line.endswith("& 1 \\\\"))
    assert row.count(" & ") == 1


def test_environments_side_by_side() -> None:
    table = environment_table({**ENVIRONMENTS, "b": {"versions": {"torch": "2.6.0"}, "extra": ("x", "y"), "gpus": ()}})
    frame = pd.DataFrame(table.rows, columns=["fact", *table.columns[1:]]).set_index("fact")
    assert frame.loc["versions, torch", ENVIRONMENT] == "2.13.0"
    assert frame.loc["versions, torch", "b"] == "2.6.0"
    assert frame.loc["machine, gpu", ENVIRONMENT] == "not recorded"
    assert frame.loc["git_revision", "b"] == "not recorded"
    assert frame.loc["extra", "b"] == "x; y"
    assert frame.loc["gpus", "b"] == "none"


def test_notes_carry_every_source() -> None:
    record = make_records()[1]
    assert record.counted is not None
    record = with_timing(replace(record, counted=replace(record.counted, notes=("no trace",))), warnings=("drift",))
    assert record.timed is not None
    record = replace(record, timed=replace(record.timed, notes=("no energy",)))
    assert list(notes(campaign_of([record]))["note"]) == ["no trace", "no energy", "drift"]
