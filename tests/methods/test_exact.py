"""Formula against count: zero difference, for every method and way of executing it, over random shapes.

The default run takes a few dozen cases a method; the slow one 10,000 of the methods, and a few hundred of each way of
executing the circulant ones.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from cdvft_bench.analytic.cost import Cost, flops, total
from cdvft_bench.analytic.kernels import Kernels
from cdvft_bench.analytic.linear import LinearShape
from cdvft_bench.core.counted import Counted, PassCount
from cdvft_bench.counting.count import count_layer
from cdvft_bench.execution import native
from cdvft_bench.methods import Method, make_method, method_names

Draw = Callable[[random.Random, int, int], dict[str, Any]]

PATHS = ("fft", "handwritten", "fused", "stored", "merged", "merged_dense", "native")
"""Every path but Triton's kernels, into which no dispatcher sees."""
COMPILED = not native.missing(torch.float32)


def _circulant(r: random.Random, d_in: int, d_out: int) -> dict[str, Any]:
    return {
        "block_size": r.choice([None, r.randint(1, 70)]),
        "path": r.choice([*PATHS, "auto"]),
        "convention": r.choice(["column", "row"]),
        "alpha": r.choice([1.0, 0.5]),
    }


def _cdvft(m: int, options: dict[str, Any]) -> dict[str, Any]:
    return {"m": min(m, 2) if options["path"] == "merged_dense" else m, **options}


def _gralora(r: random.Random, d_in: int, d_out: int) -> dict[str, Any]:
    k = r.choice([1, 2, 4, 8, 16 if d_in > 16 else 8])  # with 16, now and then, blocks of one output
    return {"rank": max(2, k * r.randint(1, 3)), "gralora_k": k, "hybrid_r": r.choice([0, 1, 3])}


DRAWS: dict[str, Draw] = {
    "lora": lambda r, i, o: {"rank": r.randint(1, 12)},
    "dora": lambda r, i, o: {"rank": r.randint(1, 12)},
    "fourierft": lambda r, i, o: {"n_frequency": r.randint(1, min(i * o, 300))},
    "c3a": lambda r, i, o: {"block_size": r.choice([None, *(b for b in (2, 4, 8, 16) if i % b == o % b == 0)])},
    "vera": lambda r, i, o: {"rank": r.randint(1, 30)},
    "boft": lambda r, i, o: {"block_size": r.choice([2, 4, 8])},
    "cdvft": lambda r, i, o: _cdvft(r.randint(1, 5), _circulant(r, i, o)),
    "block_circulant": _circulant,
    "rslora": lambda r, i, o: {"rank": r.randint(1, 12)},
    "lora_fa": lambda r, i, o: {"rank": r.randint(1, 12)},
    "loha": lambda r, i, o: {"rank": r.randint(1, 12)},
    "lokr": lambda r, i, o: {
        "rank": r.randint(1, 6),
        "decompose_both": r.random() < 0.5,
        "decompose_factor": r.choice([-1, -1, 1, 2, 4]),
    },
    "miss": lambda r, i, o: {"rank": r.randint(1, min(i, 20))},
    "delora": lambda r, i, o: {"rank": r.randint(1, 8)},
    "hra": lambda r, i, o: {"rank": r.randint(1, 6)},
    "oft": lambda r, i, o: {"block_size": r.choice([2, 4, 8, 16, i])},
    "randlora": lambda r, i, o: {"rank": r.randint(1, 12)},
    "gralora": _gralora,
    "waveft": lambda r, i, o: {"n_frequency": r.randint(1, min(i * o, 300))},
    "road": lambda r, i, o: {
        "variant": r.choice(["road_1", "road_2", "road_4"]),
        "group_size": r.choice([2, 4, 8, 16, o]),
    },
    "ia3": lambda r, i, o: {"feedforward": r.random() < 0.5},
}


NEED_DIVISORS = {"c3a", "boft", "oft", "gralora", "road"}  # of the widths


def operators(kernels: Kernels) -> dict[str, int]:
    found: Counter[str] = Counter()
    for kernel in kernels:
        found[kernel.op] += int(kernel.launches)
    return {name: n for name, n in sorted(found.items()) if n}


def compare_pass(name: str, kernels: Kernels, counted: PassCount | None) -> list[str]:
    if counted is None:
        return [f"{name}: not counted"] if kernels and total(kernels).launches else []
    sums = total(kernels)
    pairs = [
        ("operators", operators(kernels), counted.operators),
        ("multiply-adds", sums.macs, counted.macs),
        ("element-wise FLOPs", sums.elementwise_flops, counted.elementwise_flops),
        ("transforms", sums.ffts, counted.ffts),
        ("FFT FLOPs", round(float(flops(kernels, "flop", "fft")), 3), round(counted.fft_flops, 3)),
        ("launches", sums.launches, counted.launches),
        ("bytes read", sums.read, counted.read),
        ("bytes written", sums.written, counted.written),
        ("unpriced", {}, counted.unpriced),
    ]
    return [f"{name}: {what}: formula {a}, counted {b}" for what, a, b in pairs if a != b]


def differences(cost: Cost, counted: Counted) -> list[str]:
    found = []
    if cost.parameters != counted.parameters:
        found.append(f"parameters: formula {cost.parameters}, counted {counted.parameters}")
    if cost.saved_bytes != counted.saved_bytes:
        found.append(f"saved bytes: formula {cost.saved_bytes}, counted {counted.saved_bytes}")
    for name in ("forward", "backward", "update"):
        found += compare_pass(name, getattr(cost, name), getattr(counted, name))
    if counted.fvcore is None:
        return [*found, f"fvcore: {counted.notes}"]
    sums = total(cost.forward)
    pairs = [
        ("multiply-adds", sums.macs, counted.fvcore.macs),
        ("FFT FLOPs", round(float(flops(cost.forward, "flop", "fft")), 3), round(counted.fvcore.fft_flops, 3)),
        ("unsupported operators", {}, counted.fvcore.unsupported),
    ]
    return found + [f"fvcore: {what}: formula {a}, counted {b}" for what, a, b in pairs if a != b]


def check(name: str, seed: int, path: str | None = None) -> list[str]:
    """Draw a case of a method (of one way of executing it, if named), build it, and compare formula and count."""
    r = random.Random(f"{name} {seed}" + (f" {path}" if path else ""))
    if name not in NEED_DIVISORS:
        most = r.choice([60, 60, 60, 3])  # now and then a layer so small that shapes degenerate
        d_in = r.randint(1, most)
        d_out = r.choice([d_in, r.randint(1, most)])
    elif name == "c3a" and r.random() < 0.2:
        d_in = d_out = 2
    else:
        d_in, d_out = 16 * r.randint(1, 4), 16 * r.randint(1, 4)
    tokens, bias = r.choice([1, *range(1, 20)]), r.random() < 0.5 or name == "bitfit"
    dtype = r.choice(["float32", "float64", "bfloat16", "float16"])
    drawn = DRAWS.get(name, lambda r, i, o: {})(r, d_in, d_out)
    if path:
        drawn["path"] = path
        if path == "merged_dense" and "m" in drawn:
            drawn["m"] = min(drawn["m"], 2)
    if drawn.get("path") == "native":
        if not COMPILED:
            return []
        drawn["block_size"] = r.choice([16, 32, 48, 64, 80, 112])
    method = make_method(name, drawn)
    return [f"seed {seed}: {text}" for text in check_layer(method, d_in, d_out, tokens, bias, dtype)]


def check_layer(method: Method, d_in: int, d_out: int, tokens: int, bias: bool, dtype: str) -> list[str]:
    """Build an adapted layer and compare formula and count."""
    base = nn.Linear(d_in, d_out, bias=bias, dtype=getattr(torch, dtype))
    layer = method.adapt_linear(base)
    for parameter in layer.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.1)
    x = torch.randn(1, tokens, d_in, dtype=getattr(torch, dtype), requires_grad=True)
    cost = method.cost(LinearShape(d_in, d_out, bias), tokens, dtype)
    where = f"{method} on {d_in}x{d_out}, {tokens} tokens, bias {bias}, {dtype}"
    return [f"{where}: {text}" for text in differences(cost, count_layer(layer, x))]


@pytest.mark.parametrize("path", ["fft", "handwritten", "fused", "stored", "merged", "merged_dense"])
@pytest.mark.parametrize("convention", ["column", "row"])
@pytest.mark.parametrize(("d_in", "d_out", "p"), [(1, 1, 1), (2, 2, 2), (1, 2, 1), (2, 1, 1), (1, 1, 2), (3, 3, 3)])
def test_degenerate_layers(d_in, d_out, p, convention, path) -> None:
    options = {"block_size": p, "convention": convention, "path": path}
    methods = [
        make_method("block_circulant", options),
        *(make_method("cdvft", {"m": m, **options}) for m in (1, 2, 3) if m < 3 or path != "merged_dense"),
    ]
    found = [text for method in methods for text in check_layer(method, d_in, d_out, 4, True, "float64")]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", ["fused", "stored", "merged", "merged_dense"])
@pytest.mark.parametrize(("d_in", "d_out", "p"), [(1, 1, 1), (1, 3, 2), (3, 1, 1)])
def test_one_row_of_width_one(d_in, d_out, p, path) -> None:
    for name in ("block_circulant", "cdvft"):
        assert not check_layer(make_method(name, {"block_size": p, "path": path}), d_in, d_out, 1, True, "float64")


@pytest.mark.parametrize("d_out", [256, 257, 600])
def test_more_rows_than_one_batch_of_the_merged_weight(d_out) -> None:
    method = make_method("cdvft", {"m": 3, "block_size": 64, "path": "merged"})
    assert not check_layer(method, 20, d_out, 3, True, "float32")


@pytest.mark.parametrize("name", method_names())
def test_formula_equals_count(name) -> None:
    found = [text for seed in range(40) for text in check(name, seed)]
    assert not found, "\n".join(found[:10])


CASES = -(-10_000 // len(method_names()))
GROUPS = [(name, None) for name in method_names()]
GROUPS += [(name, path) for name in ("cdvft", "block_circulant") for path in PATHS if path != "native" or COMPILED]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("name", "path"), GROUPS)
def test_formula_equals_count_ten_thousand_times(name, path, capsys) -> None:
    """10,000 cases of all methods together, and as many as one of them has of each path of the circulant ones."""
    found = [text for seed in range(1000, 1000 + CASES) for text in check(name, seed, path)]
    with capsys.disabled():
        print(f"\n{name}{', path ' + path if path else ''}: {CASES} cases, {len(found)} differences", end=" ")
    assert not found, "\n".join(found[:5])
