"""Two stores side by side: what became slower is found, what did not is left in peace."""

import csv
import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from cdvft_bench.analysis.compare import (
    Comparison,
    compare_records,
    compare_stores,
    comparison_frame,
    ratio_of_medians,
)
from cdvft_bench.analysis.frame import records_frame
from cdvft_bench.cli import main
from cdvft_bench.core.environment import Environment
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.record import Record
from cdvft_bench.core.timed import Samples, Timed
from cdvft_bench.report.terminal.compare import comparison_markdown, show_comparison, write_csv
from cdvft_bench.sweep.storage.store import Store
from cdvft_bench.timing.machine.environment import read_environment
from tests.made_records import failed, make_records


def scaled(record: Record, factor: float, seed: int, noise: float = 0.01) -> Record:
    """The record as another run of it would be, ``factor`` times as slow."""
    assert record.timed is not None
    assert record.timed.timing is not None
    rng = random.Random(f"{seed} {record.case.key}")
    timing = record.timed.timing
    first = timing.samples[0]
    median = first.median
    seconds = tuple(median * factor * rng.lognormvariate(0, noise) for _ in range(25))
    frozen = tuple(median * rng.lognormvariate(0, noise) for _ in range(25))
    samples = tuple(
        Samples(name, s, *(float(q) for q in np.quantile(s, [0.5, 0.25, 0.75])))
        for name, s in ((first.name, seconds), ("frozen", frozen))
    )
    return replace(record, timed=Timed(replace(timing, samples=samples, warnings=()), None, None))


def run(factor: float = 1.0, seed: int = 0, only: str = "") -> list[Record]:
    """A campaign; ``factor`` slows the cases whose label holds ``only``."""
    return [scaled(r, factor if only in r.label else 1.0, seed) for r in make_records()]


def verdicts(comparison: Comparison) -> dict[str, str]:
    return {row.label: row.verdict for row in comparison.rows}


def test_a_slower_store_is_found_with_its_ratio() -> None:
    found = compare_records(run(seed=1), run(1.3, seed=2, only="CDVFT m=3"))
    for row in found.rows:
        assert row.ratio is not None
        assert row.ratio.low is not None
        assert row.ratio.high is not None
        slow = "CDVFT m=3" in row.label
        assert row.verdict == ("slower" if slow else "no difference")
        assert row.ratio.value == pytest.approx(1.3 if slow else 1.0, rel=0.02)
        assert row.ratio.low < row.ratio.value < row.ratio.high
    assert found.exit_code() == 1
    assert found.rows[0].verdict == "slower"  # first in the list
    back = compare_records(run(1.3, seed=2, only="CDVFT m=3"), run(seed=1))
    assert back.exit_code() == 0
    assert back.counts["faster"] == found.counts["slower"] > 0


def test_block_sizes_are_called_as_on_a_report() -> None:
    labels = [[row.label for row in compare_records(run(), run(seed=1)).rows], list(records_frame(run())["label"])]
    assert sorted(labels[0]) == sorted(labels[1])
    assert any(" p=d" in label for label in labels[0])


def test_the_same_again_is_silent() -> None:
    for seed in range(5):
        found = compare_records(run(seed=2 * seed), run(seed=2 * seed + 1))
        assert set(verdicts(found).values()) == {"no difference"}
        assert found.exit_code() == 0
        assert not found.warnings


def test_what_lies_within_the_tolerance_does_not_count() -> None:
    a, b = run(seed=1), run(1.1, seed=2)
    assert compare_records(a, b, tolerance=0.05).exit_code() == 1
    assert compare_records(a, b, tolerance=0.2).exit_code() == 0


def test_the_frozen_basis_cancels_a_slower_machine() -> None:
    a = run(seed=1)
    b = [_on_a_machine(r, 1.5) for r in run(seed=2)]
    assert compare_records(a, b).counts["slower"] == len(a)
    found = compare_records(a, b, basis="frozen")
    assert found.counts["slower"] == 0
    assert {r.note for r in found.rows if r.verdict == "not compared"} == {
        "A: is itself the frozen subject; B: is itself the frozen subject"
    }
    assert compare_records(a, [_on_a_machine(r, 1.5) for r in run(1.3, seed=2)], basis="frozen").exit_code() == 1


def _on_a_machine(record: Record, factor: float) -> Record:
    assert record.timed is not None
    assert record.timed.timing is not None
    timing = record.timed.timing
    samples = tuple(replace(s, seconds=tuple(x * factor for x in s.seconds)) for s in timing.samples)
    return replace(record, timed=replace(record.timed, timing=replace(timing, samples=samples)))


def test_what_only_one_holds_or_failed_is_named() -> None:
    a, b = run(seed=1), run(seed=2)
    b[3] = failed(b[3], "out of memory: limit 1 GiB")
    b[4] = replace(b[4], timed=None)
    few = b[5].timed
    assert few is not None
    assert few.timing is not None
    short = replace(few.timing.samples[0], seconds=few.timing.samples[0].seconds[:2])
    b[5] = replace(b[5], timed=replace(few, timing=replace(few.timing, samples=(short,))))
    found = {row.key: row for row in compare_records(a[1:], b[:-1]).rows}
    assert found[a[0].case.key].verdict == "only in B"
    assert found[b[-1].case.key].verdict == "only in A"
    for i, part in ((3, "out of memory"), (4, "not measured"), (5, "2 rounds make no interval")):
        assert found[a[i].case.key].verdict == "not compared"
        assert part in found[a[i].case.key].note


def test_misuse_is_refused() -> None:
    records = run()
    with pytest.raises(UserError, match="no case in common"):
        compare_records(records[:3], records[3:])
    with pytest.raises(UserError, match=r"tolerance = -0\.1"):
        compare_records(records, records, tolerance=-0.1)
    with pytest.raises(UserError, match="basis 'speed'"):
        compare_records(records, records, basis="speed")  # type: ignore[arg-type]


def put(path: Path, records: list[Record], environment: Environment) -> Path:
    with Store(path, create=True) as store:
        key = store.put_environment(environment)
        for record in records:
            store.put(replace(record, environment=key))
    return path


def test_stores_tell_what_differs_between_their_machines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    here = read_environment()
    there = replace(here, cpu="Another CPU", threads=here.threads + 1, revision="abc", date="2001-01-01")
    a, b = put(tmp_path / "a.sqlite", run(seed=1), here), put(tmp_path / "b.sqlite", run(1.3, seed=2), there)
    found = compare_stores(a, b)
    assert [w.split()[0] for w in found.warnings] == ["cpu", "threads"]
    assert "Another CPU in B" in found.warnings[0]
    assert [n.split()[0] for n in found.notes] == ["revision"]
    assert not compare_stores(a, a).warnings
    show_comparison(found)
    printed = capsys.readouterr().out
    assert "warning: cpu differs" in printed
    assert f"{found.counts['slower']} slower" in printed


def test_the_table_is_complete_and_can_be_read_again(tmp_path: Path) -> None:
    a, b = run(seed=1), run(1.3, seed=2)
    b[2] = replace(b[2], timed=None, label="=1+1")
    found = compare_records(a, b)
    path = tmp_path / "new" / "rows.csv"
    write_csv(found, path)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(found.rows) == len(comparison_frame(found))
    by_key = {row["key"]: row for row in rows}
    for row in found.rows:
        read = by_key[row.key]
        assert read["verdict"] == row.verdict
        assert (float(read["B / A"]) == row.ratio.value) if row.ratio else (read["B / A"] == "not measured")
    assert [r["method"] for r in rows if r["method"].startswith("'=")] == ["'=1+1"]
    assert not list(path.parent.glob("*.part"))
    with pytest.raises(UserError, match="cannot be written"):
        write_csv(found, path / "below" / "a-file.csv")


def test_json_holds_every_row() -> None:
    import msgspec

    found = compare_records(run(seed=1), run(1.3, seed=2))
    read = json.loads(msgspec.json.encode(found))
    assert len(read["rows"]) == len(found.rows)
    assert read["rows"][0]["ratio"]["value"] == found.rows[0].ratio.value  # type: ignore[union-attr]


@settings(max_examples=30, deadline=None)
@given(st.floats(0.2, 5), st.integers(5, 40), st.integers(5, 40), st.integers(0, 2**31))
def test_ratio_of_medians_scales_and_holds_its_value(factor: float, n: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.lognormal(0, 0.1, n), rng.lognormal(0, 0.1, k)
    one, other = ratio_of_medians(list(a), list(b)), ratio_of_medians(list(a), list(b * factor))
    assert one.low is not None
    assert one.high is not None
    assert other.low is not None
    assert one.low <= one.value <= one.high
    assert other.value == pytest.approx(one.value * factor)
    assert other.low == pytest.approx(one.low * factor)


def test_the_interval_covers_the_true_ratio_as_often_as_it_says() -> None:
    rng = np.random.default_rng(7)
    held = 0
    for _ in range(200):
        found = ratio_of_medians(list(rng.lognormal(0, 0.1, 20)), list(1.3 * rng.lognormal(0, 0.1, 20)))
        assert found.low is not None
        assert found.high is not None
        held += found.low <= 1.3 <= found.high
    assert 180 <= held <= 200  # 95 % are due, 190


def test_nothing_compared_is_an_answer_of_its_own(tmp_path: Path) -> None:
    """Two rounds make no interval, so neither "slower" nor "no difference" may be said."""

    def cut(record: Record) -> Record:
        assert record.timed is not None
        assert record.timed.timing is not None
        timing = record.timed.timing
        few = tuple(replace(s, seconds=s.seconds[:2]) for s in timing.samples)
        return replace(record, timed=replace(record.timed, timing=replace(timing, samples=few)))

    records = run(seed=3)
    short = [cut(r) for r in records]
    found = compare_records(records, short)
    assert (found.compared, found.exit_code(), found.exit_code(())) == (0, 2, 2)
    here = read_environment()
    a, b = put(tmp_path / "a.sqlite", records, here), put(tmp_path / "b.sqlite", short, here)
    done = CliRunner().invoke(main, ["compare", str(a), str(b)])
    assert done.exit_code == 2
    assert "nothing could be compared" in done.output


def test_what_fails_is_chosen() -> None:
    records = run(seed=4)
    slower = compare_records(records, run(1.3, seed=5, only="CDVFT m=3"))
    assert (slower.exit_code(), slower.exit_code(["faster"]), slower.exit_code([])) == (1, 0, 0)
    missing = compare_records(records, run(seed=6)[1:])
    assert (missing.exit_code(), missing.exit_code(["only in A"])) == (0, 1)


def test_equal_environments_in_another_order_are_equal(tmp_path: Path) -> None:
    here = replace(read_environment(), gpus=("One", "Two"), packages={"a": "1", "b": "2"})
    other = replace(here, gpus=("Two", "One"), packages={"b": "2", "a": "1"}, date="2001-01-01")
    found = compare_records(
        [replace(r, environment="x") for r in run(seed=1)],
        [replace(r, environment="y") for r in run(seed=2)],
        environments=({"x": here}, {"y": other}),
    )
    assert not found.warnings
    assert not found.notes
    newer = replace(here, packages={"a": "1", "b": "3", "c": "1"})
    told = compare_records(
        [replace(r, environment="x") for r in run(seed=1)],
        [replace(r, environment="y") for r in run(seed=2)],
        environments=({"x": here}, {"y": newer}),
    ).warnings
    assert told == ("packages: b differs: 2 in A, 3 in B", "packages: c differs: none in A, 1 in B")


def test_markdown_names_the_method_of_each_row_and_breaks_on_nothing() -> None:
    records = [replace(r, label=f"{r.label} | <b>") for r in run(seed=1)]
    text = comparison_markdown(compare_records(records, run(1.3, seed=2, only="CDVFT m=3")))
    assert text.startswith("**")
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.replace("\\|", "").count("|") == 8 for line in table)
    assert any("slower | CDVFT m=3" in line for line in table)
    assert "<b>" not in text
