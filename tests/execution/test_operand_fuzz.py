"""Random operands, most of them wrong: refused, or computed as the dense oracle does; nothing between.

CDVFT_FUZZ_EXAMPLES sets the number of cases a test; ``tox -e sanitize`` runs many under the address sanitizer.
"""

import math
import os
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

from cdvft_bench.execution import native
from cdvft_bench.execution.paths import PATHS, adapted_linear, change
from cdvft_reference.cdvft import FactorShapes
from cdvft_reference.circulant import Convention
from tests.execution.test_operands import every_second, negated_view, transposed, within
from tests.execution.test_paths import dense, term_sizes

EXAMPLES = int(os.environ.get("CDVFT_FUZZ_EXAMPLES", "100"))
PHASES = [p for p in Phase if p != Phase.explain]  # which traces every line, a hundred times slower
fuzzed = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), phases=PHASES)
KERNELS = not native.missing(torch.float32)
RUN = [p for p in PATHS if p != "triton" and (KERNELS or p != "native")]

HOLDS = {
    "plain": lambda t: t,
    "every second": every_second,
    "transposed": transposed,
    "negated": negated_view,
    "within": within,
    "expanded": lambda t: t[:1].expand(t.shape) if t.ndim and len(t) else t,
}
DTYPES = [torch.float32, torch.float64]
HALF = (torch.float16, torch.bfloat16)
WRONG_DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64, torch.complex64]


@dataclass
class Layer:
    """Operands by name ("x", "weight", "bias", "g", "a0", "c1", ...) and what else a call takes."""

    held: dict[str, Tensor]
    m: int
    d_out: int
    alpha: float
    row: bool
    trained: set[str] = field(default_factory=set)

    @property
    def diagonals(self) -> list[Tensor]:
        return [t for name, t in self.held.items() if name[0] == "a"]

    @property
    def circulants(self) -> list[Tensor]:
        return [t for name, t in self.held.items() if name[0] == "c"]

    @property
    def convention(self) -> Convention:
        return "row" if self.row else "column"


def fits(layer: Layer, base: bool, sixteen: bool = True) -> bool:
    """The rules again, from shapes, dtypes and devices alone; ``sixteen``: whether factors may be of 16 bits."""
    held = layer.held
    used = [t for name, t in held.items() if name != "g" and (base or name not in ("weight", "bias"))]
    if any(t.device.type != "cpu" or t.layout != torch.strided for t in used):
        return False
    x, a, c = held["x"], layer.diagonals, layer.circulants
    dtype = (a + c)[0].dtype
    if (
        dtype not in (*DTYPES, *(HALF if sixteen else ()))
        or any(t.dtype != dtype for t in a + c)
        or x.ndim < 1
        or x.shape[-1] < 1
    ):
        return False
    if x.dtype not in (*HALF, torch.float32, dtype):
        return False
    d_in, d_out = x.shape[-1], layer.d_out
    if d_out < 1:
        return False
    if any(t.shape != (d_out if i else d_in,) for i, t in enumerate(a)) or any(t.ndim != 3 for t in c):
        return False
    for i, t in enumerate(c):
        p = t.shape[2]
        if p < 1 or p != c[0].shape[2]:
            return False
        if t.shape[:2] != (math.ceil(d_out / p), math.ceil((d_out if i else d_in) / p)):
            return False
    if not base:
        return True
    weight, bias = held["weight"], held["bias"]
    return (weight.shape, bias.shape) == ((d_out, d_in), (d_out,)) and weight.dtype == bias.dtype == x.dtype


@st.composite
def layers(draw: st.DrawFn, wrong: bool) -> Layer:
    d_in, d_out, m = draw(st.integers(1, 70)), draw(st.integers(1, 70)), draw(st.integers(0, 4))
    p = draw(st.one_of(st.sampled_from([8, 16, 32, 48, 64]), st.integers(1, 80)))
    lead = draw(st.sampled_from([(), (1,), (2,), (5,), (2, 3), (0,), (3, 0)]))
    dtype = draw(st.sampled_from(DTYPES))
    torch.manual_seed(draw(st.integers(0, 2**31)))
    shapes = FactorShapes(d_in, d_out, m or 2, p)
    named: dict[str, tuple[int, ...]] = {
        "x": (*lead, d_in),
        "weight": (d_out, d_in),
        "bias": (d_out,),
        "g": (*lead, d_out),
    }
    named |= {f"a{i}": s for i, s in enumerate(shapes.diagonals if m else [])}
    named |= {f"c{i}": s for i, s in enumerate(shapes.circulants)}
    held = {name: torch.randn(shape, dtype=dtype) for name, shape in named.items()}
    for name in held:
        held[name] = HOLDS[draw(st.sampled_from(list(HOLDS)))](held[name])
    if wrong:
        for name in draw(st.lists(st.sampled_from(list(held)), min_size=1, max_size=2)):
            held[name] = draw(spoilt(held[name]))
    trained = draw(st.sets(st.sampled_from([n for n in held if n not in ("weight", "bias", "g")])))
    layer = Layer(held, m, d_out, draw(st.sampled_from([1.0, -0.3])), draw(st.booleans()), trained)
    if wrong and draw(st.integers(0, 9)) == 0:
        layer.d_out += draw(st.sampled_from([-1, 1, p, -p, 1000]))
    return layer


@st.composite
def spoilt(draw: st.DrawFn, t: Tensor) -> Tensor:
    """Another shape, dtype, device or layout, by one."""
    if not on_cpu(t):
        return t
    how = draw(st.sampled_from(["size", "size", "size", "one", "none", "more", "fewer", "dtype", "meta", "sparse"]))
    if how == "dtype":
        return t.to(draw(st.sampled_from(WRONG_DTYPES)))
    if how == "meta":
        return t.to("meta")
    if how == "sparse":
        return t.to_sparse() if t.ndim else t
    if how == "more":
        return t.unsqueeze(draw(st.integers(0, t.ndim)))
    if not t.ndim:
        return t
    if how == "fewer":
        return t.flatten() if t.ndim > 1 else t.new_ones(())
    axis = draw(st.integers(0, t.ndim - 1))
    size = {"one": 1, "none": 0}.get(how, t.shape[axis] + draw(st.sampled_from([-1, 1, 16, -16])))
    return t.new_ones(*t.shape[:axis], max(size, 0), *t.shape[axis + 1 :])


def oracle(layer: Layer, base: bool, wanted: list[str]) -> list[Tensor]:
    real = {name: t for name, t in layer.held.items() if not t.is_complex()}
    wide = {name: t.detach().double().requires_grad_(name in wanted) for name, t in real.items()}
    other = replace(layer, held=wide)
    x = wide["x"]
    h = x @ (layer.alpha * dense(other.diagonals, other.circulants, x.shape[-1], layer.d_out, layer.convention)).T
    if base:
        h = h + torch.nn.functional.linear(x, wide["weight"], wide["bias"])
    inputs = [wide[name] for name in wanted]
    return [h, *(torch.autograd.grad(h, inputs, wide["g"]) if inputs else [])]


def call(layer: Layer, path: str, base: bool) -> list[Tensor]:
    held = {n: t.detach().requires_grad_(n in layer.trained and t.is_floating_point()) for n, t in layer.held.items()}
    some = replace(layer, held=held)
    options: dict[str, Any] = {"alpha": layer.alpha, "path": path, "convention": layer.convention}
    if base:
        h = adapted_linear(held["x"], held["weight"], held["bias"], some.diagonals, some.circulants, **options)
    else:
        h = change(held["x"], some.diagonals, some.circulants, layer.d_out, **options)
    wanted = [held[name] for name in sorted(layer.trained)]
    return [h, *(torch.autograd.grad(h, wanted, held["g"].to(h.dtype)) if wanted else [])]


def sizes(layer: Layer, base: bool, wanted: list[str]) -> list[float]:
    """Norms of what is computed, if no term had cancelled another: what rounding is relative to."""
    held = {n: t if t.is_complex() else term_sizes(t, transformed=n.startswith("c")) for n, t in layer.held.items()}
    positive = replace(layer, held=held, alpha=abs(layer.alpha))
    return [float(t.detach().norm()) for t in oracle(positive, base, wanted)]


def near(ours: Tensor, theirs: Tensor, dtype: torch.dtype, size: float) -> None:
    assert ours.shape == theirs.shape
    tolerance = {torch.float64: 1e-11, torch.float32: 1e-5}.get(dtype, 3e-2)
    assert float((ours.double() - theirs).detach().norm()) <= tolerance * size


@fuzzed
@given(layer=layers(wrong=False), path=st.sampled_from(RUN), base=st.booleans())
def test_right_operands_are_computed_as_the_oracle_does(layer: Layer, path: str, base: bool) -> None:
    assert fits(layer, base)
    check(layer, path, base)


@fuzzed
@given(layer=layers(wrong=True), path=st.sampled_from(RUN), base=st.booleans())
def test_wrong_operands_are_refused(layer: Layer, path: str, base: bool) -> None:
    check(layer, path, base)


def check(layer: Layer, path: str, base: bool) -> None:
    if path == "merged_dense" and layer.m > 2:
        path = "merged"
    c = layer.circulants
    if path == "native" and c and c[0].ndim == 3 and native.misfit(c[0].dtype, c[0].shape[2], len(c)):
        path = "auto"
    if base and layer.held["weight"].ndim:
        layer = replace(layer, d_out=layer.held["weight"].shape[0])
    if on_no_device(layer):
        return
    if not fits(layer, base):
        with pytest.raises((ValueError, TypeError)):
            call(layer, path, base)
        return
    x, g = layer.held["x"], layer.held["g"]
    if g.shape != (*x.shape[:-1], layer.d_out) or not on_cpu(g) or not g.is_floating_point():
        layer = replace(layer, trained=set())  # autograd's to refuse
    wanted = sorted(layer.trained)
    found = zip(call(layer, path, base), oracle(layer, base, wanted), sizes(layer, base, wanted), strict=True)
    for ours, theirs, size in found:
        near(ours, theirs, narrowest(layer), size)


def narrowest(layer: Layer) -> torch.dtype:
    return min((t.dtype for t in layer.held.values() if t.is_floating_point()), key=lambda d: d.itemsize)


def on_cpu(t: Tensor) -> bool:
    return t.device.type == "cpu" and t.layout == torch.strided


def on_no_device(layer: Layer) -> bool:
    """Whether x and all factors are on "meta", where torch has shapes alone: refused or not, no value is read."""
    return all(t.device.type == "meta" for t in (layer.held["x"], *layer.diagonals, *layer.circulants))


def rows(t: Tensor) -> Tensor:
    return t.reshape(-1, t.shape[-1]) if on_cpu(t) and t.ndim > 0 and t.shape[-1] else t


@pytest.mark.skipif(not KERNELS, reason=f"no compiled kernels: {native.missing(torch.float32)}")
@fuzzed
@given(layer=st.one_of(layers(wrong=False), layers(wrong=True)), with_bias=st.booleans(), wanted=st.booleans())
def test_the_operators_themselves(layer: Layer, with_bias: bool, wanted: bool) -> None:
    """Called directly, without what a path checks before; by torch's dispatcher, and around it."""
    layer.held |= {"x": rows(layer.held["x"]), "g": rows(layer.held["g"])}
    x, g, bias = layer.held["x"], layer.held["g"], layer.held["bias"] if with_bias else None
    a, c, alpha, row = layer.diagonals, layer.circulants, layer.alpha, layer.row
    if on_no_device(layer):
        return

    def right(d_out: int, other: Tensor | None, shape: tuple[int, ...]) -> bool:
        if not fits(replace(layer, d_out=d_out), False, sixteen=False) or not c or x.ndim != 2:
            return False
        if not native.takes(x.dtype, c[0].dtype):
            return False
        if other is not None and not (other.shape == shape and other.dtype == x.dtype and on_cpu(other)):
            return False
        return not native.misfit(c[0].dtype, c[0].shape[2], len(c))

    d_out = layer.d_out
    if right(d_out, bias, (d_out,)):
        (expected,) = oracle(layer, False, [])
        expected = expected if bias is None else expected + bias
        (size,) = sizes(layer, False, [])
        size += 0.0 if bias is None else float(bias.double().norm()) * max(len(x), 1) ** 0.5
        for forward in (torch.ops.cdvft.circulant_forward, native.forward):
            near(forward(x, bias, a, c, d_out, alpha, row), expected, x.dtype, size)
    else:
        for forward in (torch.ops.cdvft.circulant_forward, native.forward):
            with pytest.raises((ValueError, TypeError, RuntimeError)):
                forward(x, bias, a, c, d_out, alpha, row)
    layer = replace(layer, d_out=g.shape[-1] if g.ndim else 1)
    if right(layer.d_out, g, (len(x) if x.ndim else 0, layer.d_out)):
        factors = [name for name in layer.held if name[0] in "ac"]
        _, grad_x, *grads = oracle(layer, False, ["x", *factors])
        _, size_x, *most = sizes(layer, False, ["x", *factors])
        for backward in (torch.ops.cdvft.circulant_backward, native.backward):
            found_x, *found = backward(x, g, a, c, alpha, row, wanted)
            near(found_x, grad_x if wanted else grad_x.new_empty(0), x.dtype, size_x)
            for ours, theirs, size in zip(found, grads, most, strict=True):
                near(ours, theirs, x.dtype, size)
    else:
        for backward in (torch.ops.cdvft.circulant_backward, native.backward):
            with pytest.raises((ValueError, TypeError, RuntimeError)):
                backward(x, g, a, c, alpha, row, wanted)
