"""R5: whether fewer FLOPs make a training step faster. CDVFT beside LoRA r = 8 and FourierFT, workload by workload.

The answer is of CDVFT as users get it, on the path "auto", where that was timed. Of one workload that was recorded
several times on machines of one name the latest counts, on "auto" where there is one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cdvft_bench.analysis.frame import CONVENTION, Entry, between, interval_of
from cdvft_bench.analysis.overview import representatives
from cdvft_bench.analysis.questions.evidence import Answer, Evidence, Given, Word, keys, known, over, place
from cdvft_bench.analysis.sentences import word_of
from cdvft_bench.core.interval import Interval
from cdvft_bench.core.text import interval, listed, plural, times

FFT_PATHS = ("fft", "handwritten", "fused", "stored", "triton")
"""Paths that transform the activations, as the paper does; the others add the change to the weight."""

QUESTION = "Do fewer FLOPs make fine-tuning cheaper end to end, or do kernel launches and memory traffic eat the gain?"


@dataclass(frozen=True)
class Against:
    """A step of CDVFT at the paper's setting beside another method's, on one workload.

    Attributes:
        other: the other method.
        auto: whether CDVFT ran on the path that users get; else by torch's FFTs, or another that was named.
        flops: of the adapter by formula, over the other's; None unknown.
        time: over the other's. paired: timed in the same rounds; else the interval is the widest that the two
            ratios to the frozen subject allow.
        evidence: the sentence.
    """

    other: str
    auto: bool
    flops: float | None
    time: Interval
    paired: bool
    evidence: Evidence


def pair(rows: Sequence[Entry]) -> tuple[Entry | None, Entry | None]:
    """CDVFT at the paper's setting, as ``overview`` chooses it, and LoRA r = 8, of one comparable group."""
    ours = next((row for row in representatives(rows) if row["method"] == "cdvft"), None)
    return ours, next((row for row in rows if row["setting"] == "LoRA r=8"), None)


def against(given: Given) -> Iterator[Against]:
    """Steps of CDVFT beside LoRA r = 8's, and beside FourierFT's (its fastest setting), each workload once."""
    found: dict[tuple[object, ...], tuple[tuple[bool, str], Against]] = {}
    for rows in given.groups:
        ours, lora = pair([row for row in rows if known(row, "frozen") or known(row, "lora")])
        if ours is None or ours["pass"] != "step":
            continue
        compared = []
        if lora is not None and (time := interval_of(ours, "lora")) is not None:
            compared.append(_against(ours, lora, "LoRA r=8", time, True))
        timed = [row for row in rows if row["method"] == "fourierft" and known(row, "frozen")]
        other = min(timed, key=lambda row: row["frozen"], default=None)
        if other is not None and (time := between(ours, other)) is not None:
            compared.append(_against(ours, other, other["label"], time, False))
        for one in compared:
            workload = (place(ours), ours["machine"], ours["device"], one.paired)
            better = (one.auto, str(ours["recorded"]))
            if workload not in found or better > found[workload][0]:
                found[workload] = (better, one)
    # What users get comes first: a report shows no more than so many sentences.
    yield from sorted((one for _, one in found.values()), key=lambda one: not one.auto)


def _against(ours: Entry, other: Entry, name: str, time: Interval, paired: bool) -> Against:
    flops = over(ours["adapter_flops"], other["adapter_flops"])
    launches = over(ours["launches"], other["launches"])
    said = [f"{times(v)} the {n}" for v, n in ((flops, f'FLOPs ("{CONVENTION}")'), (launches, "launches")) if v]
    said.append(f"{interval(time.value, time.low, time.high)} the time")
    text = f"{place(ours)}: {ours['label']} takes {listed(said)} of {name}."
    return Against(name, ours["path"] == "auto", flops, time, paired, Evidence(text, "records", keys([ours, other])))


def replayed(row: Entry) -> Evidence:
    """A case's time over LoRA r = 8's as replayed CUDA graphs, which launch nothing, beside the eager one."""

    def ratio(name: str) -> str:
        return interval(row[name], row[f"{name}_low"], row[f"{name}_high"]) if known(row, name) else "not measured"

    narrow = f", {ratio('graph_narrow')} where its factors have 16 bits, too" if known(row, "graph_narrow") else ""
    text = (
        f"{place(row)}: as replayed CUDA graphs, which launch nothing, {row['label']} takes {ratio('graph_lora')} the "
    )
    return Evidence(f"{text}time of LoRA r=8{narrow}; eagerly {ratio('lora')}.", "records", keys([row]))


def as_graphs(given: Given) -> list[Entry]:
    """Steps of CDVFT at the paper's setting, as ``overview`` chooses it, that were timed as replayed CUDA graphs."""
    ours = [pair([row for row in rows if known(row, "graph_lora")])[0] for rows in given.groups]
    return [row for row in ours if row is not None and row["pass"] == "step"]


def _graphs_told(rows: Sequence[Entry], every: Sequence[Entry]) -> str:
    """In one sentence how those steps compare with LoRA r = 8's, by machine, and how they do on a path of FFTs."""
    said = []
    for machine in dict.fromkeys(row["machine"] for row in rows):
        mine = [row for row in rows if row["machine"] == machine]

        def span(name: str, some: Sequence[Entry] = mine) -> str:
            values = sorted(row[name] for row in some if known(row, name))
            return times(values[0]) if values[:1] == values[-1:] else f"{times(values[0])} to {times(values[-1])}"

        models = sum(row["kind"] == "model" for row in mine)
        where = [plural(n, what) for n, what in ((len(mine) - models, "layer workload"), (models, "whole model")) if n]
        narrow = any(known(row, "graph_narrow") for row in mine)
        settings = {(row["setting"], row["pass"], row["machine"]) for row in mine}
        by_ffts = [
            row
            for row in every
            if row["path"] in FFT_PATHS
            and (row["setting"], row["pass"], row["machine"]) in settings
            and known(row, "graph_lora")
        ]
        said.append(
            f"On {machine}, {listed(where)}: as replayed CUDA graphs, where no launch is waited for, a step takes "
            f"{span('graph_lora')} the time of LoRA r=8"
            + (f" ({span('graph_narrow')} where its factors have 16 bits, too)" if narrow else "")
            + (f", by FFTs of the activations {span('graph_lora', by_ffts)}" if by_ffts else "")
            + (f"; eagerly {span('lora')}." if any(known(row, "lora") for row in mine) else ".")
        )
    return " ".join(said)


def cheaper(given: Given) -> Answer:
    """R5. Where CDVFT takes fewer FLOPs: "yes" if its step is faster on all those workloads, "no" on none.

    "In part" also while whole models or a GPU are not among them.

    Faster: the whole 95 % interval of the time ratio lies below 1. Against LoRA r = 8, and against FourierFT.
    """
    compared, graphs = list(against(given)), as_graphs(given)
    evidence = [*map(replayed, graphs), *(one.evidence for one in compared)]
    bound = [row["verdict"] for row in given.done if row["method"] == "cdvft" and row["verdict"]]
    if set(bound) - {"unknown"}:
        counts = ", ".join(f"{bound.count(word):,} {word}" for word in sorted(set(bound)))
        evidence.append(Evidence(f"What binds CDVFT's calls, by their traces: {counts}.", "records"))
    claims = ("step-time-like-lora", "gpu-step-time-like-lora")
    evidence += [said for claim in claims if (said := given.verdict(claim)) is not None]
    missing = [] if any(row["kind"] == "model" for row in given.rows) else ["whole models: only layers are recorded"]
    if not any(row["device"] == "cuda" for row in given.rows):
        missing.append("a GPU: not measured")
    if not compared:
        plain = "No step of CDVFT is recorded beside LoRA r=8 or FourierFT."
        return Answer("R5", QUESTION, "not measured", plain, tuple(evidence), tuple(missing))
    sentences = []
    users = [one for one in compared if one.auto]
    for title, paired in (("LoRA r=8", True), ("FourierFT", False)):
        for auto, how in ((True, ""), (False, ", where only a named path was timed, as torch's FFTs")):
            some = [one for one in compared if one.paired == paired and one.auto == auto]
            if some:
                step = f"Beside {title}, on {plural(len(some), 'workload')}, a step of CDVFT (m = 2, largest p{how})"
                sentences.append(_counted(step, some))
    compared = users or compared
    gains = [one for one in compared if _fewer(one)]
    faster = sum(word_of(one.time) == "faster" for one in gains)
    where = " on the path auto" if users else ""
    whole = gains and faster == len(gains) and not missing
    word: Word = "yes" if whole else "in part" if faster else "no"
    sentences.append(
        f"Where it takes fewer FLOPs{where}, it is faster on {faster} of {len(gains)}."
        if gains
        else f"It takes fewer FLOPs on none of them{where}, so there is no gain to eat."
    )
    if graphs:
        sentences.insert(0, _graphs_told(graphs, given.done))
    return Answer("R5", QUESTION, word, " ".join(sentences), tuple(evidence), tuple(missing))


def _counted(begin: str, some: Sequence[Against]) -> str:
    words = [word_of(one.time) for one in some]
    return (
        f"{begin} takes fewer FLOPs on {sum(map(_fewer, some))}; it is faster on "
        f"{words.count('faster')}, slower on {words.count('slower')}, and no difference is shown on "
        f"{words.count('not told apart') + words.count('no interval')}."
    )


def _fewer(one: Against) -> bool:
    return one.flops is not None and one.flops < 1
