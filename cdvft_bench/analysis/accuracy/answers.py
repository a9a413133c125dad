"""Sentences on the reviewers' questions that follow from fine-tuning runs by a stated rule, or 'not measured'."""

from collections.abc import Mapping, Sequence

from cdvft_bench.accuracy.analysis import Score, seed_deviation
from cdvft_bench.accuracy.results import tuning_runs, validated
from cdvft_bench.accuracy.training.trial import BASE, TrialResult, scale_name
from cdvft_bench.analysis.accuracy.fronts import Front
from cdvft_bench.analysis.accuracy.pairs import BASELINE, CHANCE, differences_to, verdict
from cdvft_bench.core.text import NOT_MEASURED, clean, listed, plural
from cdvft_bench.methods import make_method

_CAPITAL = NOT_MEASURED.capitalize()


def answers(runs: Sequence[TrialResult], found: Sequence[Score], fronts: Sequence[Front]) -> dict[str, str]:
    """What the runs of one workload say on R3 (settings), R4 (generation) and R6 (worth), by question."""
    return {"R3": _settings(runs, found), "R4": _generation(runs, found), "R6": _worth(runs, found, fronts)}


def _settings(runs: Sequence[TrialResult], found: Sequence[Score]) -> str:
    ours = [s for s in found if s.method == "cdvft"]
    if len(ours) < 2:
        return f"{_CAPITAL}: it takes two settings of CDVFT."
    best, worst = ours[0], ours[-1]
    found_d = differences_to(ours, best.label).get(worst.label)
    axes = "m, p and start" if any("init" in dict(s.hyperparameters) for s in ours) else "m and p"
    said = (
        f"Over {plural(len(ours), 'setting')} of {axes} the mean accuracy runs from {100 * worst.mean:.1f} % "
        f"({clean(worst.label)}) to {100 * best.mean:.1f} % ({clean(best.label)})"
    )
    if found_d is not None:
        said += f"; the last against the first, picked by these same scores, is {verdict(found_d)}"
    spreads = {}
    for label, tried in tuning_runs(runs).items():
        least = min(r.trial.examples for r in tried)
        accuracies = [r.accuracy for r in tried if r.accuracy is not None and r.trial.examples == least]
        if len(accuracies) > 1:
            spreads[label] = max(accuracies) - min(accuracies)
    mine = [spreads[s.label] for s in ours if s.label in spreads]
    if not mine:
        return said + "; the learning rate: not measured."
    said += f". While tuning, learning rate and scale moved it by {100 * min(mine):.1f} to {100 * max(mine):.1f} points"
    if BASELINE in spreads:
        said += f" on the validation split, {BASELINE} by {100 * spreads[BASELINE]:.1f}"
    deviations = [100 * seed_deviation(s) for s in ours if len(s.seeds) > 1]
    if deviations:
        said += f"; seeds, by a standard deviation of {min(deviations):.1f} to {max(deviations):.1f} points"
    return said + "."


def _generation(runs: Sequence[TrialResult], found: Sequence[Score]) -> str:
    trial = runs[0].trial
    from cdvft_bench.analytic.models import model_spec

    if model_spec(trial.model).auto != "AutoModelForCausalLM":
        return f"{_CAPITAL} by these runs; {trial.model} on {trial.task} classifies."
    against = differences_to(found, BASELINE)
    lora = next((s for s in found if s.label == BASELINE), None)
    ours = best_tuned(tuning_runs(runs), [s for s in found if s.method == "cdvft" and s.label in against])
    if ours is None or lora is None:
        return f"{_CAPITAL}: it takes two seeds of CDVFT and of {BASELINE}."
    said = (
        f"On {trial.task} with {trial.model}, exact match under greedy decoding, {clean(ours.label)} answers "
        f"{100 * ours.mean:.1f} % right, {BASELINE} {100 * lora.mean:.1f} %; "
        f"it is {verdict(against[ours.label])} against it"
    )
    base = next((s for s in found if s.method == BASE), None)
    if base is None:
        return f"{said}. The untrained model: {NOT_MEASURED}."
    gain = differences_to(found, base.label)
    return (
        f"{said}. Untrained, the model answers {100 * base.mean:.1f} %: {clean(ours.label)} is "
        f"{verdict(gain[ours.label])} against that, {BASELINE} {verdict(gain[BASELINE])}."
    )


def best_tuned(tried: Mapping[str, Sequence[TrialResult]], rivals: Sequence[Score]) -> Score | None:
    """The best on the validation split, not on the test split, where it is to be compared.

    Of equals the one of fewer parameters, then the first by name: nothing that the test split says.

    Args:
        tried: of ``tuning_runs``. rivals: to choose from.
    """
    tuned = {label: validated(some) or 0.0 for label, some in tried.items()}
    return min(rivals, key=lambda s: (-tuned.get(s.label, 0.0), s.parameters, s.label), default=None)


def _worth(runs: Sequence[TrialResult], found: Sequence[Score], fronts: Sequence[Front]) -> str:
    lora = next((s for s in found if s.label == BASELINE), None)
    ours = [s for s in found if s.method == "cdvft"]
    against = differences_to(found, BASELINE)
    rivals = [s for s in ours if s.label in against]
    best = best_tuned(tuning_runs(runs), rivals)
    if lora is None or best is None:
        return f"{_CAPITAL}: it takes two seeds of CDVFT and of {BASELINE}."
    said = (
        f"CDVFT's best setting on the validation split, {clean(best.label)}, trains "
        f"{lora.parameters / best.parameters:.2f} times "
        f"fewer parameters than {BASELINE} and is {verdict(against[best.label])} against it"
    )
    parts = []
    for front in fronts:
        if not front.costs or BASELINE not in front.costs:
            parts.append(f"{front.kind.short} {front.said.partition(':')[0]}")
            continue
        shares = [(front.shares[s.label], s.label) for s in ours if s.label in front.shares]
        ratio = front.costs[best.label].value / front.costs[BASELINE].value if best.label in front.costs else None
        share, label = max(shares, default=(0.0, "none"))
        cost = f"{ratio:.2f} of LoRA's, " if ratio is not None else ""
        often = f"{clean(label)} on the front in {100 * share:.0f} % of draws"
        where = often if share >= CHANCE else "not on the front"
        parts.append(f"{front.kind.short} {cost}{where}")
    return f"{said}. By cost: {'; '.join(parts)}."


# --- over initialisations --------------------------------------------------------------------


DEFAULT = "zero_diagonal"


def by_start(found: Sequence[Score]) -> list[dict[str, Score]]:
    """Scores of CDVFT by start, in groups that are alike in all else but what is tuned for each: rate and scale.

    A start may be tested twice: by its name, and as the default of a run that names none; then the first one counts.
    """
    tuned = scale_name("cdvft")
    groups: dict[tuple[object, ...], dict[str, Score]] = {}
    named = [s for s in found if s.method == "cdvft" and "init" in dict(s.hyperparameters)]
    for score in [*named, *(s for s in found if s.method == "cdvft" and s not in named)]:
        start = str(vars(make_method("cdvft", dict(score.hyperparameters)))["init"])
        rest = tuple(sorted((k, v) for k, v in score.hyperparameters if k not in ("init", tuned)))
        groups.setdefault(rest, {}).setdefault(start, score)
    return [group for group in groups.values() if len(group) > 1]


def starts_said(group: dict[str, Score]) -> str:
    """The starts' accuracies, and how they differ from that of the default start by chance or beyond it."""
    ordered = sorted(group.items(), key=lambda item: -item[1].mean)
    first = ordered[0][1]
    label = make_method("cdvft", {k: v for k, v in first.hyperparameters if k != "init"}).label
    text = f"{clean(label)}, each start tuned by itself: {listed([_accuracy(*item) for item in ordered])}"
    against = group.get(DEFAULT, first)
    found = differences_to(list(group.values()), against.label)
    name = next(start for start, score in group.items() if score is against)
    compared = [f"{start} is {verdict(found[s.label])}" for start, s in ordered if s.label in found]
    return f"{text}. Against {name}: {listed(compared)}." if compared else f"{text}."


def _accuracy(start: str, score: Score) -> str:
    bounds = "" if score.low is None or score.high is None else f" [{100 * score.low:.1f}, {100 * score.high:.1f}]"
    rate = f"rate {score.lr:g}{', the edge of those tried' if score.at_edge else ''}"
    scale = "" if score.scale is None else f", scale {score.scale:g}"
    return f"{start} {100 * score.mean:.1f} %{bounds} ({plural(len(score.accuracies), 'seed')}, {rate}{scale})"
