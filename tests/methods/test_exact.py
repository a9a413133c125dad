"""Formula against count: zero difference, for every method and way of executing it, over random shapes.

The default run takes a few dozen cases a method; the slow one 10,000 of the methods, and a few hundred of each way of
executing the circulant ones.
"""

from typing import get_args

import pytest
import torch

from cdvft_bench.analytic.circulant import CirculantPath
from cdvft_bench.analytic.linear import LinearShape
from cdvft_bench.execution import native
from cdvft_bench.methods import Method, make_method, method_class, method_names
from cdvft_bench.sweep.probes.exactness import LayerCase, check_case, check_layer, constant_fields, draw_case

COMPILED = not native.missing(torch.float32)
PATHS = [p for p in get_args(CirculantPath) if p not in ("triton", "auto") and (p != "native" or COMPILED)]
"""Every path but Triton's kernels, into which no dispatcher sees."""
CIRCULANT = [name for name in method_names() if "path" in method_class(name).__dataclass_fields__]


def found(method: Method, d_in: int, d_out: int, tokens: int, dtype: str) -> list[str]:
    return check_layer(LayerCase(method, LinearShape(d_in, d_out), tokens, dtype))


@pytest.mark.parametrize("path", ["fft", "handwritten", "fused", "stored", "merged", "merged_dense"])
@pytest.mark.parametrize("convention", ["column", "row"])
@pytest.mark.parametrize(("d_in", "d_out", "p"), [(1, 1, 1), (2, 2, 2), (1, 2, 1), (2, 1, 1), (1, 1, 2), (3, 3, 3)])
def test_degenerate_layers(d_in, d_out, p, convention, path) -> None:
    options = {"block_size": p, "convention": convention, "path": path}
    methods = [
        make_method("block_circulant", options),
        *(make_method("cdvft", {"m": m, **options}) for m in (1, 2, 3) if m < 3 or path != "merged_dense"),
    ]
    told = [text for method in methods for text in found(method, d_in, d_out, 4, "float64")]
    assert not told, "\n".join(told)


@pytest.mark.parametrize("path", ["fused", "stored", "merged", "merged_dense"])
@pytest.mark.parametrize(("d_in", "d_out", "p"), [(1, 1, 1), (1, 3, 2), (3, 1, 1)])
def test_one_row_of_width_one(d_in, d_out, p, path) -> None:
    for name in ("block_circulant", "cdvft"):
        assert not found(make_method(name, {"block_size": p, "path": path}), d_in, d_out, 1, "float64")


@pytest.mark.parametrize("d_out", [256, 257, 600])
def test_more_rows_than_one_batch_of_the_merged_weight(d_out) -> None:
    assert not found(make_method("cdvft", {"m": 3, "block_size": 64, "path": "merged"}), 20, d_out, 3, "float32")


@pytest.mark.parametrize("name", method_names())
def test_formula_equals_count(name) -> None:
    cases = 40 if name in CIRCULANT else 20  # of each path of a circulant one several
    told = [text for seed in range(cases) for text in check_case(name, seed)]
    assert not told, "\n".join(told[:10])


@pytest.mark.parametrize("name", method_names())
def test_examples_vary_every_field(name) -> None:
    drawn = [draw_case(name, seed).method for seed in range(200)]
    assert constant_fields(name, drawn) == (), f"{name}.examples never varies these fields"


CASES = -(-10_000 // len(method_names()))
GROUPS = [(name, None) for name in method_names()] + [(name, path) for name in CIRCULANT for path in PATHS]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("name", "path"), GROUPS)
def test_formula_equals_count_ten_thousand_times(name, path, capsys) -> None:
    """10,000 cases of all methods together, and as many as one of them has of each path of the circulant ones."""
    told = [text for seed in range(1000, 1000 + CASES) for text in check_case(name, seed, path)]
    with capsys.disabled():
        print(f"\n{name}{', path ' + path if path else ''}: {CASES} cases, {len(told)} differences", end=" ")
    assert not told, "\n".join(told[:5])
