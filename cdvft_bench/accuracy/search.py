"""Fair comparison: the same tuning budget for every method, then several seeds of the chosen setting on the test split.

A preset is a TOML file::

    [preset]
    name = "cpu-small"
    model = "minilm"
    task = "tweets"
    examples = 1000          # training examples; epochs, batch, length, scored likewise, see Trial
    lrs = [5e-4, 4e-3, 3e-2] # learning rates tried on the validation split, by every method as many
    seeds = [0, 1, 2]        # of the chosen learning rate, on the test split

    [[method]]
    name = "lora"
    rank = 8
    lrs = [1e-4, 1e-3, 1e-2] # this method's own; as many as the preset's

Results are lines of a JSON file, appended and synced one by one: what was killed loses the run in flight.
"""

from __future__ import annotations

import json
import os
import time
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import msgspec

from cdvft_bench.accuracy.trial import Trial, TrialResult, Value, run_trial, with_setting
from cdvft_bench.errors import UserError

_SETTINGS = ("examples", "epochs", "batch", "length", "scored", "head_lr")


@dataclass(frozen=True)
class Contender:
    """One method of a preset: a trial at its first learning rate, and the rates to try."""

    trial: Trial
    lrs: tuple[float, ...]


@dataclass(frozen=True)
class Preset:
    """A comparison.

    Attributes:
        name: of the preset. description: what it is for. contenders: the methods. seeds: of the final runs.
    """

    name: str
    description: str
    contenders: tuple[Contender, ...]
    seeds: tuple[int, ...]


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
    known = {"name", "description", "model", "task", "lrs", "seeds", *_SETTINGS}
    for key in head:
        if key not in known:
            raise UserError(f"preset {where}: [preset] has no key {key!r}; it has {', '.join(sorted(known))}")
    for key in ("model", "task", "lrs", "seeds"):
        if key not in head:
            raise UserError(f"preset {where}: [preset] needs {key!r}")
    seeds = head["seeds"]
    if not isinstance(seeds, list) or not seeds or not all(isinstance(s, int) and s >= 0 for s in seeds):
        raise UserError(f"preset {where}: seeds = {seeds!r} must be a list of integers >= 0")
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
        values: tuple[tuple[str, Value], ...] = tuple(sorted(given.items()))
        trial = Trial(head["model"], head["task"], method, values, lr=own[0], **settings)
        trial.label  # noqa: B018 - an unknown method or hyperparameter is refused before anything runs
        contenders.append(Contender(trial, own))
    return Preset(str(head.get("name", where)), str(head.get("description", "")), tuple(contenders), tuple(seeds))


def _rates(given: Any, where: str) -> tuple[float, ...]:
    if not isinstance(given, list) or not given or not all(isinstance(v, int | float) and v > 0 for v in given):
        raise UserError(f"preset {where}: lrs = {given!r} must be a list of numbers above 0")
    return tuple(float(v) for v in given)


# --- the file of results -------------------------------------------------------------------


def read_results(path: Path) -> tuple[list[TrialResult], dict[str, dict[str, Any]]]:
    """Results and environments of a file; a last line that was torn by a kill is left out.

    Raises:
        UserError: the file cannot be read, or a line is damaged.
    """
    results: dict[str, TrialResult] = {}
    environments: dict[str, dict[str, Any]] = {}
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"results {str(path)!r} cannot be read: {error}") from error
    for i, line in enumerate(lines):
        if not line:
            continue
        try:
            row = json.loads(line)
            if "environment_row" in row:
                environments[row["key"]] = row["environment_row"]
            else:
                result = msgspec.convert(row, TrialResult)
                results[result.trial.key] = result
        except (json.JSONDecodeError, msgspec.ValidationError, KeyError, TypeError, UnicodeDecodeError) as error:
            if i == len(lines) - 1:
                break
            raise UserError(f"results {str(path)!r}, line {i + 1}, are damaged: {error}") from error
    return list(results.values()), environments


class _Appender:
    """Appends lines, each synced; a torn last line is cut off first."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("ab")
        end = path.read_bytes().rfind(b"\n") + 1
        if path.stat().st_size != end:
            self._file.truncate(end)

    def write(self, row: object) -> None:
        self._file.write(msgspec.json.encode(row) + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


# --- running -------------------------------------------------------------------------------


def chosen_rate(contender: Contender, results: Mapping[str, TrialResult]) -> float | None:
    """The learning rate with the best validation accuracy, the smaller of equals; None while some are missing."""
    found = []
    for lr in contender.lrs:
        result = results.get(_tuning(contender, lr).key)
        if result is None:
            return None
        found.append((result.accuracy if result.accuracy is not None else -1.0, -lr))
    return -max(found)[1]


def _tuning(contender: Contender, lr: float) -> Trial:
    return with_setting(contender.trial, lr, seed=1000, evaluate="validation")


def pending(preset: Preset, results: Mapping[str, TrialResult]) -> Iterator[Trial]:
    """Trials that are still to run, each method's tuning before its final runs."""
    for contender in preset.contenders:
        for lr in contender.lrs if len(contender.lrs) > 1 else ():
            if _tuning(contender, lr).key not in results:
                yield _tuning(contender, lr)
    for contender in preset.contenders:
        best = contender.lrs[0] if len(contender.lrs) == 1 else chosen_rate(contender, results)
        if best is None:
            continue
        finals = (with_setting(contender.trial, best, seed, "test") for seed in preset.seeds)
        yield from (final for final in finals if final.key not in results)


def train(
    preset: Preset,
    path: Path,
    environment: Mapping[str, Any],
    environment_key: str,
    device: str = "cpu",
    budget_s: float | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> int:
    """Run what a preset still lacks in a file of results.

    Args:
        preset: what to run. path: the file, made or gone on with. environment, environment_key: its row.
        device: "cpu" or "cuda". budget_s: begin no trial after so many seconds. say: told of every trial.

    Returns:
        The number of trials that are left.

    Raises:
        UserError: a package is missing, or the file is damaged.
    """
    begun = time.monotonic()
    known, environments = read_results(path) if path.exists() else ([], {})
    results = {r.trial.key: r for r in known}
    file = _Appender(path)
    try:
        if environment_key not in environments:
            file.write({"environment_row": dict(environment), "key": environment_key})
        while trials := list(pending(preset, results)):
            if budget_s is not None and time.monotonic() - begun > budget_s:
                return len(trials)
            trial = trials[0]
            result = _recorded(trial, device, environment_key)
            results[trial.key] = result
            file.write(asdict(result))
            score = "diverged" if result.diverged else result.error or f"{result.accuracy:.4f}"
            what = f"{result.label}, lr {trial.lr:g}, seed {trial.seed}, {trial.evaluate}"
            say(f"{len(trials) - 1} left: {what} {score}, {result.seconds:.0f} s")
    finally:
        file.close()
    return 0


def _recorded(trial: Trial, device: str, environment: str) -> TrialResult:
    created = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        result = run_trial(trial, device)
    except UserError:
        raise
    except Exception as error:  # one run that fails must not cost the others
        text = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        result = TrialResult(trial, trial.label, None, error=text)
    return replace(result, environment=environment, created=created)


def final_runs(results: Iterable[TrialResult]) -> dict[str, list[TrialResult]]:
    """Runs on the test split by method label, in order of seed.

    Where a method was tuned, only runs at its best learning rate count: a file that was gone on with after more
    rates were tried may hold others.
    """
    given = list(results)
    chosen: dict[str, float] = {}
    for label, tried in tuning_runs(given).items():
        scored = [(r.accuracy, -r.trial.lr) for r in tried if r.accuracy is not None]
        if scored:
            chosen[label] = -max(scored)[1]
    found: dict[str, list[TrialResult]] = {}
    for result in sorted(given, key=lambda r: r.trial.seed):
        if result.trial.evaluate == "test" and result.trial.lr == chosen.get(result.label, result.trial.lr):
            found.setdefault(result.label, []).append(result)
    return found


def tuning_runs(results: Iterable[TrialResult]) -> dict[str, list[TrialResult]]:
    """Runs on the validation split by method label, in order of learning rate."""
    found: dict[str, list[TrialResult]] = {}
    for result in sorted(results, key=lambda r: r.trial.lr):
        if result.trial.evaluate == "validation":
            found.setdefault(result.label, []).append(result)
    return found
