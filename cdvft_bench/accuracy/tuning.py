"""What a method's tuning tries, as far as the results so far say: rates, then scales, then rates at full length.

First come rates, given or of a grid that extends itself (``rates``), on as few examples as the preset lets tuning have;
then, at the best one, scales of the weight change. A rate that is best over few steps need not be stable over many. So
a preset may ask for runs of full length: as many steps as a final run has, on the validation split. They walk from
the best setting so far towards the better neighbour, by a factor of three, until the best rate lies inside; then they
alone decide. One seed does not show whether a rate is stable: the preset may have the best rates between others run
with a second seed; the best mean of two then decides.

Every method has as many runs of each kind: where one needs more to have its best rate inside, all get more. Where
that changes which rates are the best of a method that had them repeated, the runs that it has count too.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from cdvft_bench.accuracy.preset import Contender, Preset
from cdvft_bench.accuracy.rates import PAIR, Grid, enclosed_after, walk
from cdvft_bench.accuracy.results import best_run, deciding_runs, reached
from cdvft_bench.accuracy.training.trial import BASE, Trial, TrialResult, scale_name, scaled, with_setting

TUNING_SEED = 1000
"""Of initial values and batches while a method is tuned; final runs have the preset's seeds."""
SECOND_SEED = 1001
"""Of tuning runs that are repeated."""
FULL_RATIO = 3.0
"""Of neighbouring rates at full length: what is best over few steps lies within it of the rest."""

Results = Mapping[str, TrialResult]
"""By the key of their trial."""
Score = Callable[[float], float | None]
"""Of a learning rate; None where it was not tried."""


@dataclass(frozen=True)
class Tuning:
    """What a preset's methods try, and with which setting they end.

    Attributes:
        preset: the comparison. results: of the runs so far; where more have come, another object tells what follows.
    """

    preset: Preset
    results: Results

    def trials(self, contender: Contender) -> list[Trial]:
        """The tuning trials as far as they are known: those of the scale follow when all learning rates have run."""
        first, ended = self._short(contender)
        if not ended or not self.long_count(contender):
            return first
        return [*first, *self._long(contender)[0], *self._repeats(contender)]

    def short_count(self, contender: Contender) -> int:
        """How many tuning trials a method has before those of full length, as far as the results say."""
        if contender.grid is not None:
            return self.preset.trials + self._more
        return len(contender.lrs) + len(contender.factors) if len(contender.lrs) > 1 or contender.factors else 0

    def long_count(self, contender: Contender) -> int:
        """How many of full length, those with a second seed included, as far as the results say."""
        full, again = self.preset.full_length, self.preset.repeated
        if not full or contender.grid is None:
            return 0
        return full + self._more_long + (max(again, len(self._repeats(contender))) if again else 0)

    def count(self, contender: Contender) -> int:
        """How many tuning trials a method has, as far as the results say."""
        return self.short_count(contender) + self.long_count(contender)

    def chosen(self, contender: Contender) -> Trial | None:
        """The trial that decided, at the size of a final run; None while tuning trials are missing."""
        trials = self.trials(contender)
        if not trials:
            return contender.trial
        found = self._run(trials)
        if len(found) < self.count(contender):
            return None
        best = best_run(deciding_runs(found)).trial
        return replace(best, examples=contender.trial.examples, scored=contender.trial.scored)

    def finals(self, contender: Contender) -> list[Trial]:
        """The runs of the chosen setting on the test split; none while it is not known."""
        best = self.chosen(contender)
        if best is None:
            return []
        return [with_setting(best, best.lr, seed, "test") for seed in seeds_of(self.preset, contender)]

    def _run(self, trials: list[Trial]) -> list[TrialResult]:
        return [self.results[trial.key] for trial in trials if trial.key in self.results]

    def _scores(self, made: Callable[[float], Trial]) -> Score:
        def score(lr: float) -> float | None:
            run = self.results.get(made(lr).key)
            return None if run is None else reached(run)

        return score

    # --- on few examples ---------------------------------------------------------------------

    def _short(self, contender: Contender) -> tuple[list[Trial], bool]:
        """Trials of rates and of scales as far as they are known, and whether these are all and have run."""
        if contender.grid is None and len(contender.lrs) == 1 and not contender.factors:
            return [], True
        rates, known = self._rates(contender)
        found = self._run(rates)
        if not known or len(found) < len(rates):
            return rates, False
        if contender.grid is not None and scale_name(contender.trial.method) is None:
            return rates, True
        scales = [scaled(best_run(found).trial, factor) for factor in contender.factors]
        return [*rates, *scales], len(self._run(scales)) == len(scales)

    def _rates(self, contender: Contender) -> tuple[list[Trial], bool]:
        """The trials of learning rates in their order as far as they are known, and whether these are all."""
        made = self._short_trial(contender)
        if contender.grid is None:
            return [made(lr) for lr in contender.lrs], True
        rates, known = walk(contender.grid, self._rate_count(contender) + self._more, self._scores(made))
        return [made(lr) for lr in rates], known

    def _short_trial(self, contender: Contender) -> Callable[[float], Trial]:
        trial, preset = contender.trial, self.preset
        examples, scored = preset.tune_examples or trial.examples, preset.tune_scored or trial.scored
        smaller = replace(trial, examples=examples, scored=scored)
        return lambda lr: with_setting(smaller, lr, TUNING_SEED, "validation")

    def _rate_count(self, contender: Contender) -> int:
        """How many of the tuning trials of a grid that extends itself are of rates, if none needs more."""
        return self.preset.trials - (len(contender.factors) if scale_name(contender.trial.method) else 0)

    @cached_property
    def _more(self) -> int:
        """Trials that every method gets beside the preset's, since one needs them to have its best rate inside."""
        needed = [
            enclosed_after(c.grid, self._scores(self._short_trial(c))) - self._rate_count(c)
            for c in self.preset.contenders
            if c.grid is not None
        ]
        return max(0, *needed) if needed else 0

    # --- of full length ----------------------------------------------------------------------

    def _full_length(self, contender: Contender) -> tuple[Callable[[float], Trial], Grid, Score]:
        """What makes a trial of a rate, the grid around the best setting of few examples, and what scores a rate."""
        best = best_run(self._run(self._short(contender)[0])).trial
        longer = replace(best, examples=contender.trial.examples)

        def made(lr: float) -> Trial:
            return with_setting(longer, lr, TUNING_SEED, "validation")

        return made, Grid(best.lr, FULL_RATIO), self._scores(made)

    def _long(self, contender: Contender) -> tuple[list[Trial], bool]:
        """Trials of one seed as far as they are known, and whether these are all and have run."""
        if not self.preset.full_length or contender.grid is None or not self._short(contender)[1]:
            return [], False
        made, grid, score = self._full_length(contender)
        rates, ended = walk(grid, self.preset.full_length + self._more_long, score, PAIR)
        return [made(lr) for lr in rates], ended

    def _repeats(self, contender: Contender) -> list[Trial]:
        """Runs of the best rates with a second seed: of those between others, where these are enough; then what ran."""
        trials, ended = self._long(contender)
        long, again = self._run(trials), self.preset.repeated
        if not ended or not again:
            return []
        ends = {f(run.trial.lr for run in long) for f in (min, max)}
        inside = [run for run in long if run.trial.lr not in ends]
        rest = inside if len(inside) >= again else long[:]
        best: list[TrialResult] = []
        while rest and len(best) < again:
            best.append(best_run(rest))
            rest.remove(best[-1])
        ran = [run for run in long if run not in best and _repeated(run.trial).key in self.results]
        return [_repeated(run.trial) for run in (*best, *ran)]

    @cached_property
    def _more_long(self) -> int:
        """Trials of full length that every method gets beside those of the preset, since one needs them."""
        needed = [0]
        for contender in self.preset.contenders:
            if contender.grid is not None and self._short(contender)[1]:
                _, grid, score = self._full_length(contender)
                needed.append(enclosed_after(grid, score, PAIR) - self.preset.full_length)
        return max(needed)


def _repeated(trial: Trial) -> Trial:
    return replace(trial, seed=SECOND_SEED)


def seeds_of(preset: Preset, contender: Contender) -> tuple[int, ...]:
    """Of the final runs; no seed enters those of an untrained model."""
    return preset.seeds[:1] if contender.trial.method == BASE else preset.seeds
