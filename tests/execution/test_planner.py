"""The planner: it ranks by predicted time, resolves "auto", and says where its rates come from."""

import dataclasses
import itertools
import json
import math

import numpy as np
import pytest
import torch
from torch import nn

from cdvft_bench.analytic.kernels import Kernel, fft
from cdvft_bench.analytic.linear import LinearShape
from cdvft_bench.analytic.roofline import (
    Rates,
    at,
    kernel_parts,
    kernel_seconds,
    largest_prime,
    predict_seconds,
    rates_from_json,
)
from cdvft_bench.core.errors import UserError
from cdvft_bench.execution import planner
from cdvft_bench.execution.paths import FastCDVFTLinear
from cdvft_bench.execution.planner import BUILT_IN, Problem, device_rates, estimate, kernels_of, pick, rank
from cdvft_bench.methods import make_method

CPU = BUILT_IN["cpu"]


def test_rates_are_interpolated_and_end_flat() -> None:
    curve = ((1e3, 1.0), (1e5, 3.0))
    assert at(curve, 1.0) == 1.0
    assert at(curve, 1e4) == pytest.approx(2.0)
    assert at(curve, 1e9) == 3.0


def test_a_kernel_takes_the_longest_of_its_parts() -> None:
    flat = Rates(
        "d",
        "test",
        {"float32": ((1, 1e9),)},
        ((1, 1e9),),
        ((1, 1e9),),
        dict.fromkeys(("elementwise", "reduction", "copy"), ((1, 1e6),)),
        1e-6,
        asynchronous=True,
    )
    copy = Kernel("copy_", "copy", read=1000, written=1000)
    assert kernel_seconds(copy, flat, "float32") == pytest.approx(2e-3)
    product = Kernel("mm", "matmul", macs=10**9, read=10, written=10)
    assert kernel_seconds(product, flat, "float32") == pytest.approx(2.0)
    tiny = Kernel("mul", "elementwise", flops=1, read=0, written=0)
    assert kernel_seconds(tiny, flat, "float32") == 1e-6
    assert kernel_seconds(copy, dataclasses.replace(flat, asynchronous=False), "float32") == pytest.approx(2e-3 + 1e-6)
    transform = fft("_fft_r2c", 1024, 100, "float32")
    assert kernel_seconds(transform, flat, "float32") >= 2.5 * 1024 * 10 * 100 / 1e9
    assert predict_seconds((copy, copy, copy.times(0)), flat) == pytest.approx(4e-3)


def test_transforms_of_rough_lengths_are_slower() -> None:
    """A library's transform of 751 points, a prime, takes other ways than one of 768; where that was measured."""
    for n in range(1, 500):
        factors = [q for q in range(2, n + 1) if n % q == 0 and all(q % r for r in range(2, int(q**0.5) + 1))]
        assert largest_prime(n) == max(factors, default=1)
    rough = dataclasses.replace(CPU, fft_primes=((7.0, 1.0), (97.0, 0.2), (751.0, 0.1)))
    for n, share in ((768, 1.0), (4 * 97, 0.2), (751, 0.1), (1511, 0.1)):
        transform = fft("_fft_r2c", n, 10_000, "float32")
        before, after = (kernel_seconds(transform, rates, "float32") - rates.launch_s for rates in (CPU, rough))
        assert after == pytest.approx(before / share)
    assert kernel_seconds(Kernel("k", "native", fft_length=751, fft_batch=99), rough, "float32") == pytest.approx(
        kernel_seconds(Kernel("k", "native", fft_length=751, fft_batch=99), CPU, "float32")
    )
    assert rates_from_json(json.loads(json.dumps(rough.to_json()))) == rough
    old = {key: value for key, value in CPU.to_json().items() if key != "fft_primes"}
    assert rates_from_json(old) == CPU
    slow = {e.path: e.seconds for e in rank(Problem(768, 768, 751), rough)}
    fast = {e.path: e.seconds for e in rank(Problem(768, 768, 751), CPU)}
    assert slow["fused"] > 1.1 * fast["fused"]
    assert slow["merged_dense"] == fast["merged_dense"]  # it transforms nothing


@pytest.mark.parametrize("m", [0, 2, 3])
@pytest.mark.parametrize("training", [True, False])
def test_estimates_are_those_of_the_closed_forms(m, training) -> None:
    problem = Problem(768, 512, 256, m, 100, training=training)
    method = (
        make_method("cdvft", {"m": m, "block_size": 256}) if m else make_method("block_circulant", {"block_size": 256})
    )
    for found in rank(problem, CPU):
        cost = dataclasses.replace(method, path=found.path).cost(LinearShape(768, 512), 100, device="cpu")
        expected = cost.forward + (cost.backward if training else ())
        assert kernels_of(problem, found.path)[0] == expected
        assert found.seconds == pytest.approx(predict_seconds(expected, CPU))
        assert found.saved_bytes == cost.saved_bytes
    seconds = [e.seconds for e in rank(problem, CPU)]
    assert seconds == sorted(seconds)


def test_more_tokens_make_the_merged_weight_pay() -> None:
    """The buffer costs d * d once; the transforms it saves cost tokens * d."""
    few, many = (
        estimate(Problem(1024, 1024, 1024, tokens=t), "merged", CPU).seconds
        / estimate(Problem(1024, 1024, 1024, tokens=t), "fused", CPU).seconds
        for t in (16, 4096)
    )
    assert many < 1 < few


def test_auto_executes_what_is_picked() -> None:
    torch.manual_seed(0)
    layer = FastCDVFTLinear(nn.Linear(32, 32), "auto", init="random")
    x = torch.randn(10, 32)
    picked = pick(x, list(layer.diagonals), list(layer.circulants), 32)
    layer.execution_path = picked
    expected = layer(x)
    layer.execution_path = "auto"
    assert torch.equal(layer(x), expected)
    grid = LinearShape(np.array([8, 16]), np.array([8, 16]))
    with pytest.raises(UserError, match="shape by shape"):
        make_method("cdvft", {"path": "auto"}).cost(grid, 4, device="cpu")


def test_what_cannot_be_planned_is_refused() -> None:
    with pytest.raises(UserError, match="m = 1 leaves nothing to plan"):
        Problem(8, 8, 8, 1)
    with pytest.raises(UserError, match="d_in = 0"):
        Problem(0, 8, 8)
    with pytest.raises(UserError, match="dtype 'int8'"):
        Problem(8, 8, 8, dtype="int8")
    with pytest.raises(UserError, match="device 'tpu'"):
        Problem(8, 8, 8, device="tpu")
    with pytest.raises(UserError, match="'merged_dense' cannot execute"):
        estimate(Problem(8, 8, 8, 3), "merged_dense", CPU)


def test_rates_files(tmp_path, monkeypatch) -> None:
    path = tmp_path / "r.json"
    monkeypatch.setenv("CDVFT_BENCH_RATES", str(path))
    path.write_text(json.dumps(dataclasses.replace(CPU, source="measured").to_json()))
    other = tmp_path / "other.json"
    monkeypatch.setenv("CDVFT_BENCH_RATES", str(other))
    path.rename(other)
    assert device_rates("cpu").source == "measured"
    assert rates_from_json(CPU.to_json()) == rates_from_json(json.loads(json.dumps(CPU.to_json())))
    assert device_rates("cuda").source.startswith("NVIDIA H200")
    for broken in ("{}", '{"device": 1}', "[]", json.dumps({**CPU.to_json(), "fft": [[1, -1]]})):
        with pytest.raises(UserError, match="no calibrated rates"):
            rates_from_json(json.loads(broken))


def test_paths_that_are_alike_but_for_rounding_stand_in_their_own_order(monkeypatch: pytest.MonkeyPatch) -> None:
    problem = Problem(768, 768, 256, 2, 100)
    rng = np.random.default_rng(0)
    monkeypatch.setattr(planner, "predict_seconds", lambda *_: 1e-3 * (1 + int(rng.integers(-3, 4)) * 2.2e-16))
    for _ in range(20):
        assert [e.path for e in rank(problem, CPU)] == list(problem.paths)


@pytest.mark.parametrize("d", [64, 768, 1024, 2048, 4096])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_auto_leaves_the_on_chip_fft_out_though_it_be_predicted_to_take_no_time(d, dtype, monkeypatch) -> None:
    """No clock has seen it, and no prediction knows of registers that are kept off chip."""
    found_by = planner.estimate

    def free(problem: Problem, path: str, rates: Rates) -> planner.Estimate:
        found = found_by(problem, path, rates)
        return dataclasses.replace(found, seconds=0.0) if path == "triton" else found

    monkeypatch.setattr(Problem, "kernels", {"triton": ""})
    monkeypatch.setattr(planner, "estimate", free)
    planner._pick_for.cache_clear()
    for tokens, m in itertools.product((64, 1024, 8192, 32768), (2, 0)):
        problem = Problem(d, d, d, m, tokens, dtype, "cuda")
        first, second, *_ = (found.path for found in planner.rank(problem))
        assert (first, planner.pick_for(problem)) == ("triton", second)
    planner._pick_for.cache_clear()


def test_passes_over_scratch_matrices_are_priced_by_the_memory_between_them() -> None:
    """A d x d pass beside five others finds its operands gone from a cache that holds one of them."""
    fast = {"elementwise": ((1e6, 1e11), (1e8, 1e10)), "reduction": ((1e6, 1e10),), "copy": ((1e6, 1e11), (1e8, 1e10))}
    rates = dataclasses.replace(BUILT_IN["cpu"], bandwidth=fast)
    problem = Problem(768, 768, 251, tokens=64)
    kernels, _ = kernels_of(problem, "merged_dense")
    passes = [k for k in kernels if k.kind == "elementwise" and k.read + k.written > 2**22]
    scratch = 4 * (6 * 1004 * 1004 + 2 * 768 * 768)
    assert passes
    for kernel in passes:
        moved = kernel.read + kernel.written
        rate = 1e11 + (1e10 - 1e11) * math.log(scratch / 1e6) / math.log(1e8 / 1e6)
        assert moved < scratch
        assert kernel_parts(kernel, rates, "float32").traffic == pytest.approx(moved / rate)
    assert all(k.among == 0 for k in kernels_of(problem, "stored")[0])
