"""Campaigns that would answer what was not measured: which of the suite's presets are done, and what the rest takes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cdvft_bench.accuracy.outlook import Outlook, outlook
from cdvft_bench.accuracy.preset import preset_names, read_presets
from cdvft_bench.accuracy.rehearsal import Rehearsal
from cdvft_bench.accuracy.training.trial import TrialResult
from cdvft_bench.core.text import NOT_MEASURED, clean


@dataclass(frozen=True)
class Plan:
    """A campaign that asks first whether its workload can rank methods.

    Attributes:
        outlook: how far it is. model, task: what it trains. where: what a rehearsal ran on; empty without one.
    """

    outlook: Outlook
    model: str
    task: str
    where: str

    @property
    def command(self) -> str:
        """What runs it, or goes on with it, and what that takes."""
        name = self.outlook.preset
        where = f", {self.where}" if self.where and self.outlook.rehearsed else ""
        return f"cdvft-bench train {name} --output results.jsonl ({self.outlook.cost}{where})"

    @property
    def said(self) -> str:
        """What of it was not measured, and what would measure it; empty where nothing lacks."""
        if not self.outlook.left:
            return ""
        what = NOT_MEASURED
        if self.outlook.done:
            what = f"{len(self.outlook.missing)} of {self.outlook.methods} settings lack final runs"
        return f"{self.model} on {self.task}: {what}; {self.command}."


def plans(runs: Mapping[str, Sequence[TrialResult]], rehearsals: Iterable[Rehearsal] = ()) -> list[Plan]:
    """The suite's campaigns with a pilot, in the order of their names."""
    rows = [run for some in runs.values() for run in some]
    known = {one.preset: one for one in rehearsals}
    made = []
    for name in preset_names():
        for preset in read_presets(name)[:1]:
            if preset.gain is None:
                continue
            trial, rehearsal = preset.contenders[0].trial, known.get(preset.name)
            mine = [r for r in rows if (r.trial.model, r.trial.task) == (trial.model, trial.task)]
            where = clean(rehearsal.environment.get("cpu", "")) if rehearsal else ""
            made.append(Plan(outlook(preset, mine, rehearsal), trial.model, trial.task, where))
    return made
