"""Least-squares fits with 95 % intervals. Pure functions of numbers."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from cdvft_bench.core.student import t_value

TERMS: dict[str, Callable[[float], float]] = {
    "1": lambda n: 1.0,
    "n": lambda n: n,
    "n log n": lambda n: n * math.log2(n),
    "n^2": lambda n: n * n,
}


@dataclass(frozen=True)
class Fit:
    """Coefficients of a linear model with their 95 % intervals.

    Attributes:
        coefficients, half_widths: one a term.
        residual: largest deviation of the fit from a value, relative to the value.
    """

    coefficients: tuple[float, ...]
    half_widths: tuple[float, ...]
    residual: float


def fit(terms: Sequence[str], x: Sequence[float], y: Sequence[float]) -> Fit:
    """Fit ``y`` by a sum of ``TERMS``, every deviation weighed relative to its value.

    Args:
        terms: names; at least one value more than terms.
        x: positive. y: positive.
    """
    weights = 1 / np.asarray(y, dtype=np.float64)
    design = np.array([[TERMS[t](n) for t in terms] for n in x]) * weights[:, None]
    scale = np.abs(design).max(axis=0)  # terms differ by orders of magnitude
    return _solve(design / scale, np.ones(len(x)), scale)


def slope(x: Sequence[float], y: Sequence[float]) -> Fit:
    """Exponent of a power law: the line through the logarithms; the first coefficient is the exponent."""
    logs = np.log(np.asarray(x, dtype=np.float64))
    design = np.stack([logs, np.ones(len(x))], axis=1)
    return _solve(design, np.log(np.asarray(y, dtype=np.float64)), np.ones(2))


def _solve(design: np.ndarray, target: np.ndarray, scale: np.ndarray) -> Fit:
    points, terms = design.shape
    solution = np.linalg.lstsq(design, target, rcond=None)[0]
    deviations = design @ solution - target
    freedom = points - terms
    variance = float(deviations @ deviations) / max(freedom, 1)
    errors = np.sqrt(np.maximum(np.diag(np.linalg.pinv(design.T @ design)) * variance, 0.0))
    half = errors * t_value(freedom)
    return Fit(
        tuple(float(v) for v in solution / scale),
        tuple(float(v) for v in half / scale),
        float(np.abs(deviations).max()),
    )
