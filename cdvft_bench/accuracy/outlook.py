"""How far a campaign is: runs and core-hours so far and to come, and what difference its design can see."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, median

from cdvft_bench.accuracy.analysis import Score, paired, scores
from cdvft_bench.accuracy.pilot import Components, Pilot, components, pilot_of
from cdvft_bench.accuracy.preset import Contender, Preset
from cdvft_bench.accuracy.rehearsal import Rehearsal, label_of
from cdvft_bench.accuracy.results import contender_of
from cdvft_bench.accuracy.search import planned
from cdvft_bench.accuracy.training.trial import BASE, HEAD, Trial, TrialResult
from cdvft_bench.accuracy.tuning import Tuning, seeds_of
from cdvft_bench.core.text import listed, plural

BASELINE = "LoRA r=8"
HOUR = 3600.0


@dataclass(frozen=True)
class Outlook:
    """Of one preset.

    Attributes:
        preset: its name. done, left: runs. hours, hours_left: core-hours of these; the latter None where no run and no
            rehearsal says what one takes. rehearsed: whether a rehearsal says it of a method that has no run yet.
        missing: methods without all their final runs. methods: how many there are.
        pilot: None while it is not complete.
        seeds, scored: of the design. seen: difference that it finds with a chance of 80 % in one comparison, and in the
            first of Holm's for all methods; None while no two methods with three seeds tell.
        basis: what ``seen`` is taken from.
    """

    preset: str
    done: int
    left: int
    hours: float
    hours_left: float | None
    rehearsed: bool
    missing: tuple[str, ...]
    methods: int
    pilot: Pilot | None
    seeds: int
    scored: int
    seen: tuple[float, float] | None
    basis: str

    @property
    def sentences(self) -> list[str]:
        """All of it in words."""
        runs = f"{plural(self.done, 'run')} of {self.done + self.left:,} done ({self.hours:.1f} core-hours)"
        if self.left:
            lacking = listed(self.missing) if len(self.missing) < self.methods else "every method"
            runs += f"; {self.left:,} left, {self.cost}; without all final runs: {lacking or 'none'}"
        design = f"{self.seeds} seeds and {self.scored:,} test examples"
        power = f"not known before two methods have three seeds each; the design is of {design}"
        if self.seen is not None:
            one, family = (f"{100 * seen:.1f} points" for seen in self.seen)
            power = (
                f"with {design} a true difference of {one} is found with a chance of 80 %, of {family} where all "
                f"{self.methods} methods are compared with one (Holm); from {self.basis}"
            )
        return [f"{self.preset}: {runs}.", f"Pilot: {self.pilot or 'not measured'}.", f"Power: {power}."]

    @property
    def cost(self) -> str:
        """Of the runs that are left, in core-hours."""
        if self.hours_left is None:
            return "core-hours not measured"
        return f"about {self.hours_left:.1f} core-hours{' by a rehearsal' if self.rehearsed else ''}"


def outlook(preset: Preset, rows: Iterable[TrialResult], rehearsal: Rehearsal | None = None) -> Outlook:
    """How far a preset's campaign is, from rows of any files and a rehearsal of it.

    Args:
        preset: of any kind but a map. rows: others than those it plans are left out.
    """
    kept = [r for r in planned(preset, rows) if r.error is None]
    results = {r.trial.key: r for r in kept}
    tuning = Tuning(preset, results)
    hours, left, done, missing, rehearsed = 0.0, 0, 0, [], False
    known = {cost.label: cost for cost in rehearsal.costs} if rehearsal else {}
    unknown = False
    for contender in preset.contenders:
        label = label_of(contender)
        tried, ends = tuning.trials(contender), tuning.finals(contender)
        seeds = len(seeds_of(preset, contender))
        ended = [t for t in tried if t.key in results]
        long = sum(t.examples == contender.trial.examples for t in ended) if preset.full_length else 0
        short_open = tuning.short_count(contender) - (len(ended) - long)
        long_open = tuning.long_count(contender) - long
        wanted = seeds - sum(t.key in results for t in ends)
        done += len(ended) + seeds - wanted
        left += short_open + long_open + wanted
        missing += [label] if wanted else []
        for n, kind in ((short_open, "short"), (long_open, "long"), (wanted, "test")):
            trial = _sized(preset, contender, kind)
            seconds = _recorded(kept, label, trial)
            if n and seconds is None and label in known:
                seconds, rehearsed = known[label].of(trial), True
            seconds = seconds if seconds is not None else _recorded(kept, "", trial)
            unknown |= bool(n) and seconds is None
            hours += n * (seconds or 0.0) / HOUR
    spent = sum(r.cpu_seconds or 0.0 for r in kept) / HOUR
    first = preset.contenders[0].trial
    seen, basis = _seen(scores(kept), len(preset.seeds), first.scored, len(preset.contenders))
    return Outlook(
        preset.name,
        done,
        left,
        spent,
        None if unknown else hours,
        rehearsed,
        tuple(missing),
        len(preset.contenders),
        pilot_of(kept),
        len(preset.seeds),
        first.scored,
        seen,
        basis,
    )


def _recorded(rows: Sequence[TrialResult], label: str, like: Trial) -> float | None:
    """Mean core-seconds of a method's runs of a size, of all methods that train an adapter if none is named."""

    def counts(run: TrialResult) -> bool:
        return contender_of(run) == label if label else run.trial.method not in (HEAD, BASE)

    spent = [r.cpu_seconds for r in rows if r.cpu_seconds and _size(r.trial) == _size(like) and counts(r)]
    return fmean(spent) if spent else None


def _size(trial: Trial) -> tuple[str, int, int]:
    return trial.evaluate, trial.examples, trial.scored


def _sized(preset: Preset, contender: Contender, kind: str) -> Trial:
    trial = contender.trial
    if kind == "test":
        return replace(trial, evaluate="test")
    examples = trial.examples if kind == "long" else preset.tune_examples or trial.examples
    return replace(trial, evaluate="validation", examples=examples, scored=preset.tune_scored or trial.scored)


def _seen(found: Sequence[Score], seeds: int, scored: int, methods: int) -> tuple[tuple[float, float] | None, str]:
    """Difference that the design sees, by the median spread of methods against LoRA r = 8, else of the pilot."""
    base = next((s for s in found if s.label == BASELINE), None) or next((s for s in found if s.method == HEAD), None)
    if base is None:
        return None, ""
    parts: list[Components] = []
    for score in found:
        table = paired(score, base) if score is not base else None
        if table is not None and len(table) >= 3:
            parts.append(components(table))
    if not parts or seeds < 2:
        return None, ""
    one, family = (median(p.detectable(seeds, scored, n) for p in parts) for n in (1, max(1, methods - 1)))
    return (one, family), f"the spread of {plural(len(parts), 'method')} against {base.label}"
