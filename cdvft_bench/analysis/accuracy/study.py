"""One workload's fine-tuning runs, analysed: scores, fronts, differences. Frames for notebooks, and for tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from cdvft_bench.accuracy.analysis import Difference, Score, scores
from cdvft_bench.accuracy.pilot import cannot_rank
from cdvft_bench.accuracy.results import workloads
from cdvft_bench.accuracy.training.trial import TrialResult
from cdvft_bench.analysis.accuracy.answers import answers
from cdvft_bench.analysis.accuracy.fronts import Front, fronts_of
from cdvft_bench.analysis.accuracy.pairs import BASELINE, differences_to, told_apart
from cdvft_bench.analysis.accuracy.ranking import role_of
from cdvft_bench.analysis.sentences import Headline
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.text import NOT_MEASURED, clean, listed, percent_bounds
from cdvft_bench.sweep.step_times import StepTimes

if TYPE_CHECKING:
    from pandas import DataFrame

PAPER = "CDVFT m=2 p=d"


@dataclass(frozen=True)
class Study:
    """Runs of one workload from one file.

    Attributes:
        name: model and task, with what else tells it from the other studies. file: that holds the runs.
        runs: all of them. steps: their training steps side by side, in the runs' environment; None where none were.
        untimed: why the steps that were given do not go with the runs; empty where none were given, or they do.
    """

    name: str
    file: str
    runs: Sequence[TrialResult]
    steps: StepTimes | None = None
    untimed: str = ""

    @cached_property
    def scores(self) -> list[Score]:
        """Of every method that has runs on the test split, best first."""
        return scores(self.runs)

    @cached_property
    def cannot_rank(self) -> str:
        """Why it cannot rank methods; empty where its pilot shows that it can."""
        return cannot_rank(self.runs)

    @cached_property
    def paper(self) -> Score | None:
        """CDVFT at the paper's setting, on whatever path it ran."""
        return next((score for score in self.scores if role_of(score) == PAPER), None)

    @cached_property
    def fronts(self) -> list[Front]:
        """Accuracy against every cost."""
        return fronts_of(self.scores, self.steps, self.untimed)

    def differences(self, against: str = BASELINE) -> list[Difference]:
        """Every method's difference to one, paired by seed and example; empty where no two seeds are shared."""
        return list(differences_to(self.scores, against).values())

    @cached_property
    def said(self) -> dict[str, str]:
        """What it says on the reviewers' questions, by question."""
        return answers(self.runs, self.scores, self.fronts)

    @cached_property
    def headline(self) -> Headline | None:
        """CDVFT at the paper's setting beside LoRA r = 8, in a sentence; None where either was not scored."""
        ours = self.paper
        found = next((d for d in self.differences() if ours and d.label == ours.label), None)
        if ours is None or found is None:
            return None
        bounds = (
            "no interval" if ours.low is None or ours.high is None else f"{_points(ours.low)}, {_points(ours.high)}"
        )
        word = "not told apart from" if not told_apart(found) else "above" if found.mean > 0 else "below"
        return Headline(
            before=f"{clean(self.name.split(' (')[0])}: {PAPER} scores",
            value=f"{_points(ours.mean)} % [{bounds}]",
            after=f"on the test split, {word} {BASELINE}.",
            more=f"The difference is {found.mean * 100:+.1f} points{percent_bounds(found.interval)}.",
        )

    @cached_property
    def frame(self) -> DataFrame:
        """One row a method: accuracy with its interval, costs, and the share of draws on each front."""
        import pandas as pd

        timed = {cost.label: cost for cost in self.steps.costs} if self.steps else {}
        rows = []
        for s in self.scores:
            step = timed.get(s.label)
            rows.append(
                {
                    "study": clean(self.name),
                    "setting": clean(s.label),
                    "method": s.method,
                    "accuracy": s.mean,
                    "accuracy_low": s.low,
                    "accuracy_high": s.high,
                    "seeds": len(s.accuracies),
                    "examples": s.answers.shape[1],
                    "diverged": s.diverged,
                    "lr": s.lr,
                    "lr_at_edge": s.at_edge,
                    "scale": s.scale,
                    "parameters": s.parameters,
                    "step_flops": s.step_flops,
                    "training_bytes": s.training_bytes,
                    "seconds": step.seconds.value if step else None,
                    "seconds_low": step.seconds.low if step else None,
                    "seconds_high": step.seconds.high if step else None,
                    "peak_bytes": step.peak_bytes if step else s.peak_bytes,
                    "joules": step.joules if step else s.joules,
                    **{f"front_{f.kind.name}": f.shares.get(s.label) for f in self.fronts if f.costs},
                }
            )
        return pd.DataFrame(rows)


def studies(
    runs: Mapping[str, Sequence[TrialResult]],
    steps: Iterable[StepTimes] = (),
    timed: str = "",
    environments: Mapping[str, object] | None = None,
) -> list[Study]:
    """One study a file and workload: those that can rank methods first, then those with most on the test split.

    Args:
        runs: by the name of their file. steps: each goes to the studies of its model and task, if batch and
            environment are the same.
        timed: name of the file of steps, for errors. environments: of the runs, by key; fields or a dataclass.

    Raises:
        UserError: steps are given and no study is of their model and task.
    """
    found = {(file, name): some for file, rows in runs.items() for name, some in workloads(rows).items()}
    names = [f"{rows[0].trial.model} on {rows[0].trial.task}" for rows in found.values()]
    known = list(steps)
    made = []
    for ((file, long), rows), short in zip(found.items(), names, strict=True):
        trial = rows[0].trial
        own = [s for s in known if (s.model, s.task) == (trial.model, trial.task)]
        reasons = [_apart(one, rows, environments or {}) for one in own]
        going = next((one for one, reason in zip(own, reasons, strict=True) if not reason), None)
        untimed = "" if going or not reasons else reasons[0]
        made.append(Study(short if names.count(short) == 1 else f"{long}, {file}", file, rows, going, untimed))
    for one in known:
        if made and not any((r.trial.model, r.trial.task) == (one.model, one.task) for s in made for r in s.runs[:1]):
            what = sorted({f"{s.runs[0].trial.model} on {s.runs[0].trial.task}" for s in made})
            raise UserError(
                f"{timed or 'the steps'} are of {one.model} on {one.task}, but the runs of {', '.join(what)}; "
                "time the steps of the same preset"
            )
    return sorted(made, key=lambda study: (study.cannot_rank != "", -len(study.scores)))


def fronted(found: Iterable[Study]) -> list[Study]:
    """Those with test runs whose fronts are shown: of workloads that can rank methods, or all where none can."""
    scored = [study for study in found if study.scores]
    return [study for study in scored if not study.cannot_rank] or scored


_MACHINE = ("cpu", "cpu_capability", "gpus", "torch")
"""What of an environment a time hangs on most; threads differ, since runs share a machine and steps have it alone."""


def _apart(steps: StepTimes, rows: Sequence[TrialResult], environments: Mapping[str, object]) -> str:
    """Why steps do not go with runs; empty where they do, or where one of the two does not say where it was."""
    batches = sorted({run.trial.batch for run in rows})
    if batches != [steps.batch]:
        return f"{NOT_MEASURED}: the steps take {steps.batch} examples, the runs {listed(list(map(str, batches)))}"
    for key in dict.fromkeys(run.environment for run in rows):
        fields = environments.get(key)
        given = asdict(fields) if is_dataclass(fields) and not isinstance(fields, type) else fields
        if not isinstance(given, Mapping):
            continue
        for name in _MACHINE:
            mine, theirs = steps.environment.get(name), given.get(name)
            if mine and theirs and _plain(mine) != _plain(theirs):
                return (
                    f"{NOT_MEASURED} in the environment of the runs: the steps' {name} is {_plain(mine)}, "
                    f"the runs' {_plain(theirs)}"
                )
    return ""


def _plain(value: object) -> str:
    return clean(", ".join(map(str, value)) if isinstance(value, list | tuple) else value)


def runs_frame(runs: Mapping[str, Sequence[TrialResult]]) -> DataFrame:
    """One row a run: what was run and what came of it; curves as texts."""
    import pandas as pd

    rows = []
    for file, some in runs.items():
        for run in sorted(some, key=lambda r: (r.label, r.trial.evaluate, r.trial.lr, r.trial.seed)):
            values = asdict(run)
            trial = values.pop("trial")
            trial["hyperparameters"] = "; ".join(f"{k}={v}" for k, v in trial["hyperparameters"])
            for curve in ("losses", "curve"):
                values[curve] = "; ".join("not finite" if v is None else f"{v:.4f}" for v in values[curve])
            rows.append({"file": file, **trial, **values})
    return pd.DataFrame(rows)


def _points(share: float) -> str:
    return f"{100 * share:.1f}"
