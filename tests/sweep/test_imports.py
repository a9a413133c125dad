"""Rows of several machines in one store, whatever they come as, and the commands for it."""

from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cdvft_bench.cli import main
from cdvft_bench.core.record import Record
from cdvft_bench.sweep.storage.store import Store
from cdvft_bench.sweep.storage.tables import write_table

PROFILE = Path(__file__).parents[2] / "profiles" / "cpu-quick" / "records.jsonl.gz"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def machines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The same three cases as two machines timed them: one as a store and as text, the other as a table."""
    folder = tmp_path_factory.mktemp("machines")
    with Store(PROFILE) as profile:
        records = [r for _, r in zip(range(3), profile.records(), strict=False)]
        environment = profile.environments()[records[0].environment]
    here, there = folder / "here.sqlite", folder / "there.sqlite"
    elsewhere = replace(environment, cpu="another machine")
    for path, where in ((here, environment), (there, elsewhere)):
        with Store(path, create=True) as store:
            key = store.put_environment(where)
            store.put_all(replace(r, environment=key, label=f"{path.stem} {r.label}") for r in records)
            if path == there:
                write_table(store, folder / "there.csv")
            store.export_text(path.with_suffix(".jsonl.gz"))
    return {"store": here, "text": here.with_suffix(".jsonl.gz"), "table": folder / "there.csv", "other": there}


def held(path: Path) -> tuple[list[Record], set[str]]:
    with Store(path) as store:
        assert store.intact()
        environments = store.environments()
        records = list(store.records())
    return records, {environments[r.environment].cpu for r in records}


@pytest.mark.parametrize("kinds", [("store", "table"), ("text", "other"), ("table", "store", "text")])
def test_each_machine_s_rows_stand_side_by_side(
    machines: dict[str, Path], kinds: tuple[str, ...], tmp_path: Path
) -> None:
    store = tmp_path / "all.sqlite"
    result = run("import", *(machines[k] for k in kinds), "--store", store)
    assert result.exit_code == 0, result.output
    records, cpus = held(store)
    assert len(records) == 6
    assert len({r.case.key for r in records}) == 3
    assert len(cpus) == 2
    again = run("import", *(machines[k] for k in kinds), "--store", store)
    assert "0 records" in again.output
    assert held(store) == (records, cpus)


def test_what_cannot_be_read_leaves_the_store_alone(machines: dict[str, Path], tmp_path: Path) -> None:
    store, damaged = tmp_path / "all.sqlite", tmp_path / "damaged.sqlite"
    damaged.write_text("no store")
    result = run("import", machines["store"], damaged, "--store", store)
    assert result.exit_code == 2
    assert len(result.output.splitlines()) == 1
    assert not store.exists()


def test_a_store_of_the_first_schema_is_taken_on(machines: dict[str, Path], tmp_path: Path) -> None:
    import sqlite3

    old = tmp_path / "old.sqlite"
    with Store(machines["store"]) as store:
        records, environments = list(store.records()), store.environments()
    with Store(old, create=True) as store:
        store.take(environments, records)
    db = sqlite3.connect(old)
    (table,) = db.execute("SELECT sql FROM sqlite_master WHERE name = 'records'").fetchone()
    columns = table.replace("key TEXT NOT NULL,", "key TEXT PRIMARY KEY,", 1)
    columns = columns.replace(",\n    PRIMARY KEY (key, environment)", "")
    db.executescript(
        f"ALTER TABLE records RENAME TO x; {columns}; INSERT INTO records SELECT * FROM x; DROP TABLE x;"
        "UPDATE meta SET schema = 1;"
    )
    db.close()
    with Store(old) as store:
        assert list(store.records()) == records
        assert store.merge(Store(machines["other"])) == 3
        assert len(list(store.records())) == 6
