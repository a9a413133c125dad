"""What PEFT's LoHa and LoKr have in common."""

from __future__ import annotations

from cdvft_bench.analytic.kernels import ITEMSIZE, Kernel, Kernels

# PEFT compares a random number with the probability of module dropout at every pass, even if it is
# zero. Both operators run on the CPU, on one number.
DROPOUT_DRAW: Kernels = (
    Kernel("rand", "copy", written=ITEMSIZE["float32"]),
    Kernel("gt", "copy", read=ITEMSIZE["float32"], written=1),
)
