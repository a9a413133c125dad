"""Fair comparison: the same tuning budget for every method, then several seeds of the chosen setting on the test split.

First every method tries as many learning rates on the validation split. Then, at its best one, as many scales of the
weight change: the method's own times factors that are drawn once, alike for all; a method without a scale tries its
learning rate times the same factors instead. The best run of all decides.

A preset is a TOML file::

    [preset]
    name = "cpu-small"
    model = "minilm"
    task = "tweets"
    examples = 1000          # training examples; epochs, batch, length, scored likewise, see Trial
    lrs = [5e-4, 4e-3, 3e-2] # learning rates tried on the validation split, by every method as many
    scales = 2               # scales tried after that, none if left out
    search_seed = 0          # of the draws of their factors
    seeds = [0, 1, 2]        # of the chosen setting, on the test split

    map = true               # instead: every rate with every seed, on the validation split alone

    [[method]]
    name = "lora"
    rank = 8
    optimizer = "sgd"        # a map's method may have its own
    lrs = [1e-4, 1e-3, 1e-2] # this method's own; as many as the preset's
"""

from __future__ import annotations

import itertools
import multiprocessing
import random
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

from cdvft_bench.accuracy.fit import run_trial
from cdvft_bench.accuracy.results import Appender, best_run, read_results
from cdvft_bench.accuracy.trial import Trial, TrialResult, Value, scaled, with_setting
from cdvft_bench.errors import UserError

_SETTINGS = ("examples", "epochs", "batch", "length", "scored", "head_lr", "optimizer")
SPAN = 8.0
"""Scales are tried between an eighth and eight times the method's own."""
TUNING_SEED = 1000
"""Of initial values and batches while a method is tuned; final runs have the preset's seeds."""


@dataclass(frozen=True)
class Contender:
    """One method of a preset: a trial at its first learning rate, the rates to try, and the factors of its scale."""

    trial: Trial
    lrs: tuple[float, ...]
    factors: tuple[float, ...] = ()


@dataclass(frozen=True)
class Preset:
    """A comparison.

    Attributes:
        name: of the preset. description: what it is for. contenders: the methods. seeds: of the final runs.
        map: every learning rate runs with every seed on the validation split, and nothing else.
    """

    name: str
    description: str
    contenders: tuple[Contender, ...]
    seeds: tuple[int, ...]
    map: bool = False


def read_preset(name: str | Path) -> Preset:
    """Read a preset by name, or from a file.

    Raises:
        UserError: there is none, or a value is not as it should be.
    """
    folder = resources.files("cdvft_bench.accuracy") / "presets"
    known = sorted(p.name.removesuffix(".toml") for p in folder.iterdir() if p.name.endswith(".toml"))
    try:
        text = (folder / f"{name}.toml").read_text() if str(name) in known else Path(name).read_text()
        document = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"preset {str(name)!r} is neither a file nor one of {', '.join(known)}") from error
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"preset {str(name)!r} is no TOML: {error}") from error
    return _preset(document, str(name))


def _preset(document: Mapping[str, Any], where: str) -> Preset:
    head, methods = document.get("preset"), document.get("method")
    if not isinstance(head, dict) or not isinstance(methods, list) or not methods:
        raise UserError(f"preset {where}: it needs a [preset] table and at least one [[method]]")
    known = {"name", "description", "model", "task", "lrs", "seeds", "scales", "search_seed", "map", *_SETTINGS}
    for key in head:
        if key not in known:
            raise UserError(f"preset {where}: [preset] has no key {key!r}; it has {', '.join(sorted(known))}")
    for key in ("model", "task", "lrs", "seeds"):
        if key not in head:
            raise UserError(f"preset {where}: [preset] needs {key!r}")
    seeds = head["seeds"]
    if not isinstance(seeds, list) or not seeds or not all(isinstance(s, int) and s >= 0 for s in seeds):
        raise UserError(f"preset {where}: seeds = {seeds!r} must be a list of integers >= 0")
    for key in ("scales", "search_seed"):
        if not isinstance(head.get(key, 0), int) or isinstance(head.get(key, 0), bool) or head.get(key, 0) < 0:
            raise UserError(f"preset {where}: {key} = {head[key]!r} must be an integer >= 0")
    factors = scale_factors(head.get("scales", 0), head.get("search_seed", 0))
    lrs = _rates(head["lrs"], where)
    settings = {key: head[key] for key in _SETTINGS if key in head}
    contenders = []
    for entry in methods:
        given = dict(entry)
        method = given.pop("name", None)
        if not isinstance(method, str):
            raise UserError(f"preset {where}: a [[method]] needs a name")
        own = _rates(given.pop("lrs"), where) if "lrs" in given else lrs
        if len(own) != len(lrs):
            raise UserError(
                f"preset {where}: {method} tries {len(own)} learning rates, the others {len(lrs)}; give all as many"
            )
        own_settings = {key: given.pop(key) for key in ("optimizer",) if key in given}
        values: tuple[tuple[str, Value], ...] = tuple(sorted(given.items()))
        trial = Trial(head["model"], head["task"], method, values, lr=own[0], **{**settings, **own_settings})
        trial.label  # noqa: B018 - an unknown method or hyperparameter is refused before anything runs
        contenders.append(Contender(trial, own, factors))
    if not isinstance(head.get("map", False), bool) or (head.get("map") and factors):
        raise UserError(f"preset {where}: map must be true or false, and a map has no scales; leave one of them out")
    return Preset(
        str(head.get("name", where)), str(head.get("description", "")), tuple(contenders), tuple(seeds),
        bool(head.get("map", False)),
    )  # fmt: skip


def scale_factors(n: int, seed: int) -> tuple[float, ...]:
    """Random factors between 1/SPAN and SPAN, one in each of ``n`` equal parts of that range's logarithm."""
    rng = random.Random(seed)
    return tuple(SPAN ** (2 * (i + rng.random()) / n - 1) for i in range(n))


def _rates(given: Any, where: str) -> tuple[float, ...]:
    if not isinstance(given, list) or not given or not all(isinstance(v, int | float) and v > 0 for v in given):
        raise UserError(f"preset {where}: lrs = {given!r} must be a list of numbers above 0")
    return tuple(float(v) for v in given)


# --- running -------------------------------------------------------------------------------


def chosen(contender: Contender, results: Mapping[str, TrialResult]) -> Trial | None:
    """The trial with the best validation accuracy; None while some are missing."""
    trials = tuning(contender, results)
    if not trials:
        return contender.trial
    found = [results[t.key] for t in trials if t.key in results]
    return best_run(found).trial if len(found) == len(contender.lrs) + len(contender.factors) else None


def tuning(contender: Contender, results: Mapping[str, TrialResult]) -> list[Trial]:
    """The tuning trials as far as they are known: those of the scale follow when all learning rates have run."""
    if len(contender.lrs) == 1 and not contender.factors:
        return []
    rates = [with_setting(contender.trial, lr, TUNING_SEED, "validation") for lr in contender.lrs]
    if any(t.key not in results for t in rates):
        return rates
    best = best_run([results[t.key] for t in rates]).trial
    return [*rates, *(scaled(best, factor) for factor in contender.factors)]


def _due(preset: Preset, results: Mapping[str, TrialResult]) -> Iterator[tuple[Contender, Trial]]:
    if preset.map:
        yield from ((contender, trial) for contender, trial in _mapped(preset) if trial.key not in results)
        return
    for contender in preset.contenders:
        for trial in tuning(contender, results):
            if trial.key not in results:
                yield contender, trial
        for final in finals(preset, contender, results):
            if final.key not in results:
                yield contender, final


def planned(preset: Preset, results: Iterable[TrialResult]) -> list[TrialResult]:
    """The results of runs that a preset plans: a file may hold others, from before the preset was changed."""
    found = {r.trial.key: r for r in results}
    if preset.map:
        keys = [trial.key for _, trial in _mapped(preset)]
    else:
        keys = [t.key for c in preset.contenders for t in (*tuning(c, found), *finals(preset, c, found))]
    return [found[key] for key in keys if key in found]


def _mapped(preset: Preset) -> Iterator[tuple[Contender, Trial]]:
    for contender in preset.contenders:
        for lr in contender.lrs:
            for seed in preset.seeds:
                yield contender, with_setting(contender.trial, lr, seed, "validation")


def finals(preset: Preset, contender: Contender, results: Mapping[str, TrialResult]) -> list[Trial]:
    """The runs of the chosen setting on the test split; none while it is not known."""
    best = chosen(contender, results)
    return [] if best is None else [with_setting(best, best.lr, seed, "test") for seed in preset.seeds]


def pending(preset: Preset, results: Mapping[str, TrialResult]) -> Iterator[Trial]:
    """Trials that are still to run and known already, method by method: rates, scales, final runs."""
    return (trial for _, trial in _due(preset, results))


def left(preset: Preset, results: Mapping[str, TrialResult]) -> int:
    """How many trials are still to run, those included that tuning has yet to decide."""
    if preset.map:
        return sum(1 for _ in _due(preset, results))
    count = 0
    for contender in preset.contenders:
        trials = tuning(contender, results)
        planned = len(contender.lrs) + len(contender.factors) if trials else 0
        count += planned - sum(t.key in results for t in trials)
        count += len(preset.seeds) - sum(t.key in results for t in finals(preset, contender, results))
    return count


def train(
    preset: Preset,
    path: Path,
    environment: Mapping[str, Any],
    environment_key: str,
    device: str = "cpu",
    budget_s: float | None = None,
    say: Callable[[int, str], None] = lambda left, text: None,
    workers: int = 1,
) -> int:
    """Run what a preset still lacks in a file of results.

    Args:
        preset: what to run. path: the file, made or gone on with. environment, environment_key: its row.
        device: "cpu" or "cuda". budget_s: begin no trial after so many seconds. say: told of every
            trial: how many are left, and what came of it.
        workers: trials at a time, each in a process of its own with as many threads as this one; 1 runs them here.

    Returns:
        The number of trials that are left.

    Raises:
        UserError: a package is missing, or the file is damaged.
    """
    begun = time.monotonic()
    known, environments = read_results(path) if path.exists() else ([], {})
    results = {r.trial.key: r for r in known}
    file = Appender(path)
    given_out: set[str] = set()

    def waiting() -> Iterator[tuple[str, Trial]]:
        while budget_s is None or time.monotonic() - begun <= budget_s:
            due = next((d for d in _due(preset, results) if d[1].key not in given_out), None)
            if due is None:
                return
            given_out.add(due[1].key)
            yield due[0].trial.label, due[1]

    try:
        if environment_key not in environments:
            file.write({"environment_row": dict(environment), "key": environment_key})
        for result in _results(waiting, device, environment_key, workers):
            results[result.trial.key] = result
            file.write(asdict(result))
            say(left(preset, results), _said(result))
        return left(preset, results)
    finally:
        file.close()


def _said(result: TrialResult) -> str:
    score = "diverged" if result.diverged else result.error or f"{result.accuracy:.4f}"
    trial = result.trial
    return (
        f"{result.label}, lr {trial.lr:g}, seed {trial.seed}, {trial.evaluate} {score}, {result.seconds:.0f} s "
        f"({result.cpu_seconds or 0:.0f} s of a core)"
    )


def _results(
    waiting: Callable[[], Iterator[tuple[str, Trial]]], device: str, environment: str, workers: int
) -> Iterator[TrialResult]:
    """Run the trials that ``waiting`` gives; it is asked again after each result, which may have made more ready."""
    if workers == 1:
        for label, trial in waiting():
            yield _recorded(label, trial, device, environment)
        return
    import torch

    # Spawned, since a process that has used its threads does not fork safely.
    context = multiprocessing.get_context("spawn")
    threads = torch.get_num_threads()
    with ProcessPoolExecutor(workers, context, initializer=_begin_worker, initargs=(threads,)) as pool:
        running: set[Future[TrialResult]] = set()
        try:
            while True:
                running.update(
                    pool.submit(_recorded, label, trial, device, environment)
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


def _recorded(contender: str, trial: Trial, device: str, environment: str) -> TrialResult:
    created = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        result = run_trial(trial, device)
    except UserError:
        raise
    except Exception as error:  # one run that fails must not cost the others
        text = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        result = TrialResult(trial, trial.label, None, error=text)
    return replace(result, contender=contender, environment=environment, created=created)
