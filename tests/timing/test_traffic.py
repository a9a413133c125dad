"""Bytes from a trace's shapes: by hand, and beside the closed form, which shares no code with them."""

from __future__ import annotations

from typing import Any

import pytest

from cdvft_bench.sweep import evaluate as sources
from cdvft_bench.sweep.grid import make_case
from cdvft_bench.timing.trace import analyse_events, trace_call
from tests.timing import cuda_trace as made

F, C, B = "float", "c10::complex<float>", "c10::BFloat16"


def one(name: str, dims: list[Any], types: list[str], **more: Any) -> int | None:
    event = made.event("cpu_op", f"aten::{name}", 0, 10, **{"Input Dims": dims, "Input type": types, **more})
    return analyse_events([event]).moved_bytes


@pytest.mark.parametrize(
    ("name", "dims", "types", "more", "expected"),
    [
        ("mm", [[3, 5], [5, 7]], [F, F], {}, 4 * (15 + 35 + 21)),
        ("addmm", [[7], [3, 5], [5, 7], [], []], [B, B, B, "Scalar", "Scalar"], {}, 2 * (7 + 15 + 35 + 21)),
        ("bmm", [[2, 3, 5], [2, 5, 7]], [C, C], {}, 8 * 2 * (15 + 35 + 21)),
        ("mul", [[2, 8, 6], [6]], [F, F], {}, 4 * (96 + 6 + 96)),
        ("mul", [[8, 6], []], [B, "double"], {}, 2 * 96 + 8),  # a number in a tensor does not widen the result
        ("mul", [[8, 6], [8, 6]], [F, F], {"Input Strides": [[6, 1], [0, 1]]}, 4 * (48 + 6 + 48)),
        ("add_", [[8, 6], [8, 6], []], [F, F, "Scalar"], {}, 4 * 3 * 48),
        ("copy_", [[8, 6], [8, 6], []], [F, B, "Scalar"], {}, 48 * 6),
        ("fill_", [[8, 6], []], [F, "Scalar"], {}, 4 * 48),
        ("sum", [[8, 6], [], [], []], [F, "ScalarList", "Scalar", ""], {}, 4 * 48),
        (
            "_fft_r2c",
            [[4, 64], [], [], []],
            [F, "ScalarList", "Scalar", "Scalar"],
            {"Concrete Inputs": ["", "[1]", "0", "True"]},
            4 * 64 * 4 + 4 * 33 * 8,
        ),
        (
            "_fft_r2c",
            [[4, 64], [], [], []],
            [F, "ScalarList", "Scalar", "Scalar"],
            {"Concrete Inputs": ["", "[1]", "0", "False"]},
            4 * 64 * 4 + 4 * 64 * 8,
        ),
        (
            "_fft_c2r",
            [[4, 33], [], [], []],
            [C, "ScalarList", "Scalar", "Scalar"],
            {"Concrete Inputs": ["", "[1]", "2", "64"]},
            4 * 33 * 8 + 4 * 64 * 4,
        ),
        ("_fft_c2c", [[4, 64], [], [], []], [C, "ScalarList", "Scalar", "Scalar"], {}, 2 * 4 * 64 * 8),
        ("cat", [[[2, 3], [4, 3]], []], ["TensorList", "Scalar"], {}, 2 * 4 * 18),
        ("_fused_adamw_", [[[9]], [[9]], [[9]], [[9]], [], [[]]], ["TensorList"] * 6, {}, 4 * (7 * 9 + 2)),
        ("embedding", [[100, 8], [2, 5]], [F, "long int"], {}, 2 * 10 * 8 * 4 + 80),
    ],
)
def test_bytes_by_hand(name: str, dims: list[Any], types: list[str], more: dict[str, Any], expected: int) -> None:
    assert one(name, dims, types, **more) == expected


@pytest.mark.parametrize("pass_", ["forward", "step"])
@pytest.mark.parametrize("method", ["full", "lora", "c3a", "vera", "cdvft", "block_circulant"])
def test_the_trace_moves_what_the_formula_says(method: str, pass_: Any) -> None:
    values: dict[str, Any] = {"block_size": 32} if method == "c3a" else {}
    case = make_case(method, values, "layer", "96x64", sequence=24, pass_=pass_)
    subject, predicted = sources.build(case), sources.predict(case)
    summary = trace_call(subject.step if pass_ == "step" else subject.forward)
    passes = [predicted.forward, predicted.backward, predicted.update]
    expected = sum(p.read + p.written for p in (passes if pass_ == "step" else passes[:1]))
    assert summary.moved_bytes == pytest.approx(expected, rel=0.03)
    assert summary.moved_bytes == sum(summary.family_bytes.values())
    assert summary.bytes_per_second is not None
    assert summary.bytes_per_second > 0
    assert not summary.notes


def test_bandwidth_is_bytes_over_busy_time() -> None:
    summary = analyse_events(made.one_product(300, 200, 100, F))
    assert summary.moved_bytes == 4 * (300 * 200 + 200 * 100 + 300 * 100)
    assert summary.bytes_per_second == pytest.approx(summary.moved_bytes / 900e-6)


def test_what_has_no_shapes_is_not_guessed() -> None:
    assert one("mul", [[8, 6], [6]], [F, F], **{"Input Dims": None}) is None
    bare = analyse_events(made.one_product(3, 2, 1, F, shapes=False))
    assert (bare.moved_bytes, bare.bytes_per_second, bare.family_bytes) == (None, None, {})
    known = made.event("cpu_op", "aten::mul", 0, 9, **{"Input Dims": [[4], [4]], "Input type": [F, F]})
    mixed = analyse_events([known, made.event("cpu_op", "aten::mul", 10, 19)])
    assert mixed.moved_bytes == 48
    assert mixed.notes == ("1 of 2 operators have no shapes in the trace: the bytes are without theirs",)
