"""A small fine-tuning task on which every weight change can be watched: rank, gradients, first steps.

One frozen layer W inside ``y = U tanh((W + dW) x)``; the teacher's weight is ``W + T``. Inputs are normal,
the loss is the mean squared error over a fixed set, the optimiser Adam on the full set. It is a testbed for
the factorisation, not a benchmark of accuracy.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cdvft_bench.expressivity.factors import Factor, wrapped_sums
from cdvft_bench.expressivity.fitting.families import block_circulant_projection
from cdvft_bench.expressivity.fitting.targets import draw_targets
from cdvft_reference.circulant import block_circulant_shape
from cdvft_reference.layer import BlockCirculantLinear, CDVFTLinear, Init


@dataclass(frozen=True)
class Adapter:
    """One way to change the weight.

    Attributes:
        family: "cdvft", "block_circulant", "lora", "fourierft", "vera" or "full".
        m, block_size, init: of CDVFT (block_size also of block_circulant).
        rank: of LoRA and of VeRA; FourierFT's number of coefficients.
    """

    family: str
    m: int = 2
    block_size: int = 0
    init: Init = "zero_diagonal"
    rank: int = 1

    @property
    def label(self) -> str:
        """Short name for tables."""
        if self.family == "cdvft":
            return f"CDVFT m={self.m} p={self.block_size} {self.init}"
        return {
            "block_circulant": f"BCA p={self.block_size}",
            "lora": f"LoRA r={self.rank}",
            "fourierft": f"FourierFT n={self.rank}",
            "vera": f"VeRA r={self.rank}",
            "full": "full",
        }[self.family]


@dataclass(frozen=True)
class Task:
    """Data of one draw: inputs (N, d), targets (N, d), the frozen W (d, d) and the read-out U (d, d)."""

    x: Tensor
    y: Tensor
    weight: Tensor
    readout: Tensor

    def loss(self, change: Tensor) -> Tensor:
        """Mean squared error over that of no change at all: 1 at the start, 0 at the teacher."""
        start = (self._output(torch.zeros_like(self.weight)) - self.y).square().mean()
        return (self._output(change) - self.y).square().mean() / start

    def _output(self, change: Tensor) -> Tensor:
        return torch.tanh(self.x @ (self.weight + change).T) @ self.readout.T


def make_task(d: int, samples: int, ensemble: str, seed: int) -> Task:
    """A teacher whose weight differs by half of a target of the ensemble, scaled to the norm of W."""
    g = torch.Generator().manual_seed(seed)
    weight = torch.randn(d, d, dtype=torch.float64, generator=g) / d**0.5
    readout = torch.randn(d, d, dtype=torch.float64, generator=g) / d**0.5
    target = draw_targets(ensemble, d, 1, seed)[0]
    target = 0.5 * target * torch.linalg.vector_norm(weight) / torch.linalg.vector_norm(target)
    x = torch.randn(samples, d, dtype=torch.float64, generator=g)
    return Task(x, torch.tanh(x @ (weight + target).T) @ readout.T, weight, readout)


Built = tuple[list[nn.Parameter], Callable[[], Tensor]]
"""Trained parameters in the order of the product, and a function that gives ``dW``."""


def _normal(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """Normal entries of variance 1 / columns."""
    drawn: Tensor = torch.randn(rows, columns, dtype=torch.float64, generator=generator) / columns**0.5
    return drawn


def _zeros(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(*shape, dtype=torch.float64))


def _lora(d: int, rank: int, generator: torch.Generator) -> Built:
    """``dW = B A``: B zero, A normal."""
    a, b = nn.Parameter(_normal(rank, d, generator)), _zeros(d, rank)
    return [a, b], lambda: b @ a


def _fourierft(d: int, n: int, generator: torch.Generator) -> Built:
    """The real part of an orthonormal inverse 2-D FFT of n coefficients at random positions, zero at the start."""
    positions, coefficients = torch.randperm(d * d, generator=generator)[:n], _zeros(n)

    def change() -> Tensor:
        spectrum = torch.zeros(d * d, dtype=torch.float64).index_put((positions,), coefficients)
        real: Tensor = torch.fft.ifft2(spectrum.reshape(d, d), norm="ortho").real
        return real

    return [coefficients], change


def _vera(size: int, rank: int, generator: torch.Generator) -> Built:
    """``dW = diag(b) B diag(d) A`` with frozen normal A and B; b zero, the entries of d 0.1 at the start."""
    a, frozen = _normal(rank, size, generator), _normal(size, rank, generator)
    d, b = nn.Parameter(torch.full((rank,), 0.1, dtype=torch.float64)), _zeros(size)
    return [d, b], lambda: b[:, None] * (frozen * d) @ a


def build(adapter: Adapter, weight: Tensor, seed: int) -> Built:
    """An adapter of a square weight.

    Raises:
        ValueError: its family is not known.
    """
    d = weight.shape[0]
    generator = torch.Generator().manual_seed(seed)
    base = nn.Linear(d, d, bias=False, dtype=torch.float64)
    if adapter.family == "cdvft":
        layer = CDVFTLinear(base, adapter.m, adapter.block_size, init=adapter.init, generator=generator)
        ordered = [layer.diagonals[0]]
        for c, a in zip(layer.circulants, list(layer.diagonals)[1:], strict=True):
            ordered += [c, a]
        return ordered, layer.delta_weight
    if adapter.family == "block_circulant":
        circulant = BlockCirculantLinear(base, adapter.block_size)
        return [circulant.circulant], circulant.delta_weight
    if adapter.family == "full":
        change = _zeros(d, d)
        return [change], lambda: change
    families = {"lora": _lora, "fourierft": _fourierft, "vera": _vera}
    if adapter.family in families:
        return families[adapter.family](d, adapter.rank, generator)
    raise ValueError(
        f"family {adapter.family!r} is not known; use cdvft, block_circulant, lora, fourierft, vera or full"
    )


@dataclass(frozen=True)
class Snapshot:
    """The weight change after some steps.

    Attributes:
        step: updates done.
        loss: relative to no change.
        rank: singular values above 1e-3 of the largest.
        stable_rank: squared Frobenius norm over squared spectral norm; 0 for no change.
        gradient_norms: of each factor, in the order of the product read from the right.
    """

    step: int
    loss: float
    rank: int
    stable_rank: float
    gradient_norms: list[float]


def ranks(change: Tensor) -> tuple[int, float]:
    """Numerical rank (above 1e-3 of the largest singular value) and stable rank of a matrix; zeros for zero."""
    values = torch.linalg.svdvals(change)
    if float(values[0]) == 0:
        return 0, 0.0
    return int((values > 1e-3 * values[0]).sum()), float((values / values[0]).square().sum())


def train(task: Task, adapter: Adapter, learning_rate: float, snapshots: list[int], seed: int) -> list[Snapshot]:
    """Train and look after each number of updates in ``snapshots`` (0 is before the first).

    A run whose loss is no longer finite ends there: later snapshots are left out.
    """
    parameters, delta = build(adapter, task.weight, seed)
    optimiser = torch.optim.Adam(parameters, lr=learning_rate)
    result: list[Snapshot] = []
    for step in range(max(snapshots) + 1):
        optimiser.zero_grad()
        change = delta()
        loss = task.loss(change)
        if not bool(torch.isfinite(loss)):
            break
        loss.backward()
        if step in snapshots:
            rank, stable = ranks(change.detach())
            sizes = [float(torch.linalg.vector_norm(p.grad)) for p in parameters if p.grad is not None]
            result.append(Snapshot(step, float(loss.detach()), rank, stable, sizes))
        optimiser.step()
    return result


def dense_gradient(task: Task) -> Tensor:
    """Gradient (d, d) of the loss with respect to ``dW`` at the start of training."""
    change = torch.zeros_like(task.weight, requires_grad=True)
    task.loss(change).backward()
    assert change.grad is not None
    return change.grad


# --- gradients of circulant vectors ----------------------------------------------------------
# With ``G = dL/d(dW)`` (d_out, d_in) and ``dW = diag(l) C diag(r)`` around one circulant factor,
#
# dL/dc[k] = sum over r - s = k (mod p) of l[r] G[r, s] r[s]
#
# a sum of p entries of the (scaled) dense gradient in each block. BCA's paper (arXiv 2505.00582) concludes
# that c's gradient is p times a dense layer's and divides the learning rate by p. Exactly: one step of
# gradient descent on c changes the weight by ``-eta p Proj(G)``, with Proj the nearest block-circulant
# matrix. The entries' size grows by p only where G is constant along wrapped diagonals; for independent
# entries it grows by sqrt(p).


def circulant_gradient(dense_gradient: Tensor, block_size: int) -> Tensor:
    """dL/dc of a block-circulant ``dW`` from the dense gradient: (d_out, d_in) to (q_out, q_in, p)."""
    d_out, d_in = dense_gradient.shape
    blocks = block_circulant_shape(d_in, d_out, block_size)
    return wrapped_sums(dense_gradient[None], Factor(d_in, d_out, blocks, 0)).reshape(blocks)


@dataclass(frozen=True)
class GradientScale:
    """Size of a circulant vector's gradient against the dense one.

    Attributes:
        ratio: root mean square of dL/dc over that of the dense gradient; between 0 and p.
        coherence: share of the dense gradient's energy that block-circulant matrices hold; 1/p in
            expectation for independent entries. ``ratio = p sqrt(coherence)`` where p divides both widths.
    """

    ratio: float
    coherence: float


def gradient_scale(dense_gradient: Tensor, block_size: int) -> GradientScale:
    """Measure both for one dense gradient (d_out, d_in)."""
    c = circulant_gradient(dense_gradient, block_size)
    projection = block_circulant_projection(dense_gradient[None], block_size)[0]
    rms = dense_gradient.square().mean().sqrt()
    energy = projection.square().sum() / dense_gradient.square().sum()
    return GradientScale(float(c.square().mean().sqrt() / rms), float(energy))
