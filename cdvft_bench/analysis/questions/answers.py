"""What reviewers of the paper doubted, R1 to R6: each with its evidence and an answer made by rule from it.

An answer is one of four words, never an opinion: the rule that gives it stands in the docstring of
its function. Where nothing was recorded that could answer, it is "not measured".
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING

from cdvft_bench.accuracy.analysis import Score, scores
from cdvft_bench.accuracy.training.trial import TrialResult
from cdvft_bench.analysis.accuracy.answers import by_start, starts_said
from cdvft_bench.analysis.frame import Entry
from cdvft_bench.analysis.inputs import Campaign
from cdvft_bench.analysis.questions.evidence import (
    Answer,
    Evidence,
    Given,
    Word,
    grouped,
    keys,
    known,
    over_lora,
    place,
)
from cdvft_bench.analysis.questions.gains import cheaper, pair
from cdvft_bench.analysis.questions.limits import transforms
from cdvft_bench.analytic.models import model_spec
from cdvft_bench.core.text import NOT_MEASURED, clean, listed, plural, prefixed, significant

if TYPE_CHECKING:
    from cdvft_bench.claims.table import VerdictRow


RECENT = ("llama-3", "qwen", "mistral", "gemma", "smollm2")
PAPER = "CDVFT m=2 p=d"
MODELS = "cdvft-bench sweep paper-models --store paper-models.sqlite (core-hours not measured)"
TENANTS = 1000
NEGLIGIBLE = 0.01
"""A share of memory below one part in a hundred is called negligible."""


def answers(given: Given) -> list[Answer]:
    """All six."""
    return [expressivity(given), transforms(given), settings(given), recent(given), cheaper(given), worth(given)]


def expressivity(given: Given) -> Answer:
    """R1. "yes" where findings are proved and none is contradicted by its profile; "in part" where one is."""
    question = "Is there analysis, not only results, that shows what the factorisation can and cannot express?"
    if not given.findings:
        plain = "No findings on expressivity were given to this report."
        return Answer("R1", question, "not measured", plain, (), ("findings: give --expressivity FOLDER",))
    held = [f for f in given.findings if f.holds]
    proved = [f for f in held if f.label == "proved"]
    checked = [f for f in held if f.label == "checked numerically"]
    against = [f for f in given.findings if f.holds is False]
    unsettled = [f for f in given.findings if f.label == "conjectured" or f.holds is None]
    plain = (
        f"{plural(len(proved), 'statement is', 'statements are')} proved and {len(checked):,} checked numerically, on "
        f"what m factors can reach and what they cannot; {len(unsettled):,} "
        f"{'is' if len(unsettled) == 1 else 'are'} conjectured or open."
    )
    if against:
        plain += f" {plural(len(against), 'statement is', 'statements are')} contradicted by the profile."
    evidence = tuple(
        Evidence(f"{f.label.capitalize()}{'' if f.holds else ', and contradicted'}: {f.statement}", f"finding {f.id}")
        for f in [*against, *proved, *checked]
    )
    word: Word = "in part" if against or not proved else "yes"
    return Answer("R1", question, word, plain, evidence, tuple(f.statement for f in unsettled))


def settings(given: Given) -> Answer:
    """R3. "in part" where time or accuracy was recorded at two values of an axis; "yes" where at all five."""
    question = "What happens away from the one fixed setting: m, p, learning rate, initialisation, seeds?"
    evidence: list[Evidence] = []
    for axis, name in (("m", "number of diagonals m"), ("p", "block size p")):
        moved = spread(given, axis, name)
        evidence += [moved] if moved else []
    axes = [name for name, said in (("m", "diagonals"), ("p", "block size")) if any(said in e.text for e in evidence)]
    tuned = {axis: said for axis, said in _tuned(given).items() if said}
    axes += tuned
    evidence += [one for said in tuned.values() for one in said]
    said = given.verdict("m-2-is-enough")
    evidence += [said] if said else []
    wanted = ("m", "p", "learning rate", "initialisation", "seeds")
    missing = tuple(a for a in wanted if a not in axes)
    open_ = (*missing, *given.unrun())
    if not axes:
        plain = "Nothing was recorded at two values of any of these."
        return Answer("R3", question, "not measured", plain, tuple(evidence), open_)
    word: Word = "in part" if missing else "yes"
    plain = f"Recorded at several values: {listed(axes)}."
    if missing:
        plain += f" Not measured: {listed(missing)}."
    return Answer("R3", question, word, plain, tuple(evidence), open_)


def spread(given: Given, axis: str, name: str) -> Evidence | None:
    """How far CDVFT's ratio to the frozen subject moves over one hyperparameter with all else equal.

    Args:
        axis: a column of the frame, "m" or "p". name: what the sentence calls it.
    """
    factors: list[float] = []
    shown: list[Entry] = []
    rest = ("m", "p") if axis not in ("m", "p") else ("p" if axis == "m" else "m",)
    for rows in given.groups:
        ours = [row for row in rows if row["method"] == "cdvft" and known(row, "frozen") and known(row, axis)]
        for same in grouped(ours, lambda row: (*(row[n] for n in rest), row["path"], row["seed"])).values():
            values = [row["frozen"] for row in same]
            if len({row[axis] for row in same}) > 1 and min(values) > 0:
                factors.append(max(values) / min(values))
                shown += same[:1]
    if not factors:
        return None
    text = (
        f"Over the {name}, all else equal, time moves by a factor of {significant(median(factors), 3)} in the median "
        f"of {plural(len(factors), 'series', 'series')}, at most {significant(max(factors), 3)}."
    )
    return Evidence(text, "records", keys(shown))


def _tuned(given: Given) -> dict[str, list[Evidence]]:
    """What fine-tuning runs say of CDVFT's learning rate, start and seeds, each workload by itself."""
    rates, starts, seeds = [], [], []
    for workload, rows in given.workloads().items():
        ours = [r for r in rows if r.trial.method == "cdvft"]
        tried = [r for r in ours if r.trial.evaluate == "validation"] or ours
        if len({r.trial.lr for r in tried}) > 1:
            rates.append(Evidence(f"{clean(workload)}: {_over_rates(tried)}.", given.source(tried)))
        found = scores(ours)
        named = [r for r in ours if r.trial.start]
        for group in by_start(found):
            starts.append(Evidence(f"{clean(workload)}: {starts_said(group)}", given.source(named)))
        several = [s for s in found if len(s.seeds) > 1]
        ranges = [
            f"{clean(s.label)} {100 * min(s.accuracies):.1f} % to {100 * max(s.accuracies):.1f} % over {len(s.seeds)}"
            for s in several
        ]
        if several:
            text = f"{clean(workload)}, test accuracy over seeds: {listed(ranges)}."
            seeds.append(Evidence(text, given.source(ours)))
    return {"learning rate": rates, "initialisation": starts, "seeds": seeds}


def _over_rates(tried: Sequence[TrialResult]) -> str:
    ended = [r for r in tried if r.accuracy is not None]
    text = (
        f"CDVFT was tuned at {plural(len({r.trial.lr for r in tried}), 'learning rate')}; "
        f"{sum(r.diverged for r in tried)} of {plural(len(tried), 'run')} diverged"
    )
    if not ended:
        return text
    best, worst = (pick(ended, key=lambda r: r.accuracy or 0.0) for pick in (max, min))
    return (
        f"{text}; over rates and settings, accuracy runs from {100 * (worst.accuracy or 0):.1f} % (at "
        f"{worst.trial.lr:g}) to {100 * (best.accuracy or 0):.1f} % (at {best.trial.lr:g})"
    )


def recent(given: Given) -> Answer:
    """R4. "yes" where a model that generates was fine-tuned with CDVFT and a whole recent one measured, else "in part".

    Neither: "not measured".
    """
    question = "Recent models (Llama-3-8B) and generation tasks?"
    evidence: list[Evidence] = []
    ours = [r for r in given.done if r["method"] == "cdvft" and r["subject"].lower().startswith(RECENT)]
    by_subject = grouped(ours, lambda row: (str(row["kind"]), str(row["subject"])))
    for (kind, subject), found in by_subject.items():
        evidence.append(Evidence(f"Cost on the {kind} {subject}: {over_lora(found)}.", "records", keys(found)))
    workloads = given.workloads()
    tasks = {
        workload: scores(rows)
        for workload, rows in workloads.items()
        if model_spec(rows[0].trial.model).auto == "AutoModelForCausalLM"
        and any(r.trial.method == "cdvft" and r.trial.evaluate == "test" and r.accuracy is not None for r in rows)
    }
    for workload, scored in tasks.items():
        said = listed([_scored(score) for score in scored])
        text = f"Fine-tuned {clean(workload)}, share of the test split answered right under greedy decoding: {said}."
        evidence.append(Evidence(text, given.source(workloads[workload])))
    missing = []
    if not tasks:
        missing.append("CDVFT's accuracy on a generation task")
    if not any(kind == "model" for kind, _ in by_subject):
        missing.append(f"a whole recent model, measured on a GPU; {MODELS}")
    open_ = (*missing, *given.unrun(generation=True))
    if not evidence:
        plain = "Neither a recent model nor a generation task is recorded."
        return Answer("R4", question, "not measured", plain, (), open_)
    word: Word = "yes" if not missing else "in part"
    plain = "Recorded is what it costs, not how well it does."
    if tasks:
        parts = [
            f"by {clean(workload)}: {listed([f'{clean(s.label)} {100 * s.mean:.1f} %' for s in scored])}"
            for workload, scored in tasks.items()
        ]
        plain = f"Answered right, mean over seeds, {'; '.join(parts)}."
    return Answer("R4", question, word, plain, tuple(evidence), open_)


def _scored(score: Score) -> str:
    """A method's accuracy with its interval."""
    bounds = "" if score.low is None or score.high is None else f" [{100 * score.low:.1f}, {100 * score.high:.1f}]"
    runs = plural(len(score.accuracies), "run")
    return f"{clean(score.label)} {100 * score.mean:.1f} %{bounds} ({runs})"


def worth(given: Given) -> Answer:
    """R6. "no" where what CDVFT saves of weights and optimiser state is below 1 % of every peak, else "in part"."""
    question = (
        "Parameters and adapter memory are negligible already: is trading them against FLOPs worth anything, and to "
        "whom?"
    )
    evidence = given.ranked(PAPER)
    shares: list[float] = []
    stored: list[tuple[float, float, Entry]] = []
    for rows in given.groups:
        ours, lora = pair(rows)
        if ours is None or lora is None or ours["pass"] != "step":
            continue
        if not known(ours, "parameters") or not known(lora, "parameters"):
            continue
        mine, theirs = ours["parameters"], lora["parameters"]
        stored.append((mine, theirs, ours))
        peak = ours["peak_bytes"]
        if ours["kind"] == "model" and known(ours, "peak_bytes") and peak > 0:
            saved = 4 * 4 * (theirs - mine)  # weight, gradient and AdamW's two moments, float32
            shares.append(saved / peak)
            text = (
                f"{place(ours)}: CDVFT trains {mine:,.0f} parameters, LoRA r=8 {theirs:,.0f}; weights, gradients and "
                f"optimiser state differ by {prefixed(abs(saved))} bytes, {100 * abs(saved) / peak:.2f} % of the peak "
                f"of a step ({prefixed(peak)} bytes)."
            )
            evidence.append(Evidence(text, "records", keys([ours, lora])))
    missing = () if shares else (f"the peak memory of a whole model's step; {MODELS}",)
    if not stored:
        return Answer(
            "R6",
            question,
            "not measured",
            "CDVFT and LoRA r=8 are not recorded side by side.",
            tuple(evidence),
            missing,
        )
    mine, theirs, row = max(stored, key=lambda s: (s[2]["kind"] == "model", s[1]))
    text = (
        f"Who keeps {TENANTS:,} adapters of {row['subject']} in float32 keeps {prefixed(4.0 * TENANTS * mine)} bytes "
        f"of CDVFT, {prefixed(4.0 * TENANTS * theirs)} of LoRA r=8 ({significant(theirs / mine, 3)} times as much), by "
        "their parameters."
    )
    evidence.append(Evidence(text, "records", keys([row])))
    most = max((abs(s) for s in shares), default=0.0)
    word: Word = "in part"
    plain = f"The parameters saved are up to {100 * most:.1f} % of the memory of a step."
    if not shares:
        plain = "What parameters weigh in the memory of training was not measured; what adapters take to keep follows."
    elif most < NEGLIGIBLE:
        word = "no"
        plain = (
            f"To who trains one adapter, no: the parameters saved are at most {100 * most:.2f} % of the memory of a "
            "step. To who keeps or sends many adapters, the bytes of each count in full."
        )
    return Answer("R6", question, word, plain, tuple(evidence), missing)


# --- asked of all that was read --------------------------------------------------------------


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
