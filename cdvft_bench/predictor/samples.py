"""Records as a fit takes them: what each ran, on which device, and how long it took."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cdvft_bench.analytic.kernels import Kernels
from cdvft_bench.analytic.roofline import Rates
from cdvft_bench.core.case import Case
from cdvft_bench.core.environment import Environment, one_state
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.record import Record
from cdvft_bench.execution.costs import FAST_PATHS
from cdvft_bench.execution.planner import BUILT_IN
from cdvft_bench.predictor.devices import by_name, datasheet_rates
from cdvft_bench.predictor.fit import PRIOR, Fit, Work, interval
from cdvft_bench.predictor.results import Split
from cdvft_bench.predictor.transformer import find_model, rest_backward, rest_forward
from cdvft_bench.sweep.model_cost import case_cost

Factors = tuple[float, float] | None

GRAPHS = ", replayed graphs"
"""After a GPU's name: its calls as CUDA graphs, fitted for themselves, since no host takes part in them."""
GRAPH_LAUNCH_S = 1.5e-6
"""Seconds from one short kernel of a graph to the next, before any data: assumed, and fitted as every rate is."""


@dataclass(frozen=True)
class Sample:
    """A record that can be predicted: its device, what it runs, and what it took."""

    record: Record
    device: str
    kind: str
    work: Work
    seconds: float

    @property
    def group(self) -> Mapping[Split, str]:
        """What the record shares with others, by split."""
        case = self.record.case
        shape = f"{case.kind} {case.subject} {case.tokens}"
        return {"shape": shape, "method": case.method, "campaign": self.record.environment, "machine": self.device}


def device_name(case: Case, environment: Environment | None) -> str:
    """How tables call the machine of a record."""
    if environment is None:
        return f"unknown {case.device}"
    if case.device == "cuda":
        return environment.gpus[0] if environment.gpus else "unknown GPU"
    return f"{environment.cpu}, {environment.threads} threads"


def hold(rates: Rates, record: Record, environment: Environment) -> bool:
    """Whether rates are those of a record's device: a GPU of that name, or a CPU of as many threads."""
    if rates.asynchronous:
        return record.case.device == "cuda" and rates.device in environment.gpus
    return record.case.device == "cpu" and environment.threads == rates.threads


def as_executed(record: Record) -> Case:
    """The case with the path that "auto" stood for when it was recorded: today's planner may pick another.

    It is the path whose operators are closest to those that were predicted then.
    """
    case, predicted = record.case, record.predicted
    values = dict(case.hyperparameters)
    if values.get("path") != "auto" or predicted is None:
        return case
    passes = (predicted.forward, predicted.backward, predicted.update) if case.pass_ == "step" else (predicted.forward,)
    recorded: Counter[str] = Counter()
    for one in passes:
        recorded.update(one.operators)

    def distance(tried: Case) -> int:
        ours: Counter[str] = Counter()
        for kernel in case_cost(tried).kernels(case.pass_):
            ours[kernel.op] += int(kernel.launches)
        return sum(abs(ours[op] - recorded[op]) for op in ours | recorded)

    found: list[tuple[int, Case]] = []
    for path in FAST_PATHS:
        tried = replace(case, hyperparameters=tuple(sorted({**values, "path": path}.items())))
        try:
            found.append((distance(tried), tried))
        except (UserError, ValueError):
            continue  # a path that cannot execute this layer
    return min(found, key=lambda one: one[0])[1] if found else case


def case_kernels(case: Case) -> Kernels:
    """Kernels of the pass that the case runs; of a model also norms, activations and the rest of it."""
    kernels = case_cost(case).kernels(case.pass_)
    if case.kind == "layer":
        return kernels
    model = find_model(case.subject)
    workload = (case.batch, case.sequence, case.dtype)
    kernels += rest_forward(model, *workload, loss=False)
    return kernels + (rest_backward(model, *workload, loss=False) if case.pass_ == "step" else ())


def samples(
    records: Iterable[Record], environments: Mapping[str, Environment], rates: Mapping[str, Rates] | None = None
) -> tuple[list[Sample], list[tuple[str, str]]]:
    """Records that can be predicted, and the others with the reason; of a case on one machine the newest counts."""
    newest: dict[tuple[str, str], Record] = {}
    states = one_state(environments)
    for record in sorted(records, key=lambda r: (r.order, r.case.key)):
        newest[record.case.key, states.get(record.environment, record.environment)] = record
    found, left_out = [], []
    for key in sorted(newest):
        record = newest[key]
        case = record.case
        name = device_name(case, environments.get(record.environment))
        timing = record.timed.timing if record.timed else None
        seconds = timing.samples[0].median if timing and timing.samples else 0.0
        if record.status != "ok" or not seconds > 0:
            left_out.append((record.label, record.error or "no time was recorded"))
            continue
        chosen = (rates or {}).get(name) or _usual_rates(case.device, name)
        if chosen is None:
            left_out.append((record.label, f"no rates are known for {name}; calibrate it"))
            continue
        try:
            kernels = case_kernels(as_executed(record))
        except UserError as error:
            left_out.append((record.label, str(error)))
            continue
        found.append(Sample(record, name, case.device, Work(kernels, chosen, case.dtype), seconds))
    return found, left_out


def as_graphs(found: Iterable[Sample]) -> Iterator[Sample]:
    """Those of the samples that were timed as replayed CUDA graphs too, as samples of a device of its own."""
    for sample in found:
        timed = sample.record.timed
        if timed is None or timed.replays is None:
            continue
        replays = timed.replays.timing
        if replays and replays.samples and replays.samples[0].median > 0:
            work = replace(sample.work, rates=replace(sample.work.rates, launch_s=GRAPH_LAUNCH_S))
            # What is asked of the record, frozen subject, rounds, warnings, is then the replays'; no trace is theirs.
            record = replace(sample.record, timed=replace(timed, timing=replays, trace=None))
            names = (f"{sample.device}{GRAPHS}", f"{sample.kind}{GRAPHS}")
            yield Sample(record, *names, work, replays.samples[0].median)


def _usual_rates(device: str, name: str) -> Rates | None:
    if device == "cpu":
        return BUILT_IN["cpu"]
    found = by_name(name)
    return datasheet_rates(found) if found else None


GROUPS = 3
"""Groups from which on errors of those left out say something of the next; of fewer, the prior does."""
ENOUGH = 39
"""Errors that hold an interval whatever their distribution, see ``fit.interval``."""


def around(fitted: Fit, found: Sequence[Sample], split: Split, pass_: str, without: int = -1) -> Factors:
    """Factors around a prediction that hold 95 % of such predictions, by errors of the same kind.

    Errors are those of what was left out: a shape, method, campaign or machine that was not seen is missed by more than
    one more case of those that were. Forward passes are missed by more than steps, so that those of the same pass count
    where they are enough, and the range of all where it is wider. Of G groups, the next one's shift is known to
    ``sqrt(1 + 1 / G)`` of their spread; of fewer than three that hold the pass, to no more than an efficiency's prior.

    Args:
        fitted: to these samples, in order. split: what the prediction leaves out. pass_: of the prediction.
        without: the sample that is predicted, if it is one of them.
    """
    groups = [] if split == "case" else [s.group[split] for s in found]
    errors = fitted.left_out_by(groups) if len(set(groups)) >= GROUPS else fitted.left_out
    others = np.arange(len(found)) != without
    same = others & np.array([s.record.case.pass_ == pass_ for s in found], dtype=bool)
    count = len({name for name, of_pass in zip(groups, same, strict=False) if of_pass})
    ranges = [interval(errors[others]), interval(errors[same]) if same.sum() >= ENOUGH else None]
    if split == "case":
        ranges = ranges[-1:] if ranges[-1] else ranges[:1]
    known = [np.log(one) for one in ranges if one is not None]
    if not known:
        return None
    low, high = min(float(one[0]) for one in known), max(float(one[1]) for one in known)
    if count >= GROUPS:
        low, high = (value * math.sqrt(1 + 1 / count) for value in (low, high))
    elif groups:
        low, high = -math.hypot(low, 1.96 * PRIOR), math.hypot(high, 1.96 * PRIOR)
    return math.exp(low), math.exp(high)
