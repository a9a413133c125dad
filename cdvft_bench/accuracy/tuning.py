"""What a method's tuning tries, as far as the results so far say: rates, then scales, then rates at full length.

First come rates, given or of a grid that extends itself (``rates``), on as few examples as the preset lets tuning have;
then, at the best one, scales of the weight change. A rate that is best over few steps need not be stable over many. So
a preset may ask for runs of full length: as many steps as a final run has, on the validation split. They walk from
the best setting so far towards the better neighbour, by a factor of three, until the best rate lies inside; then they
alone decide.

Every method has as many runs of each kind: where one needs more to have its best rate inside, all get more.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from cdvft_bench.accuracy.preset import Contender, Preset
from cdvft_bench.accuracy.rates import PAIR, Grid, enclosed_after, walk
from cdvft_bench.accuracy.results import best_run, deciding_runs, reached
from cdvft_bench.accuracy.training.trial import BASE, Trial, TrialResult, scale_name, scaled, with_setting

TUNING_SEED = 1000
"""Of initial values and batches while a method is tuned; final runs have the preset's seeds."""
FULL_RATIO = 3.0
"""Of neighbouring rates at full length: what is best over few steps lies within it of the rest."""

Results = Mapping[str, TrialResult]
"""By the key of their trial."""


def chosen(preset: Preset, contender: Contender, results: Results) -> Trial | None:
    """The trial that decided, at the size of a final run; None while tuning trials are missing."""
    trials = tuning(preset, contender, results)
    if not trials:
        return contender.trial
    found = [results[t.key] for t in trials if t.key in results]
    if len(found) < tuning_count(preset, contender, results):
        return None
    return replace(_best(found), examples=contender.trial.examples, scored=contender.trial.scored)


def _best(found: list[TrialResult]) -> Trial:
    return best_run(deciding_runs(found)).trial


def tuning(preset: Preset, contender: Contender, results: Results) -> list[Trial]:
    """The tuning trials as far as they are known: those of the scale follow when all learning rates have run."""
    first, known = _short(preset, contender, results)
    if not (preset.full_length and known and first) or any(t.key not in results for t in first):
        return first
    return [*first, *_long(preset, contender, results)[0]]


def short_count(preset: Preset, contender: Contender, results: Results) -> int:
    """How many tuning trials a method has before those of full length, as far as the results say."""
    if contender.grid is not None:
        return preset.trials + _more(preset, results)
    return len(contender.lrs) + len(contender.factors) if len(contender.lrs) > 1 or contender.factors else 0


def long_count(preset: Preset, contender: Contender, results: Results) -> int:
    """How many of full length, as far as the results say."""
    return preset.full_length + _more_long(preset, results) if preset.full_length and contender.grid else 0


def tuning_count(preset: Preset, contender: Contender, results: Results) -> int:
    """How many tuning trials a method has, as far as the results say."""
    return short_count(preset, contender, results) + long_count(preset, contender, results)


def finals(preset: Preset, contender: Contender, results: Results) -> list[Trial]:
    """The runs of the chosen setting on the test split; none while it is not known."""
    best = chosen(preset, contender, results)
    return [] if best is None else [with_setting(best, best.lr, seed, "test") for seed in seeds_of(preset, contender)]


def seeds_of(preset: Preset, contender: Contender) -> tuple[int, ...]:
    """Of the final runs; no seed enters those of an untrained model."""
    return preset.seeds[:1] if contender.trial.method == BASE else preset.seeds


# --- on few examples -------------------------------------------------------------------------


def _short(preset: Preset, contender: Contender, results: Results) -> tuple[list[Trial], bool]:
    """Trials of rates and of scales as far as they are known, and whether these are all."""
    if contender.grid is None and len(contender.lrs) == 1 and not contender.factors:
        return [], True
    rates, known = _rate_trials(preset, contender, results)
    if not known or any(t.key not in results for t in rates):
        return rates, False
    if contender.grid is not None and scale_name(contender.trial.method) is None:
        return rates, True
    best = best_run([results[t.key] for t in rates]).trial
    return [*rates, *(scaled(best, factor) for factor in contender.factors)], True


def _rate_trials(preset: Preset, contender: Contender, results: Results) -> tuple[list[Trial], bool]:
    """The trials of learning rates in their order as far as they are known, and whether these are all."""
    if contender.grid is None:
        return [_tuning_trial(preset, contender, lr) for lr in contender.lrs], True
    count = _rate_count(preset, contender) + _more(preset, results)
    rates, known = walk(contender.grid, count, _scores(preset, contender, results))
    return [_tuning_trial(preset, contender, lr) for lr in rates], known


def _tuning_trial(preset: Preset, contender: Contender, lr: float) -> Trial:
    trial = contender.trial
    smaller = replace(trial, examples=preset.tune_examples or trial.examples, scored=preset.tune_scored or trial.scored)
    return with_setting(smaller, lr, TUNING_SEED, "validation")


def _rate_count(preset: Preset, contender: Contender) -> int:
    """How many of the tuning trials of a grid that extends itself are of rates, if none needs more."""
    return preset.trials - (len(contender.factors) if scale_name(contender.trial.method) else 0)


def _more(preset: Preset, results: Results) -> int:
    """Trials that every method gets beside those of the preset, since one needs them to have its best rate inside."""
    needed = [
        enclosed_after(c.grid, _scores(preset, c, results)) - _rate_count(preset, c)
        for c in preset.contenders
        if c.grid is not None
    ]
    return max(0, *needed) if needed else 0


def _scores(preset: Preset, contender: Contender, results: Results) -> Callable[[float], float | None]:
    def score(lr: float) -> float | None:
        run = results.get(_tuning_trial(preset, contender, lr).key)
        return None if run is None else reached(run)

    return score


# --- of full length --------------------------------------------------------------------------


def _long(preset: Preset, contender: Contender, results: Results) -> tuple[list[Trial], bool]:
    """Trials of full length as far as they are known, those of few examples having run; whether these are all."""
    made, grid, score = _full_walk(preset, contender, results)
    count = preset.full_length + _more_long(preset, results)
    rates, known = walk(grid, count, score, PAIR)
    return [made(lr) for lr in rates], known


def _more_long(preset: Preset, results: Results) -> int:
    """Trials of full length that every method gets beside those of the preset, since one needs them."""
    needed = [0]
    for contender in preset.contenders:
        first, known = _short(preset, contender, results)
        if contender.grid is not None and known and all(t.key in results for t in first):
            _, grid, score = _full_walk(preset, contender, results)
            needed.append(enclosed_after(grid, score, PAIR) - preset.full_length)
    return max(needed)


def _full_walk(
    preset: Preset, contender: Contender, results: Results
) -> tuple[Callable[[float], Trial], Grid, Callable[[float], float | None]]:
    """What makes a trial of a rate, the grid around the best setting of few examples, and what scores a rate."""
    best = best_run([results[t.key] for t in _short(preset, contender, results)[0]]).trial

    def made(lr: float) -> Trial:
        return with_setting(replace(best, examples=contender.trial.examples), lr, TUNING_SEED, "validation")

    def score(lr: float) -> float | None:
        run = results.get(made(lr).key)
        return None if run is None else reached(run)

    return made, Grid(best.lr, FULL_RATIO), score
