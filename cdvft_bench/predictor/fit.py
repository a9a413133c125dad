"""Fit what share of its rates a device reaches, by kind of kernel, and predict with it.

The time of a call is a sum over its kernels. Where execution is asynchronous (a GPU) a kernel takes the longest of
three: arithmetic over (rate x efficiency), bytes over (bandwidth x efficiency), launch interval over efficiency. On a
CPU it takes their sum: a library packs the operands of a product before it multiplies, and the caller waits. The
efficiencies minimise a robust (Huber) sum of squared errors of log time, with a prior around 1 that decides where the
data say little.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cdvft_bench.analytic.kernels import Kernel, Kernels
from cdvft_bench.analytic.roofline import Rates, at, kernel_parts, traffic
from cdvft_bench.core.student import half_width

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

PRIOR = float(np.log(2.0))
"""Standard deviation of a log efficiency before any data: a factor of 2 either way."""
FLOOR = 0.02
"""The least standard deviation that errors are taken to have: no clock repeats itself better."""
HEAVIER = 0.03
"""Chance outside of Student's range for the next error, such that errors of heavier tails have 5 % outside or less."""
HUBER = 1.5
LAUNCH = "launch"
IN_PLACE = "in place"


@dataclass(frozen=True)
class Work:
    """One call: its kernels, the rates of the device that runs them, and the dtype of products that say none."""

    kernels: Kernels
    rates: Rates
    dtype: str


@dataclass(frozen=True)
class Terms:
    """Kernels of many calls as columns, one row a kernel.

    Attributes:
        calls: their number. call: which one a row belongs to. launches: how often.
        arithmetic, traffic, launch: seconds of one launch at full rates.
        unit, carrier: index in ``kinds`` of the efficiency of arithmetic and of traffic.
        overlaps: whether arithmetic, traffic and launch overlap.
        kinds: names of the efficiencies, "launch" last.
    """

    calls: int
    call: Ints
    launches: Floats
    arithmetic: Floats
    traffic: Floats
    launch: Floats
    unit: Ints
    carrier: Ints
    overlaps: NDArray[np.bool_]
    kinds: tuple[str, ...]

    def of(self, calls: Ints) -> Terms:
        """The rows of some calls, in that order."""
        index = np.full(self.calls, -1)
        index[calls] = np.arange(len(calls))
        rows = index[self.call] >= 0
        return Terms(
            len(calls),
            index[self.call][rows],
            self.launches[rows],
            self.arithmetic[rows],
            self.traffic[rows],
            self.launch[rows],
            self.unit[rows],
            self.carrier[rows],
            self.overlaps[rows],
            self.kinds,
        )


def make_terms(works: Sequence[Work], kinds: Sequence[str] | None = None) -> Terms:
    """Columns of some calls; ``kinds`` fixes the order of efficiencies (kinds not in it are added)."""
    order = {kind: i for i, kind in enumerate(kinds[:-1] if kinds else ())}
    rows: list[tuple[float, ...]] = []
    for call, work in enumerate(works):
        for kernel in work.kernels:
            if not kernel.launches:
                continue
            parts = kernel_parts(kernel, work.rates, work.dtype)
            product = f"matmul {kernel.dtype or work.dtype}"
            unit = product if parts.unit == "matmul" else parts.unit
            carrier, seconds = _carried(kernel, work.rates, parts.unit)
            one = order.setdefault(unit, len(order)) if unit else -1
            two = order.setdefault(carrier, len(order))
            rows.append(
                (
                    call,
                    float(kernel.launches),
                    parts.arithmetic,
                    seconds,
                    work.rates.launch_s * (float(kernel.starts) if work.rates.asynchronous else 1.0),
                    one,
                    two,
                    work.rates.asynchronous,
                )
            )
    columns = np.array(rows, dtype=np.float64).reshape(-1, 8).T
    call_, launches, arithmetic, traffic, launch, unit_, carrier_, overlaps = columns
    return Terms(
        len(works),
        call_.astype(np.int64),
        launches,
        arithmetic,
        traffic,
        launch,
        unit_.astype(np.int64),
        carrier_.astype(np.int64),
        overlaps.astype(bool),
        (*order, LAUNCH),
    )


def _carried(kernel: Kernel, rates: Rates, unit: str) -> tuple[str, float]:
    """Whose efficiency the traffic of a kernel has, and its seconds at the bandwidth of what it is most like.

    A new result of tens of megabytes costs a CPU page faults, which the calibrated element-wise bandwidth holds. A
    product reads far more than it writes, as a reduction does; what is written in place, as an optimiser does, has
    its memory already, as the target of a copy.
    """
    bytes_ = traffic(kernel, rates)
    if unit in ("matmul", "complex product"):
        return f"bytes of {unit}", bytes_ / at(rates.bandwidth["reduction"], bytes_)
    if unit:
        return f"bytes of {unit}", bytes_ / at(rates.bandwidth["elementwise"], bytes_)
    if kernel.kind == "elementwise" and kernel.op.endswith("_"):
        return IN_PLACE, bytes_ / at(rates.bandwidth["copy"], bytes_)
    return kernel.kind, bytes_ / at(rates.bandwidth[kernel.kind], bytes_)


@dataclass(frozen=True)
class Predicted:
    """Predicted calls.

    Attributes:
        seconds: (calls,). by_kind: (calls, kinds) seconds by the efficiency that they depend on.
        bounds: (calls, 3) seconds that arithmetic, bytes and launches decide.
    """

    seconds: Floats
    by_kind: Floats
    bounds: Floats


def predict(terms: Terms, log_efficiency: Floats, launches: bool = True) -> Predicted:
    """Seconds of every call; without ``launches``, of arithmetic and bytes alone."""
    share = np.exp(-log_efficiency)
    one = terms.arithmetic * np.where(terms.unit >= 0, share[terms.unit], 0.0)
    two = terms.traffic * share[terms.carrier]
    start = terms.launch * share[-1] * launches
    one, two = np.where(terms.overlaps & (one < two), 0.0, one), np.where(terms.overlaps & (one >= two), 0.0, two)
    hidden = terms.overlaps & (start >= one + two)
    one, two = (np.where(hidden, 0.0, busy) * terms.launches for busy in (one, two))
    start = np.where(terms.overlaps & ~hidden, 0.0, start) * terms.launches
    width = len(terms.kinds)
    row = terms.call * width
    by_kind = _sums(row + np.maximum(terms.unit, 0), one, terms.calls * width)
    by_kind = (by_kind + _sums(row + terms.carrier, two, terms.calls * width)).reshape(terms.calls, width)
    bounds = np.stack([_sums(terms.call, part, terms.calls) for part in (one, two, start)], 1)
    by_kind[:, -1] += bounds[:, 2]
    return Predicted(by_kind.sum(1), by_kind, bounds)


def _sums(index: Ints, values: Floats, length: int) -> Floats:
    return np.bincount(index, values, length).astype(np.float64)


@dataclass(frozen=True)
class Fit:
    """Fitted efficiencies.

    Attributes:
        kinds, log_efficiency: of each kind. covariance: of the logs, prior included.
        sigma: robust standard deviation of log errors.
        residuals: log (measured / predicted) of each call, and ``left_out`` as if the call had not been fitted to
            (one Gauss-Newton step without it).
        slopes: of log predictions, falling with an efficiency, and precisions of the calls as they weigh in the fit.
        launches: whether the model has launches.
    """

    kinds: tuple[str, ...]
    log_efficiency: Floats
    covariance: Floats
    sigma: float
    residuals: Floats
    left_out: Floats
    slopes: Floats
    precisions: Floats
    launches: bool

    def predict(self, terms: Terms) -> Predicted:
        """Seconds of other calls; their kinds begin with this fit's, further ones are taken at their full rate."""
        further = np.zeros(len(terms.kinds) - len(self.kinds))
        logs = np.concatenate([self.log_efficiency[:-1], further, self.log_efficiency[-1:]])
        return predict(terms, logs, self.launches)

    def left_out_by(self, groups: Sequence[str]) -> Floats:
        """Residuals as if no call of the group had been fitted to: ``(I - H)^-1 r`` of its rows, one Gauss-Newton step.

        Args:
            groups: a name a call.
        """
        found = self.residuals.copy()
        named = np.array(groups)
        for name in set(groups):
            rows = np.flatnonzero(named == name)
            hat = self.slopes[rows] @ self.covariance @ self.slopes[rows].T * self.precisions[rows]
            found[rows] = np.linalg.solve(np.eye(len(rows)) - hat, self.residuals[rows])
        return found


def interval(left_out: Floats) -> tuple[float, float] | None:
    """Factors around a prediction that hold 95 % of next log errors like the left-out ones; None for fewer than 10.

    39 errors or more hold it whatever their distribution (conformal prediction). The extremes of fewer would hold less:
    the range is then Student's for the next of normally distributed errors where that is wider.
    """
    n = len(left_out)
    if n < 10:
        return None
    ordered = np.sort(left_out)
    cut = max(int(0.025 * (n + 1)), 1)
    low, high = float(ordered[cut - 1]), float(ordered[n - cut])
    if n < 39:
        error = float(ordered.std(ddof=1)) * math.sqrt(1 + 1 / n)
        mean, half = float(ordered.mean()), half_width(error, n - 1, HEAVIER)
        low, high = min(low, mean - half), max(high, mean + half)
    return math.exp(low), math.exp(high)


def fit(terms: Terms, seconds: Floats, launches: bool = True, start: Floats | None = None) -> Fit:
    """Efficiencies that bring ``terms`` closest to the measured ``seconds``; none measured leaves the prior."""
    kinds = len(terms.kinds)
    theta = np.zeros(kinds) if start is None else start.copy()
    precision = np.eye(kinds) / PRIOR**2
    target = np.log(seconds)
    sigma, best, damping = 0.5, np.inf, 1.0
    residuals, slopes, weights = _errors(terms, target, theta, launches, sigma)
    for i in range(100):
        if i < 20:  # then held, so that the sum to minimise no longer moves
            sigma = max(1.4826 * float(np.median(np.abs(residuals))), FLOOR) if len(residuals) else FLOOR
            best = np.inf
        weights = _weights(residuals, sigma)
        normal = (slopes * weights[:, None]).T @ slopes / sigma**2 + precision
        step = np.linalg.solve(normal, (slopes * weights[:, None]).T @ residuals / sigma**2 - precision @ theta)
        best = min(best, _objective(residuals, sigma, theta))
        tried = theta + damping * step
        found = _errors(terms, target, tried, launches, sigma)
        value = _objective(found[0], sigma, tried)
        if value > best and damping > 1e-3:  # a kink of the maximum: go half as far
            damping /= 2
            continue
        moved = float(np.max(np.abs(tried - theta)))
        theta, (residuals, slopes, weights) = tried, found
        damping = min(1.0, 2 * damping)
        if moved < 1e-6 and i >= 20:
            break
    normal = (slopes * weights[:, None]).T @ slopes / sigma**2 + precision
    covariance: Floats = np.linalg.inv(normal).astype(np.float64)
    leverage = np.clip(weights * np.einsum("ip,pq,iq->i", slopes, covariance, slopes) / sigma**2, 0.0, 0.99)
    left_out = residuals / (1 - leverage)
    return Fit(terms.kinds, theta, covariance, sigma, residuals, left_out, slopes, weights / sigma**2, launches)


def _errors(terms: Terms, target: Floats, theta: Floats, launches: bool, sigma: float) -> tuple[Floats, Floats, Floats]:
    """Log errors, slopes of log predictions (falling with an efficiency), and Huber's weights."""
    found = predict(terms, theta, launches)
    residuals = target - np.log(found.seconds)
    return residuals, -found.by_kind / found.seconds[:, None], _weights(residuals, sigma)


def _weights(residuals: Floats, sigma: float) -> Floats:
    return np.asarray(np.minimum(1.0, HUBER * sigma / np.maximum(np.abs(residuals), 1e-12)))


def _objective(residuals: Floats, sigma: float, theta: Floats) -> float:
    scaled = np.abs(residuals) / sigma
    loss = np.where(scaled <= HUBER, scaled**2, 2 * HUBER * scaled - HUBER**2)
    return float(loss.sum() + (theta @ theta) / PRIOR**2)
