"""Which adapter, on this GPU, for this model and batch: every choice predicted, ranked, and checked against memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import get_args

from cdvft_bench.analytic.cost import Cost
from cdvft_bench.analytic.kernels import ITEMSIZE, Kernels
from cdvft_bench.analytic.linear import check_count
from cdvft_bench.analytic.models import target_linears
from cdvft_bench.core.environment import Environment
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.record import Record
from cdvft_bench.core.ties import steady
from cdvft_bench.methods import Method
from cdvft_bench.predictor.choices import choices
from cdvft_bench.predictor.devices import Target, assumptions, find_target
from cdvft_bench.predictor.memory import budget
from cdvft_bench.predictor.network import GPUS, Step, network_of, scale
from cdvft_bench.predictor.pricing import Pricer, make_pricer
from cdvft_bench.predictor.results import Advice, Bound, Choice, Range, Strategy
from cdvft_bench.predictor.serving import serve
from cdvft_bench.predictor.transformer import Transformer, find_model, rest_backward, rest_forward
from cdvft_bench.sweep.model_cost import model_cost

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


def advise(
    model: str,
    gpu: str,
    *,
    batch: int = 8,
    sequence: int = 2048,
    dtype: str = "bfloat16",
    gpus: int = 1,
    strategy: Strategy = "ddp",
    methods: Sequence[str] = (),
    targets: Sequence[str] = (),
    records: Iterable[Record] = (),
    environments: Mapping[str, Environment] | None = None,
) -> Advice:
    """Rank methods and ways of executing them for a model on a GPU. Nothing is measured.

    Args:
        model: a name of the model table, or a transformers config.json.
        gpu: a key of the device table, or a file of calibrated rates.
        batch, sequence: of one GPU. dtype: of base and activations; adapters of 16-bit bases are float32.
        gpus, strategy: "ddp" copies everything to each GPU, "fsdp" shards it.
        methods: names to consider; none considers all. targets: endings of the adapted layers.
        records, environments: profiles; those of this device calibrate the prediction and give its error.

    Raises:
        UserError: a name is not known, a number out of range, or no choice fits the model's shapes.
    """
    found = find_model(model, targets)
    question = Question(found, find_target(gpu), batch, sequence, dtype, gpus, strategy, tuple(targets))
    layers = list(dict.fromkeys(x.shape for x in target_linears(found.shape, targets)))
    fitting, left_out = choices(layers, question.target.kind, tuple(methods))
    if not fitting:
        reason = f": {left_out[0][0]}: {left_out[0][1]}" if left_out else ""
        raise UserError(f"no choice fits {found.shape.name}{reason}")
    pricer = make_pricer(question.target.rates, dtype, records, environments)
    frozen = _frozen_seconds(question, pricer)
    made = [_choice(question, pricer, method, frozen) for method in fitting]
    rates = question.target.rates
    return Advice(
        found.shape.name,
        question.target.name,
        batch,
        sequence,
        dtype,
        gpus,
        strategy,
        found.shape.total_parameters,
        choices=tuple(sorted((c for c in made if c.memory.fits is not False), key=lambda c: c.step_s.value)),
        too_large=tuple(sorted((c for c in made if c.memory.fits is False), key=lambda c: c.memory.total)),
        left_out=tuple(left_out),
        frozen_step_s=Range(frozen, *(frozen * f for f in pricer.spread)),
        error=pricer.error,
        sources=(rates.source, *rates.notes),
        assumptions=_assumptions(question),
    )


def _frozen_seconds(question: Question, pricer: Pricer) -> float:
    cost = model_cost(question.model.shape, None, *question.workload, device=question.target.kind)
    forward, backward = _passes(question, cost)
    return pricer.seconds(forward) + pricer.seconds(backward)


def _passes(question: Question, cost: Cost) -> tuple[Kernels, Kernels]:
    rest = (question.model, *question.workload)
    return cost.forward + rest_forward(*rest, loss=True), cost.backward + rest_backward(*rest, loss=True)


def _choice(question: Question, pricer: Pricer, method: Method, frozen: float) -> Choice:
    model, (batch, sequence, dtype) = question.model, question.workload
    assumed, device = assumptions(), question.target.device
    cost = model_cost(model.shape, method, batch, sequence, dtype, question.targets, device=question.target.kind)
    forward, backward = _passes(question, cost)
    reserved = assumed.reserved_bytes if pricer.rates.asynchronous else 0
    capacity = int(device.memory) if device else None
    memory = budget(
        model,
        method,
        cost,
        batch,
        sequence,
        dtype,
        device=question.target.kind,
        reserved=reserved,
        capacity=capacity,
        targets=question.targets,
    )
    size = ITEMSIZE[dtype]
    step = Step(
        pricer.seconds(forward),
        pricer.seconds(backward),
        pricer.seconds(cost.update),
        pricer.spread,
        batch * sequence,
        memory.gradients,
        memory.weights,
        model.largest_block * size,
        model.shape.attention.layers + 1,
        memory,
    )
    network = network_of(device.link if device else assumed.network_bytes_s, assumed)
    scaled = {n: scale(step, n, question.strategy, network) for n in sorted({question.gpus, *GPUS})}
    asked = scaled[question.gpus]
    served = serve(
        model,
        method,
        int(cost.parameters),
        batch,
        sequence,
        dtype,
        pricer.seconds,
        device=question.target.kind,
        pcie=device.pcie if device else None,
        capacity=capacity,
        reserved=reserved,
        targets=question.targets,
    )
    own = tuple(k for k in (*forward, *backward, *cost.update) if k.scope != "base")
    shares = pricer.shares(own)
    bound = max(shares, key=lambda name: steady(shares[name]))
    return Choice(
        method.label,
        method.name,
        _hyperparameters(method),
        int(cost.parameters),
        int(cost.parameters) * ITEMSIZE[cost.parameter_dtype],
        asked.step_s,
        asked.tokens_per_s,
        step.seconds / frozen,
        asked.memory,
        (asked, *(s for n, s in scaled.items() if n != question.gpus)),
        served,
        bound,
        _why(step.seconds / frozen, shares, own, asked.exposed_s / asked.step_s.value),
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
