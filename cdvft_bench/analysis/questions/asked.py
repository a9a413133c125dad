"""The reviewers' questions asked of all that was read: answers with what each workload's fine-tuning says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from cdvft_bench.analysis.inputs import Campaign
from cdvft_bench.analysis.questions.answers import answers
from cdvft_bench.analysis.questions.evidence import Answer, Evidence, Given
from cdvft_bench.core.text import NOT_MEASURED, plural

if TYPE_CHECKING:
    from cdvft_bench.claims.table import VerdictRow

SHOWN_EVIDENCE = 40
"""Sentences of evidence that an answer lists."""


def asked(campaign: Campaign, judged: Sequence[VerdictRow] = ()) -> list[Answer]:
    """All six, answered from the files read; ``judged`` are the rows of their verdicts."""
    given = Given(
        campaign.frame,
        judged,
        campaign.findings,
        campaign.runs,
        campaign.ranking if campaign.runs else None,
        campaign.plans,
    )
    tested = [study for study in campaign.studies if study.scores]
    made = []
    for answer in answers(given):
        more = [
            Evidence(f"{study.name}: {study.said[answer.id]}", f"fine-tuning runs: {study.file}")
            for study in tested
            if answer.id in study.said and NOT_MEASURED not in study.said[answer.id].lower()[:14]
        ]
        evidence = (*answer.evidence, *more)
        if len(evidence) > SHOWN_EVIDENCE:
            left = plural(len(evidence) - SHOWN_EVIDENCE, "further sentence")
            evidence = (*evidence[:SHOWN_EVIDENCE], Evidence(f"{left} of this kind left out.", "tables/records.csv"))
        untimed = tuple(_untimed(campaign)) if answer.id == "R6" else ()
        made.append(replace(answer, evidence=evidence, open=(*answer.open, *untimed)))
    return made


def _untimed(campaign: Campaign) -> Iterator[str]:
    """Workloads that can rank and whose training steps were not timed, with the command that times them."""
    names = {(plan.model, plan.task): plan.outlook.preset for plan in campaign.plans}
    for study in campaign.studies:
        trial = study.runs[0].trial
        name = names.get((trial.model, trial.task))
        if study.scores and not study.cannot_rank and study.steps is None and name:
            yield (
                f"{study.name}, time, memory and launches of a step: {study.untimed or NOT_MEASURED}; cdvft-bench "
                f"steps {name} --output steps.json (four minutes of timing on a machine that does nothing else)"
            )
