"""Kernels with faults, for what is to find these."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def shifted_kernel(x, out, n, start, more, step, block: tl.constexpr):
    """out[i] = x[step (i + start)] for i < n; ``more`` entries of out are written, too."""
    at = tl.program_id(0) * block + tl.arange(0, block)
    value = tl.load(x + (at + start) * step, mask=at < n, other=0.0)
    tl.store(out + at, value, mask=at < n + more)
