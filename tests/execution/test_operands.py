"""What is no operand of a layer is refused before it is read: by every path alike, and by the registered operators."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cdvft_bench.execution import native
from cdvft_bench.execution.fused import Plan
from cdvft_bench.execution.merged import merged_weight
from cdvft_bench.execution.paths import PATHS, FastBlockCirculantLinear, FastCDVFTLinear, adapted_linear, change
from cdvft_reference import CDVFTLinear
from cdvft_reference.operands import memory
from tests.execution.test_paths import factors, relative

ALL = [*PATHS, "auto"]


@dataclass(frozen=True)
class Operands:
    """A whole layer's, 64 to 48 in blocks of 16 unless said otherwise."""

    x: Any
    weight: Any
    bias: Any
    diagonals: list[Any]
    circulants: list[Any]
    d_out: Any = 48

    @staticmethod
    def drawn(m: int, d_in: int = 64, d_out: int = 48, p: int = 16) -> Operands:
        diagonals, circulants = factors(d_in, d_out, m, p)
        return Operands(
            torch.randn(3, d_in), torch.randn(d_out, d_in), torch.randn(d_out), diagonals, circulants, d_out
        )

    def but(self, where: str, made: Callable[[Tensor], Any], i: int = 0) -> Operands:
        """One operand made into something else."""
        held = getattr(self, where)
        if not isinstance(held, list):
            return replace(self, **{where: made(held)})
        return replace(self, **{where: [made(t) if n == i else t for n, t in enumerate(held)]})

    def change(self, path: str) -> Tensor:
        return change(self.x, self.diagonals, self.circulants, self.d_out, path=path)

    def layer(self, path: str) -> Tensor:
        return adapted_linear(self.x, self.weight, self.bias, self.diagonals, self.circulants, path=path)


def of_shape(*shape: int) -> Callable[[Tensor], Tensor]:
    return lambda t: torch.ones(shape, dtype=t.dtype)


def nested(t: Tensor) -> Tensor:
    return torch.nested.nested_tensor([t, t])


WRONG: dict[str, tuple[str, int, Callable[[Tensor], Any], type[Exception], str]] = {
    "a last diagonal of 8": ("diagonals", 1, of_shape(8), ValueError, r"diagonals\[1\] has shape \(8,\).*\(48,\)"),
    "a last diagonal of 1": ("diagonals", 1, of_shape(1), ValueError, r"diagonals\[1\] has shape \(1,\).*\(48,\)"),
    "a last diagonal of one more": ("diagonals", 1, of_shape(49), ValueError, r"\(49,\).*\(48,\)"),
    "a first diagonal of 1": ("diagonals", 0, of_shape(1), ValueError, r"diagonals\[0\] has shape \(1,\).*\(64,\)"),
    "a first diagonal of one less": ("diagonals", 0, of_shape(63), ValueError, r"\(63,\).*\(64,\)"),
    "a diagonal that is a row": ("diagonals", 1, of_shape(1, 48), ValueError, r"\(1, 48\).*\(48,\)"),
    "a diagonal that is a number": ("diagonals", 0, of_shape(), ValueError, r"diagonals\[0\] has shape \(\)"),
    "an empty diagonal": ("diagonals", 0, of_shape(0), ValueError, r"diagonals\[0\] has shape \(0,\)"),
    "a circulant of wrong q_out": ("circulants", 0, of_shape(4, 4, 16), ValueError, r"circulants\[0\].*\(3, 4, 16\)"),
    "a circulant of wrong q_in": ("circulants", 0, of_shape(3, 3, 16), ValueError, r"circulants\[0\].*\(3, 4, 16\)"),
    "a circulant of wrong p": ("circulants", 0, of_shape(3, 4, 32), ValueError, r"circulants\[0\].*\(2, 2, 32\)"),
    "a flat circulant": ("circulants", 0, of_shape(192), ValueError, r"circulants\[0\] has shape \(192,\)"),
    "a circulant of p = 0": ("circulants", 0, of_shape(3, 4, 0), ValueError, r"circulants\[0\].*p >= 1"),
    "a second circulant of wrong q_in": (
        "circulants",
        1,
        of_shape(3, 4, 16),
        ValueError,
        r"circulants\[1\].*\(3, 3, 16",
    ),
    "a second circulant of wrong p": ("circulants", 1, of_shape(2, 2, 32), ValueError, r"circulants\[1\].*must be 16"),
    "float64 diagonals": ("diagonals", 1, torch.Tensor.double, TypeError, r"diagonals\[1\] has dtype float64"),
    "a float64 circulant": ("circulants", 1, torch.Tensor.double, TypeError, r"circulants\[1\] has dtype float64"),
    "a complex diagonal": ("diagonals", 0, lambda t: t.to(torch.complex64), TypeError, r"diagonals\[0\].*complex64"),
    "an integer diagonal": ("diagonals", 0, torch.Tensor.int, TypeError, r"diagonals\[0\] has dtype int32"),
    "a diagonal elsewhere": ("diagonals", 1, lambda t: t.to("meta"), ValueError, r"diagonals\[1\] is on device meta"),
    "a circulant elsewhere": (
        "circulants",
        0,
        lambda t: t.to("meta"),
        ValueError,
        r"circulants\[0\] is on device meta",
    ),
    "a sparse diagonal": ("diagonals", 0, torch.Tensor.to_sparse, ValueError, r"diagonals\[0\] has layout sparse_coo"),
    "a sparse circulant": ("circulants", 0, torch.Tensor.to_sparse, ValueError, r"circulants\[0\] has layout sparse"),
    "a nested circulant": ("circulants", 0, nested, ValueError, r"circulants\[0\] has layout nested"),
    "a list": ("diagonals", 0, torch.Tensor.tolist, TypeError, r"diagonals\[0\] is a list"),
    "an array": ("circulants", 0, torch.Tensor.numpy, TypeError, r"circulants\[0\] is a ndarray"),
    "None": ("circulants", 0, lambda t: None, TypeError, r"circulants\[0\] is a NoneType"),
    "x of float64": ("x", 0, torch.Tensor.double, TypeError, "float64"),
    "x of integers": ("x", 0, torch.Tensor.long, TypeError, "int64 is not floating-point"),
    "x elsewhere": ("x", 0, lambda t: t.to("meta"), ValueError, "on device"),
    "a sparse x": ("x", 0, torch.Tensor.to_sparse, ValueError, "x has layout sparse_coo"),
    "a nested x": ("x", 0, nested, ValueError, "x has layout nested"),
    "x of another width": ("x", 0, of_shape(3, 63), ValueError, "input has width 63"),
    "x that is a number": ("x", 0, of_shape(), ValueError, "x is a scalar"),
    "x without a width": ("x", 0, of_shape(3, 0), ValueError, "width"),
    "x of a list": ("x", 0, torch.Tensor.tolist, TypeError, "x is a list"),
}

WRONG_BASE: dict[str, tuple[str, Callable[[Tensor], Any], type[Exception], str]] = {
    "a bias of 8": ("bias", of_shape(8), ValueError, r"bias has shape \(8,\).*\(48,\)"),
    "a bias of 1": ("bias", of_shape(1), ValueError, r"bias has shape \(1,\)"),
    "a bias that is a row": ("bias", of_shape(1, 48), ValueError, r"bias has shape \(1, 48\)"),
    "a float64 bias": ("bias", torch.Tensor.double, TypeError, "bias has dtype float64"),
    "a bias elsewhere": ("bias", lambda t: t.to("meta"), ValueError, "bias is on device meta"),
    "a sparse bias": ("bias", torch.Tensor.to_sparse, ValueError, "bias has layout sparse"),
    "a bias that is a number": ("bias", lambda t: 1.0, TypeError, "bias is a float"),
    "a weight of other outputs": ("weight", of_shape(40, 64), ValueError, r"bias|outputs"),
    "a weight of other inputs": ("weight", of_shape(48, 65), ValueError, "input has width 64.*65"),
    "a flat weight": ("weight", of_shape(64), ValueError, "weight has shape"),
    "a bfloat16 weight": ("weight", torch.Tensor.bfloat16, TypeError, "weight has dtype bfloat16"),
    "a weight elsewhere": ("weight", lambda t: t.to("meta"), ValueError, "weight is on device meta"),
    "a sparse weight": ("weight", torch.Tensor.to_sparse, ValueError, "weight has layout sparse"),
}


@pytest.mark.parametrize("path", ALL)
@pytest.mark.parametrize("case", WRONG)
def test_every_path_refuses_a_wrong_operand(case: str, path: str) -> None:
    where, i, made, error, said = WRONG[case]
    operands = Operands.drawn(2 if path == "merged_dense" else 3)
    if where != "x" and i >= len(getattr(operands, where)):
        pytest.skip("merged_dense has one circulant")
    wrong = operands.but(where, made, i)
    for way in (wrong.change, wrong.layer):
        with pytest.raises(error, match=said):
            way(path)


@pytest.mark.parametrize("path", ALL)
@pytest.mark.parametrize("case", WRONG_BASE)
def test_every_path_refuses_a_wrong_base(case: str, path: str) -> None:
    where, made, error, said = WRONG_BASE[case]
    with pytest.raises(error, match=said):
        Operands.drawn(2).but(where, made).layer(path)


@pytest.mark.parametrize("path", ALL)
@pytest.mark.parametrize("d_out", [47, 49, 0, -48, 48.0, True, "48", None])
def test_every_path_refuses_a_wrong_d_out(d_out: Any, path: str) -> None:
    with pytest.raises((ValueError, TypeError), match=str(d_out).lstrip("-")):
        replace(Operands.drawn(2), d_out=d_out).change(path)


@pytest.mark.parametrize("path", ALL)
def test_every_path_refuses_a_wrong_number_of_factors(path: str) -> None:
    some = Operands.drawn(2)
    for wrong in (
        replace(some, circulants=some.circulants * 2),
        replace(some, circulants=[]),
        replace(some, diagonals=[]).but("circulants", lambda t: t.new_ones(3, 3, 16)),
        replace(some, diagonals=[], circulants=some.circulants * 2),
        replace(some, diagonals=[], circulants=[]),
    ):
        with pytest.raises(ValueError, match="circulants"):
            wrong.change(path)
        with pytest.raises(ValueError, match="circulants"):
            wrong.layer(path)


@pytest.mark.parametrize("path", ALL)
def test_a_wrong_last_diagonal_is_not_read(path: str) -> None:
    """It was: far beyond its end, forward and backward."""
    x = torch.randn(64, 4096, requires_grad=True)
    first, last, c = torch.ones(4096), torch.ones(8), torch.randn(1, 1, 4096)
    with pytest.raises(ValueError, match=r"diagonals\[1\] has shape \(8,\), .* 4096 outputs; it must be \(4096,\)"):
        change(x, [first, last], [c], 4096, path=path)


@pytest.mark.parametrize("path", ALL)
def test_a_layer_whose_diagonals_were_cast_is_refused(path: str) -> None:
    layer = FastCDVFTLinear(nn.Linear(32, 32), path, init="random")
    layer.diagonals.double()
    with pytest.raises(TypeError, match=r"diagonals\[0\] has dtype float64 and the others float32"):
        layer(torch.randn(2, 32))
    layer.double()
    if path != "triton":
        assert layer(torch.randn(2, 32).double()).dtype == torch.float64


@pytest.mark.parametrize("path", ["fft", "handwritten"])
def test_the_reference_refuses_them_too(path: Any) -> None:
    layer = CDVFTLinear(nn.Linear(32, 32), path=path)
    layer.diagonals[1] = nn.Parameter(torch.ones(1))
    with pytest.raises(ValueError, match=r"diagonals\[1\] has shape \(1,\)"):
        layer(torch.randn(2, 32))
    layer.diagonals[1] = nn.Parameter(torch.ones(32).double())
    with pytest.raises(TypeError, match=r"diagonals\[1\] has dtype float64"):
        layer(torch.randn(2, 32))


def test_the_merged_weight_refuses_them_too() -> None:
    some = Operands.drawn(2)
    for wrong in (of_shape(1), of_shape(49)):
        with pytest.raises(ValueError, match=r"diagonals\[1\]"):
            merged_weight(some.weight, some.but("diagonals", wrong, 1).diagonals, some.circulants, Plan(48))
    with pytest.raises(ValueError, match="weight has shape"):
        merged_weight(some.weight[0], some.diagonals, some.circulants, Plan(48))


# --- whatever memory an operand lies in, it is read as it is ---------------------------------------------------


def every_second(t: Tensor) -> Tensor:
    held = torch.randn(*t.shape, 2, dtype=t.dtype)
    held[..., 1] = t
    return held[..., 1]


def transposed(t: Tensor) -> Tensor:
    return t.movedim(0, -1).contiguous().movedim(-1, 0)


def negated_view(t: Tensor) -> Tensor:
    """-(-t), its sign not yet applied: torch's way of a view that is not its memory."""
    held = torch.complex(torch.zeros_like(t), -t).conj().imag
    assert held.is_neg()
    return held


def within(t: Tensor) -> Tensor:
    held = torch.randn(t.numel() + 7, dtype=t.dtype)
    held[3 : 3 + t.numel()] = t.flatten()
    return held[3 : 3 + t.numel()].view(t.shape)


HELD: dict[str, Callable[[Tensor], Tensor]] = {
    "every second entry": every_second,
    "transposed": transposed,
    "negated": negated_view,
    "within": within,
    "a parameter": lambda t: nn.Parameter(t, requires_grad=False),
}


def executable(path: str) -> str:
    if path == "triton":
        pytest.skip("executed in test_triton")
    if path == "native" and native.missing(torch.float32):
        pytest.skip(native.missing(torch.float32))
    return path


@pytest.mark.parametrize("path", ALL)
@pytest.mark.parametrize("how", HELD)
@pytest.mark.parametrize("where", ["x", "weight", "bias", "diagonals", "circulants", "g"])
def test_operands_of_any_strides(where: str, how: str, path: str) -> None:
    torch.manual_seed(0)
    some = Operands.drawn(2)
    g = torch.randn(3, 48)
    odd = some if where == "g" else some.but(where, HELD[how])
    odd_g = HELD[how](g) if where == "g" else g

    def run(operands: Operands, by: str, g: Tensor) -> list[Tensor]:
        trained = [t.detach().requires_grad_() for t in (operands.x, *operands.diagonals, *operands.circulants)]
        x, a, b, c = trained
        h = adapted_linear(x, operands.weight, operands.bias, [a, b], [c], path=by)
        return [h, *torch.autograd.grad(h, trained, g)]

    for ours, theirs in zip(run(odd, executable(path), odd_g), run(some, "fft", g), strict=True):
        assert relative(ours, theirs) < 1e-5


@pytest.mark.parametrize("path", ALL)
def test_expanded_operands(path: str) -> None:
    """One entry in memory, as many as the width asks for in the shape."""
    torch.manual_seed(0)
    some = Operands.drawn(2)
    wide = replace(
        some,
        x=torch.randn(1, 64).expand(3, 64),
        bias=torch.randn(1).expand(48),
        weight=torch.randn(48, 1).expand(48, 64),
        diagonals=[torch.randn(1).expand(64), torch.randn(1).expand(48)],
        circulants=[torch.randn(1, 4, 1).expand(3, 4, 16)],
    )
    plain = replace(
        wide,
        **{name: getattr(wide, name).contiguous() for name in ("x", "bias", "weight")},
        diagonals=[t.contiguous() for t in wide.diagonals],
        circulants=[t.contiguous() for t in wide.circulants],
    )
    assert relative(wide.layer(executable(path)), plain.layer("fft")) < 1e-5
    assert relative(wide.change(path), plain.change("fft")) < 1e-5


def test_memory_is_what_a_bare_pointer_reads() -> None:
    t = torch.randn(3, 4)
    assert memory("t", t) is t
    for made in (every_second, transposed, negated_view, within):
        held = memory("t", made(t))
        assert held.is_contiguous()
        assert not held.is_neg()
        assert torch.equal(held, t)
    assert torch.equal(memory("t", torch._efficientzerotensor(4)), torch.zeros(4))  # type: ignore[attr-defined]
    assert memory("t", torch.empty(0, 4)).shape == (0, 4)
    for freed, view in ((0, lambda t: t), (12, lambda t: t), (40, lambda t: t.T)):
        gone = torch.randn(3, 4)
        seen = view(gone)
        gone.untyped_storage().resize_(freed)
        with pytest.raises(ValueError, match="beyond its storage"):
            memory("t", seen)


# --- devices and dtypes that no path was made for ----------------------------------------------------------------


@pytest.mark.parametrize("path", ["fft", "fused", "auto"])
def test_a_layer_without_memory_has_shapes(path: str) -> None:
    layer = FastCDVFTLinear(nn.Linear(32, 48, device="meta"), path, block_size=16)
    h = layer(torch.empty(3, 32, device="meta"))
    assert (h.shape, h.device.type) == ((3, 48), "meta")


@pytest.mark.parametrize("path", [p for p in ALL if p != "triton"])
def test_autocast_leaves_float64_alone(path: str) -> None:
    layer = FastBlockCirculantLinear(nn.Linear(32, 32).double(), executable(path))
    x = torch.randn(3, 32, dtype=torch.float64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        h = layer(x)
        with pytest.raises(TypeError, match="float64"):
            FastBlockCirculantLinear(nn.Linear(32, 32), path)(x)
    assert h.dtype == torch.float64
    assert torch.equal(h, layer(x))
