"""The gradient of a circulant vector against the dense gradient.

With ``G = dL/d(dW)`` (d_out, d_in) and ``dW = diag(l) C diag(r)`` around one circulant factor,

    dL/dc[k] = sum over r - s = k (mod p) of l[r] G[r, s] r[s]

a sum of p entries of the (scaled) dense gradient in each block. BCA's paper (arXiv 2505.00582) concludes
that c's gradient is p times a dense layer's and divides the learning rate by p. Exactly: one step of
gradient descent on c changes the weight by ``-eta p Proj(G)``, with Proj the nearest block-circulant
matrix. The entries' size grows by p only where G is constant along wrapped diagonals; for independent
entries it grows by sqrt(p).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from cdvft_bench.expressivity.factors import Factor, wrapped_sums
from cdvft_bench.expressivity.fitting.families import block_circulant_projection
from cdvft_reference.circulant import block_circulant_shape


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
