"""The file of results: a record log (``core.log``), so that a kill loses the runs in flight alone."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import msgspec

from cdvft_bench.accuracy.rates import DIVERGED, inner
from cdvft_bench.accuracy.training.images import LICENCES as PICTURES
from cdvft_bench.accuracy.training.trial import BASE, Trial, TrialResult, with_start
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.interval import LEAST_SEEDS
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


def workload_of(result: TrialResult, examples: int | None = None) -> str:
    """What a run trains on, in words; ``examples`` stands for the run's own number of them."""
    t = result.trial
    said = f"{t.examples if examples is None else examples:,} examples x {t.epochs}, batch {t.batch}"
    said += "" if t.task in PICTURES else f", at most {t.length} tokens"
    for value, usual in ((t.precision, "float32"), (t.optimizer, "adamw")):
        said += "" if value == usual else f", {value}"
    return f"{t.model} on {t.task} ({said})"


def workloads(results: Iterable[TrialResult]) -> dict[str, list[TrialResult]]:
    """Runs that may be compared, by their workload in words, in the order given.

    Test runs are of one workload where all but method, rate and seed is alike, the number of scored examples too. A
    tuning run may train on fewer examples than the final runs that it chooses for: it belongs to the test runs of the
    least number of examples that is no less than its own; without such runs, tuning runs are a workload of their own.
    """
    given = list(results)
    scored: dict[tuple[str, int], set[int]] = {}
    for result in given:
        if result.trial.evaluate == "test":
            scored.setdefault((workload_of(result, 0), result.trial.examples), set()).add(result.trial.scored)
    found: dict[str, list[TrialResult]] = {}
    for result in given:
        trial, alike = result.trial, workload_of(result, 0)
        larger = [n for what, n in scored if what == alike and n >= trial.examples]
        examples = min(larger, default=trial.examples)
        counts = sorted(scored.get((alike, examples), ()))
        name = workload_of(result, examples)
        for count in [trial.scored] if trial.evaluate == "test" else counts or [0]:
            full = f"{name[:-1]}, {count:,} scored)" if len(counts) > 1 else name
            found.setdefault(full, []).append(result)
    return found


def contender_of(result: TrialResult) -> str:
    """The method that a run tunes or tests, by the label that it has before its scale is tuned, and its start."""
    return with_start(result.contender or result.label, result.trial)


def best_run(tried: Sequence[TrialResult]) -> TrialResult:
    """The first run of the setting that is chosen: the most accurate, by the mean of its runs.

    Of several numbers of runs, settings with most are chosen from. Of equals the one whose rate has most others tried
    on both its sides, then the smaller rate, then the earlier run.
    """
    return _best_runs(tried)[0]


def validated(tried: Sequence[TrialResult]) -> float | None:
    """What a method's chosen setting reached on the validation split; None where it was not tuned, or diverged."""
    deciding = deciding_runs(tried)
    if not deciding:
        return None
    chosen = _mean_reached(_best_runs(deciding))
    return None if chosen < 0 else chosen


def deciding_runs(tried: Sequence[TrialResult]) -> list[TrialResult]:
    """Those of a method's tuning runs that choose its setting: of several lengths, the longest."""
    most = max((r.trial.examples for r in tried), default=0)
    return [r for r in tried if r.trial.examples == most]


def reached(run: TrialResult) -> float:
    """What a run counts for in tuning: its accuracy, less than any where it diverged or failed."""
    return DIVERGED if run.accuracy is None else run.accuracy


def _mean_reached(runs: Sequence[TrialResult]) -> float:
    """Rounded, since equal means of counts may differ in the last bit."""
    return round(fmean(map(reached, runs)), 9)


def _best_runs(tried: Sequence[TrialResult]) -> list[TrialResult]:
    """Those of the setting that is chosen, see ``best_run``."""
    rates = sorted({r.trial.lr for r in tried})
    runs: dict[tuple[object, ...], list[TrialResult]] = {}
    for run in tried:
        runs.setdefault(_setting(run.trial), []).append(run)
    most = max(map(len, runs.values()))

    def worth(some: Sequence[TrialResult]) -> tuple[float, int, float]:
        lr = some[0].trial.lr
        return _mean_reached(some), inner(rates.index(lr), len(rates)), -lr

    return max((some for some in runs.values() if len(some) == most), key=worth)


def _setting(trial: Trial) -> tuple[object, ...]:
    return trial.lr, trial.head_lr, trial.hyperparameters


def final_runs(results: Iterable[TrialResult]) -> dict[str, list[TrialResult]]:
    """Runs on the test split by method, in order of seed.

    Where a method was tuned, only runs at its best setting count: a file that was gone on with after more were tried
    may hold others. Fewer than ``LEAST_SEEDS`` runs show no spread; where another method has that many, a method with
    fewer is not finished, and is left out (``unfinished``).
    """
    given = list(results)
    chosen = {label: _setting(best_run(deciding_runs(tried)).trial) for label, tried in tuning_runs(given).items()}
    found: dict[str, list[TrialResult]] = {}
    for result in sorted(given, key=lambda r: r.trial.seed):
        label = contender_of(result)
        if result.trial.evaluate == "test" and chosen.get(label, _setting(result.trial)) == _setting(result.trial):
            found.setdefault(label, []).append(result)
    # The untrained model's one run stands for every seed: it neither lacks any nor makes others lack them.
    counts = {label: len(runs) for label, runs in found.items() if runs[0].trial.method != BASE}
    if max(counts.values(), default=0) < LEAST_SEEDS:
        return found
    return {label: runs for label, runs in found.items() if counts.get(label, LEAST_SEEDS) >= LEAST_SEEDS}


def unfinished(results: Iterable[TrialResult]) -> list[str]:
    """Methods of a workload without test runs that count, where others have them; in the order of their first run."""
    given = list(results)
    final = final_runs(given)
    return list(dict.fromkeys(label for run in given if (label := contender_of(run)) not in final)) if final else []


def tuning_runs(results: Iterable[TrialResult]) -> dict[str, list[TrialResult]]:
    """Runs on the validation split by method, in order of learning rate, those at the method's own scale first."""
    found: dict[str, list[TrialResult]] = {}
    for result in sorted(results, key=lambda r: (r.trial.lr, r.label != (r.contender or r.label), r.label)):
        if result.trial.evaluate == "validation":
            found.setdefault(contender_of(result), []).append(result)
    return found
