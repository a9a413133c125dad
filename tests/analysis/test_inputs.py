"""What is read: files by name, folders as a whole, the newest of every case; what is no such file is refused."""

import json
import os
import random
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cdvft_bench.analysis import inputs
from cdvft_bench.analysis.inputs import latest, read
from cdvft_bench.claims import verify
from cdvft_bench.claims.verdict import write_verdicts
from cdvft_bench.core.errors import UserError
from cdvft_bench.sweep.storage.store import Store
from cdvft_bench.timing.machine.environment import read_environment
from tests.claims.test_verdict_file import LEDGER
from tests.made_records import failed, make_records

PROFILES = Path(__file__).parents[2] / "profiles"
STORE = PROFILES / "cpu-quick" / "records.jsonl.gz"


def stored(path: Path, seed: int = 0) -> Path:
    with Store(path, create=True) as store:
        key = store.put_environment(read_environment())
        for record in make_records("64x64", 64, seed=seed):
            store.put(replace(record, environment=key))
    return path


def test_a_folder_is_all_that_it_holds(tmp_path: Path) -> None:
    stored(tmp_path / "a" / "records.sqlite")
    with Store(tmp_path / "a" / "records.sqlite") as store:
        store.export_text(tmp_path / "b" / "records.jsonl.gz")
    stored(tmp_path / ".hidden" / "records.sqlite", seed=3)
    (tmp_path / "b" / "notes.json").write_text("not ours")
    found = read(tmp_path)
    assert [origin.name for origin in found.origins] == ["records.sqlite", "records.jsonl.gz"]
    assert len(found.records) == found.replaced == len(make_records())
    assert set(found.frame["store"]) <= {"records.sqlite", "records.jsonl.gz"}


def test_what_was_timed_again_by_another_revision_counts_in_place_of_what_was(tmp_path: Path) -> None:
    """A change of the suite alone: the same machine, day and versions. Another version of torch is another campaign."""
    now = read_environment()
    for name, environment in (
        ("a", replace(now, revision="before")),
        ("b", replace(now, revision="after")),
        ("c", replace(now, torch="1.0")),
    ):
        with Store(tmp_path / name / "records.sqlite", create=True) as store:
            key = store.put_environment(environment)
            for record in make_records("64x64", 64):
                store.put(replace(record, environment=key, label=f"{record.label} {name}"))
    found = read(tmp_path)
    n = len(make_records("64x64", 64))
    assert (len(found.records), found.replaced) == (2 * n, n)
    assert sorted({record.label[-1] for record in found.records}) == ["b", "c"]
    assert set(found.frame["store"]) == {"b/records.sqlite", "c/records.sqlite"}


def test_runs_are_named_by_their_folders_where_files_are_alike() -> None:
    names = list(read(PROFILES / "accuracy-clothes-vit", PROFILES / "accuracy-cpu-starts").runs)
    assert names == ["accuracy-clothes-vit/results.jsonl", "accuracy-cpu-starts/results.jsonl"]
    assert list(read(PROFILES / "accuracy-cpu-starts").runs) == ["results.jsonl"]


def test_claims_can_be_left_out() -> None:
    assert read(PROFILES / "expressivity-cpu").findings
    assert not read(PROFILES / "expressivity-cpu", claims=False).findings


def test_latest_keeps_the_newest_of_a_case_on_a_machine() -> None:
    records = make_records()
    older = [replace(r, created="2025-12-31T00:00:00Z", label="old") for r in records]
    elsewhere = [replace(r, environment="elsewhere") for r in records[:3]]
    broken = [failed(replace(r, created="2027-01-01T00:00:00Z"), "killed") for r in records[:2]]
    mixed = [*older, *records, *elsewhere, *broken]
    random.Random(3).shuffle(mixed)
    kept, replaced = latest(mixed)
    assert replaced == len(older) + len(broken)
    assert len(kept) == len(records) + 3
    assert all(r.label != "old" and r.status == "ok" for r in kept)
    random.Random(4).shuffle(mixed)
    assert latest(mixed)[0] == kept  # whatever the order of the files


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("missing.sqlite", None, "is not there"),
        ("thesis.pdf", "x", "is no store and no results"),
        ("evaluation.json", "{}", "holds no predictions"),
        ("verdicts.json", json.dumps({"format": "other"}), "holds no verdicts"),
        ("steps.json", "[]", "holds no steps"),
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path: Path, name: str, content: str | None, said: str) -> None:
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=said):
        read(tmp_path / name)


def test_a_disk_is_no_folder_of_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "MOST_FILES", 3)
    for number in range(4):
        (tmp_path / str(number % 2)).mkdir(exist_ok=True)
        (tmp_path / str(number % 2) / f"{number}.bin").touch()
    with pytest.raises(UserError, match="holds more than 3 files; name the folder of the results"):
        read(tmp_path)


def test_two_files_of_verdicts_have_to_be_chosen_from(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "verdicts.json").write_text("{}")
    with pytest.raises(UserError, match="name it by --verdicts"):
        read(tmp_path)


def test_a_folder_that_may_not_be_entered_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = Path(__file__).parents[2] / "profiles" / "cpu-quick" / "records.jsonl.gz"
    for name in ("open", "closed", ".hidden"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "records.jsonl.gz").write_bytes(profile.read_bytes())
    scan = os.scandir

    def refuse(path: Any) -> Any:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert [origin.rows for origin in read(tmp_path, claims=False).origins] == [149]


def test_a_ledger_of_ones_own_is_told_alone(tmp_path: Path) -> None:
    """Verdicts of two ledgers' claims lie in one file; a report on one ledger tells its own."""
    store = stored(tmp_path / "records.sqlite")
    both, mine, more = (tmp_path / name for name in ("both.toml", "mine.toml", "more.toml"))
    entry = LEDGER[LEDGER.index("[[claim]]") :].split("[[claim]]")[1]
    head = LEDGER[: LEDGER.index("[[claim]]")]
    name = re.search(r'^id = "(.*)"', entry, re.MULTILINE)
    assert name is not None
    other = entry.replace(f'"{name[1]}"', '"other"', 1)
    both.write_text(f"{head}[[claim]]{entry}[[claim]]{other}")
    mine.write_text(f"{head}[[claim]]{other}")
    more.write_text(f"{head}[[claim]]{entry.replace(name[1], 'unheard-of', 1)}")
    write_verdicts(tmp_path / "verdicts.json", verify(both))
    found = read(store, tmp_path / "verdicts.json", ledger=str(mine))
    assert found.verification is not None
    assert [v.claim.id for v in found.verification.verdicts] == ["other"]
    assert not found.of_suite
    assert read(store).of_suite
    for ledger, paths in ((more, (store, tmp_path / "verdicts.json")), (mine, (store,))):
        with pytest.raises(UserError, match=r"has no verdict in what was given; run 'cdvft-bench verify --ledger"):
            read(*paths, ledger=str(ledger))
