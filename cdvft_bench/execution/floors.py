"""Times that no execution can go below: of an adapted layer, and of each Triton kernel.

``cdvft-bench dev floors`` prints what each kernel must move and is predicted to take. The floor is the
time to move each operand once at the device's bandwidth; a prediction is the longest of arithmetic, traffic and
launch. Both divide by the rates of ``planner.device_rates("cuda")``; neither is a measurement.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from cdvft_bench.analytic.roofline import Rates, kernel_seconds
from cdvft_bench.core.text import NOT_MEASURED, markdown_table
from cdvft_bench.execution.costs import FastLayer
from cdvft_bench.execution.planner import Problem, device_rates
from cdvft_bench.execution.triton.costs import fold_kernels, merged_weight_kernel

SHAPES = tuple((d, tokens) for d in (768, 1024, 2048, 4096) for tokens in (1024, 8192, 32768))


@dataclass(frozen=True)
class Floor:
    """One kernel on one shape.

    Attributes:
        kernel: its name. d, tokens: shape. bytes: that it must read and write.
        floor_s: seconds at the device's bandwidth. predicted_s: seconds by the cost model.
    """

    kernel: str
    d: int
    tokens: int
    bytes: int
    floor_s: float
    predicted_s: float


def floors(d: int, tokens: int, rates: Rates, dtype: str = "bfloat16") -> Iterator[Floor]:
    """Every kernel on a d x d layer with one block a factor, activations and weight of ``dtype``."""
    problem = Problem(d, d, d, tokens=tokens, dtype=dtype, device="cuda")
    layer = FastLayer(problem.layer, tokens, dtype, problem.factors, 2, 1.0, "triton", "cuda")
    merged = merged_weight_kernel(problem.layer, problem.factors[0], dtype, True)
    folds = fold_kernels(problem.layer, problem.factors[0], dtype, True)
    on_chip = [k for k in (*layer.forward(), *layer.backward()) if k.op in ("filter_kernel", "moment_kernel")]
    named = [(merged, ""), *((one, "") for one in folds)]
    named += zip(on_chip, (" forward", " for x, a_1", " for a_3", " for c"), strict=True)
    named += [(k, " of partial gradients") for k in layer.backward() if k.op == "sum"]
    for kernel, what in named:
        moved = int(kernel.read + kernel.written)
        floor = moved / rates.bandwidth["copy"][-1][1]
        predicted = max(floor, kernel_seconds(kernel, rates, dtype))
        yield Floor(f"{kernel.op}{what}", d, tokens, moved, floor, predicted)


def floors_markdown() -> str:
    """The floors of every kernel at :data:`SHAPES` as a Markdown table."""
    rates = device_rates("cuda")
    head = f"Rates: {rates.device}, {rates.source}. bfloat16, m = 2, p = d."
    columns = ("kernel", "d", "tokens", "bytes", "memory floor [us]", "predicted [us]", "measured")
    rows = (
        (f.kernel, d, tokens, f"{f.bytes:,}", f"{1e6 * f.floor_s:.1f}", f"{1e6 * f.predicted_s:.1f}", NOT_MEASURED)
        for d, tokens in SHAPES
        for f in floors(d, tokens, rates)
    )
    return "\n".join([head, "", *markdown_table(columns, rows)]) + "\n"
