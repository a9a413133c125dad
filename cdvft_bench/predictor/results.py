"""What the predictor answers: plain values that a page, a terminal or a JSON file can show. No computing here."""

from dataclasses import dataclass, field
from typing import Literal

from cdvft_bench.core.interval import Interval
from cdvft_bench.core.text import html_table

Split = Literal["case", "shape", "method", "campaign", "machine"]
"""What was left out of a fit before it was asked: the case alone, or every case of its shape, method, campaign (one
environment of a machine: another day, another version) or machine."""

Bound = Literal["arithmetic", "bytes", "launches"]
Strategy = Literal["ddp", "fsdp"]

NOT_MEASURED = "not measured"


# --- how far to trust it ---------------------------------------------------------------------


@dataclass(frozen=True)
class Prediction:
    """One recorded case, predicted by a fit that did not see it.

    Attributes:
        key, label, method, kind, subject, tokens, dtype, pass_: of the case.
        device: the machine by name. environment: key of its row.
        split: what was left out of the fit.
        measured_s: median seconds of a call. predicted_s: with its 95 % interval.
        flops_only_s: the baseline: FLOPs at one fitted rate, and nothing else.
        flops_bytes_s: in between: arithmetic and bytes, without launches, fitted likewise.
        bound: which of the three takes the largest share of the predicted time. share: that share, 0 to 1.
        fitted: whether any case of this device was left to fit to; where not, uncalibrated rates were used.
    """

    key: str
    label: str
    method: str
    kind: str
    subject: str
    tokens: int
    dtype: str
    pass_: str
    device: str
    environment: str
    split: Split
    measured_s: float
    predicted_s: Interval
    flops_only_s: float
    flops_bytes_s: float
    bound: Bound
    share: float
    fitted: bool = True

    @property
    def ratio(self) -> float:
        """Predicted over measured time; 1 is a hit."""
        return self.predicted_s.value / self.measured_s


@dataclass(frozen=True)
class ErrorRow:
    """Errors of one device, kind of subject and pass under one split: |ratio - 1| after the ratio is made >= 1.

    An error of 0.25 says that prediction and measurement differ by a factor of 1.25, either way.

    Attributes:
        device, kind, pass_, split: what is summed up.
        cases, groups: predicted cases, and how many groups were left out in turn.
        median, p90: of the errors.
        flops_median, flops_p90: of the baseline's errors (FLOPs alone).
        bytes_median, bytes_p90: with bytes, without launches.
        covered: share of the cases whose measurement lies in the 95 % prediction interval; None for no interval.
    """

    device: str
    kind: str
    pass_: str
    split: Split
    cases: int
    groups: int
    median: float
    p90: float
    flops_median: float
    flops_p90: float
    bytes_median: float
    bytes_p90: float
    covered: float | None


@dataclass(frozen=True)
class Efficiency:
    """What share of its rate a device reaches for one kind of kernel, fitted.

    Attributes:
        device: the machine. kind: kind of kernel, or "launch" (there above 1 means launches cheaper than calibrated).
        value: with its 95 % interval (normal, around the fit, prior included).
        share: of all predicted seconds of the device that this kind has: little share, little knowledge.
        prior: the prior's weight in it, 0 (the data say it all) to 1 (no data).
    """

    device: str
    kind: str
    value: Interval
    share: float
    prior: float


@dataclass(frozen=True)
class Farthest:
    """One of the predictions farthest from the truth. ``cause`` is found by rule, ``evidence`` is what it rests on."""

    prediction: Prediction
    cause: str
    evidence: str


@dataclass(frozen=True)
class PublishedPrediction:
    """One run that others published, and its time by prediction.

    Attributes:
        experiment: its name there. label: as this suite calls the method.
        published_s: training time there. predicted_s: by datasheet rates, no efficiency fitted.
        published_ratio, predicted_ratio: over the time of the reference run.
        flops_ratio: the baseline's: FLOPs over the reference's.
        published_bytes, predicted_bytes: peak memory there (None unknown), and of the longest batch by formula.
        reason: why the ratios are far apart; empty where they are not.
    """

    experiment: str
    label: str
    published_s: float
    predicted_s: float
    published_ratio: float
    predicted_ratio: float
    flops_ratio: float
    published_bytes: int | None
    predicted_bytes: int
    reason: str = ""


@dataclass(frozen=True)
class PublishedComparison:
    """Order and ratios of methods as published, and as predicted.

    Attributes:
        source, device, reference: who, where, and the run that ratios are to.
        runs: predicted runs, as published from fast to slow.
        left_out: runs that no closed form covers: (experiment, reason).
        rank_correlation: Spearman's, with a 95 % bootstrap interval over runs. flops_rank_correlation: the baseline's.
        ratio_median, ratio_p90: errors of the ratios as in ErrorRow. flops_ratio_median, flops_ratio_p90: likewise.
        memory_median, memory_p90: errors of peak memory; None where no run says it.
        assumptions: what the publisher does not say.
    """

    source: str
    device: str
    reference: str
    runs: tuple[PublishedPrediction, ...]
    left_out: tuple[tuple[str, str], ...]
    rank_correlation: Interval
    flops_rank_correlation: Interval
    ratio_median: float
    ratio_p90: float
    flops_ratio_median: float
    flops_ratio_p90: float
    memory_median: float | None
    memory_p90: float | None
    assumptions: tuple[str, ...]


@dataclass(frozen=True)
class Evaluation:
    """Predictions against recorded times.

    Attributes:
        predictions: every case once a split; split "case" first.
        errors: the table; a device without a profile has no row, see ``notes``.
        efficiencies: of the fits to all cases.
        farthest: the worst ten under split "case", worst first.
        rates: by device, where its rates come from.
        left_out: (label, reason) of records that could not be used.
        notes: what a reader must know: splits that could not be made, GPUs not measured.
    """

    predictions: tuple[Prediction, ...]
    errors: tuple[ErrorRow, ...]
    efficiencies: tuple[Efficiency, ...]
    farthest: tuple[Farthest, ...]
    rates: dict[str, str] = field(default_factory=dict)
    left_out: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


# --- what to choose --------------------------------------------------------------------------


@dataclass(frozen=True)
class MemoryBudget:
    """Bytes on one GPU during a training step.

    Attributes:
        weights: frozen and trainable weights and buffers. gradients: of trainable parameters.
        optimizer: AdamW's two moments and step counters.
        activations: kept for backward: the adapted layers' and the rest of the model's.
        workspace: the largest temporaries that live at once (logits and their gradient, merged weight, transforms).
        overhead: the CUDA context and allocator, assumed.
        capacity: of the GPU; None unknown.
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int
    workspace: int
    overhead: int
    capacity: int | None

    @property
    def total(self) -> int:
        """Bytes in all."""
        return self.weights + self.gradients + self.optimizer + self.activations + self.workspace + self.overhead

    @property
    def fits(self) -> bool | None:
        """Whether it fits; None where the capacity is not known."""
        return None if self.capacity is None else self.total <= self.capacity


@dataclass(frozen=True)
class Scaling:
    """One training step on several GPUs, each with its own batch.

    Attributes:
        gpus: their number. strategy: "ddp" or "fsdp".
        payload_bytes: bytes to reduce (and with FSDP to gather) a step. sent_bytes: sent by each GPU.
        algorithm: "ring", "tree" or "none", the cheaper of the two by the alpha-beta model.
        communication_s: of the step, none of it hidden. exposed_s: what backward (FSDP: also forward) cannot hide.
        step_s: computation and exposed communication. tokens_per_s: of all GPUs together.
        efficiency: tokens/s over those of one GPU times ``gpus``.
        memory: of one GPU.
    """

    gpus: int
    strategy: Strategy
    payload_bytes: int
    sent_bytes: float
    algorithm: str
    communication_s: float
    exposed_s: float
    step_s: Interval
    tokens_per_s: Interval
    efficiency: float
    memory: MemoryBudget


@dataclass(frozen=True)
class Serving:
    """Many adapters on one base.

    Attributes:
        adapter_bytes: of one adapter as served, in the base's dtype or its own.
        resident: adapters that fit beside the base and one batch's cache; None where the capacity is not known.
        swap_s: to bring one over PCIe; None where its rate is not known.
        merge_s: to add one to the base's weights (or take it off).
        token_s_merged, token_s_unmerged: one decoding step of the batch, merged or with the adapter beside the base.
        break_even_tokens: decoding steps of one adapter after which merging (and unmerging) has paid; None never.
    """

    adapter_bytes: int
    resident: int | None
    swap_s: float | None
    merge_s: float
    token_s_merged: float
    token_s_unmerged: float
    break_even_tokens: float | None


Known = Literal["predicted", "measured"]


@dataclass(frozen=True)
class Fit:
    """What makes a step fit that does not.

    Attributes:
        batch: the largest of fewer sequences that fits; None where not even one does.
        checkpointed: the largest batch, of those asked for, that fits with every block computed again in backward.
        gpus: the fewest, a power of two, that hold it sharded (FSDP) and so computed again; None where none do.
    """

    batch: int | None
    checkpointed: int | None
    gpus: int | None


@dataclass(frozen=True)
class Choice:
    """One method at one setting.

    Attributes:
        label, method, hyperparameters: what to train (the path is among the hyperparameters).
        parameters: trainable ones. checkpoint_bytes: of the adapter's file, tensors alone.
        step_s: one training step on one GPU, or on all of them where several were asked. tokens_per_s: likewise.
        known: whether the step was measured, in a record of this model, workload and device, or is predicted.
        at_least: whether ``step_s`` is a lower bound alone: a prediction by full rates that no record corrected.
        over_frozen: predicted step time over that of the frozen model's forward and backward.
        over_lora: step time over LoRA r = 8's; its interval where both were measured side by side.
        rank: 1 for the fastest; choices that cannot be told apart share theirs. 0 of what does not fit.
        fit: what would make it fit; None where it does, or where the capacity is not known.
        memory: of one GPU. scaling: the asked number of GPUs, then 1 to 4,096 in powers of two.
        serving: many adapters on one base; None where the network makes no text, a token at a time.
        bound: what takes the largest share of the adapter's own time. why: one line in words.
    """

    label: str
    method: str
    hyperparameters: tuple[tuple[str, int | float | str | bool], ...]
    parameters: int
    checkpoint_bytes: int
    step_s: Interval
    tokens_per_s: Interval
    known: Known
    at_least: bool
    over_frozen: float
    over_lora: Interval
    memory: MemoryBudget
    scaling: tuple[Scaling, ...]
    serving: Serving | None
    bound: Bound
    why: str
    rank: int = 0
    fit: Fit | None = None


@dataclass(frozen=True)
class Answer:
    """Ranked choices for a model on a GPU, of each setting the paths that no other path of it beats.

    Attributes:
        model, device, batch, sequence, dtype, gpus, strategy: the question.
        model_parameters: of the model.
        sentence: the answer in words.
        choices: those that fit, fastest first. too_large: those that do not, smallest first.
        left_out: (label, reason) of choices that do not fit the model's shapes.
        frozen_step_s: forward and backward of the frozen model, which every step contains.
        lora_parameters: that LoRA r = 8 trains. tie: share by which steps must differ to be told apart.
        error: how far such predictions miss on this device: from an evaluation, or "not measured".
        sources: of the rates. assumptions: what was taken for granted.
    """

    model: str
    device: str
    batch: int
    sequence: int
    dtype: str
    gpus: int
    strategy: Strategy
    model_parameters: int
    sentence: str
    choices: tuple[Choice, ...]
    too_large: tuple[Choice, ...]
    left_out: tuple[tuple[str, str], ...]
    frozen_step_s: Interval
    lora_parameters: int
    tie: float
    error: str
    sources: tuple[str, ...]
    assumptions: tuple[str, ...]

    def _repr_html_(self) -> str:
        from cdvft_bench.predictor.answering.table import columns_of, rows_of, title_of

        return html_table(title_of(self), columns_of(self), rows_of(self), self.sentence)
