"""Layers whose weight is held as int8: formula equals count, and what has no closed form there is told."""

import pytest

from cdvft_bench.analytic.linear import LinearShape
from cdvft_bench.core.case import FROZEN, LORA
from cdvft_bench.core.counted import PassCount
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.record import PredictedPass
from cdvft_bench.methods import make_method, method_names
from cdvft_bench.sweep import evaluate as sources
from cdvft_bench.sweep.grid import make_case

pytest.importorskip("torchao", reason="torchao is not installed; pip install cdvft-bench[quantised]")
METHODS = [
    (FROZEN, {}),
    *((name, {}) for name in method_names() if make_method(name).covers_quantised),
    ("lora", {"rank": 4}),
    ("fourierft", {"n_frequency": 10}),
    ("cdvft", {"m": 3, "block_size": 16, "path": "handwritten"}),
]


def same(predicted: PredictedPass, counted: PassCount | None) -> None:
    assert counted is not None
    assert predicted.operators == counted.operators
    assert (predicted.macs, predicted.elementwise_flops) == (counted.macs, counted.elementwise_flops)
    assert (predicted.read, predicted.written) == (counted.read, counted.written)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(("method", "hyperparameters"), METHODS)
def test_formula_equals_count(method: str, hyperparameters: dict, dtype: str) -> None:
    case = make_case(method, hyperparameters, "layer", "64x48-int8", batch=2, sequence=8, dtype=dtype)
    predicted, counted = sources.predict(case), sources.count(case)
    same(predicted.forward, counted.forward)
    same(predicted.backward, counted.backward)
    assert predicted.parameters == counted.parameters
    assert predicted.saved_bytes == counted.saved_bytes


def test_it_is_timed_beside_a_quantised_frozen_layer_and_lora() -> None:
    case = make_case("cdvft", {"m": 2}, "layer", "64x64-int8", sequence=8)
    timed = sources.time_case(case, budget_s=0.05)
    assert timed.timing is not None
    assert set(timed.timing.ratios) == {FROZEN, LORA}
    assert timed.memory is not None
    assert timed.trace is not None
    assert timed.trace.launches == sources.predict(case).forward.launches + 2 + sources.predict(case).backward.launches


@pytest.mark.parametrize(
    ("method", "hyperparameters"),
    [("full", {}), ("dora", {}), ("c3a", {}), ("cdvft", {"path": "merged"}), ("cdvft", {"path": "auto"})],
)
def test_what_has_no_closed_form_there_is_told(method: str, hyperparameters: dict) -> None:
    case = make_case(method, hyperparameters, "layer", "64x64-int8")
    with pytest.raises(UserError, match="have one at their defaults: block_circulant, cdvft, fourierft, lora"):
        sources.predict(case)


def test_a_quantised_layer_has_no_bias() -> None:
    with pytest.raises(UserError, match="leave the bias out"):
        LinearShape(4, 4, quantised=True)
