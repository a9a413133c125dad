"""An answer in words and as a table: what a terminal and a notebook show."""

from collections import Counter
from collections.abc import Mapping, Sequence

from cdvft_bench.core.interval import Interval
from cdvft_bench.core.text import clean, integer, listed, prefixed, significant
from cdvft_bench.predictor.answering.subject import Subject
from cdvft_bench.predictor.devices import Target, assumptions
from cdvft_bench.predictor.pricing import Pricer
from cdvft_bench.predictor.results import Answer, Choice, Fit

NAMED = 3
"""Choices that a sentence names; the rest are counted."""


def sentence(fits: Sequence[Choice], too_large: Sequence[Choice], lora_parameters: int) -> str:
    """What is fastest, what CDVFT takes, what is smallest, and what does not fit.

    Args:
        fits: choices in the order of their ranks. too_large: the others. lora_parameters: that LoRA r = 8 trains.
    """
    if not fits:
        nearest = too_large[0]
        return f"Nothing of it fits; {nearest.label} comes nearest: {fit_text(nearest.fit) or 'not even then'}."
    leaders = [c for c in fits if c.rank == fits[0].rank]
    if len(leaders) == 1:
        parts = [f"{leaders[0].label} is fastest: {_time(leaders[0])}"]
    else:
        parts = [f"{_names(leaders)} cannot be told apart and are fastest: {_time(leaders[0])}"]
    ours = next((c for c in fits if c.method == "cdvft"), None)
    if ours is not None and ours not in leaders:
        parts.append(f"{ours.label}: {_time(ours)}")
    smallest = min(fits, key=lambda c: c.parameters)
    share = significant(smallest.parameters / lora_parameters, 2)
    parts.append(f"fewest trained parameters: {smallest.label}, {integer(smallest.parameters)} ({share} × LoRA r=8)")
    if too_large:
        parts.append(f"{_names(too_large)} {'does' if len(too_large) == 1 else 'do'} not fit")
    return "; ".join(parts) + "."


def fit_text(fit: Fit | None) -> str:
    """What would make a step fit; "" of one that does."""
    if fit is None:
        return ""
    ways = [] if fit.batch is None else [f"at batch {fit.batch}"]
    if fit.checkpointed is not None:
        ways.append(f"at batch {fit.checkpointed} with checkpointing")
    if not ways and fit.gpus is not None:
        ways.append(f"on {fit.gpus} GPUs with fsdp and checkpointing")
    return f"fits {listed(ways, 'or')}" if ways else "does not fit, even one sequence with checkpointing"


def _names(some: Sequence[Choice]) -> str:
    labels = [c.label for c in some]
    more = len(labels) - NAMED
    return listed(labels if more <= 0 else [*labels[:NAMED], f"{more} more"])


def _time(choice: Choice) -> str:
    bound = "at least " if choice.at_least else ""
    ratio = significant(choice.over_lora.value, 3)
    return f"{bound}{significant(choice.step_s.value * 1e3, 3)} ms a step, {ratio} × LoRA r=8 ({choice.known})"


# --- what is taken for granted ---------------------------------------------------------------


PCIE_UNKNOWN = "swap times need the GPU's PCIe rate, which calibrated rates of a device outside of the table lack"


def assumed(subject: Subject, target: Target, pricer: Pricer, frozen: float) -> tuple[str, ...]:
    """Of the network, the device and what surrounds it; ``frozen``: seconds of the frozen step."""
    a, device = assumptions(), target.device
    told = [
        "ranked by time alone: what a choice does for accuracy is not predicted",
        *subject.assumptions,
        "frozen projections that a method keeps as buffers (VeRA, RandLoRA) are not in the memory",
        "serving: adapters in the base's dtype; one adapter a batch where unmerged",
    ]
    if target.rates.asynchronous:
        told.append(
            f"launch interval {target.rates.launch_s * 1e6:g} us; {a.reserved_bytes / 1e9:g} GB for "
            "the CUDA context and the allocator"
        )
    told.append(
        f"network: {a.gpus_a_node} GPUs a node at {(device.link if device else a.network_bytes_s) / 1e9:g} GB/s and "
        f"{a.link_latency_s * 1e6:g} us a hop; beyond it {a.network_bytes_s / 1e9:g} GB/s a GPU and "
        f"{a.network_latency_s * 1e6:g} us; ring or tree, the cheaper"
    )
    told += [] if device else [PCIE_UNKNOWN]
    return (*told, *_bounded(subject, pricer, frozen))


def _bounded(subject: Subject, pricer: Pricer, frozen: float) -> tuple[str, ...]:
    """The share of the frozen step that operators without a price have, and may have."""
    given, most = subject.unpriced
    if not given:
        return ()
    names = ", ".join(dict.fromkeys(k.op for k in given))
    held = pricer.seconds(given)
    more = max(pricer.seconds(most) - held, 0.0)
    return (
        f"operators without a price ({names}): {held / frozen:.2g} of the frozen step by their launches and bytes; as "
        f"products of their operands they would add {more / frozen:.2g} of it at most: times are lower bounds",
    )


def title_of(answer: Answer) -> str:
    """The question in a line."""
    where = "" if answer.gpus == 1 else f" on {answer.gpus:,} GPUs ({answer.strategy})"
    tokens = f"batch {answer.batch} × {answer.sequence} tokens a GPU"
    return f"{answer.model}, {answer.device}{where}, {tokens}, {answer.dtype}"


def columns_of(answer: Answer, details: bool = False) -> list[str]:
    """Heads of the columns; the last says why, or what would fit, where there is something to say."""
    last = ["why"] if details else ["fit"] if answer.too_large else []
    return ["", "method", "step", "× LoRA r=8", "tokens/s", "memory", "trained", "known by", *last]


def rows_of(answer: Answer, details: bool = False) -> list[list[str]]:
    """A row a choice, those that fit first."""
    ranks, width = Counter(c.rank for c in answer.choices), len(columns_of(answer, details))
    return [_row(choice, ranks, details)[:width] for choice in (*answer.choices, *answer.too_large)]


def _row(choice: Choice, ranks: Mapping[int, int], details: bool) -> list[str]:
    told = fit_text(choice.fit)
    if details:
        told = "; ".join(filter(None, (told, choice.why)))
    ratio = choice.over_lora
    return [
        (f"{choice.rank}=" if ranks[choice.rank] > 1 else str(choice.rank)) if choice.rank else "",
        clean(choice.label),
        f"≥ {seconds(choice.step_s.value)}" if choice.at_least else seconds_range(choice.step_s),
        significant(ratio.value, 3) + ("" if ratio.low is None else f" [{ratio.low:.2f}, {ratio.high:.2f}]"),
        ("≤ " if choice.at_least else "") + integer(float(significant(choice.tokens_per_s.value, 3).replace(",", ""))),
        bytes_(choice.memory.total),
        integer(choice.parameters),
        choice.known,
        clean(told),
    ]


def seconds(value: float) -> str:
    """In milliseconds."""
    return f"{significant(value * 1e3, 3)} ms"


def seconds_range(value: Interval) -> str:
    """In milliseconds, with the interval where there is one."""
    if value.low is None or value.high is None:
        return seconds(value.value)
    low, high = (significant(v * 1e3, 3) for v in (value.low, value.high))
    return f"{seconds(value.value)} [{low}, {high}]"


def bytes_(value: float | None) -> str:
    """With a prefix; says where it is not known."""
    if value is None:
        return "not known"
    text = prefixed(value)
    return f"{text}B" if text[-1].isalpha() else f"{text} B"
