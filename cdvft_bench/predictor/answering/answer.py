"""Which adapter, on this GPU, for this model and batch: every choice ranked, and checked against memory."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import get_args

from cdvft_bench.analytic.cost import Cost
from cdvft_bench.analytic.kernels import ITEMSIZE, Kernels
from cdvft_bench.analytic.linear import check_count
from cdvft_bench.analytic.training import Training
from cdvft_bench.core.environment import Environment
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.interval import Interval
from cdvft_bench.core.record import Record
from cdvft_bench.core.ties import steady
from cdvft_bench.methods import Method, make_method
from cdvft_bench.predictor.answering.choices import Setting, choices, measured_steps, setting_of
from cdvft_bench.predictor.answering.network import GPUS, Step, network_of, scale, sharded
from cdvft_bench.predictor.answering.serving import serve
from cdvft_bench.predictor.answering.subject import Subject, open_subject
from cdvft_bench.predictor.answering.table import assumed, sentence
from cdvft_bench.predictor.devices import Target, assumptions, find_target
from cdvft_bench.predictor.pricing import Pricer, make_pricer
from cdvft_bench.predictor.results import Answer, Bound, Choice, Fit, MemoryBudget, Scaling, Strategy

PREFERRED = ("bfloat16", "float16")


@dataclass(frozen=True)
class Question:
    """What is asked.

    Attributes:
        subject: the network and its workload. target: the device.
        gpus, strategy: how many, and how they share the work.
    """

    subject: Subject
    target: Target
    gpus: int = 1
    strategy: Strategy = "ddp"

    @property
    def workload(self) -> tuple[int, int, str]:
        """Batch, sequence and dtype."""
        return self.subject.batch, self.subject.sequence, self.subject.dtype

    @property
    def capacity(self) -> int | None:
        """Bytes of the device; None unknown."""
        return int(self.target.device.memory) if self.target.device else None

    @property
    def reserved(self) -> int:
        """Bytes that the context and the allocator take."""
        return assumptions().reserved_bytes if self.target.rates.asynchronous else 0


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
    task: str | None = None,
    inputs: str | None = None,
    training: Training | None = None,
    records: Iterable[Record] = (),
    environments: Mapping[str, Environment] | None = None,
    everything: bool = False,
    devices: Path | None = None,
) -> Answer:
    """Rank methods and ways of executing them for a model on a GPU. Nothing is measured here.

    Args:
        model: a name of the model table; or a folder with a config.json, a config.json, a hub id (owner/name), or
            package.module:factory, which are counted.
        gpu: a key of the device table, or a file of calibrated rates.
        batch, sequence: of one GPU; ``sequence`` is 2048, or the model's longest, if not given.
        dtype: of base and activations; bfloat16, or the narrowest that the GPU has a rate for, if not given. Adapters
            of 16-bit bases are float32.
        gpus, strategy: "ddp" copies everything to each GPU, "fsdp" shards it.
        methods: to consider, as ``methods.parse_methods`` reads them; none considers all, by their defaults.
        targets: the adapted layers, as PEFT's: names or endings, one regular expression, or "all-linear".
        task, inputs: the network's head, and a function that makes its inputs, see ``counting.network.build``.
        training: how it is trained; None for the usual. A model of the table given any of these is counted.
        records, environments: profiles; those of this device calibrate the prediction and give its error, and those of
            this very model and workload stand in its place.
        everything: weigh all usual settings of what is named alone, and give every path that no other beats.
        devices: a table of the user's own GPUs (TOML), as ``devices.toml``.

    Raises:
        UserError: a name is not known, a number out of range, or no choice fits the model's shapes.
    """
    target, chosen = find_target(gpu, devices), dtype is None
    if dtype is None:
        dtype = next(d for d in (*PREFERRED, *target.dtypes) if d in target.dtypes)
    _check(target, dtype, batch, sequence, gpus, strategy)
    subject = open_subject(
        model, batch, sequence, dtype, target.kind, targets=targets, task=task, inputs=inputs, training=training
    )
    question = Question(subject, target, gpus, strategy)
    try:
        layers = subject.layers
    except UserError as error:
        if chosen and dtype != "float32" and "fails on its inputs" in str(error):
            raise UserError(f"{error}; it was tried in {dtype}: give --dtype float32 if it takes no other") from error
        raise
    fitting, left_out = choices(layers, target.kind, tuple(methods), everything)
    fitting, refused = _trainable(subject, fitting)
    left_out += refused
    if not fitting:
        reason = f": {left_out[0][0]}: {left_out[0][1]}" if left_out else ""
        raise UserError(f"no choice fits {subject.name}{reason}")
    kept = list(records)
    known = environments or {}
    pricer = make_pricer(target.rates, dtype, kept, known)
    comparable = gpus == 1 and subject.comparable  # a record's step runs on one device
    timed = measured_steps(subject.name, target.rates, question.workload, kept if comparable else (), known)
    lora = _stepped(question, pricer, make_method("lora", {"rank": 8}))
    lora_s, lora_parameters = lora.scaled[gpus].step_s.value, int(lora.cost.parameters)
    frozen = _frozen_seconds(question, pricer)
    made = [_choice(question, pricer, method, frozen, lora_s, timed.get(method)) for method in fitting]
    shown = _unbeaten(made, everything)
    fits = _ranked([c for c in shown if c.memory.fits is not False], pricer.tie)
    too_large = sorted((c for c in shown if c.memory.fits is False), key=lambda c: c.memory.total)
    rates = target.rates
    return Answer(
        subject.name,
        target.name,
        *question.workload,
        gpus,
        strategy,
        subject.parameters,
        sentence=sentence(fits, too_large, lora_parameters),
        choices=tuple(fits),
        too_large=tuple(too_large),
        left_out=tuple(left_out),
        frozen_step_s=Interval(frozen, *(frozen * f for f in pricer.spread)),
        lora_parameters=lora_parameters,
        tie=pricer.tie,
        error=pricer.error,
        sources=(rates.source, *rates.notes),
        assumptions=assumed(subject, target, pricer, frozen),
    )


def _check(target: Target, dtype: str, batch: int, sequence: int | None, gpus: int, strategy: str) -> None:
    """Raise UserError where a number is out of range, or the dtype has no rate on the device."""
    for name, value in (("batch", batch), ("sequence", 1 if sequence is None else sequence), ("gpus", gpus)):
        check_count(name, value)
    if gpus > GPUS[-1]:
        raise UserError(f"gpus = {gpus} is beyond what the model of the network covers; at most {GPUS[-1]}")
    if strategy not in get_args(Strategy):
        raise UserError(f"strategy {strategy!r} is not known; use ddp or fsdp")
    if dtype not in target.dtypes:
        known = ", ".join(target.dtypes)
        raise UserError(f"{target.name} has no rate for dtype {dtype!r}; use one of {known}")


def _trainable(subject: Subject, fitting: Iterable[Method]) -> tuple[list[Method], list[tuple[str, str]]]:
    """Methods that can be trained as it is asked, and the settings that cannot on any path, with the reason."""
    found: list[Method] = []
    refused: dict[Setting, tuple[str, str]] = {}
    for method in fitting:
        try:
            subject.check(method)
            found.append(method)
        except UserError as error:
            refused.setdefault(setting_of(method), (method.label, str(error)))
    covered = {setting_of(method) for method in found}
    return found, [told for setting, told in refused.items() if setting not in covered]


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
    cost = question.subject.cost(None)
    return pricer.seconds(cost.forward) + pricer.seconds(cost.backward)


@dataclass(frozen=True)
class _Stepped:
    """A method's step: its closed form, memory of one GPU that holds everything, and the step by number of GPUs."""

    cost: Cost
    own: Kernels
    seconds: float
    memory: MemoryBudget
    scaled: Mapping[int, Scaling]


def _stepped(question: Question, pricer: Pricer, method: Method) -> _Stepped:
    subject, device = question.subject, question.target.device
    cost = subject.cost(method)
    update = subject.update(method, cost)
    memory = _budget(question, method, cost, subject.batch, False)
    step = Step(
        pricer.seconds(cost.forward),
        pricer.seconds(cost.backward),
        pricer.seconds(update),
        pricer.spread,
        subject.batch * subject.sequence,
        memory.gradients,
        memory.weights,
        subject.largest_block,
        subject.blocks,
        memory,
    )
    a = assumptions()
    network = network_of(device.link if device else a.network_bytes_s, a)
    scaled = {n: scale(step, n, question.strategy, network) for n in sorted({question.gpus, *GPUS})}
    own = tuple(k for k in (*cost.forward, *cost.backward, *update) if k.scope != "base")
    return _Stepped(cost, own, step.seconds, memory, scaled)


def _budget(question: Question, method: Method, cost: Cost, batch: int, checkpointed: bool) -> MemoryBudget:
    """Memory of one GPU that holds everything."""
    return question.subject.memory(method, cost, batch, checkpointed, question.reserved, question.capacity)


def _fit(question: Question, method: Method, cost: Cost) -> Fit:
    """What would make a step fit that does not."""
    subject = question.subject
    gpus = question.gpus if question.strategy == "fsdp" else 1

    def largest(most: int, checkpointed: bool) -> int | None:
        def fits(batch: int) -> bool:
            held = _budget(question, method, cost, batch, checkpointed)
            return bool(sharded(held, gpus, subject.largest_block).fits)

        found = bisect_left(range(1, most + 1), True, key=lambda batch: not fits(batch))
        return found or None

    plain = largest(subject.batch - 1, False)
    if subject.blocks < 2:  # there is nothing to compute again
        return Fit(plain, None, None)
    held = _budget(question, method, cost, subject.batch, True)
    enough = next((n for n in GPUS if n > gpus and sharded(held, n, subject.largest_block).fits), None)
    return Fit(plain, largest(subject.batch, True), enough)


def _choice(
    question: Question,
    pricer: Pricer,
    method: Method,
    frozen: float,
    lora_s: float,
    measured: tuple[float, Interval] | None,
) -> Choice:
    stepped, device = _stepped(question, pricer, method), question.target.device
    cost, asked, subject = stepped.cost, stepped.scaled[question.gpus], question.subject
    decoding = subject.decoding(method)
    served = None
    if decoding is not None:
        served = serve(
            decoding,
            int(cost.parameters),
            subject.dtype,
            pricer.seconds,
            pcie=device.pcie if device else None,
            capacity=stepped.memory.capacity,
            reserved=stepped.memory.overhead,
        )
    shares = pricer.shares(stepped.own)
    step_s, tokens_per_s = asked.step_s, asked.tokens_per_s
    over_lora = Interval(steady(step_s.value / lora_s))
    if measured is not None:
        step_s, over_lora = Interval(measured[0]), measured[1]
        tokens_per_s = Interval(subject.batch * subject.sequence / measured[0])
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
        measured is None and (not pricer.corrected or bool(subject.unpriced[0])),
        over_frozen,
        over_lora,
        asked.memory,
        (asked, *(s for n, s in stepped.scaled.items() if n != question.gpus)),
        served,
        max(shares, key=lambda name: steady(shares[name])),
        _why(over_frozen, shares, stepped.own, asked.exposed_s / asked.step_s.value),
        fit=_fit(question, method, cost) if asked.memory.fits is False else None,
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
