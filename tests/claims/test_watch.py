"""What exists in memory is seen: returned, written into a target or piece by piece, or allocated by other means."""

import ctypes
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from cdvft_bench.claims.ledger.point import MethodSubject, Point
from cdvft_bench.claims.sources.counted import CountSource
from cdvft_bench.claims.sources.source import NotAvailable
from cdvft_bench.claims.sources.watch import covered, largest_allocation, resident_growth, watch_allocations

D = 96
BYTES = D * D * 4
HELD = torch.zeros(D, D)


def returned() -> object:
    return torch.ones(D, D) * 2


def into_a_target() -> object:
    return torch.mul(HELD, 2.0, out=HELD)


def in_place() -> object:
    return HELD.add_(1)


def piece_by_piece() -> object:
    for rows in HELD.split(16):
        rows.copy_(torch.ones(16, D))
    return None


def through_an_expanded_view() -> object:
    return HELD.as_strided((D, D), (1, D)).mul_(2)


@pytest.mark.parametrize("call", [returned, into_a_target, in_place, piece_by_piece, through_an_expanded_view])
def test_a_matrix_that_is_written_exists(call) -> None:  # type: ignore[no-untyped-def]
    assert largest_allocation(call) >= BYTES


def test_what_is_read_or_written_in_part_is_no_matrix() -> None:
    seen = watch_allocations()
    with seen:
        HELD[:8].add_(1)
        HELD[4:12].add_(1)
        _ = HELD.T, HELD[0], HELD @ torch.ones(D)
    assert seen.largest == 12 * D * 4


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20)), max_size=8))
def test_the_union_of_spans(lengths: list[tuple[int, int]]) -> None:
    spans = [(a, a + n) for a, n in lengths]
    assert covered(spans) == len({i for a, b in spans for i in range(a, b)})


@pytest.mark.parametrize("path", ["merged", "merged_dense", "fused", "handwritten"])
def test_a_buffer_that_lives_on_is_seen_every_time(path: str) -> None:
    """The merged weight's scratch memory exists after the first call; the second must say the same."""
    subject = MethodSubject("cdvft", (("m", 2), ("path", path)))
    point = Point("largest_allocation", (), subject, place="256x256")
    first, second = (CountSource(Path()).value(point, subject)[0] for _ in range(2))
    assert first == second
    assert (first >= 1) == path.startswith("merged")


def test_memory_by_other_means_shows_in_the_process() -> None:
    libc = ctypes.CDLL(None)
    libc.malloc.restype = ctypes.c_void_p
    size = 64 * 2**20

    def call() -> None:
        memory = libc.malloc(ctypes.c_size_t(size))
        ctypes.memset(memory, 1, size)
        libc.free(ctypes.c_void_p(memory))

    try:
        call()
        grown = resident_growth(call)
    except NotAvailable as error:
        pytest.skip(str(error))
    assert size * 0.9 < grown < size * 1.5
    assert largest_allocation(lambda: (call(), torch.ones(4))) < size / 2  # which neither operators nor torch see


def test_without_such_a_system_it_is_not_available(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(NotAvailable, match="Linux"):
        resident_growth(lambda: None)


class Negated(nn.Module):
    """A linear adapter whose backward has the sign of its gradient wrong, or not."""

    def __init__(self, base: nn.Linear, sign: float = -1.0) -> None:
        super().__init__()
        self.base, self.sign = base, sign
        self.a = nn.Parameter(torch.randn(base.out_features))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x.sum(-1, keepdim=True) * self.a
        wrong = y.detach() - self.sign * y.detach() + self.sign * y  # the same value, another gradient
        return self.base(x) + wrong


def test_the_sign_of_a_gradient_is_the_slope_s() -> None:
    from cdvft_bench.claims.ledger.point import ModuleSubject

    def ratio(sign: float) -> float:
        subject = ModuleSubject("tests.claims.test_watch:Negated", values=(("sign", sign),))
        point = Point("gradient_ratio", (("gradient", "independent"),), subject, place="24x16")
        return CountSource(Path()).value(point, subject)[0]

    assert ratio(1.0) > 0
    assert ratio(-1.0) == pytest.approx(-ratio(1.0))
