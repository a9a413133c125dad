"""The file of results: a record log (``core.log``), so that a kill loses the runs in flight alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from cdvft_bench.accuracy.rates import DIVERGED, inner
from cdvft_bench.accuracy.training.trial import Trial, TrialResult, with_start
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.log import damaged, read_log


def read_results(path: Path) -> tuple[list[TrialResult], dict[str, dict[str, Any]]]:
    """Results and environments of a file; a last line that was torn by a kill is left out.

    Raises:
        UserError: the file cannot be read, or a line is damaged.
    """
    results: dict[str, TrialResult] = {}
    environments: dict[str, dict[str, Any]] = {}
    for number, row in read_log(path):
        try:
            if "environment_row" in row:
                environments[row["key"]] = row["environment_row"]
            else:
                result = msgspec.convert(row, TrialResult)
                results[result.trial.key] = result
        except (msgspec.ValidationError, KeyError, TypeError) as error:
            raise UserError(damaged(path, number, error)) from error
    return list(results.values()), environments


def row_of(result: TrialResult) -> dict[str, Any]:
    """A result as the file holds it: a figure that is not finite is null."""
    row: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(result))
    return row


def by_workload(results: Iterable[TrialResult]) -> dict[str, list[TrialResult]]:
    """Runs by model and task, which a file of a group of presets mixes; only those of one workload compare."""
    found: dict[str, list[TrialResult]] = {}
    for result in results:
        found.setdefault(f"{result.trial.model} on {result.trial.task}", []).append(result)
    return found


def contender_of(result: TrialResult) -> str:
    """The method that a run tunes or tests, by the label that it has before its scale is tuned, and its start."""
    return with_start(result.contender or result.label, result.trial)


def best_run(tried: Sequence[TrialResult]) -> TrialResult:
    """The run whose setting is chosen: the most accurate.

    Of equals the one whose rate has most others tried on both its sides, then the smaller rate, then the earlier run.
    """
    rates = sorted({r.trial.lr for r in tried})
    return max(tried, key=lambda r: (reached(r), inner(rates.index(r.trial.lr), len(rates)), -r.trial.lr))


def reached(run: TrialResult) -> float:
    """What a run counts for in tuning: its accuracy, less than any where it diverged or failed."""
    return DIVERGED if run.accuracy is None else run.accuracy


def _setting(trial: Trial) -> tuple[object, ...]:
    return trial.lr, trial.head_lr, trial.hyperparameters


def final_runs(results: Iterable[TrialResult]) -> dict[str, list[TrialResult]]:
    """Runs on the test split by method, in order of seed.

    Where a method was tuned, only runs at its best setting count: a file that was gone on with after more were tried
    may hold others.
    """
    given = list(results)
    chosen = {label: _setting(best_run(tried).trial) for label, tried in tuning_runs(given).items()}
    found: dict[str, list[TrialResult]] = {}
    for result in sorted(given, key=lambda r: r.trial.seed):
        label = contender_of(result)
        if result.trial.evaluate == "test" and chosen.get(label, _setting(result.trial)) == _setting(result.trial):
            found.setdefault(label, []).append(result)
    return found


def tuning_runs(results: Iterable[TrialResult]) -> dict[str, list[TrialResult]]:
    """Runs on the validation split by method, in order of learning rate, those at the method's own scale first."""
    found: dict[str, list[TrialResult]] = {}
    for result in sorted(results, key=lambda r: (r.trial.lr, r.label != (r.contender or r.label), r.label)):
        if result.trial.evaluate == "validation":
            found.setdefault(contender_of(result), []).append(result)
    return found
