"""The kernels of the path "native" in closed form: what ``native/layer.c`` and ``mixed.h`` do, step by step.

Two rows are one complex signal, so a transform is one of p complex points and there are ceil(rows / 2) of them a block.
The forms assume what usual data are: rows of like size (those of very different size, or not finite, go alone), no
row of g that is zero (such rows cost nothing), and one thread (adding up the sums of several depends on their number).
Where data are otherwise, an instrumented build of the same source counts what is done (``counting/native_operators``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cdvft_bench.analytic.circulant import Factor
from cdvft_bench.analytic.kernels import ITEMSIZE, Count, Kernel
from cdvft_bench.analytic.linear import LinearShape
from cdvft_bench.execution.native.radices import stages


@dataclass(frozen=True)
class Work:
    """What a kernel does: transforms, and real additions and multiplications of all data outside of them."""

    transforms: Count = 0
    additions: Count = 0
    multiplications: Count = 0

    def plus(self, transforms: Count = 0, additions: Count = 0, multiplications: Count = 0) -> Work:
        """With so much more."""
        return Work(self.transforms + transforms, self.additions + additions, self.multiplications + multiplications)

    def products(self, signals: Count, outer: Count, inner: Count, p: Count) -> Work:
        """With ``outer`` sums of ``inner`` products of spectra: 4 multiplications and 2 additions, 4 more a sum."""
        points: Count = signals * p * outer
        return self.plus(additions=points * (4 * inner - 2), multiplications=points * 4 * inner)


def _prepared(layer: LinearShape, factors: Sequence[Factor], diagonals: int) -> Work:
    """The factors' spectra, scaled, and the last diagonal, scaled."""
    work = Work(multiplications=layer.d_out if diagonals else 0)
    for f in factors:
        work = work.plus(f.q_out * f.q_in, multiplications=f.parameters)
    return work


def _entered(rows: Count, signals: Count, f: Factor, diagonals: int) -> Work:
    """Rows times the first diagonal on their way into a transform, and the squares of each two, which are compared."""
    squares: Count = rows // 2 * 2 * f.q_in * f.p
    return Work(0, squares, squares + (2 * signals * f.q_in * f.p if diagonals else 0))


def _added(a: Work, b: Work) -> Work:
    return a.plus(b.transforms, b.additions, b.multiplications)


def forward_work(layer: LinearShape, rows: Count, factors: Sequence[Factor], diagonals: int, bias: bool) -> Work:
    """Work of :func:`circulant_forward`, whose arguments it takes."""
    signals: Count = -(-rows // 2)
    work = _added(_prepared(layer, factors, diagonals), _entered(rows, signals, factors[0], diagonals))
    for f in factors:
        out: Count = 2 * signals * f.q_out * f.p
        work = work.plus(signals * (f.q_in + f.q_out), multiplications=out if diagonals else 0)
        work = work.products(signals, f.q_out, f.q_in, f.p)
    return work.plus(additions=out if bias else 0)


def backward_work(layer: LinearShape, rows: Count, factors: Sequence[Factor], diagonals: int) -> Work:
    """Work of :func:`circulant_backward`, whose arguments it takes."""
    signals: Count = -(-rows // 2)
    prepared = _prepared(layer, factors, diagonals)
    work = _added(prepared, _entered(rows, signals, factors[0], diagonals))
    work = _added(work, prepared)  # the factors' gradients come back as their spectra went
    for f in factors:
        out: Count = 2 * signals * f.q_out * f.p
        into: Count = 2 * signals * f.q_in * f.p
        moment: Count = 4 * signals * f.p * f.q_out * f.q_in
        work = work.plus(signals * (2 * f.q_in + f.q_out), moment, moment)
        work = work.products(signals, f.q_in, f.q_out, f.p)
        if diagonals:  # the factor's output again; before it, a diagonal's gradient, and a gradient times a diagonal
            work = work.plus(signals * f.q_out, into, 2 * into)
            work = work.products(signals, f.q_out, f.q_in, f.p)
    if diagonals:  # between factors rows times a diagonal; the last one's gradient, and g times it, compared before
        compared: Count = rows // 2 * 2 * factors[0].q_out * factors[0].p
        work = work.plus(additions=out, multiplications=(len(factors) + 1) * out + compared)
    return work


AT_ONCE = 64
"""Rows of one adapter in a mixed batch that share its spectra."""


def _lone_work(f: Factor, first: bool, diagonals: int) -> Work:
    """One row through a factor of one block: sizes of both, both made alike, a transform, a square, and back."""
    work = Work(2, 2 * f.p, 4 * f.p).products(1, 1, 1, f.p)
    return work.plus(multiplications=(3 if first else 2) * f.p) if diagonals else work


def mixed_work(layer: LinearShape, rows_of: Sequence[int], factors: Sequence[Factor], diagonals: int) -> Work:
    """Work of :func:`circulant_mixed`, whose arguments it takes."""
    work = Work()
    one_block = factors[0].q_in == factors[0].q_out == 1
    for rows in rows_of:
        for chunk in [AT_ONCE] * (rows // AT_ONCE) + [rows % AT_ONCE] * (rows % AT_ONCE > 0):
            if chunk == 1 and one_block:
                for i, f in enumerate(factors):
                    work = _added(work, _lone_work(f, i == 0, diagonals))
            else:
                work = _added(work, forward_work(layer, chunk, factors, diagonals, False))
    return work


def _vectors(layer: LinearShape, factors: Sequence[Factor], diagonals: int) -> Count:
    """Entries of all factors."""
    entries: Count = layer.d_in + (diagonals - 1) * layer.d_out if diagonals else 0
    for f in factors:
        entries = entries + f.parameters
    return entries


def _kernel(op: str, f: Factor, work: Work, read: Count, written: Count) -> Kernel:
    flops: Count = work.additions + work.multiplications
    return Kernel(op, "native", flops=flops, fft_length=f.p, fft_batch=work.transforms, read=read, written=written)


def circulant_forward(
    layer: LinearShape, rows: Count, factors: Sequence[Factor], diagonals: int, bias: bool, dtype: str
) -> Kernel:
    """``alpha dW x + bias`` of ``rows`` rows.

    Args:
        layer: its shape. factors: circulant ones. diagonals: their number, 0 for the block-circulant adapter.
        bias: whether one is added. dtype: of x, bias and the output.
    """
    work = forward_work(layer, rows, factors, diagonals, bias)
    size, own = ITEMSIZE[dtype], ITEMSIZE[factors[0].dtype]
    read: Count = (rows * layer.d_in + (layer.d_out if bias else 0)) * size
    read = read + _vectors(layer, factors, diagonals) * own
    return _kernel("circulant_forward", factors[0], work, read, rows * layer.d_out * size)


def circulant_mixed(
    layer: LinearShape, rows_of: Sequence[int], without: int, factors: Sequence[Factor], diagonals: int, dtype: str
) -> Kernel:
    """``alpha dW_k x`` of rows that each have an adapter k of their own.

    Args:
        rows_of: rows of each adapter that has any. without: rows of no adapter.
        The others: see :func:`circulant_forward`.
    """
    work = mixed_work(layer, rows_of, factors, diagonals)
    size, rows = ITEMSIZE[dtype], sum(rows_of)
    read: Count = rows * layer.d_in * size + (rows + without) * 8  # and each row's index
    read = read + len(rows_of) * _vectors(layer, factors, diagonals) * ITEMSIZE[factors[0].dtype]
    return _kernel("circulant_mixed", factors[0], work, read, (rows + without) * layer.d_out * size)


def circulant_backward(
    layer: LinearShape, rows: Count, factors: Sequence[Factor], diagonals: int, dtype: str
) -> Kernel:
    """All gradients, that of the input with them. Arguments as of :func:`circulant_forward`."""
    work = backward_work(layer, rows, factors, diagonals)
    size, vectors = ITEMSIZE[dtype], _vectors(layer, factors, diagonals) * ITEMSIZE[factors[0].dtype]
    read: Count = rows * (layer.d_in + layer.d_out) * size
    written: Count = rows * layer.d_in * size
    return _kernel("circulant_backward", factors[0], work, read + vectors, written + vectors)


# --- within a transform -------------------------------------------------------------------

_TURN = (2, 4)
"""Additions and multiplications of a complex product with a root of unity."""


def _points(r: int) -> tuple[int, int]:
    """Additions and multiplications of a transform of r complex points."""
    if r in (1, 2, 4):
        return {1: 0, 2: 4, 4: 16}[r], 0
    if r == 6:  # two of 3, three of 2
        additions, multiplications = _points(3)
        return 2 * additions + 12, 2 * multiplications
    if r == 8:  # two of 4, four of 2, two turns by an eighth: a sum, a difference, two products
        return 2 * 16 + 4 * 4 + 2 * 2, 2 * 2
    h = r // 2  # pairs of conjugate roots
    return 4 * h * h + 8 * h, 4 * h * h


def transform_arithmetic(p: int, lanes: int, inside: int) -> tuple[int, int]:
    """Real additions and multiplications of one transform of p complex points.

    Args:
        p: a product that has stages (``splits.stages``). lanes: numbers of a vector. inside: numbers of 16 bytes.
    """
    columns, radices = p // lanes, stages(p, lanes)
    assert radices is not None
    found = [0, 0]

    def add(times: int, work: tuple[int, int]) -> None:
        found[0] += times * lanes * work[0]
        found[1] += times * lanes * work[1]

    for r in radices:
        add(columns // r, _points(r))
        add(columns // r * (r - 1), _TURN)
    add(columns, _TURN)  # between columns and lanes
    fours, rest = divmod(columns, 4)
    groups = lanes // inside
    if not rest:
        add(fours, _points(4))
    for radix in (groups, inside):
        add(fours * (4 // radix), _points(radix))
    add(fours * (4 // groups) * (groups - 1), _TURN)
    halvings = lanes.bit_length() - 1
    add(rest, (2 * halvings, 2 * halvings))  # a lane and its partner times a sign, real and imaginary
    add(rest * (halvings - 1), _TURN)
    return found[0], found[1]


def arithmetic(work: Work, p: int, lanes: int, inside: int) -> tuple[int, int]:
    """Real additions and multiplications of all that a kernel does, transforms with the rest."""
    additions, multiplications = transform_arithmetic(p, lanes, inside)
    transforms = int(work.transforms)
    return int(work.additions) + transforms * additions, int(work.multiplications) + transforms * multiplications
