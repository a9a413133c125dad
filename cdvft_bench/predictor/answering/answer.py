"""Which adapter, on this GPU, for this model and batch: every choice ranked, and checked against memory."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import get_args

from cdvft_bench.analytic.cost import Cost
from cdvft_bench.analytic.kernels import ITEMSIZE, Kernels
from cdvft_bench.analytic.linear import check_count
from cdvft_bench.analytic.models import target_linears
from cdvft_bench.core.environment import Environment
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.record import Record
from cdvft_bench.core.ties import steady
from cdvft_bench.methods import Method, make_method
from cdvft_bench.predictor.answering.choices import choices
from cdvft_bench.predictor.answering.measured import measured_steps
from cdvft_bench.predictor.answering.network import GPUS, Step, network_of, scale, sharded
from cdvft_bench.predictor.answering.sentence import sentence
from cdvft_bench.predictor.answering.serving import serve
from cdvft_bench.predictor.devices import Target, assumptions, find_target
from cdvft_bench.predictor.memory import budget
from cdvft_bench.predictor.pricing import Pricer, make_pricer
from cdvft_bench.predictor.results import Answer, Bound, Choice, Fit, MemoryBudget, Range, Scaling, Strategy
from cdvft_bench.predictor.transformer import Transformer, find_model, rest_backward, rest_forward
from cdvft_bench.sweep.model_cost import model_cost

LONGEST = 2048
"""Tokens a sequence where none were asked for and the model takes as many."""
PREFERRED = ("bfloat16", "float16")
PCIE_UNKNOWN = "swap times need the GPU's PCIe rate, which calibrated rates of a device outside of the table lack"


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        model: with its family. target: the device. batch, sequence: of one GPU. dtype: of base and activations.
        gpus, strategy: how many, and how they share the work. targets: endings of the adapted layers.

    Raises:
        UserError: a number is out of range, the dtype has no rate on the device, or the model is too short.
    """

    model: Transformer
    target: Target
    batch: int
    sequence: int
    dtype: str
    gpus: int = 1
    strategy: Strategy = "ddp"
    targets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("batch", "sequence", "gpus"):
            check_count(name, getattr(self, name))
        if self.gpus > GPUS[-1]:
            raise UserError(f"gpus = {self.gpus} is beyond what the model of the network covers; at most {GPUS[-1]}")
        if self.strategy not in get_args(Strategy):
            raise UserError(f"strategy {self.strategy!r} is not known; use ddp or fsdp")
        if self.dtype not in self.target.dtypes:
            known = ", ".join(self.target.dtypes)
            raise UserError(f"{self.target.name} has no rate for dtype {self.dtype!r}; use one of {known}")
        shape = self.model.shape
        if shape.image_tokens is not None and self.sequence != shape.image_tokens:
            raise UserError(f"{shape.name} makes {shape.image_tokens} tokens of an image, not {self.sequence}")
        if self.model.positions is not None and self.sequence > self.model.positions:
            raise UserError(
                f"sequence = {self.sequence} is longer than {shape.name}'s {self.model.positions} positions"
            )

    @property
    def workload(self) -> tuple[int, int, str]:
        """Batch, sequence and dtype."""
        return self.batch, self.sequence, self.dtype


def answer(
    model: str,
    gpu: str,
    *,
    batch: int = 8,
    sequence: int | None = None,
    dtype: str | None = None,
    gpus: int = 1,
    strategy: Strategy = "ddp",
    methods: Sequence[str] = (),
    targets: Sequence[str] = (),
    records: Iterable[Record] = (),
    environments: Mapping[str, Environment] | None = None,
    everything: bool = False,
    devices: Path | None = None,
) -> Answer:
    """Rank methods and ways of executing them for a model on a GPU. Nothing is measured here.

    Args:
        model: a name of the model table, or a transformers config.json.
        gpu: a key of the device table, or a file of calibrated rates.
        batch, sequence: of one GPU; ``sequence`` is 2048, or the model's longest, if not given.
        dtype: of base and activations; bfloat16, or the narrowest that the GPU has a rate for, if not given. Adapters
            of 16-bit bases are float32.
        gpus, strategy: "ddp" copies everything to each GPU, "fsdp" shards it.
        methods: to consider, as ``methods.parse_methods`` reads them; none considers all, by their defaults.
        targets: endings of the adapted layers.
        records, environments: profiles; those of this device calibrate the prediction and give its error, and those of
            this very model and workload stand in its place.
        everything: weigh all usual settings of what is named alone, and give every path that no other beats.
        devices: a table of the user's own GPUs (TOML), as ``devices.toml``.

    Raises:
        UserError: a name is not known, a number out of range, or no choice fits the model's shapes.
    """
    found, target = find_model(model, targets), find_target(gpu, devices)
    if sequence is None:
        sequence = found.shape.image_tokens or min(LONGEST, found.positions or LONGEST)
    if dtype is None:
        dtype = next(d for d in (*PREFERRED, *target.dtypes) if d in target.dtypes)
    question = Question(found, target, batch, sequence, dtype, gpus, strategy, tuple(targets))
    layers = list(dict.fromkeys(x.shape for x in target_linears(found.shape, targets)))
    fitting, left_out = choices(layers, target.kind, tuple(methods), everything)
    if not fitting:
        reason = f": {left_out[0][0]}: {left_out[0][1]}" if left_out else ""
        raise UserError(f"no choice fits {found.shape.name}{reason}")
    kept = list(records)
    known = environments or {}
    pricer = make_pricer(target.rates, dtype, kept, known)
    # A record's step has no loss over a vocabulary, adapts the usual layers, and runs on one device.
    comparable = gpus == 1 and not targets and not found.language_model
    timed = measured_steps(found.shape.name, target.rates, question.workload, kept if comparable else (), known)
    lora = _stepped(question, pricer, make_method("lora", {"rank": 8}))
    lora_s, lora_parameters = lora.scaled[gpus].step_s.value, int(lora.cost.parameters)
    frozen = _frozen_seconds(question, pricer)
    made = [_choice(question, pricer, method, frozen, lora_s, timed.get(method)) for method in fitting]
    shown = _unbeaten(made, everything)
    fits = _ranked([c for c in shown if c.memory.fits is not False], pricer.tie)
    too_large = sorted((c for c in shown if c.memory.fits is False), key=lambda c: c.memory.total)
    rates = target.rates
    return Answer(
        found.shape.name,
        target.name,
        batch,
        sequence,
        dtype,
        gpus,
        strategy,
        found.shape.total_parameters,
        sentence=sentence(fits, too_large, lora_parameters),
        choices=tuple(fits),
        too_large=tuple(too_large),
        left_out=tuple(left_out),
        frozen_step_s=Range(frozen, *(frozen * f for f in pricer.spread)),
        lora_parameters=lora_parameters,
        tie=pricer.tie,
        error=pricer.error,
        sources=(rates.source, *rates.notes),
        assumptions=_assumptions(question),
    )


def _unbeaten(made: Sequence[Choice], everything: bool) -> list[Choice]:
    """Of every setting the fastest path that fits, the smallest if none does; all paths that no other beats if asked.

    A path beats another of its setting when it takes no more time and no more memory, and less of one of them.
    """
    grouped: dict[object, list[Choice]] = {}
    for choice in made:
        setting = (choice.method, tuple(pair for pair in choice.hyperparameters if pair[0] != "path"))
        grouped.setdefault(setting, []).append(choice)
    kept: list[Choice] = []
    for paths in grouped.values():
        front: list[Choice] = []
        for choice in sorted(paths, key=lambda c: (c.step_s.value, c.memory.total)):
            if not front or choice.memory.total < front[-1].memory.total:
                front.append(choice)
        fitting = [c for c in front if c.memory.fits is not False]
        kept += front if everything else fitting[:1] or front[-1:]
    return kept


def _ranked(found: Sequence[Choice], tie: float) -> list[Choice]:
    """Fastest first; what cannot be told from the first of a rank shares it."""
    ranked: list[Choice] = []
    first: Choice | None = None
    for place, choice in enumerate(sorted(found, key=lambda c: c.step_s.value), 1):
        if first is None or not _tied(first, choice, tie):
            first = replace(choice, rank=place)
        ranked.append(replace(choice, rank=first.rank))
    return ranked


def _tied(first: Choice, other: Choice, tie: float) -> bool:
    one, two = first.over_lora, other.over_lora
    if first.known == other.known == "measured" and one.high is not None and two.low is not None:
        return two.low <= one.high
    return steady(other.step_s.value / first.step_s.value) <= 1 + tie


def _frozen_seconds(question: Question, pricer: Pricer) -> float:
    cost = model_cost(question.model.shape, None, *question.workload, device=question.target.kind)
    forward, backward = _passes(question, cost)
    return pricer.seconds(forward) + pricer.seconds(backward)


def _passes(question: Question, cost: Cost) -> tuple[Kernels, Kernels]:
    rest = (question.model, *question.workload)
    return cost.forward + rest_forward(*rest, loss=True), cost.backward + rest_backward(*rest, loss=True)


@dataclass(frozen=True)
class _Stepped:
    """A method's step: its closed form, memory of one GPU that holds everything, and the step by number of GPUs."""

    cost: Cost
    own: Kernels
    seconds: float
    memory: MemoryBudget
    scaled: Mapping[int, Scaling]


def _stepped(question: Question, pricer: Pricer, method: Method) -> _Stepped:
    model, device = question.model, question.target.device
    cost = model_cost(model.shape, method, *question.workload, question.targets, device=question.target.kind)
    forward, backward = _passes(question, cost)
    memory = _budget(question, pricer, method, question.batch, False, cost)
    step = Step(
        pricer.seconds(forward),
        pricer.seconds(backward),
        pricer.seconds(cost.update),
        pricer.spread,
        question.batch * question.sequence,
        memory.gradients,
        memory.weights,
        model.largest_block * ITEMSIZE[question.dtype],
        model.shape.attention.layers + 1,
        memory,
    )
    assumed = assumptions()
    network = network_of(device.link if device else assumed.network_bytes_s, assumed)
    scaled = {n: scale(step, n, question.strategy, network) for n in sorted({question.gpus, *GPUS})}
    own = tuple(k for k in (*forward, *backward, *cost.update) if k.scope != "base")
    return _Stepped(cost, own, step.seconds, memory, scaled)


def _budget(
    question: Question, pricer: Pricer, method: Method, batch: int, checkpointed: bool, cost: Cost | None = None
) -> MemoryBudget:
    """Memory of one GPU that holds everything."""
    shape, kind, device = question.model.shape, question.target.kind, question.target.device
    rest = (batch, question.sequence, question.dtype)
    return budget(
        question.model,
        method,
        cost or model_cost(shape, method, *rest, question.targets, device=kind),
        *rest,
        device=kind,
        reserved=assumptions().reserved_bytes if pricer.rates.asynchronous else 0,
        capacity=int(device.memory) if device else None,
        targets=question.targets,
        checkpointed=checkpointed,
    )


def _fit(question: Question, pricer: Pricer, method: Method) -> Fit:
    """What would make a step fit that does not."""
    block = question.model.largest_block * ITEMSIZE[question.dtype]
    gpus = question.gpus if question.strategy == "fsdp" else 1

    def largest(most: int, checkpointed: bool) -> int | None:
        def fits(batch: int) -> bool:
            held = _budget(question, pricer, method, batch, checkpointed)
            return bool(sharded(held, gpus, block).fits)

        found = bisect_left(range(1, most + 1), True, key=lambda batch: not fits(batch))
        return found or None

    held = _budget(question, pricer, method, question.batch, True)
    enough = next((n for n in GPUS if n > gpus and sharded(held, n, block).fits), None)
    return Fit(largest(question.batch - 1, False), largest(question.batch, True), enough)


def _choice(
    question: Question,
    pricer: Pricer,
    method: Method,
    frozen: float,
    lora_s: float,
    measured: tuple[float, Range] | None,
) -> Choice:
    stepped, device = _stepped(question, pricer, method), question.target.device
    cost, asked = stepped.cost, stepped.scaled[question.gpus]
    served = serve(
        question.model,
        method,
        int(cost.parameters),
        *question.workload,
        pricer.seconds,
        device=question.target.kind,
        pcie=device.pcie if device else None,
        capacity=stepped.memory.capacity,
        reserved=stepped.memory.overhead,
        targets=question.targets,
    )
    shares = pricer.shares(stepped.own)
    step_s, tokens_per_s = asked.step_s, asked.tokens_per_s
    over_lora = Range(steady(step_s.value / lora_s))
    if measured is not None:
        step_s, over_lora = Range(measured[0]), measured[1]
        tokens_per_s = Range(question.batch * question.sequence / measured[0])
    over_frozen = stepped.seconds / frozen
    reference = " fft" if getattr(method, "path", "") == "fft" else ""  # which a label leaves out
    return Choice(
        f"{method.label}{reference}",
        method.name,
        _hyperparameters(method),
        int(cost.parameters),
        int(cost.parameters) * ITEMSIZE[cost.parameter_dtype],
        step_s,
        tokens_per_s,
        "predicted" if measured is None else "measured",
        measured is None and not pricer.corrected,
        over_frozen,
        over_lora,
        asked.memory,
        (asked, *(s for n, s in stepped.scaled.items() if n != question.gpus)),
        served,
        max(shares, key=lambda name: steady(shares[name])),
        _why(over_frozen, shares, stepped.own, asked.exposed_s / asked.step_s.value),
        fit=_fit(question, pricer, method) if asked.memory.fits is False else None,
    )


def _hyperparameters(method: Method) -> tuple[tuple[str, int | float | str | bool], ...]:
    return tuple((name, value) for name, value in asdict(method).items() if isinstance(value, int | float | str | bool))


def _why(ratio: float, shares: Mapping[Bound, float], own: Kernels, exposed: float) -> str:
    whole = sum(shares.values())
    if not whole:
        return "its work is all in the base's products"
    launches = sum(int(k.launches) for k in own)
    told = ", ".join(f"{100 * s / whole:.0f} % {name}" for name, s in sorted(shares.items(), key=lambda p: -p[1]) if s)
    text = f"{100 * (ratio - 1):+.0f} % over frozen; its own {launches:,} launches: {told}"
    return f"{text}; {100 * exposed:.0f} % of the step waits for the network" if exposed > 0.01 else text


def _assumptions(question: Question) -> tuple[str, ...]:
    a = assumptions()
    told = [
        "ranked by time alone: what a choice does for accuracy is not predicted",
        "eager PyTorch, one kernel after the other; AdamW in its fused form; dropout off; no activation checkpointing",
        "attention fused (no score matrix is kept); loss over the whole vocabulary for language models",
        f"adapted layers: {', '.join(question.targets or question.model.shape.targets)}",
        "frozen projections that a method keeps as buffers (VeRA, RandLoRA) are not in the memory",
        "serving: adapters in the base's dtype; one adapter a batch where unmerged",
    ]
    if question.target.rates.asynchronous:
        told.append(
            f"launch interval {question.target.rates.launch_s * 1e6:g} us; {a.reserved_bytes / 1e9:g} GB for "
            "the CUDA context and the allocator"
        )
    device = question.target.device
    told.append(
        f"network: {a.gpus_a_node} GPUs a node at {(device.link if device else a.network_bytes_s) / 1e9:g} GB/s and "
        f"{a.link_latency_s * 1e6:g} us a hop; beyond it {a.network_bytes_s / 1e9:g} GB/s a GPU and "
        f"{a.network_latency_s * 1e6:g} us; ring or tree, the cheaper"
    )
    told += [] if device else [PCIE_UNKNOWN]
    return (*told, *question.model.notes)
