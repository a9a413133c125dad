"""Implementations on one side of a claim: wrong ones are told from right ones, whatever is wrong with them."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from cdvft_bench.claims.sources import implementations
from cdvft_bench.claims.sources.implementations import (
    case_of,
    dense_gradient,
    dense_output,
    draw,
    fft_product,
    gradient,
    output,
    paper_gradient,
    reversed_output,
    transforms_claimed,
    transforms_done,
)
from cdvft_bench.claims.sources.sister_paper import gradient_of_c, p_times_dense
from cdvft_bench.claims.sources.source import NotAvailable
from cdvft_bench.core.errors import UserError
from cdvft_reference import circulant

SHAPES = ["64x64 p=64 m=2", "40x56 p=16 m=2", "56x40 p=16 m=4", "80x80 p=16 m=2", "48x64 p=32 m=0", "7x9 p=4 m=3"]


def apart(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / torch.maximum(a.norm(), b.norm()))


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    """What was run before a test changed something is forgotten, and so is what ran with the change."""
    implementations.run.cache_clear()
    yield
    implementations.run.cache_clear()


@pytest.mark.parametrize("convention", ["column", "row"])
@pytest.mark.parametrize("shape", SHAPES)
def test_equations_and_dense_matrices_agree(shape: str, convention: str) -> None:
    """The two float64 sides, of which neither is an implementation: by complex FFTs, and by autograd."""
    for rows in ("5", "6 uneven"):
        for of in ("x", "c", *(["a"] if "m=0" not in shape else [])):
            given = {"path": "fft", "of": of, "shape": shape, "rows": rows, "convention": convention}
            assert apart(paper_gradient(**given), dense_gradient(**given)) < 1e-13


@pytest.mark.parametrize("path", ["fft", "handwritten", "fused", "stored", "merged"])
@pytest.mark.parametrize("shape", SHAPES)
def test_paths_are_the_method(path: str, shape: str) -> None:
    for convention in ("column", "row"):
        given = {"path": path, "shape": shape, "rows": "6 uneven", "convention": convention}
        assert apart(output(**given), dense_output(**given)) < 1e-13
        assert apart(gradient(of="c", **given), dense_gradient(of="c", **given)) < 1e-12


def test_a_layer_without_diagonals_has_no_gradient_of_them() -> None:
    with pytest.raises(NotAvailable, match="no factor 'a'"):
        gradient("fft", of="a", shape="48x64 p=16 m=0")


def test_a_path_that_cannot_is_not_available() -> None:
    with pytest.raises(NotAvailable):
        output("native", shape="7x9 p=11 m=2")
    with pytest.raises(NotAvailable):
        output("merged_dense", shape="64x64 p=16 m=3")


@pytest.mark.parametrize("bad", ["64x64", "64x64 p=16", "64x64 p=16 m=1", "0 p=1 m=2"])
def test_a_bad_shape(bad: str) -> None:
    with pytest.raises(UserError):
        case_of(bad)


def test_draws_are_uneven_where_they_should_be() -> None:
    drawn = draw(case_of("40x56 p=16 m=2", rows="11 uneven"))
    sizes = drawn.x.norm(dim=1)
    assert sizes[::2].min() > 1e3 * sizes[1::2].max()
    assert not drawn.g[2::5].any()
    assert drawn.g[:2].any(dim=1).all()


WRONG: dict[str, Callable[[Tensor], Tensor]] = {
    "sign": lambda g: -g,
    "scale": lambda g: g * 1.01,
    "shift": lambda g: torch.roll(g, 1, -1),
    "reversal": lambda g: g.flip(-1),
    "one row": lambda g: torch.cat([g[:1] * 0, g[1:]]),
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_gradient_is_told(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The norm alone would not tell the first, the third and the fourth."""
    right = circulant.BlockCirculantFunction.backward

    def backward(ctx: Any, g: Tensor) -> Any:
        x, c, *rest = right(ctx, g)
        assert c is not None
        return (x, WRONG[what](c), *rest)

    given = {"path": "handwritten", "of": "c", "shape": "80x80 p=16 m=2"}
    assert apart(gradient(**given), paper_gradient(**given)) < 1e-12
    implementations.run.cache_clear()
    monkeypatch.setattr(circulant.BlockCirculantFunction, "backward", staticmethod(backward))
    assert apart(gradient(**given), paper_gradient(**given)) > 5e-3, what


def test_row_and_column() -> None:
    for path in ("fft", "fused"):
        given = {"path": path, "shape": "56x40 p=16 m=3"}
        assert apart(fft_product(convention="column", **given), dense_output(convention="column", **given)) < 1e-13
        assert apart(fft_product(convention="row", **given), dense_output(convention="row", **given)) > 0.1
        assert apart(reversed_output(**given), dense_output(**given)) < 1e-13


@pytest.mark.parametrize("rows", ["1", "8", "13"])
@pytest.mark.parametrize("path", ["fft", "handwritten", "fused", "stored", "native"])
def test_transforms_are_counted_as_they_run(path: str, rows: str) -> None:
    for shape in ("64x64 p=64 m=2", "40x56 p=16 m=3", "80x48 p=16 m=0"):
        try:
            done = transforms_done(path, shape=shape, rows=rows)
        except NotAvailable as error:
            pytest.skip(str(error))
        assert done.tolist() == transforms_claimed(path, shape=shape, rows=rows).tolist()


def test_bca_s_gradient_is_p_times_where_entries_are_alike() -> None:
    for p in (2, 8, 64):
        assert apart(gradient_of_c("handwritten", p, "alike"), p_times_dense("handwritten", p, "alike")) < 1e-13
        assert apart(gradient_of_c("fft", p, "independent"), p_times_dense("fft", p, "independent")) > 0.3
