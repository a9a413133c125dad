"""Made-up records for the tests of the report: varied and plausible, and nobody's measurements."""

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from cdvft_bench.analysis.inputs import Campaign, Origin, latest
from cdvft_bench.core.case import LORA, Case, CasePass, Value
from cdvft_bench.core.counted import Counted, FvcoreCount, PassCount
from cdvft_bench.core.interval import Interval
from cdvft_bench.core.record import Predicted, PredictedPass, Record
from cdvft_bench.core.timed import Memory, Samples, Timed, Timing, TraceSummary

ENVIRONMENT = "0f3c5a7e9b1d2468"
ENVIRONMENTS = {
    ENVIRONMENT: {
        "machine": {"cpu": "Example CPU, 2 threads", "gpu": None, "memory_bytes": 25769803776},
        "versions": {"torch": "2.13.0", "python": "3.11.9", "peft": "0.21.2"},
        "git_revision": "0123abc",
        "date": "2026-01-02",
    }
}


@dataclass(frozen=True)
class Shape:
    """What a made-up method does a layer of width d with t tokens."""

    method: str
    label: str
    hyperparameters: tuple[tuple[str, Value], ...]
    parameters: int
    macs: int
    ffts: int
    fft_length: int
    elementwise: int
    operators: dict[str, int]


def shapes(d: int, tokens: int) -> Iterator[Shape]:
    yield Shape("frozen", "frozen", (), 0, 0, 0, 1, 0, {})
    for r in (8, 32):
        hyper = (("lora_alpha", 16), ("r", r))
        yield Shape(
            "lora",
            f"LoRA r={r}",
            hyper,
            2 * d * r,
            2 * tokens * d * r,
            0,
            1,
            2 * tokens * d,
            {"mm": 2, "mul": 1, "add": 1},
        )
    sizes = [p for p in (d, d // 2, d // 4, d // 12) if p >= 1]
    for path, operators in (
        ("fft", {"mul": 3, "_fft_r2c": 2, "_fft_c2r": 1, "add": 1, "fill_": 2, "copy_": 1}),
        ("handwritten", {"mul": 3, "_fft_r2c": 2, "_fft_c2r": 1, "add": 1}),
    ):
        for p in sizes:
            yield cdvft(d, tokens, 2, p, path, operators, "d" if p == d else p)
        for m in (1, 3, 4):
            yield cdvft(d, tokens, m, d, path, {k: v * max(1, m - 1) for k, v in operators.items()}, "d")
    yield Shape(
        "block_circulant",
        "BCA p=d",
        (),
        d,
        0,
        3 * tokens,
        d,
        8 * tokens * d,
        {"mul": 1, "_fft_r2c": 2, "_fft_c2r": 1, "add": 1},
    )
    yield Shape(
        "c3a",
        "C3A",
        (("block_size", d // 2),),
        2 * d,
        0,
        4 * tokens,
        d // 2,
        20 * tokens * d,
        {"mul": 2, "_fft_c2c": 3, "sum": 1, "_to_copy": 3, "add": 1},
    )
    yield Shape(
        "fourierft",
        "FourierFT n=1000",
        (("n_frequency", 1000),),
        1000,
        tokens * d * d,
        2 * d,
        d,
        3 * d * d,
        {"index_put_": 1, "_fft_c2c": 1, "mul": 1, "mm": 1, "add": 1},
    )
    yield Shape(
        "vera",
        "VeRA r=256",
        (("r", 256),),
        d + 256,
        2 * tokens * d * 256,
        0,
        1,
        3 * tokens * d,
        {"mm": 2, "mul": 2, "add": 1},
    )


def cdvft(d: int, tokens: int, m: int, p: int, path: str, operators: dict[str, int], shown: object) -> Shape:
    q = d // p
    hyper: list[tuple[str, Value]] = [("m", m), ("path", path)]
    if shown != "d":
        hyper.append(("block_size", p))
    label = f"CDVFT m={m} p={shown}" + ("" if path == "fft" else f" {path}")
    return Shape(
        "cdvft",
        label,
        tuple(sorted(hyper)),
        m * d + (m - 1) * q * d,
        0,
        3 * (m - 1) * tokens * q,
        p,
        8 * m * tokens * d,
        operators,
    )


def predicted_pass(s: Shape, d: int, tokens: int, scale: int, base: int) -> PredictedPass:
    fft = 2.5 * s.fft_length * math.log2(max(2, s.fft_length)) * s.ffts * scale
    macs, elementwise = scale * s.macs + base, scale * s.elementwise
    operators = {name: n * scale for name, n in s.operators.items()} | ({"addmm": 1} if base else {})
    adapter = {
        "mac": float(scale * s.macs),
        "flop": 2.0 * scale * s.macs + elementwise + fft,
        "paper": scale * s.macs + fft / 2.5,
    }
    return PredictedPass(
        macs=macs,
        elementwise_flops=elementwise,
        ffts=s.ffts * scale,
        launches=sum(operators.values()),
        read=4 * (d * d + tokens * d) * (1 + scale * len(s.operators)),
        written=4 * tokens * d * (1 + scale * len(s.operators)),
        flops={"mac": float(macs), "flop": 2.0 * macs + elementwise + fft, "paper": macs + fft / 2.5},
        fft_flops={"mac": 0.0, "flop": fft, "paper": fft / 2.5},
        operators=operators,
        adapter_flops=adapter,
        adapter_launches=sum(s.operators.values()) * scale,
    )


def update_pass(s: Shape) -> PredictedPass:
    n = 1 if s.parameters else 0
    flops = {"mac": 0.0, "flop": 14.0 * s.parameters + n, "paper": 0.0}
    return PredictedPass(
        macs=0,
        elementwise_flops=14 * s.parameters + n,
        ffts=0,
        launches=2 * n,
        read=16 * s.parameters,
        written=12 * s.parameters,
        flops=flops,
        fft_flops=dict.fromkeys(flops, 0.0),
        operators={"_foreach_add_": n, "_fused_adamw_": n} if n else {},
        adapter_flops=flops,
        adapter_launches=2 * n,
    )


def counted_pass(p: PredictedPass, extra: dict[str, int]) -> PassCount:
    operators = dict(p.operators)
    for name, n in extra.items():
        operators[name] = operators.get(name, 0) + n
    return PassCount(
        macs=p.macs,
        elementwise_flops=p.elementwise_flops,
        ffts=p.ffts,
        fft_flops=p.fft_flops["flop"],
        launches=sum(operators.values()),
        operators=operators,
    )


def make_record(
    s: Shape,
    subject: str,
    d: int,
    batch: int,
    sequence: int,
    pass_: CasePass,
    rng: random.Random,
    dtype: str = "float32",
    device: str = "cpu",
    environment: str = ENVIRONMENT,
) -> Record:
    tokens = batch * sequence
    case = Case(s.method, s.hyperparameters, "layer", subject, batch, sequence, dtype, pass_, device)
    base = tokens * d * d
    forward, backward = predicted_pass(s, d, tokens, 1, base), predicted_pass(s, d, tokens, 2, base)
    update = update_pass(s)
    predicted = Predicted(
        s.parameters, forward, backward, update, 4 * tokens * d * (1 + len(s.operators)), 8 * s.parameters
    )
    step = pass_ == "step"
    extra = {"copy_": 1} if s.method == "c3a" else {}
    counted = Counted(
        parameters=s.parameters,
        forward=counted_pass(forward, extra),
        backward=counted_pass(backward, extra) if step else None,
        update=counted_pass(update, {}) if step and s.parameters else None,
        fvcore=FvcoreCount(forward.macs, forward.fft_flops["flop"], forward.elementwise_flops, {"rfft": 1.0}, base),
        saved_bytes=4 * tokens * d * (1 + len(s.operators)),
    )
    launches = forward.launches + (backward.launches + update.launches if step else 0)
    frozen_ms = 1e3 * base * (3 if step else 1) / 2e10
    ratio = 1.0 if s.method == "frozen" else 1.02 + 0.012 * launches + rng.uniform(0, 0.05)
    seconds = tuple(frozen_ms * ratio * rng.uniform(0.96, 1.06) / 1e3 for _ in range(30))
    ordered = sorted(seconds)
    samples = Samples(s.label, seconds, ordered[15], ordered[7], ordered[22])
    ratios = {}
    if s.method != "frozen":
        ratios["frozen"] = Interval(ratio, ratio - rng.uniform(0.005, 0.04), ratio + rng.uniform(0.005, 0.04))
    if s.label != "LoRA r=8":
        ratios[LORA] = Interval(ratio / 1.15, ratio / 1.15 - 0.02, ratio / 1.15 + 0.02)
    warnings = ("drift of 6 % between first and last third",) if rng.random() < 0.1 else ()
    timing = Timing((samples,), ratios, 30, "perf_counter" if device == "cpu" else "cuda_event", 2, warnings)
    trace = TraceSummary(3 * launches, launches, sum(seconds) / 40, 0.0, {"matmul": 1e-3}, {}, device)
    timed = Timed(timing, trace, Memory(12 * tokens * d + 100 * launches, "profiler"))
    return Record(case, "ok", s.label, predicted, counted, timed, None, environment, "2026-01-02T03:04:05Z", 1.5)


def make_records(
    subject: str = "768x768",
    d: int = 768,
    workloads: tuple[tuple[int, int, CasePass], ...] = ((8, 128, "step"),),
    seed: int = 0,
    device: str = "cpu",
    dtype: str = "float32",
    environment: str = ENVIRONMENT,
) -> list[Record]:
    rng = random.Random(seed)
    return [
        make_record(s, subject, d, batch, sequence, pass_, rng, dtype, device, environment)
        for batch, sequence, pass_ in workloads
        for s in shapes(d, batch * sequence)
    ]


def failed(record: Record, error: str) -> Record:
    return replace(record, status="failed", predicted=None, counted=None, timed=None, error=error)


HOSTILE = '$\\frac{x$<script>alert("x")</script>\u202e\x00|`</td></style><img src=x onerror=alert(1)>'


def campaign_of(records: list[Record], environments: Mapping[str, object] = ENVIRONMENTS, **more: object) -> Campaign:
    """The records as if they had been read from one store, records.sqlite."""
    kept, replaced = latest(records)
    stores = dict.fromkeys(map(id, kept), "records.sqlite")
    origins = (Origin("records.sqlite", "records", len(records)),)
    return Campaign(kept, replaced, environments, stores, origins=origins, **more)  # type: ignore[arg-type]


def with_timing(record: Record, **changes: object) -> Record:
    """The record with another clock: fields of its ``Timing``."""
    assert record.timed is not None
    assert record.timed.timing is not None
    return replace(record, timed=replace(record.timed, timing=replace(record.timed.timing, **changes)))  # type: ignore[arg-type]


def with_ratios(record: Record, **ratios: Interval) -> Record:
    """The record with other ratios: ``frozen`` and ``lora``."""
    return with_timing(record, ratios={{"lora": LORA}.get(name, name): value for name, value in ratios.items()})
