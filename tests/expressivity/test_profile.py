"""A run and its report end to end: resuming, determinism, findings, bad input."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from cdvft_bench.cli import main
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.interval import Interval
from cdvft_bench.core.student import mean_interval
from cdvft_bench.expressivity import profile
from cdvft_bench.expressivity.budget import cost_of
from cdvft_bench.expressivity.findings import algebraic as findings
from cdvft_bench.expressivity.findings.finding import read_findings
from cdvft_bench.expressivity.findings.measured import best_within, plus_minus, rank_error
from cdvft_bench.expressivity.presets import PRESETS, Job, change_jobs, jobs_of
from cdvft_bench.report.expressivity import figures, page
from tests.texts import same_text

COMMITTED = Path(__file__).parents[2] / "profiles" / "expressivity-cpu"
DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    recorded = profile.record(jobs_of("tiny"), folder, profile.environment("tiny", 0))
    findings.write_findings(recorded, folder)
    return folder


def test_job_keys_are_distinct_and_name_no_file():
    for name in PRESETS:
        jobs = jobs_of(name)
        assert len({job.key for job in jobs}) == len(jobs)
    assert "home" not in Job("change", {"path": "/home/me/x.npz", "name": "q"}).key


def test_a_run_that_was_cut_off_goes_on(tiny, tmp_path):
    whole = (tiny / profile.ROWS).read_text()
    lines = whole.splitlines()
    shutil.copy(tiny / profile.ENVIRONMENT, tmp_path)
    (tmp_path / profile.ROWS).write_text("\n".join(lines[:-3]) + "\n" + lines[-3][:40])
    done = []
    profile.record(
        jobs_of("tiny"), tmp_path, profile.environment("tiny", 0), 1, lambda count, total, job: done.append(job.key)
    )
    assert len(done) == 3
    assert (tmp_path / profile.ROWS).read_text() == whole


def test_another_environment_or_a_damaged_file_is_refused(tiny, tmp_path):
    shutil.copytree(tiny, tmp_path / "copy")
    with pytest.raises(UserError, match="another seed"):
        profile.record(jobs_of("tiny", 1), tmp_path / "copy", profile.environment("tiny", 1))
    rows = tmp_path / "copy" / profile.ROWS
    rows.write_text("damage\n" + rows.read_text())
    with pytest.raises(UserError, match="line 1"):
        profile.load(tmp_path / "copy")
    with pytest.raises(UserError, match=r"holds no environment\.json"):
        profile.load(tmp_path)
    with pytest.raises(UserError, match="'huge' is not known"):
        jobs_of("huge")
    with pytest.raises(UserError, match="workers = 0"):
        profile.record([], tmp_path / "new", {}, workers=0)


def test_findings_are_read_back_and_depend_on_the_rows(tiny):
    loaded = profile.load(tiny)
    found = findings.all_findings(loaded)
    assert read_findings(tiny) == found
    by_id = {f.id: f for f in found}
    assert len(by_id) == len(found)
    assert by_id["dimension"].holds
    assert by_id["theorem-is-generic"].holds
    assert by_id["circulant-gradient"].holds
    loaded.rows["dimension"][-1]["exact"] -= 1
    assert findings.all_findings(loaded)[0].holds is False
    empty = findings.all_findings(replace(loaded, rows={}))
    assert all(f.holds is None for f in empty)


def test_report_is_made_from_the_profile_alone(tiny, tmp_path):
    loaded = profile.load(tiny)
    first = page.write_report(loaded, tmp_path / "a")
    assert {p.suffix for p in first} == {".md", ".png", ".svg"}
    text = first[0].read_text()
    for name in ("error-parameters-n4", "reach", "training", "gradient"):
        assert f"expressivity/{name}.png" in text
    assert page.render(loaded) == text
    for again in figures.gradient_figure(loaded, tmp_path):
        assert again.read_bytes() == (tmp_path / "a" / "expressivity" / again.name).read_bytes()


def test_a_report_needs_a_folder(tiny, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file cannot be made"):
        page.write_report(profile.load(tiny), tmp_path / "file")


def test_real_changes_are_measured(tmp_path):
    g = np.random.default_rng(0)
    path = tmp_path / "changes.npz"
    np.savez(path, query=np.outer(g.normal(size=6), g.normal(size=4)), wide=g.normal(size=(4, 8)))
    jobs = change_jobs(path, 0)
    recorded = profile.record(jobs, tmp_path / "out", profile.environment("tiny", 0))
    rows = recorded.of("change", array="query", family="cdvft", options={"m": 2, "block_size": 4})
    assert rows[0]["errors"][0] < 1e-6  # of rank one
    assert {row["family"] for row in recorded.of("change", array="wide")} >= {"cdvft", "lora", "vera"}
    assert str(tmp_path) not in (tmp_path / "out" / profile.ROWS).read_text()
    assert "query" in page.changes_section(recorded)


def test_costs_are_those_of_the_suite():
    assert cost_of("cdvft", {"m": 2, "block_size": 16}, 16, 16)[0] == 48
    assert cost_of("lora", {"rank": 2}, 16, 16)[0] == 64
    assert cost_of("vera", {"rank": 5}, 8, 16)[0] == 21
    assert cost_of("lora", {"rank": 2}, 16, 16)[1] < cost_of("lora", {"rank": 4}, 16, 16)[1]
    with pytest.raises(UserError, match="'nova'"):
        cost_of("nova", {}, 4, 4)


def test_intervals_and_budgets():
    assert mean_interval([2.0]).bounds is None
    assert mean_interval([1.0, 3.0]) == Interval(2.0)
    three = mean_interval([1.0, 2.0, 3.0])
    assert three.value == 2
    assert three.high == pytest.approx(2 + 4.3027 / 3**0.5, rel=1e-5)
    assert (plus_minus([1.0, 3.0]), plus_minus([1.0, 2.0, 3.0])) == ("2.000", "2.000 ± 2.484")
    rows = [{"parameters": 10, "errors": [0.5]}, {"parameters": 20, "errors": [0.1]}]
    assert best_within(rows, "parameters", 19) is rows[0]
    assert best_within(rows, "parameters", 20) is rows[1]
    assert best_within(rows, "parameters", 5) is None


def test_rounding_errors_pick_no_row():
    """Of rows that reach a target, or come as near but for the last bits, the cheapest is the best."""
    reached = [{"parameters": 30, "errors": [2e-16]}, {"parameters": 20, "errors": [4e-13]}]
    assert best_within(reached, "parameters", 99) is reached[1]
    one, two, three = [0.1, 0.2, 0.6], [0.3, 0.3, 0.3], [0.3, 0.3, 0.3 * (1 - 1e-9)]
    assert rank_error(one) == rank_error(two) > rank_error(three)
    alike = [{"parameters": 30, "errors": one}, {"parameters": 20, "errors": two}]
    for rows in (alike, alike[::-1]):
        assert best_within(rows, "parameters", 99)["parameters"] == 20
    nearer = {"parameters": 40, "errors": three}
    assert best_within([*alike, nearer], "parameters", 99) is nearer


def test_command_line_names_the_mistake(tmp_path):
    answer = CliRunner().invoke(main, ["expressivity", "report", str(tmp_path), "--output", str(tmp_path / "out")])
    assert answer.exit_code == 2
    assert "holds no environment.json" in answer.output
    assert "Traceback" not in answer.output
    assert not (tmp_path / "out").exists()


def test_committed_findings_and_page_follow_from_committed_rows():
    committed = profile.load(COMMITTED)
    for shown, now in zip(read_findings(COMMITTED), findings.all_findings(committed), strict=True):
        assert shown.evidence == pytest.approx(now.evidence, rel=1e-9, abs=1e-12)
        assert replace(shown, evidence={}) == replace(now, evidence={})
    same_text((DOCS / "expressivity.md").read_text(), page.render(committed))
    assert all(f.holds is not False for f in findings.all_findings(committed))
    lines = [json.loads(line) for line in (COMMITTED / profile.ROWS).read_text().splitlines()]
    assert {line["job"] for line in lines if line["kind"] != "change"} == {job.key for job in jobs_of("small")}


@pytest.mark.parametrize("text", ["{}", '{"records": []}', '{"preset": "small", "seed": 0, "torch": "2.13"}'])
def test_another_program_s_environment_is_refused(tiny: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / profile.ENVIRONMENT).write_text(text)
    shutil.copy(tiny / profile.ROWS, tmp_path)
    with pytest.raises(UserError, match=r"names no .*dtype; restore the file"):
        profile.load(tmp_path)
