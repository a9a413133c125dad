"""What the suite's implementations give, and what the papers say they should: two sides of the quantity "difference".

An *implementation* is an adapted layer on one of its execution paths: the reference's ("fft" with autograd's backward,
"handwritten"), the hand-derived ones ("fused", "stored", "merged", "merged_dense"), the compiled kernel ("native") or
Triton's ("triton"). It computes in the dtype that it is asked for. The other side computes in float64 from the same
factors, inputs and upstream gradient: by dense matrices, by the papers' own equations, or by counting what a pass
should take. Differences are relative norms, so that a sign, a scale or a shift shows.

All functions take the same arguments:

- path: of execution.
- shape: "40x56 p=16 m=3": d_in x d_out, block size, number of diagonals; m = 0 is the block-circulant adapter.
- rows: "33": so many random rows; "33 uneven": rows of very different size, some with a gradient of zero;
  "9000 threads": so many that a path treats them piece by piece, on two threads.
- convention, alpha, dtype: of the layer.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from cdvft_bench.claims.sources.source import NotAvailable
from cdvft_bench.claims.sources.watch import watch_transforms
from cdvft_bench.core.errors import UserError
from cdvft_bench.execution import native
from cdvft_bench.execution.scratch import release_buffers
from cdvft_bench.methods import make_method
from cdvft_bench.timing.clock import fixed_threads
from cdvft_reference import Convention, cdvft_dense, dense_block_circulant

ALPHA = 0.75
"""Scale of the change, unless a claim says otherwise: one that is forgotten shows."""


@dataclass(frozen=True)
class Case:
    """One layer with everything that a pass needs.

    Attributes:
        d_in, d_out, p, m: of the layer. rows: see the module. tokens: their number.
        convention, alpha, dtype: of the layer.
    """

    d_in: int
    d_out: int
    p: int
    m: int
    rows: str
    convention: Convention
    alpha: float
    dtype: str

    @property
    def tokens(self) -> int:
        return int(self.rows.split()[0])

    @property
    def blocks(self) -> list[tuple[int, int]]:
        """(q_out, q_in) of each circulant factor."""
        q_out, q_in = -(-self.d_out // self.p), -(-self.d_in // self.p)
        return [(q_out, q_in if k == 0 else q_out) for k in range(max(1, self.m - 1))]


@dataclass(frozen=True)
class Drawn:
    """Random numbers of a case, float64: weight, bias, factors, input (T, d_in), gradient of the output (T, d_out)."""

    weight: Tensor
    bias: Tensor
    diagonals: tuple[Tensor, ...]
    circulants: tuple[Tensor, ...]
    x: Tensor
    g: Tensor


def case_of(
    shape: str, rows: str = "33", convention: str = "column", alpha: float = ALPHA, dtype: str = "float64"
) -> Case:
    """Read a case.

    Raises:
        UserError: shape or rows are not as the module says.
    """
    found = re.fullmatch(r"(\d{1,9})x(\d{1,9}) p=(\d{1,9}) m=(\d{1,9})", shape)
    if not found or not re.fullmatch(r"\d{1,9}( uneven| threads)?", rows):
        raise UserError(f'shape {shape!r} and rows {rows!r} must be like "40x56 p=16 m=2" and "33", "33 uneven"')
    d_in, d_out, p, m = (int(n) for n in found.groups())
    if m == 1 or convention not in ("row", "column"):
        raise UserError(f"m = {m} and convention {convention!r}: a case has m = 0 or m >= 2, and 'row' or 'column'")
    return Case(d_in, d_out, p, m, rows, convention, alpha, dtype)  # type: ignore[arg-type]


@lru_cache(maxsize=64)
def draw(case: Case) -> Drawn:
    """The numbers of a case, the same in every dtype, convention and scale."""
    generator = torch.Generator().manual_seed(len(case.rows) + 7 * case.m + 11 * case.p + 13 * case.d_in)

    def normal(*sizes: int) -> Tensor:
        # Rounded to float32, so that a layer of that dtype gets the very same numbers.
        return torch.randn(*sizes, generator=generator).double()

    x, g = normal(case.tokens, case.d_in), normal(case.tokens, case.d_out)
    if "uneven" in case.rows:
        x[::2] *= 1e4
        g[2::5] = 0
    diagonals = [normal(case.d_in), *(normal(case.d_out) for _ in range(case.m - 1))] if case.m else []
    circulants = [normal(q_out, q_in, case.p) for q_out, q_in in case.blocks]
    weight = normal(case.d_out, case.d_in) / case.d_in**0.5
    return Drawn(weight, normal(case.d_out), tuple(diagonals), tuple(circulants), x, g)


@contextmanager
def available() -> Iterator[None]:
    """A layer that a path does not execute on this machine is not available, no fault of the ledger's."""
    try:
        yield
    except UserError as error:
        raise NotAvailable(str(error), "see docs/execution.md for what each path takes") from error


@dataclass(frozen=True)
class Passed:
    """What a forward and a backward pass gave, float64.

    Attributes:
        output: (T, d_out). gradients: of "x", "a" (all diagonals) and "c" (all circulants), flat.
        transforms: transforms of p points that were seen in forward and backward; None where nobody could look.
    """

    output: Tensor
    gradients: dict[str, Tensor]
    transforms: tuple[int, int] | None = None


def build(path: str, case: Case, drawn: Drawn) -> nn.Module:
    """The suite's layer on a path, with the drawn numbers.

    Raises:
        NotAvailable: the path does not execute such a layer on this machine.
    """
    base = nn.Linear(case.d_in, case.d_out, dtype=getattr(torch, case.dtype))
    options = {"block_size": case.p, "alpha": case.alpha, "convention": case.convention, "path": path}
    name = "cdvft" if case.m else "block_circulant"
    with available():
        layer = make_method(name, options | ({"m": case.m} if case.m else {})).adapt_linear(base)
    trained = [p for p in layer.parameters() if p.requires_grad]  # diagonals, then circulants
    with torch.no_grad():
        for held, value in zip(trained, _factors(drawn), strict=True):
            held.copy_(value)
        base.weight.copy_(drawn.weight)
        base.bias.copy_(drawn.bias)
    return layer


def _factors(drawn: Drawn) -> tuple[Tensor, ...]:
    return (*drawn.diagonals, *drawn.circulants)


@lru_cache(maxsize=512)
def run(path: str, case: Case) -> Passed:
    """Both passes of an implementation.

    Raises:
        NotAvailable: the path does not execute such a layer on this machine.
    """
    drawn = draw(case)
    layer = build(path, case, drawn)
    kind = getattr(torch, case.dtype)
    x, g = drawn.x.clone().to(kind).requires_grad_(), drawn.g.to(kind)
    with fixed_threads(2 if "threads" in case.rows else 1):
        release_buffers()
        with watch_transforms() as forward, available():
            y: Tensor = layer(x)
        with watch_transforms() as backward:
            y.backward(g)
    assert x.grad is not None
    trained = [p.grad for p in layer.parameters() if p.requires_grad]
    gradients = {"x": _flat([x.grad]), "a": _flat(trained[: case.m]), "c": _flat(trained[case.m :])}
    transforms: tuple[int, int] | None = (_transforms(forward, case), _transforms(backward, case))
    if path == "native":
        transforms = _compiled_transforms(layer, x, g, case)
    return Passed(y.detach().double(), gradients, transforms)


def _transforms(seen: watch_transforms, case: Case) -> int:
    return sum(t.batch for t in seen.found if t.dims == (case.p,))


def _compiled_transforms(layer: nn.Module, x: Tensor, g: Tensor, case: Case) -> tuple[int, int] | None:
    """Those that an instrumented build of the kernels sees itself do on the same data; torch's are none of them."""
    if not native.countable(getattr(torch, case.dtype), case.p):
        return None
    with native.counting() as forward:
        y: Tensor = layer(x)
    with native.counting() as backward:
        y.backward(g)
    return sum(c.transforms for c in forward), sum(c.transforms for c in backward)


def _flat(parts: Sequence[Tensor | None]) -> Tensor:
    return torch.cat([p.detach().double().flatten() for p in parts if p is not None]) if parts else torch.zeros(0)


@lru_cache(maxsize=128)
def dense(case: Case) -> Passed:
    """The same by dense matrices in float64, differentiated by autograd."""
    drawn = draw(case)
    factors = [t.clone().requires_grad_() for t in _factors(drawn)]
    x = drawn.x.clone().requires_grad_()
    diagonals, circulants = factors[: case.m], factors[case.m :]
    if case.m:
        change = cdvft_dense(diagonals, circulants, case.d_out, case.convention)
    else:
        change = dense_block_circulant(circulants[0], case.d_in, case.d_out, case.convention)
    y = x @ (drawn.weight + case.alpha * change).T + drawn.bias
    y.backward(drawn.g)
    gradients = {
        "x": _flat([x.grad]),
        "a": _flat([a.grad for a in diagonals]),
        "c": _flat([c.grad for c in circulants]),
    }
    return Passed(y.detach(), gradients)


# --- values and gradients: path and case as above; ``of`` is "x", all diagonals "a" or all circulants "c" -------


def output(path: str, **case: Any) -> Tensor:
    """What a layer returns: (T, d_out)."""
    return run(path, case_of(**case)).output


def fft_product(path: str, convention: str, **case: Any) -> Tensor:
    """What a layer returns that takes ``IFFT(FFT(c) FFT(x))``, whatever the convention: (T, d_out)."""
    return output(path, convention="column", **case)


def dense_output(path: str, **case: Any) -> Tensor:
    """``x W^T + b + alpha x dW^T`` with dW a product of dense matrices, float64: (T, d_out)."""
    return dense(replace(case_of(**case), dtype="float64")).output


def gradient(path: str, of: str, **case: Any) -> Tensor:
    """A gradient that a layer's backward gives, flat."""
    return _nonempty(run(path, case_of(**case)).gradients[of], of)


def dense_gradient(path: str, of: str, **case: Any) -> Tensor:
    """The same by autograd through dense matrices, float64."""
    return _nonempty(dense(replace(case_of(**case), dtype="float64")).gradients[of], of)


def paper_gradient(path: str, of: str, **case: Any) -> Tensor:
    """The same by the CDVFT paper's equations, factor after factor, in complex128.

    ``dL/dx = IFFT(conj(FFT(c)) FFT(g))`` and ``dL/dc = IFFT(conj(FFT(x)) FFT(g))``, summed over rows and, for x, over
    blocks; a diagonal's gradient is ``g * input``.
    """
    given = case_of(**case)
    drawn, row, p = draw(given), given.convention == "row", given.p
    diagonals = list(drawn.diagonals)
    spectra = [c_hat.conj() if row else c_hat for c_hat in map(torch.fft.fft, drawn.circulants)]
    value, befores, inputs = drawn.x, [], []
    for k, spectrum in enumerate(spectra):
        if diagonals:
            befores.append(value)
            value = value * diagonals[k]
        inputs.append(_blocks(value, p))
        value = _rows(torch.einsum("ijk,tjk->tik", spectrum, inputs[k]), given.d_out)
    back = given.alpha * drawn.g
    grads_a, grads_c = [], []
    if diagonals:
        grads_a.append((back * value).sum(0))
        back = back * diagonals[-1]
    for k in reversed(range(len(spectra))):
        g_hat = _blocks(back, p)
        moment = torch.einsum("tik,tjk->ijk", g_hat, inputs[k].conj())
        grads_c.append(torch.fft.ifft(moment.conj() if row else moment).real)
        back = _rows(torch.einsum("ijk,tik->tjk", spectra[k].conj(), g_hat), given.d_out if k else given.d_in)
        if diagonals:
            grads_a.append((back * befores[k]).sum(0))
            back = back * diagonals[k]
    found = {"x": [drawn.g @ drawn.weight + back], "a": grads_a[::-1], "c": grads_c[::-1]}
    return _nonempty(_flat(found[of]), of)


def _blocks(x: Tensor, p: int) -> Tensor:
    """Spectra of the blocks of rows (T, width), zero-padded: (T, q, p)."""
    padded = nn.functional.pad(x, (0, -x.shape[1] % p))
    spectra: Tensor = torch.fft.fft(padded.reshape(x.shape[0], -1, p))
    return spectra


def _rows(spectra: Tensor, width: int) -> Tensor:
    """Back to rows (T, width), cropped."""
    rows: Tensor = torch.fft.ifft(spectra).real.flatten(1)
    return rows[:, :width]


def _nonempty(found: Tensor, of: str) -> Tensor:
    if not found.numel():
        raise NotAvailable(f"this layer has no factor {of!r}", "leave it out for such layers")
    return found


def reversed_output(path: str, **case: Any) -> Tensor:
    """What a first-row layer returns whose circulant vectors are read backwards from their first entry: (T, d_out)."""
    given = case_of(**case, convention="row")
    drawn = draw(given)
    turned = tuple(torch.roll(c.flip(-1), 1, -1) for c in drawn.circulants)
    layer = build(path, given, replace(drawn, circulants=turned))
    with torch.no_grad(), available():
        found: Tensor = layer(drawn.x.to(getattr(torch, given.dtype)))
    return found.double()


# --- transforms -----------------------------------------------------------------------------


def transforms_done(path: str, **case: Any) -> Tensor:
    """Transforms of p points that a path does in forward and in backward, counted as it runs: (2,).

    Raises:
        NotAvailable: the compiled kernels are there, but no compiler that would make their instrumented build.
    """
    found = run(path, case_of(**case)).transforms
    if found is None:
        raise NotAvailable("the instrumented kernels cannot be compiled", "install a C compiler")
    return torch.tensor(found)


def transforms_claimed(path: str, **case: Any) -> Tensor:
    """What the papers' passes take: (2,).

    A circulant factor of q_out x q_in blocks takes, forward, FFT(x), FFT(c) and IFFT(y); backward FFT(g) and inverse
    transforms for x and c. A path that keeps no spectra takes the forward ones again where a gradient needs them; the
    compiled kernel transforms two rows as one complex signal, and FFT(c) anew in each pass.
    """
    given = case_of(**case)
    rows = -(-given.tokens // 2) if path == "native" else given.tokens
    inputs, outputs = (rows * sum(q[side] for q in given.blocks) for side in (1, 0))
    factors = sum(q_out * q_in for q_out, q_in in given.blocks)
    forward, backward = factors + inputs + outputs, outputs + inputs + factors
    again = inputs + (outputs if given.m else 0)
    if path == "fused":
        backward += again
    if path == "native":
        backward += again + factors
    return torch.tensor((forward, backward))
