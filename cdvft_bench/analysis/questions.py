"""What reviewers of the paper doubted, R1 to R6: each with its evidence and an answer made by rule from it.

An answer is one of four words, never an opinion: the rule that gives it stands in the docstring of
its function. Where nothing was recorded that could answer, it is "not measured".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cdvft_bench.accuracy.analysis import Score, scores
from cdvft_bench.analysis.accuracy.starts import by_start, starts_said
from cdvft_bench.analysis.agreement import trainable
from cdvft_bench.analysis.evidence import (
    Answer,
    Evidence,
    Given,
    against,
    grouped,
    keys,
    over_lora,
    pair,
    spread,
)
from cdvft_bench.analysis.limits import transforms
from cdvft_bench.analytic.models import model_spec
from cdvft_bench.core.record import Record
from cdvft_bench.core.text import NOT_MEASURED, clean, listed, plural, prefixed, significant

if TYPE_CHECKING:
    from cdvft_bench.accuracy.trial import TrialResult

RECENT = ("llama-3", "qwen", "mistral", "gemma", "smollm2")
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
        return Answer("R1", question, NOT_MEASURED, plain, (), ("findings: give --expressivity FOLDER",))
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
    word = "in part" if against or not proved else "yes"
    return Answer("R1", question, word, plain, evidence, tuple(f.statement for f in unsettled))


def settings(given: Given) -> Answer:
    """R3. "in part" where time or accuracy was recorded at two values of an axis; "yes" where at all five."""
    question = "What happens away from the one fixed setting: m, p, learning rate, initialisation, seeds?"
    evidence: list[Evidence] = []
    for axis, name in (("m", "number of diagonals m"), ("block_size", "block size p")):
        said = spread(given, axis, name)
        evidence += [said] if said else []
    axes = [name for name, said in (("m", "diagonals"), ("p", "block size")) if any(said in e.text for e in evidence)]
    tuned = {axis: said for axis, said in _tuned(given).items() if said}
    axes += tuned
    evidence += [one for said in tuned.values() for one in said]
    said = given.verdict("m-2-is-enough")
    evidence += [said] if said else []
    wanted = ("m", "p", "learning rate", "initialisation", "seeds")
    missing = tuple(a for a in wanted if a not in axes)
    if not axes:
        return Answer("R3", question, NOT_MEASURED, "Nothing was recorded at two values of any of these.",
                      tuple(evidence), missing)  # fmt: skip
    word = "in part" if missing else "yes"
    plain = f"Recorded at several values: {listed(axes)}."
    if missing:
        plain += f" Not measured: {listed(missing)}."
    return Answer("R3", question, word, plain, tuple(evidence), missing)


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
    by_subject = grouped(
        [
            r
            for s in given.sections
            for r in s.ok
            if r.case.subject.lower().startswith(RECENT) and r.case.method == "cdvft"
        ],
        lambda r: (r.case.kind, r.case.subject),
    )
    for (kind, subject), rows in by_subject.items():
        text = f"Cost on the {kind} {clean(subject)}: {over_lora(rows)}."
        evidence.append(Evidence(text, "records", keys(rows)))
    workloads = given.workloads()
    tasks = {
        workload: scores(rows)
        for workload, rows in workloads.items()
        if model_spec(rows[0].trial.model).auto == "AutoModelForCausalLM"
        and any(r.trial.method == "cdvft" and r.trial.evaluate == "test" and r.accuracy is not None for r in rows)
    }
    evidence += [
        Evidence(
            f"Fine-tuned {clean(workload)}, share of the test split answered right under greedy decoding: "
            f"{listed([_scored(s) for s in found])}.", given.source(workloads[workload]),
        )
        for workload, found in tasks.items()
    ]  # fmt: skip
    missing = []
    if not tasks:
        missing.append("CDVFT's accuracy on a generation task")
    if not any(kind == "model" for kind, _ in by_subject):
        missing.append("a whole recent model, measured")
    if not evidence:
        return Answer("R4", question, NOT_MEASURED, "Neither a recent model nor a generation task is recorded.", (),
                      tuple(missing))  # fmt: skip
    word = "yes" if not missing else "in part"
    plain = "Recorded is what it costs, not how well it does."
    if tasks:
        said = [
            f"by {clean(workload)}: {listed([f'{clean(s.label)} {100 * s.mean:.1f} %' for s in found])}"
            for workload, found in tasks.items()
        ]
        plain = f"Answered right, mean over seeds, {'; '.join(said)}."
    return Answer("R4", question, word, plain, tuple(evidence), tuple(missing))


def _scored(score: Score) -> str:
    """A method's accuracy with its interval."""
    bounds = "" if score.low is None or score.high is None else f" [{100 * score.low:.1f}, {100 * score.high:.1f}]"
    runs = plural(len(score.accuracies), "run")
    return f"{clean(score.label)} {100 * score.mean:.1f} %{bounds} ({runs})"


def cheaper(given: Given) -> Answer:
    """R5. Where CDVFT takes fewer FLOPs: "yes" if its step is faster on all those workloads, "no" on none.

    Faster: the whole 95 % interval of the time ratio lies below 1. Against LoRA r = 8, and against FourierFT.
    """
    question = (
        "Do fewer FLOPs make fine-tuning cheaper end to end, or do kernel launches and memory traffic eat the gain?"
    )
    compared = list(against(given))
    evidence = [one.evidence for one in compared]
    bound = [r.timed.trace.verdict for s in given.sections for r in s.ok
             if r.case.method == "cdvft" and r.timed and r.timed.trace]  # fmt: skip
    if set(bound) - {"unknown"}:
        counts = ", ".join(f"{bound.count(word):,} {word}" for word in sorted(set(bound)))
        evidence.append(Evidence(f"What binds CDVFT's calls, by their traces: {counts}.", "records"))
    said = given.verdict("step-time-like-lora")
    evidence += [said] if said else []
    missing = [] if any(s.kind == "model" for s in given.sections) else ["whole models: only layers are recorded"]
    if not any(s.device == "cuda" for s in given.sections):
        missing.append("a GPU: not measured")
    if not compared:
        return Answer("R5", question, NOT_MEASURED, "No step of CDVFT is recorded beside LoRA r=8 or FourierFT.",
                      tuple(evidence), tuple(missing))  # fmt: skip
    sentences = []
    for title, paired in (("LoRA r=8", True), ("FourierFT", False)):
        rows = [one for one in compared if one.paired == paired]
        less = [one for one in rows if one.flops is not None and one.flops < 1]
        if rows:
            words = [one.verdict for one in rows]
            sentences.append(
                f"Beside {title}, on {plural(len(rows), 'workload')}, a step of CDVFT (m = 2, largest p) takes fewer "
                f"FLOPs on {len(less)}; it is faster on {words.count('faster')}, slower on {words.count('slower')}, "
                f"and no difference is shown on {words.count('no difference')}."
            )
    gains = [one for one in compared if one.flops is not None and one.flops < 1]
    faster = sum(one.verdict == "faster" for one in gains)
    word = "yes" if gains and faster == len(gains) else "in part" if faster else "no"
    sentences.append(
        f"Where it takes fewer FLOPs, it is faster on {faster} of {len(gains)}."
        if gains
        else "It takes fewer FLOPs on none of them, so there is no gain to eat."
    )
    return Answer("R5", question, word, " ".join(sentences), tuple(evidence), tuple(missing))


def worth(given: Given) -> Answer:
    """R6. "no" where what CDVFT saves of weights and optimiser state is below 1 % of every peak, else "in part"."""
    question = (
        "Parameters and adapter memory are negligible already: is trading them against FLOPs worth anything, and to "
        "whom?"
    )
    evidence: list[Evidence] = []
    shares: list[float] = []
    stored: list[tuple[int, int, Record]] = []
    for section in given.sections:
        for where, rows in section.workloads().items():
            ours, lora = pair(rows)
            if ours is None or lora is None or where.pass_ != "step":
                continue
            mine, theirs = trainable(ours), trainable(lora)
            if mine is None or theirs is None:
                continue
            stored.append((mine, theirs, ours))
            peak = ours.timed.memory.peak_bytes if ours.timed and ours.timed.memory else None
            if section.kind == "model" and peak:
                saved = 4 * 4 * (theirs - mine)  # weight, gradient and AdamW's two moments, float32
                shares.append(saved / peak)
                text = (
                    f"{section.title}, {where.title}: CDVFT trains {mine:,} parameters, LoRA r=8 {theirs:,}; weights, "
                    f"gradients and optimiser state differ by {prefixed(abs(saved))} bytes, "
                    f"{100 * abs(saved) / peak:.2f} % of the peak of a step ({prefixed(peak)} bytes)."
                )
                evidence.append(Evidence(text, "records", keys([ours, lora])))
    if stored:
        mine, theirs, record = max(stored, key=lambda s: (s[2].case.kind == "model", s[1]))
        text = (
            f"Who keeps {TENANTS:,} adapters of {clean(record.case.subject)} in float32 keeps "
            f"{prefixed(4.0 * TENANTS * mine)} bytes of CDVFT, {prefixed(4.0 * TENANTS * theirs)} of LoRA r=8 "
            f"({significant(theirs / mine, 3)} times as much), by their parameters."
        )
        evidence.append(Evidence(text, "records", keys([record])))
    missing = [] if shares else ["the peak memory of a whole model's step"]
    if not stored:
        return Answer("R6", question, NOT_MEASURED, "CDVFT and LoRA r=8 are not recorded side by side.", (),
                      tuple(missing))  # fmt: skip
    if not shares:
        plain = "What parameters weigh in the memory of training was not measured; what adapters take to keep follows."
        return Answer("R6", question, "in part", plain, tuple(evidence), tuple(missing))
    most = max(abs(s) for s in shares)
    if most < NEGLIGIBLE:
        plain = (
            f"To who trains one adapter, no: the parameters saved are at most {100 * most:.2f} % of the memory of a "
            "step. To who keeps or sends many adapters, the bytes of each count in full."
        )
        return Answer("R6", question, "no", plain, tuple(evidence), tuple(missing))
    plain = f"The parameters saved are up to {100 * most:.1f} % of the memory of a step."
    return Answer("R6", question, "in part", plain, tuple(evidence), tuple(missing))
