"""Fair comparison: the same tuning budget for every method, then several seeds of the chosen setting on the test split.

First every method tries as many learning rates on the validation split. Then, at its best one, as many scales of the
weight change: the method's own times factors that are drawn once, alike for all; a method without a scale tries its
learning rate times the same factors instead. The best run of all decides, or of those of full length where the preset
asks for such (``tuning``).

Where the grid of rates extends itself (``rates``), a method without a scale tries that many more rates of the grid. A
method whose best rate still lies at the end of the grid after all its trials gets more of them, and then so does every
other. Where the preset asks for a gain, the classifier alone (or the untrained model) and full fine-tuning run first,
and nothing else runs unless they are that far apart (``pilot``).

Methods are run in rounds of seeds: each is tuned and tested with the first seed, then each with the second. Where the
preset names ``deciding`` ones, these have all their rounds before the others begin. The order changes no run: a file
that was begun in another order goes on.

What a preset holds: see ``preset``.
"""

import itertools
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from cdvft_bench.accuracy.pilot import FULL, pilot_of
from cdvft_bench.accuracy.preset import Contender, Preset
from cdvft_bench.accuracy.results import read_results, row_of
from cdvft_bench.accuracy.training.fit import Measure, run_trial, unread
from cdvft_bench.accuracy.training.trial import BASE, HEAD, Trial, TrialResult, with_setting, with_start
from cdvft_bench.accuracy.tuning import Results, Tuning, seeds_of
from cdvft_bench.core.budget import Budget
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.io.files import is_file
from cdvft_bench.core.io.log import Log


def _due(preset: Preset, results: Results) -> Iterator[tuple[Contender, Trial]]:
    if preset.map:
        yield from ((contender, trial) for contender, trial in _mapped(preset) if trial.key not in results)
        return
    tuning, contenders = Tuning(preset, results), preset.contenders
    if preset.gain is not None:
        first = _piloted(preset)
        if all(_complete(tuning, contender) for contender in first):
            _require_gain(tuning)
        else:
            contenders = first
    decisive = preset.deciding or len(contenders)
    yield from _in_rounds(tuning, contenders[:decisive])
    yield from _in_rounds(tuning, contenders[decisive:])


def _in_rounds(tuning: Tuning, contenders: Sequence[Contender]) -> Iterator[tuple[Contender, Trial]]:
    """Tuning and the first seed of every method, then the second seed of every method, and so on.

    A campaign that is cut off can compare all methods that it has tuned, if with fewer seeds.
    """
    results = tuning.results
    rounds: list[tuple[Contender, list[Trial]]] = []
    for contender in contenders:
        yield from ((contender, t) for t in tuning.trials(contender) if t.key not in results)
        runs = tuning.finals(contender)
        yield from ((contender, t) for t in runs[:1] if t.key not in results)
        rounds.append((contender, runs[1:]))
    for later in itertools.zip_longest(*(runs for _, runs in rounds)):
        for (contender, _), trial in zip(rounds, later, strict=True):
            if trial is not None and trial.key not in results:
                yield contender, trial


def _piloted(preset: Preset) -> tuple[Contender, ...]:
    """The methods that a pilot compares, the reference first."""
    named = {contender.trial.method: contender for contender in reversed(preset.contenders)}
    return named.get(HEAD) or named[BASE], named[FULL]


def _complete(tuning: Tuning, contender: Contender) -> bool:
    """Whether a method's setting is chosen and all its final runs have ended."""
    runs = tuning.finals(contender)
    return bool(runs) and all(final.key in tuning.results for final in runs)


def _require_gain(tuning: Tuning) -> None:
    """Raise UserError where the pilot says that the workload cannot rank methods."""
    preset, results = tuning.preset, tuning.results
    assert preset.gain is not None
    runs = [results[t.key] for c in _piloted(preset) for t in _all(tuning, c) if t.key in results]
    pilot = pilot_of(runs)
    if pilot is None or not pilot.passed(preset.gain):
        raise UserError(
            f"preset {preset.name} cannot rank methods: {pilot or 'a run of its pilot failed'}; it asks for "
            f"{100 * preset.gain:g} points or more and disjoint intervals; give more examples, epochs or another task"
        )


def _all(tuning: Tuning, contender: Contender) -> list[Trial]:
    return [*tuning.trials(contender), *tuning.finals(contender)]


def planned(preset: Preset, results: Iterable[TrialResult]) -> list[TrialResult]:
    """The results of runs that a preset plans: a file may hold others, from before the preset was changed."""
    found = {r.trial.key: r for r in results}
    if preset.map:
        keys = [trial.key for _, trial in _mapped(preset)]
    else:
        tuning = Tuning(preset, found)
        keys = [t.key for c in preset.contenders for t in _all(tuning, c)]
    return [found[key] for key in keys if key in found]


def _mapped(preset: Preset) -> Iterator[tuple[Contender, Trial]]:
    for contender in preset.contenders:
        for lr in contender.lrs:
            for seed in preset.seeds:
                yield contender, with_setting(contender.trial, lr, seed, "validation")


def pending(preset: Preset, results: Results) -> Iterator[Trial]:
    """Trials that are still to run and known already, method by method: rates, scales, final runs."""
    return (trial for _, trial in _due(preset, results))


def left(preset: Preset, results: Results) -> int:
    """How many trials are still to run, those included that tuning has yet to decide."""
    if preset.map:
        return sum(1 for _ in _due(preset, results))
    tuning, count = Tuning(preset, results), 0
    for contender in preset.contenders:
        count += tuning.count(contender) + len(seeds_of(preset, contender))
        count -= sum(t.key in results for t in _all(tuning, contender))
    return count


@dataclass(frozen=True)
class Outcome:
    """What ``train_all`` left undone: runs by preset, and presets that cannot run here, with the reason."""

    left: Mapping[str, int]
    refused: Mapping[str, str]

    @property
    def due(self) -> int:
        """Runs that are left of presets that can run here."""
        return sum(n for name, n in self.left.items() if name not in self.refused)


def train_all(
    presets: Sequence[Preset],
    path: Path,
    environment: Mapping[str, Any],
    environment_key: str,
    device: str = "cpu",
    budget_s: float | None = None,
    say: Callable[[int, str], None] = lambda left, text: None,
    workers: int = 1,
    measure: Measure = unread,
) -> Outcome:
    """Run what several presets still lack, one after the other, in one file and within one budget; see ``train``.

    A preset whose package or weights are missing does not keep the next ones from running.

    Raises:
        UserError: the file is damaged, or the only preset cannot run.
    """
    budget = Budget(budget_s)
    refused = {}
    for i, preset in enumerate(presets):
        later = sum(_lacking(path, one) for one in presets[i + 1 :])

        def tell(n: int, text: str, name: str = preset.name, later: int = later) -> None:
            say(n + later, f"{name}: {text}" if len(presets) > 1 else text)

        try:
            train(preset, path, environment, environment_key, device, budget, tell, workers, measure)
        except UserError as error:
            if len(presets) == 1:
                raise
            _lacking(path, preset)  # a damaged file ends it all
            refused[preset.name] = str(error)
    return Outcome({preset.name: _lacking(path, preset) for preset in presets}, refused)


def _lacking(path: Path, preset: Preset) -> int:
    known = read_results(path)[0] if is_file(path) else []
    return left(preset, {r.trial.key: r for r in known})


def train(
    preset: Preset,
    path: Path,
    environment: Mapping[str, Any],
    environment_key: str,
    device: str = "cpu",
    budget: Budget | float | None = None,
    say: Callable[[int, str], None] = lambda left, text: None,
    workers: int = 1,
    measure: Measure = unread,
) -> int:
    """Run what a preset still lacks in a file of results; a run that failed there with an error is tried once more.

    Args:
        preset: what to run. path: the file, made or gone on with. environment, environment_key: its row.
        device: "cpu" or "cuda". budget: of wall time, or its seconds. say: told of every trial: how many are left,
            and what came of it.
        workers: trials at a time, each in a process of its own with as many threads as this one; 1 runs them here.
        measure: takes the energy of each trial's training, see ``fit.run_trial``; of one trial at a time only.

    Returns:
        The number of trials that are left.

    Raises:
        UserError: a package is missing, or the file is damaged.
    """
    clock = budget if isinstance(budget, Budget) else Budget(budget)
    known, environments = read_results(path) if is_file(path) else ([], {})
    results = {r.trial.key: r for r in known if r.error is None}
    log = Log(path)
    given_out: set[str] = set()

    def waiting() -> Iterator[tuple[str, Trial]]:
        while not clock.spent:
            due = next((d for d in _due(preset, results) if d[1].key not in given_out), None)
            if due is None:
                return
            given_out.add(due[1].key)
            yield due[0].trial.label, due[1]

    try:
        if environment_key not in environments:
            log.append({"environment_row": dict(environment), "key": environment_key})
        for result in _results(waiting, device, environment_key, workers, measure):
            results[result.trial.key] = result
            clock.took(result.seconds)
            log.append(row_of(result))
            say(left(preset, results), _said(result))
        return left(preset, results)
    finally:
        log.close()


def _said(result: TrialResult) -> str:
    score = "diverged" if result.diverged else result.error or f"{result.accuracy:.4f}"
    trial = result.trial
    return (
        f"{with_start(result.label, trial)}, lr {trial.lr:g}, seed {trial.seed}, {trial.evaluate} {score}, "
        f"{result.seconds:.0f} s ({result.cpu_seconds or 0:.0f} s of a core)"
    )


def _results(
    waiting: Callable[[], Iterator[tuple[str, Trial]]], device: str, environment: str, workers: int, measure: Measure
) -> Iterator[TrialResult]:
    """Run the trials that ``waiting`` gives; it is asked again after each result, which may have made more ready."""
    if workers == 1:
        for label, trial in waiting():
            yield _recorded(label, trial, device, environment, measure)
        return
    import torch

    if device != "cpu":  # a GPU's counter does not tell one process from another
        measure = partial(unread, reason="several runs shared the GPU")
    # Spawned, since a process that has used its threads does not fork safely.
    context = multiprocessing.get_context("spawn")
    threads = torch.get_num_threads()
    with ProcessPoolExecutor(workers, context, initializer=_begin_worker, initargs=(threads,)) as pool:
        running: set[Future[TrialResult]] = set()
        try:
            while True:
                running.update(
                    pool.submit(_recorded, label, trial, device, environment, measure)
                    for label, trial in itertools.islice(waiting(), workers - len(running))
                )
                if not running:
                    return
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _begin_worker(threads: int) -> None:
    import torch
    from transformers.utils import logging

    torch.set_num_threads(threads)
    logging.disable_progress_bar()


def _recorded(contender: str, trial: Trial, device: str, environment: str, measure: Measure) -> TrialResult:
    created = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        result = run_trial(trial, device, measure=measure)
    except UserError:
        raise
    except Exception as error:  # one run that fails must not cost the others
        text = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        result = TrialResult(trial, trial.label, None, error=text)
    return replace(result, contender=contender, environment=environment, created=created)
