"""What is analysed: records, fine-tuning runs, verdicts, findings and predictions, read from files alone.

A folder stands for all files in it that have the names below, at any depth; what lies in a folder whose name begins
with a dot is left out. Nothing here judges, fits or times.

=====================  =============================================================
``records.jsonl.gz``   a store in the text form (``*.jsonl.gz``), or ``*.sqlite``
``results.jsonl``      fine-tuning runs, of ``cdvft-bench train``
``steps.json``         training steps side by side, of ``cdvft-bench steps``
``rehearsal.json``     what a campaign would take, of ``cdvft-bench rehearse``
``verdicts.json``      of ``cdvft-bench verify --output``
``evaluation.json``    predictions against records, of ``cdvft-bench evaluate --output``
``findings.jsonl``     of ``cdvft-bench expressivity run``
``*.json``             results of PEFT's ``method_comparison``, a folder's together
``*.csv``, ``*.tsv``   runs that were made elsewhere; only where named themselves
``kernels.jsonl``      compiled GPU kernels, of ``cdvft-bench dev kernels``
=====================  =============================================================
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cdvft_bench.accuracy.published.peft_results import is_result
from cdvft_bench.accuracy.published.reading import TABLES, Published, read_published
from cdvft_bench.accuracy.rehearsal import NAME as REHEARSAL
from cdvft_bench.accuracy.rehearsal import Rehearsal, read_rehearsal
from cdvft_bench.accuracy.results import read_results
from cdvft_bench.accuracy.training.trial import TrialResult
from cdvft_bench.analysis.accuracy.plans import Plan, plans
from cdvft_bench.analysis.accuracy.ranking import Ranking, ranking
from cdvft_bench.analysis.accuracy.study import Study, studies
from cdvft_bench.analysis.frame import records_frame
from cdvft_bench.analysis.kernels import KERNELS, read_kernels
from cdvft_bench.analysis.overview import Overview, overview
from cdvft_bench.claims.ledger.read import OWN, read_ledger
from cdvft_bench.claims.sources.trained import is_results
from cdvft_bench.claims.verdict import Verification, read_verdicts
from cdvft_bench.core.environment import one_state
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.files import is_file, is_folder, shown
from cdvft_bench.core.record import Record
from cdvft_bench.core.text import clean
from cdvft_bench.documents import read_document
from cdvft_bench.expressivity.findings.finding import FINDINGS, Finding, read_findings
from cdvft_bench.predictor.results import Evaluation, PublishedComparison
from cdvft_bench.sweep.step_times import StepTimes, read_steps
from cdvft_bench.sweep.storage.store import Store

if TYPE_CHECKING:
    from pandas import DataFrame

RESULTS, STEPS, VERDICTS, EVALUATION = "results.jsonl", "steps.json", "verdicts.json", "evaluation.json"
STORES = (".sqlite", ".jsonl.gz")
MOST_FILES = 20_000
"""In a folder and below; a larger one is a disk or a home, named by mistake, and would be searched for minutes."""


@dataclass(frozen=True)
class Origin:
    """A file that was read: its name, what it holds and how many rows of it."""

    name: str
    holds: str
    rows: int


@dataclass(frozen=True)
class Campaign:
    """All that was read.

    Attributes:
        records: the newest of every case on every machine, in a stable order. replaced: older ones left out.
        environments: fields (a mapping or a dataclass) by key.
        stores: the name of each record's store, by ``id`` of the record.
        runs: fine-tuning runs by the name of their file. steps, rehearsals: of one preset each.
        verification: verdicts, None where none were given. findings: on expressivity.
        comparisons: runs that were made elsewhere, a table or a folder each.
        evaluation, published: of predictions; None and empty where none were given.
        kernels: compiled for GPUs, see ``analysis.kernels``.
        origins: what came from where.
    """

    records: Sequence[Record] = ()
    replaced: int = 0
    environments: Mapping[str, object] = field(default_factory=dict)
    stores: Mapping[int, str] = field(default_factory=dict)
    runs: Mapping[str, Sequence[TrialResult]] = field(default_factory=dict)
    steps: Sequence[StepTimes] = ()
    rehearsals: Sequence[Rehearsal] = ()
    verification: Verification | None = None
    findings: Sequence[Finding] = ()
    comparisons: Sequence[Published] = ()
    evaluation: Evaluation | None = None
    published: tuple[PublishedComparison, ...] = ()
    kernels: Sequence[Mapping[str, Any]] = ()
    origins: tuple[Origin, ...] = ()

    @property
    def of_suite(self) -> bool:
        """Whether the verdicts, if any, are on the suite's own ledger, which is about CDVFT and BCA."""
        return self.verification is None or self.verification.ledger == OWN

    @cached_property
    def frame(self) -> DataFrame:
        """The records as a data frame, see ``frame.records_frame``."""
        return records_frame(self.records, self.environments, self.stores)

    @cached_property
    def overview(self) -> Overview | None:
        """The first answer, see ``overview.overview``; None where nothing is timed beside a baseline."""
        found = overview(self.frame) if self.records else None
        return found if found and found.panels else None

    @cached_property
    def studies(self) -> list[Study]:
        """The fine-tuning runs, a study a file and workload."""
        return studies(self.runs, self.steps, environments=self.environments)

    @cached_property
    def ranking(self) -> Ranking:
        """Methods over the workloads that can rank them."""
        return ranking(self.studies)

    @cached_property
    def plans(self) -> list[Plan]:
        """The suite's campaigns: how far they are in these files, and what the rest takes."""
        return plans(self.runs, self.rehearsals)


@dataclass(frozen=True)
class _Predictions:
    """The document of ``cdvft-bench evaluate --output``."""

    evaluation: Evaluation | None
    published: tuple[PublishedComparison, ...] = ()


def read(
    *paths: str | Path,
    verdicts: Path | None = None,
    evaluation: Path | None = None,
    expressivity: Path | None = None,
    steps: Path | None = None,
    claims: bool = True,
    ledger: str | None = None,
    columns: Mapping[str, str] | None = None,
) -> Campaign:
    """Read files and folders, see the module's table.

    Args:
        paths: stores, results, or folders of them.
        verdicts, evaluation, steps: files to read instead of those found in ``paths``.
        expressivity: likewise the folder of findings.
        claims: whether verdicts and findings are read at all.
        ledger: whose claims alone are told, a file or a name as of ``read_ledger``; None for all.
        columns: of tables of runs, see ``read_published``.

    Raises:
        UserError: a file cannot be read, is of no kind that is known, or stands for several that there can be one of.
    """
    found = list(dict.fromkeys(file for path in paths for file in _files(Path(path))))
    compared, found = _comparisons(found, columns)
    stores = [path for path in found if path.name.endswith(STORES)]
    results = [path for path in found if path.name.endswith(".jsonl") and path.name not in (FINDINGS, KERNELS)]
    timed = [steps] if steps else [path for path in found if path.name == STEPS]
    judged = verdicts or _only(found, VERDICTS, "--verdicts")
    predicted = evaluation or _only(found, EVALUATION, "--evaluation")
    studied = expressivity or next((path.parent for path in found if path.name == FINDINGS), None)
    records: list[Record] = []
    environments: dict[str, object] = {}
    names: dict[int, str] = {}
    origins = []
    for path in [*stores, *(path for path in results if not is_results(path))]:
        with Store(path) as store:
            rows = list(store.records())
            environments |= store.environments()
        name = short_name(path, found)
        names |= {id(row): name for row in rows}
        records += rows
        origins.append(Origin(name, "records", len(rows)))
    runs: dict[str, Sequence[TrialResult]] = {}
    for path in filter(is_results, results):
        runs[short_name(path, found)], more = read_results(path)
        environments |= more
        origins.append(Origin(short_name(path, found), "fine-tuning runs", len(runs[short_name(path, found)])))
    verification = read_verdicts(judged) if judged and claims else None
    if ledger is not None:
        verification = _of_ledger(verification, ledger)
    findings = read_findings(studied) if studied and claims else []
    told = _Predictions(None)
    if predicted:
        told = read_document(predicted, _Predictions, "predictions", "cdvft-bench evaluate --output")
    predictions = told.evaluation
    compiled = _only(found, KERNELS, "its folder")
    kernels = read_kernels(compiled) if compiled else []
    for file, holds, n in (
        (judged, "verdicts", len(verification.verdicts) if verification else 0),
        (studied, "findings on expressivity", len(findings)),
        (predicted, "predictions", len(predictions.predictions) if predictions else 0),
        (compiled, "kernels compiled for GPUs", len(kernels)),
    ):
        if file and n:
            origins.append(Origin(short_name(file, found), holds, n))
    origins += [Origin(one.name, "runs made elsewhere", len(one.runs)) for one in compared]
    states = one_state(environments)
    moved = [replace(row, environment=states.get(row.environment, row.environment)) for row in records]
    kept, replaced = latest(moved)
    return Campaign(
        records=kept,
        replaced=replaced,
        environments=environments,
        stores={id(row): names[id(old)] for row, old in zip(moved, records, strict=True)},
        runs=runs,
        steps=[read_steps(path) for path in timed],
        rehearsals=[read_rehearsal(path) for path in found if path.name == REHEARSAL],
        verification=verification,
        findings=findings,
        comparisons=compared,
        evaluation=predictions,
        published=told.published,
        kernels=kernels,
        origins=tuple(origins),
    )


def _of_ledger(verification: Verification | None, name: str) -> Verification:
    """The verdicts on a ledger's claims.

    Raises:
        UserError: one of them was not judged.
    """
    book = read_ledger(name)
    known = {verdict.claim.id: verdict for verdict in verification.verdicts} if verification else {}
    missing = [claim.id for claim in book.claims if claim.id not in known]
    if missing:
        raise UserError(
            f"claim {missing[0]!r} of {book.path} has no verdict in what was given; run "
            f"'cdvft-bench verify --ledger {name} --records STORE --output verdicts.json' and give that by --verdicts"
        )
    assert verification is not None
    verdicts = tuple(known[claim.id] for claim in book.claims)
    return replace(verification, title=book.title, ledger=book.path, verdicts=verdicts)


def latest(records: Iterable[Record]) -> tuple[list[Record], int]:
    """The newest record of every case on every machine, in a stable order, and how many older ones it replaces.

    A finished record is better than a failed one, whenever it was made.
    """
    newest: dict[tuple[str, str], Record] = {}
    seen = 0
    for record in records:
        seen += 1
        key = (record.case.key, record.environment)
        if key not in newest or _age(record) >= _age(newest[key]):
            newest[key] = record
    kept = sorted(newest.values(), key=_order)
    return kept, seen - len(kept)


def _age(record: Record) -> tuple[bool, int, float]:
    return record.status == "ok", record.order, record.seconds


def _order(record: Record) -> tuple[object, ...]:
    case = record.case
    values = tuple((name, type(value).__name__, value) for name, value in case.hyperparameters)
    where = (case.kind != "model", case.subject, case.device, case.dtype, case.pass_ != "step", case.tokens, case.batch)
    return (*where, case.method != "frozen", case.method, values, case.seed, record.environment, case.key)


def short_name(path: Path, among: Sequence[Path]) -> str:
    """A file's name; with its folder's where several of those given have the same name."""
    alike = sum(other.name == path.name for other in among) > 1
    return clean("/".join(path.parts[-2:]) if alike else path.name)


def _files(path: Path) -> list[Path]:
    if is_folder(path):
        known = (RESULTS, STEPS, REHEARSAL, VERDICTS, EVALUATION, FINDINGS, KERNELS)
        inside, seen = [], 0
        for root, folders, names in os.walk(path):  # what may not be entered is passed over
            seen += len(names)
            if seen > MOST_FILES:
                raise UserError(f"{shown(path)} holds more than {MOST_FILES:,} files; name the folder of the results")
            folders[:] = [name for name in folders if not name.startswith(".")]
            named = [name for name in names if name in known or name.endswith((*STORES, ".json"))]
            inside += [Path(root, name) for name in named if not name.startswith(".")]
        inside = [path for path in inside if path.suffix != ".json" or path.name in known or is_result(path)]
        return sorted(filter(is_file, inside))
    if is_file(path) and not path.name.endswith((*STORES, *TABLES, ".jsonl", ".json")):
        raise UserError(
            f"{shown(path)} is no store and no results; give .sqlite, .jsonl.gz, .jsonl, .csv, .tsv or a folder"
        )
    if not is_file(path):
        raise UserError(f"{shown(path)} is not there; give a store, a file of results, or a folder of them")
    return [path]


def _comparisons(files: Sequence[Path], columns: Mapping[str, str] | None) -> tuple[list[Published], list[Path]]:
    """Runs that were made elsewhere, results in one folder together; and the other files.

    Raises:
        UserError: one is not as it should be, or a column map is given and no table.
    """
    known = (STEPS, VERDICTS, EVALUATION)
    tables = [path for path in files if path.name.endswith(TABLES)]
    results = [path for path in files if path.suffix == ".json" and path.name not in known and is_result(path)]
    if columns and not tables:
        raise UserError("a column map goes with a table of runs, .csv or .tsv, and none is given")
    alone = [path for path in results if len([one for one in results if one.parent == path.parent]) == 1]
    folders = dict.fromkeys(path.parent for path in results if path not in alone)
    found = [read_published(path, columns) for path in tables]
    found += [read_published(path) for path in (*folders, *alone)]
    return found, [path for path in files if path not in {*tables, *results}]


def _only(found: Sequence[Path], name: str, option: str) -> Path | None:
    files = [path for path in found if path.name == name]
    if len(files) > 1:
        raise UserError(f"{', '.join(shown(path) for path in files)}: a report shows one {name}; name it by {option}")
    return files[0] if files else None
