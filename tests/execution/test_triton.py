"""The Triton kernels: interpreted on a CPU, compiled for a GPU without one, and on a GPU where there is one."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch

from cdvft_bench.execution.planner import Problem
from cdvft_bench.execution.splits import on_chip_fits, split
from cdvft_bench.execution.triton import path as triton_path
from cdvft_bench.execution.triton.path import misfit

HAS_TRITON = importlib.util.find_spec("triton") is not None
NEEDS_TRITON = "the package triton is not installed (tox -e triton installs it)"
SHARED_BYTES_OF_A_HOPPER_SM = 232_448

INTERPRETED = """
import itertools, sys, torch
from cdvft_bench.execution.fused import Plan
from cdvft_bench.execution import splits
from cdvft_bench.execution.triton.path import merged_weight
from cdvft_bench.execution.paths import adapted_linear, change
from cdvft_reference.cdvft import FactorShapes, cdvft_dense
from cdvft_reference.circulant import dense_block_circulant

torch.manual_seed(int(sys.argv[1]))
relative = lambda a, b: float((a - b).detach().double().norm() / b.detach().double().norm())
splits.ON_CHIP_PROGRAMS = 2  # several tiles a program
shapes = [(8, 8, 8, 70), (12, 10, 12, 5), (30, 48, 48, 9), (7, 7, 7, 2), (96, 96, 96, 20), (1, 1, 1, 1)]
for (d_in, d_out, p, tokens), row, diagonal, based in itertools.product(shapes, *[(False, True)] * 3):
    shapes_ = FactorShapes(d_in, d_out, 2, p)
    D = [torch.randn(s, requires_grad=True) for s in shapes_.diagonals] if diagonal else []
    C = [torch.randn(s, requires_grad=True) for s in shapes_.circulants]
    W, b = (torch.randn(d_out, d_in), torch.randn(d_out)) if based else (None, None)
    x, g = torch.randn(tokens, d_in, requires_grad=True), torch.randn(tokens, d_out)
    convention = "row" if row else "column"
    F64 = [t.detach().double().requires_grad_() for t in (x, *D, *C)]
    D64, C64 = F64[1:1 + len(D)], F64[1 + len(D):]
    dense = cdvft_dense(D64, C64, d_out, convention) if D else dense_block_circulant(C64[0], d_in, d_out, convention)
    exact = 0.7 * F64[0] @ dense.T
    if based:
        exact = exact + torch.nn.functional.linear(F64[0], W.double(), b.double())
        h = adapted_linear(x, W, b, D, C, alpha=0.7, path="triton", convention=convention)
        out = merged_weight(W, D, C[0], Plan(d_out, 0.7, row, len(D)), torch.empty_like(W))
        assert relative(out, W.double() + 0.7 * dense) < 1e-6
    else:
        h = change(x, D, C, d_out, alpha=0.7, path="triton", convention=convention)
    ours = [h, *torch.autograd.grad(h, [x, *D, *C], g)]
    theirs = [exact, *torch.autograd.grad(exact, F64, g.double())]
    assert max(relative(a, b) for a, b in zip(ours, theirs)) < 1e-5, (d_in, d_out, p, tokens, row, diagonal, based)
# Blocks, in the merged weight alone.
for d_in, d_out, p in [(10, 7, 3), (33, 18, 16), (300, 20, 64)]:
    shapes_ = FactorShapes(d_in, d_out, 2, p)
    D, C = [torch.randn(s) for s in shapes_.diagonals], [torch.randn(s) for s in shapes_.circulants]
    W = torch.randn(d_out, d_in)
    out = merged_weight(W.bfloat16(), D, C[0], Plan(d_out), torch.empty(d_out, d_in, dtype=torch.bfloat16))
    assert relative(out, W.bfloat16() + cdvft_dense(D, C, d_out)) < 4e-3
# Half-precision activations, float32 inside.
D, C = [torch.randn(64), torch.randn(64)], [torch.randn(1, 1, 64)]
x = torch.randn(20, 64)
h = change(x.bfloat16(), D, C, 64, path="triton")
assert h.dtype == torch.bfloat16
assert relative(h, x.bfloat16().double() @ cdvft_dense(D, C, 64).double().T) < 4e-3
"""


HELD = """
import torch
from tests.execution.test_operands import every_second, negated_view, transposed
from cdvft_bench.execution.fused import Plan
from cdvft_bench.execution.triton.path import merged_weight
from cdvft_bench.execution.paths import change
from cdvft_reference.cdvft import cdvft_dense

torch.manual_seed(0)
relative = lambda a, b: float((a - b).detach().norm() / b.detach().norm())
first, last, c = torch.randn(30), torch.randn(48), torch.randn(1, 1, 48)
x, g, W = torch.randn(9, 30), torch.randn(9, 48), torch.randn(48, 30)

def run(path, held):
    given = [held(t).detach().requires_grad_() for t in (x, first, last, c)]
    h = change(given[0], given[1:3], given[3:], 48, path=path)
    return [h, *torch.autograd.grad(h, given, held(g))]

for held in (every_second, transposed, negated_view):
    for ours, theirs in zip(run("triton", held), run("fft", lambda t: t)):
        assert relative(ours, theirs) < 1e-5, held
    out = merged_weight(held(W), [held(first), held(last)], held(c), Plan(48), torch.empty(48, 30))
    assert relative(out, W + cdvft_dense([first, last], [c], 48)) < 1e-5, held
one = [torch.randn(1).expand(n) for n in (30, 48)]
assert relative(change(x, one, [c], 48, path="triton"), change(x, one, [c], 48, path="fft")) < 1e-5
out = merged_weight(torch.randn(48, 1).expand(48, 30), one, c, Plan(48), torch.empty(48, 30))

# What hooks give back instead of what was saved.
for shape in (48,), (1, 1, 48):
    given = [t.detach().requires_grad_() for t in (x, first, last, c)]
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t[..., :8] if t.shape == shape else t):
        h = change(given[0], given[1:3], given[3:], 48, path="triton")
    try:
        torch.autograd.grad(h, given, g)
    except ValueError as error:
        assert "(1, 1, 8)" in str(error) or "(8,)" in str(error), error
    else:
        raise AssertionError(shape)
"""


COUNTED = """
import itertools, torch
from triton.runtime.interpreter import InterpreterBuilder as Builder
from cdvft_bench.analytic.linear import LinearShape
from cdvft_bench.execution.paths import adapted_linear
from cdvft_bench.execution.costs import FastLayer
from cdvft_bench.execution.planner import Problem
from cdvft_bench.execution.splits import on_chip_rows

macs, dot = [0], Builder.create_dot

def counted_dot(self, a, b, *rest):
    macs[0] += a.data.shape[0] * a.data.shape[1] * b.data.shape[1]
    return dot(self, a, b, *rest)

Builder.create_dot = counted_dot

def bytes_within(way, tensors):
    found = [a for launched in seen for a in launched.arguments.values()]
    return sum(getattr(a, way) for t in tensors for a in found if a.address == t.data_ptr())

for (d_in, d_out, p), dtype, m in itertools.product([(8, 8, 8), (30, 48, 48), (96, 96, 96)],
                                                    [torch.float32, torch.bfloat16], [2, 0]):
    name = str(dtype).removeprefix("torch.")
    tokens = 3 * on_chip_rows(p, name)
    problem = Problem(d_in, d_out, p, m, tokens, name, "cuda")
    layer = FastLayer(LinearShape(d_in, d_out), tokens, name, problem.factors, m, 1.0, "triton", "cuda")
    D = [torch.randn(d_in, requires_grad=True), torch.randn(d_out, requires_grad=True)] if m else []
    C = [torch.randn(1, 1, p, requires_grad=True)]
    W, b = torch.randn(d_out, d_in, dtype=dtype), torch.randn(d_out, dtype=dtype)
    x, g = torch.randn(tokens, d_in, dtype=dtype, requires_grad=True), torch.randn(tokens, d_out, dtype=dtype)
    on_chip = ("filter_kernel", "moment_kernel")
    for kernels, ours in ((layer.forward(), "forward"), (layer.backward(), "backward")):
        kernels = [kernel for kernel in kernels if kernel.op in on_chip]
        macs[0] = 0
        seen.clear()
        if ours == "forward":
            h = adapted_linear(x, W, b, D, C, path="triton")
            counted = macs[0], bytes_within("read", [x, h]), bytes_within("written", [h])
        else:
            (grad_x, *_) = torch.autograd.grad(h, [x, *D, *C], g)
            counted = macs[0], bytes_within("read", [x, g, grad_x]), bytes_within("written", [grad_x])
        closed = tuple(sum(getattr(k, what) for k in kernels) for what in ("macs", "read", "written"))
        assert counted == closed, (d_in, d_out, p, name, m, ours, counted, kernels)
"""


AROUND = """
import functools, itertools, torch
from dataclasses import replace
from cdvft_bench.execution.costs import FastLayer
from cdvft_bench.execution.planner import Problem
from torch.utils._python_dispatch import TorchDispatchMode
from cdvft_bench.execution.paths import adapted_linear
from cdvft_bench.execution.triton import kernels as triton_kernels

seen, steps = [], {}

class Launch:
    def __init__(self, name): self.name = name
    def __getitem__(self, grid): return lambda *a, **k: seen.append(self.name)

for name in [name for name in vars(triton_kernels) if name.endswith("_kernel")]:
    setattr(triton_kernels, name, Launch(name))

class Dispatched(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        # Views alias what they are given; an allocation launches nothing.
        given = {a.untyped_storage().data_ptr() for a in args if isinstance(a, torch.Tensor)}
        moves = not (isinstance(out, torch.Tensor) and out.untyped_storage().data_ptr() in given)
        if moves and "empty" not in name:
            seen.append(name)
        return out

for path, d, diagonals, row, alpha in itertools.product(
    ("merged_dense", "triton"), (256, 100), (True, False), (True, False), (0.5, 1.0)
):
    ends = [torch.randn(d, requires_grad=True) for _ in range(2 * diagonals)]
    c = torch.randn(1, 1, d, requires_grad=True)
    W, x = torch.randn(d, d).bfloat16(), torch.randn(64, d).bfloat16().requires_grad_()
    convention = "row" if row else "column"
    problem = Problem(d, d, d, 2 * diagonals, 64, "bfloat16", "cuda", bias=False)
    factors = [replace(problem.factors[0], row=int(row))]
    layer = FastLayer(problem.layer, 64, "bfloat16", factors, 2 * diagonals, alpha, path, "cuda")
    forward, backward = ([k.op for k in ks if k.launches] for ks in (layer.forward(), layer.backward()))
    run = functools.partial(adapted_linear, x, W, None, ends, [c], alpha=alpha, path=path, convention=convention)
    run().sum().backward()  # makes what is made once
    seen.clear()
    with Dispatched():
        h = run()
    assert sorted(seen) == sorted(forward), (path, d, diagonals, row, seen, forward)
    g = torch.ones_like(h)
    seen.clear()
    with Dispatched():
        torch.autograd.grad(h, [x, *ends, c], g)
    assert sorted(seen) == sorted(backward), (path, d, diagonals, row, seen, backward)
    steps[path, d, diagonals, row, alpha] = len(forward) + len(backward)
assert steps["merged_dense", 256, True, False, 0.5] == 7
assert steps["triton", 256, True, False, 0.5] == 16
"""


WATCHED = """
import sys
from cdvft_bench.counting.interpreted import watch_launches

with watch_launches() as seen:
    exec(sys.argv.pop(1))
"""


def interpret(program: str, *arguments: str) -> None:
    """Run a program under Triton's interpreter; no load or store of its kernels may leave the argument that it is of.

    Skips where this Triton's interpreter cannot do with this numpy.
    """
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-c", WATCHED, program, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if "InterpreterError: TypeError('only 0-dimensional arrays can be converted" in done.stderr:
        pytest.skip("this Triton's interpreter turns arrays of one entry into numbers, which this numpy refuses")
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.skipif(not HAS_TRITON, reason=NEEDS_TRITON)
def test_the_interpreter_counts_what_the_closed_forms_say() -> None:
    """Multiply-adds of the matrix unit, and the activations' bytes: no dispatcher sees inside of a kernel."""
    interpret(COUNTED)


BROKEN = """
import pytest, torch
from triton.runtime.errors import InterpreterError
from tests.execution.toys import shifted_kernel

def error(x, out, n, start=0, more=0, step=1):
    with pytest.raises(InterpreterError) as found:
        shifted_kernel[(3,)](x, out, n, start, more, step, block=4)
    return str(found.value)

x, apart = torch.arange(24.0), torch.arange(24.0)
out = torch.full((24,), -1.0)
shifted_kernel[(3,)](x[:10], out[:10], 10, 0, 0, 1, block=4)
assert out.tolist() == [*range(10), *[-1] * 14]
(launched,) = seen
assert [(a.read, a.written) for a in launched.arguments.values()] == [(40, 0), (0, 40)]
# One past the end, in memory that is another argument's, or within the storage: it is none of this one's.
assert "shifted_kernel, program (2, 0, 0), reads entry 10 of x, whose entries are 0 to 9" in error(x[:10], x[10:], 11)
assert "program (2, 0, 0), writes entry 10 of out, whose entries are 0 to 9" in error(x, out[:10], 10, more=1)
assert "program (0, 0, 0), reads entry -1 of x, whose entries are 0 to 22" in error(x[1:], out, 10, start=-1)
assert "reads entry 2147483648 of x" in error(x, out, 10, start=2**31)
# Between the rows of a view, and what has no entry at all.
shifted_kernel[(3,)](apart[::2], out, 10, 0, 0, 2, block=4)
assert out[:10].tolist() == [*range(0, 20, 2)]
assert "reads entry 1 of x, whose entries are 0 to 22 with holes" in error(apart[::2], out, 10)
assert "reads entry 0 of x, whose entries are 0 to -1" in error(x[:0], out, 10)
"""


@pytest.mark.skipif(not HAS_TRITON, reason=NEEDS_TRITON)
def test_a_program_that_leaves_its_argument_is_named() -> None:
    interpret(BROKEN)


FOLDED = """
import itertools, sys, torch
from cdvft_bench.execution import splits
from cdvft_bench.execution.paths import adapted_linear
from cdvft_bench.execution.fused import Plan
from cdvft_bench.execution.triton.path import _fold_of, fold_gradients
from cdvft_reference.cdvft import FactorShapes, cdvft_dense
from cdvft_reference.circulant import dense_block_circulant

torch.manual_seed(int(sys.argv[1]))
relative = lambda a, b: float((a - b).detach().double().norm() / b.detach().double().norm())

def layer(d_in, d_out, p, tokens, row, diagonal, dtype):
    # Path merged_dense, all of it by kernels, against the dense change in float64.
    shapes = FactorShapes(d_in, d_out, 2, p)
    D = [torch.randn(s, requires_grad=True) for s in shapes.diagonals] if diagonal else []
    C = [torch.randn(s, requires_grad=True) for s in shapes.circulants]
    x, W, b = (torch.randn(*s).to(dtype) for s in ((tokens, d_in), (d_out, d_in), (d_out,)))
    g, convention = torch.randn(tokens, d_out).to(dtype), "row" if row else "column"
    x.requires_grad_()
    h = adapted_linear(x, W, b, D, C, alpha=0.7, path="merged_dense", convention=convention)
    ours = [h, *torch.autograd.grad(h, [x, *D, *C], g)]
    F64 = [t.detach().double().requires_grad_() for t in (x, *D, *C)]
    D64, C64 = F64[1:1 + len(D)], F64[1 + len(D):]
    dense = cdvft_dense(D64, C64, d_out, convention) if D else dense_block_circulant(C64[0], d_in, d_out, convention)
    exact = torch.nn.functional.linear(F64[0], W.double() + 0.7 * dense, b.double())
    theirs = [exact, *torch.autograd.grad(exact, F64, g.double())]
    bound = 1e-5 if dtype == torch.float32 else 1e-2
    errors = [relative(a, b) for a, b in zip(ours, theirs, strict=True)]
    assert max(errors) < bound, (d_in, d_out, p, tokens, row, diagonal, dtype, splits.FOLD_PROGRAMS, errors)

shapes = [(8, 8, 8, 3), (30, 48, 48, 9), (70, 33, 16, 7), (7, 5, 3, 4), (100, 130, 100, 5), (1, 1, 1, 1)]
for (d_in, d_out, p, tokens), row, diagonal in itertools.product(shapes, (False, True), (True, False)):
    for splits.FOLD_PROGRAMS in (1, 9, 512) if p > 32 else (512,):  # one program along a diagonal, some, one a tile
        _fold_of.cache_clear()
        layer(d_in, d_out, p, tokens, row, diagonal, torch.float32)
_fold_of.cache_clear()
layer(100, 230, 100, 5, False, True, torch.bfloat16)
# The same bits every time, and operands of any strides.
c, ends = torch.randn(1, 1, 64), [torch.randn(100, 2)[:64, 0], torch.randn(64).neg()]
for dtype in (torch.float32, torch.bfloat16):
    dense = torch.randn(64, 64).to(dtype)
    once, again = (fold_gradients(dense, ends, c, Plan(64, 0.3)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
"""


@pytest.mark.skipif(not HAS_TRITON, reason=NEEDS_TRITON)
@pytest.mark.parametrize("seed", [0])
def test_the_fold_equals_the_oracle_under_the_interpreter(seed) -> None:
    interpret(FOLDED, str(seed))


@pytest.mark.skipif(not HAS_TRITON, reason=NEEDS_TRITON)
def test_what_torch_launches_around_the_kernels() -> None:
    """As the closed forms say: seven launches a step of merged_dense, two frozen products among them; 16 of triton."""
    interpret(AROUND)


@pytest.mark.skipif(not HAS_TRITON, reason=NEEDS_TRITON)
def test_kernels_read_operands_of_any_strides_under_the_interpreter() -> None:
    interpret(HELD)


@pytest.mark.skipif(not HAS_TRITON, reason=NEEDS_TRITON)
@pytest.mark.parametrize("seed", [0, 1])
def test_kernels_equal_the_oracle_under_the_interpreter(seed) -> None:
    interpret(INTERPRETED, str(seed))


@pytest.mark.slow
@pytest.mark.skipif(not HAS_TRITON, reason=NEEDS_TRITON)
@pytest.mark.parametrize("p", [768, 1024, 2048, 3072, 4096])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_kernels_compile_for_a_gpu_and_fit_its_shared_memory(p, dtype) -> None:
    from cdvft_bench.counting.compiled import compile_kernel
    from cdvft_bench.execution.triton import kernels as triton_kernels
    from cdvft_bench.execution.triton.variants import on_chip

    if not on_chip_fits(p, dtype):
        pytest.skip("the path refuses this case")
    for launch in on_chip(p, p, p, 8192, dtype, True):
        kernel = getattr(triton_kernels, launch.kernel)
        found = compile_kernel(kernel, launch.arguments, launch.constants, "sm_90", launch.warps)
        assert found.shared_bytes <= SHARED_BYTES_OF_A_HOPPER_SM, launch


def test_what_does_not_fit_is_said(monkeypatch) -> None:
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    cpu, cuda, f32, bf16 = torch.device("cpu"), torch.device("cuda"), torch.float32, torch.bfloat16
    if not HAS_TRITON:
        assert "not installed" in misfit(cuda, f32, bf16, (1, 1), 768, 1)
        return
    assert "not on cpu" in misfit(cpu, f32, f32, (1, 1), 768, 1)
    assert misfit(cuda, f32, bf16, (1, 1), 768, 1) == ""
    assert "one block" in misfit(cuda, f32, bf16, (2, 2), 384, 1)
    assert "2 of 1 x 1" in misfit(cuda, f32, bf16, (1, 1), 768, 2)
    assert "float64" in misfit(cuda, torch.float64, torch.float64, (1, 1), 768, 1)
    assert "p = 131" in misfit(cuda, f32, bf16, (1, 1), 131, 1)
    monkeypatch.setattr(torch.version, "hip", "6.4")
    assert "no AMD GPU has" in misfit(cuda, f32, f32, (1, 1), 768, 1)
    assert misfit(cuda, f32, bf16, (1, 1), 768, 1) == ""
    monkeypatch.setattr(torch.version, "hip", None)
    assert "shared memory" in misfit(cuda, f32, f32, (1, 1), 4096, 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(triton_path, "_failure", lambda device: "")
    for shared, fits, largest in (
        (101_376, False, False),
        (166_912, False, True),
        (232_448, True, True),
    ):  # L4, A100, H100
        given = SimpleNamespace(shared_memory_per_block_optin=shared)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device, given=given: given)
        assert (misfit(cuda, f32, bf16, (1, 1), 2048, 1) == "") == fits
        assert misfit(cuda, f32, bf16, (1, 1), 1024, 1) == ""
        assert (misfit(cuda, f32, bf16, (1, 1), 4096, 1) == "") == largest
        assert "shared memory" in misfit(cuda, f32, f32, (1, 1), 2048, 1)
        assert misfit(cuda, f32, f32, (1, 1), 1024, 1) == ""
    monkeypatch.setattr(torch.version, "hip", "6.4")
    given = SimpleNamespace(shared_memory_per_block=65_536)  # an MI300X's
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: given)
    assert "98,304 bytes" in misfit(cuda, f32, bf16, (1, 1), 4096, 1)
    assert misfit(cuda, f32, bf16, (1, 1), 2048, 1) == ""


@pytest.mark.skipif(not HAS_TRITON, reason=NEEDS_TRITON)
def test_where_no_kernel_starts_torchs_operators_take_over_and_it_is_said_once(monkeypatch) -> None:
    """As on a machine without a C compiler, which Triton needs for its launchers."""

    def broken(*operands: object) -> None:
        raise RuntimeError("Failed to find C compiler.\nPlease specify via CC environment variable")

    monkeypatch.setenv("TRITON_INTERPRET", "0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch, "ones", lambda *sizes, device: torch.zeros(*sizes))
    monkeypatch.setattr(triton_path, "merged_weight", broken)
    monkeypatch.setattr(triton_path, "_failure", lru_cache(triton_path._failure.__wrapped__))
    device = torch.device("cuda")
    with pytest.warns(RuntimeWarning, match=r"Failed to find C compiler\. Please .*; torch's operators take") as said:
        assert [triton_path.kernels_run(device) for _ in range(2)] == [False, False]
    assert len(said) == 1
    assert "no kernel of Triton's starts here (RuntimeError" in misfit(
        device, torch.float32, torch.float32, (1, 1), 8, 1
    )
    assert "triton" not in Problem(768, 768, 768, device="cuda", dtype="bfloat16").paths


def test_splits_have_the_least_area_then_short_rows() -> None:
    assert split(768) == (48, 16)
    assert split(2048) == (128, 16)
    assert split(4096) == (64, 64)
    assert split(7) == (1, 7)
    assert split(131) is None


WIDTHS = """
import itertools, sys, torch
from cdvft_bench.execution.paths import adapted_linear
from cdvft_bench.execution.triton.path import misfit
from cdvft_reference.cdvft import cdvft_dense
from cdvft_reference.circulant import dense_block_circulant

device, tokens = torch.device(sys.argv[1]), int(sys.argv[2])
torch.manual_seed(tokens)
relative = lambda a, b: float((a - b).detach().double().norm() / b.detach().double().norm())

for path, name, d, diagonals in itertools.product(
    sys.argv[3].split(","), sys.argv[4].split(","), map(int, sys.argv[5:]), (True, False)
):
    dtype = getattr(torch, name)
    if path == "triton" and misfit(device, torch.float32, dtype, (1, 1), d, 1):
        continue
    drawn = lambda *shape: torch.randn(*shape, device=device)
    D, c = [drawn(d).requires_grad_() for _ in range(2 * diagonals)], drawn(1, 1, d).requires_grad_()
    x, W, b, g = (drawn(*s).to(dtype) for s in ((tokens, d), (d, d), (d,), (tokens, d)))
    x.requires_grad_()
    h = adapted_linear(x, W, b, D, [c], alpha=0.7, path=path)
    ours = [h, *torch.autograd.grad(h, [x, *D, c], g)]
    wide = [t.detach().double().requires_grad_() for t in (x, *D, c)]
    dense = cdvft_dense(wide[1:-1], wide[-1:], d) if diagonals else dense_block_circulant(wide[-1], d, d, "column")
    exact = torch.nn.functional.linear(wide[0], W.double() + 0.7 * dense, b.double())
    theirs = [exact, *torch.autograd.grad(exact, wide, g.double())]
    errors = [relative(a, b) for a, b in zip(ours, theirs, strict=True)]
    assert max(errors) < (1e-2 if dtype == torch.bfloat16 else 1e-4), (d, dtype, path, diagonals, errors)
"""


@pytest.mark.skipif(not HAS_TRITON, reason=NEEDS_TRITON)
def test_output_and_all_gradients_equal_the_oracle_under_the_interpreter() -> None:
    interpret(WIDTHS, "cpu", "5", "merged_dense,triton", "bfloat16,float32", "48", "160")


SAMPLED = "import sys; from tests.execution import sampled; sampled.main(*sys.argv[1:])"


@pytest.mark.skipif(not HAS_TRITON, reason=NEEDS_TRITON)
@pytest.mark.parametrize(
    ("path", "shape"),
    [
        ("merged_dense", "768 768 768"),
        ("merged_dense", "1000 600 250"),
        ("triton", "768 768 768"),
        ("triton", "4096 4096 4096"),
    ],
)
def test_programs_of_wide_layers_equal_the_oracle_under_the_interpreter(path, shape) -> None:
    interpret(SAMPLED, "0", path, shape)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not HAS_TRITON, reason=NEEDS_TRITON)
@pytest.mark.parametrize(
    ("path", "shapes"),
    [
        ("merged_dense", ["768 768 768", "1000 600 250", "768 3072 768", "1000 1000 1000", "2048 2048 2048"]),
        ("merged_dense", ["1024 1024 16", "1024 1024 1024", "3000 3500 3500", "4096 4096 4096"]),
        ("triton", ["768 768 768", "1000 1000 1000", "700 1024 1024", "2048 2048 2048", "3000 4096 4096"]),
    ],
)
def test_programs_of_any_wide_layers_equal_the_oracle_under_the_interpreter(path, shapes) -> None:
    interpret(SAMPLED, "1", path, *shapes)


FAULTS = """
import itertools, re, sys
import pytest
from triton.runtime.interpreter import InterpreterBuilder as Builder
from cdvft_bench.counting import interpreted
from tests.execution import sampled

store, some = Builder.create_masked_store, interpreted.sampled

def wrong(self, pointers, value, mask, *rest):
    value.data = (value.data * 1.01).astype(value.data.dtype)
    return store(self, pointers, value, mask, *rest)

def less(self, pointers, value, mask, *rest):
    mask.data[..., -1:] = False
    return store(self, pointers, value, mask, *rest)

def more(choose):
    def beside(name, grid):
        chosen = choose(name, grid)
        return [*chosen, next(at for at in itertools.product(*map(range, grid)) if at not in chosen)]
    return some(beside)

for path in ("merged_dense", "triton"):
    for broken, says in ((wrong, "error 0.0"), (less, "error nan|error"), (None, "outside|does not own")):
        Builder.create_masked_store, interpreted.sampled = broken or store, some if broken else more
        with pytest.raises(AssertionError, match=says):
            sampled.main("0", path, "768 768 768")
"""


@pytest.mark.skipif(not HAS_TRITON, reason=NEEDS_TRITON)
def test_a_program_that_writes_something_else_less_or_more_is_seen() -> None:
    interpret(FAULTS)


@pytest.mark.skipif(not HAS_TRITON, reason=NEEDS_TRITON)
def test_every_launch_fits_cudas_grid_and_is_made_on_the_operands_gpu(monkeypatch) -> None:
    """65,535 programs along all axes but the first; and Triton takes the current device, whatever it is given."""
    from cdvft_bench.execution.fused import Plan
    from cdvft_bench.execution.triton import kernels as triton_kernels
    from cdvft_bench.execution.triton.on_chip import _Filter

    grids: dict[str, tuple[int, ...]] = {}
    on: list[torch.Tensor] = []

    class Launch:
        def __init__(self, name: str) -> None:
            self.name = name

        def __getitem__(self, grid: tuple[int, ...]):
            def run(*operands: object, **constants: object) -> None:
                assert on, f"{self.name} is launched on the current GPU, whichever that is"
                assert {t.device for t in operands if isinstance(t, torch.Tensor)} == {on[-1].device}, self.name
                grids[self.name] = grid

            return run

    @contextmanager
    def device_of(operand: torch.Tensor):
        on.append(operand)
        yield
        on.pop()

    monkeypatch.setattr(torch.cuda, "device_of", device_of)
    for name in ("merged_weight_kernel", "fold_kernel", "fold_sums_kernel", "filter_kernel"):
        monkeypatch.setattr(triton_kernels, name, Launch(name))
    with torch.device("meta"):
        for d, p in ((4096, 16), (16384, 8), (65536, 65536), (1024, 1024)):
            dense, c = torch.empty(d, d, dtype=torch.bfloat16), torch.empty(d // p, d // p, p)
            ends = [torch.empty(d), torch.empty(d)]
            triton_path.merged_weight(dense, ends, c, Plan(d), torch.empty_like(dense))
            triton_path.fold_gradients(dense, ends, c, Plan(d))
            assert grids["fold_kernel"][0] == (d // p) ** 2
            for grid in grids.values():
                assert grid[0] < 2**31, (d, p, grids)
                assert all(n <= 65_535 for n in grid[1:]), (d, p, grids)
        x = torch.empty(70_000 * 32, 1024, dtype=torch.bfloat16)
        _Filter(1024, torch.empty(2, 32, 32), 1.0, x.dtype)(x, torch.empty_like(x), ends)
    assert len(grids["filter_kernel"]) == 1


COMPILED = """
import torch
from cdvft_bench.execution.paths import adapted_linear

torch.manual_seed(0)
D, c = [torch.randn(n, requires_grad=True) for n in (48, 64)], torch.randn(4, 3, 16, requires_grad=True)
x, W, b, g = torch.randn(2, 5, 48, requires_grad=True), torch.randn(64, 48), torch.randn(64), torch.randn(2, 5, 64)
layer = lambda x: adapted_linear(x, W, b, D, [c], alpha=0.7, path="merged_dense")
inputs = [x, *D, c]
eager = layer(x)
assert type(eager.grad_fn).__name__ == "KernelFunctionBackward"
theirs = [eager, *torch.autograd.grad(eager, inputs, g, retain_graph=True)]

whole = torch.compile(layer, backend="eager", fullgraph=True)(x)  # no look at the kernels is traced
for a, b in zip([whole, *torch.autograd.grad(whole, inputs, g)], theirs, strict=True):
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
with torch._dynamo.compiled_autograd._enable(torch.compile(backend="eager", fullgraph=True)):
    found = torch.autograd.grad(eager, inputs, g)
for a, b in zip(found, theirs[1:], strict=True):
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
"""


@pytest.mark.skipif(not HAS_TRITON, reason=NEEDS_TRITON)
def test_compiled_graphs_take_the_kernels_as_operators_forward_and_backward() -> None:
    interpret(COMPILED)


class _Kernel:
    """A kernel of Triton's as ``launch`` sees it: says whether a launch went through Triton or what it compiled."""

    device_caches: ClassVar[dict[int, object]] = {}
    __name__ = "kernel"

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[int, ...], tuple[object, ...]]] = []

    def __getitem__(self, grid: tuple[int, ...]):
        def run(*arguments: object, num_warps: int) -> _Compiled:
            self.calls.append(("triton", grid, arguments))
            return _Compiled(self)

        return run


class _Compiled:
    def __init__(self, kernel: _Kernel) -> None:
        self.kernel = kernel

    def __getitem__(self, grid: tuple[int, int, int]):
        return lambda *arguments: self.kernel.calls.append(("again", grid, arguments))


def test_what_triton_compiled_is_launched_again_for_arguments_that_it_fits_alone(monkeypatch) -> None:
    """Triton compiles anew for another dtype, a pointer that is no multiple of 16, and an integer that is or is not
    1, a multiple of 16 or of 32 bits: what it compiled must not meet those."""
    monkeypatch.setattr(triton_path, "_keeps_compiled", lambda: True)
    monkeypatch.setattr(triton_path, "_compiled", {})
    kernel = _Kernel()
    whole = torch.zeros(64)

    def launched(operand: torch.Tensor, *values: float) -> str:
        triton_path.launch(kernel, (3, 2), (operand, whole), values, 4)
        how, grid, arguments = kernel.calls[-1]
        assert grid == ((3, 2) if how == "triton" else (3, 2, 1))
        assert arguments[0] is operand
        assert arguments[2:] == values
        return how

    assert [launched(whole, 16, 0.5, True) for _ in range(3)] == ["triton", "again", "again"]
    assert launched(whole.clone(), 16, 0.5, True) == "again"
    for others in ((17, 0.5, True), (1, 0.5, True), (2**40, 0.5, True), (16, 0.25, True), (16, 0.5, False)):
        assert [launched(whole, *others) for _ in range(2)] == ["triton", "again"]
    assert launched(whole, 1.0, 0.5, True) == "triton"  # equal to the integer 1, but another type
    assert [launched(whole.bfloat16(), 16, 0.5, True) for _ in range(2)] == ["triton", "again"]
    assert [launched(whole[1:], 16, 0.5, True) for _ in range(2)] == ["triton", "triton"]  # begins at 4 of 16 bytes
    assert launched(whole, 16, 0.5, True) == "again"
    monkeypatch.setattr(triton_path, "_keeps_compiled", lambda: False)
    assert [launched(whole, 16, 0.5, True) for _ in range(2)] == ["triton", "triton"]


AGAIN = """
import torch
from cdvft_bench.execution.paths import adapted_linear
from cdvft_reference.cdvft import cdvft_dense

relative = lambda a, b: float((a - b).detach().double().norm() / b.detach().double().norm())
drawn = lambda *shape: torch.randn(*shape, device="cuda")
shifted = lambda d: drawn(d + 1)[1:]  # begins at no multiple of 16 bytes
plain, bf16 = torch.float32, torch.bfloat16
calls = [(96, 64, 64, plain, 1.0, "column", drawn)] * 3  # compiled, launched again, and again
calls += [(96, 64, 64, plain, 0.7, "column", drawn), (96, 64, 64, plain, 0.7, "row", drawn)]
calls += [(96, 64, 64, plain, 0.7, "row", shifted), (96, 64, 64, bf16, 0.7, "row", drawn)]
calls += [(1, 1, 1, plain, 0.7, "row", drawn), (95, 61, 61, bf16, 0.7, "row", drawn)]
for d_out, d_in, p, dtype, alpha, convention, draw in calls + calls:
    D = [draw(d_in).requires_grad_(), draw(d_out).requires_grad_()]
    c = drawn(-(-d_out // p), -(-d_in // p), p).requires_grad_()
    x, W, b, g = (drawn(*s).to(dtype) for s in ((2, 3, d_in), (d_out, d_in), (d_out,), (2, 3, d_out)))
    x.requires_grad_()
    h = adapted_linear(x, W, b, D, [c], alpha=alpha, path="merged_dense", convention=convention)
    ours = [h, *torch.autograd.grad(h, [x, *D, c], g)]
    wide = [t.detach().double().requires_grad_() for t in (x, *D, c)]
    dense = cdvft_dense(wide[1:-1], wide[-1:], d_out, convention)
    exact = torch.nn.functional.linear(wide[0], W.double() + alpha * dense, b.double())
    theirs = [exact, *torch.autograd.grad(exact, wide, g.double())]
    errors = [relative(a, b) for a, b in zip(ours, theirs, strict=True)]
    assert max(errors) < (1e-2 if dtype == bf16 else 1e-4), (d_out, d_in, dtype, convention, draw, errors)
"""


@pytest.mark.gpu
@pytest.mark.skipif(not (torch.cuda.is_available() and HAS_TRITON), reason="needs a CUDA device and triton")
def test_launches_that_skip_triton_equal_the_oracle_on_a_gpu() -> None:
    done = subprocess.run([sys.executable, "-c", AGAIN], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def on_a_gpu(*arguments: str) -> None:
    done = subprocess.run([sys.executable, "-c", WIDTHS, "cuda", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.gpu
@pytest.mark.skipif(not (torch.cuda.is_available() and HAS_TRITON), reason="needs a CUDA device and triton")
@pytest.mark.parametrize("tokens", ["37", "512"])
def test_output_and_all_gradients_of_what_auto_launches_equal_the_oracle_on_a_gpu(tokens) -> None:
    on_a_gpu(tokens, "merged_dense", "bfloat16,float32", "768", "1024", "2048", "4096")


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not (torch.cuda.is_available() and HAS_TRITON), reason="needs a CUDA device and triton")
@pytest.mark.parametrize("d", ["768", "1024", "2048", "4096"])
def test_output_and_all_gradients_of_the_on_chip_fft_equal_the_oracle_on_a_gpu(d) -> None:
    """Slow: a compiler takes minutes over some of its kernels."""
    on_a_gpu("37", "triton", "bfloat16,float32", d)


def test_the_room_holds_no_cuda_call_at_import() -> None:
    source = Path(__file__).parents[2] / "cdvft_bench" / "execution" / "__init__.py"
    assert "triton" not in source.read_text()
