"""Seconds of kernels on a device: its rates, and the efficiencies fitted to profiles of it where there are some."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from cdvft_bench.analytic.kernels import Kernels
from cdvft_bench.analytic.roofline import Rates
from cdvft_bench.core.environment import Environment
from cdvft_bench.core.record import Record
from cdvft_bench.predictor.evaluation import BOUNDS
from cdvft_bench.predictor.fit import PRIOR, Fit, Predicted, Work, fit, make_terms, predict
from cdvft_bench.predictor.results import NOT_MEASURED, Bound
from cdvft_bench.predictor.samples import Factors, around, device_name, hold, samples

WORST = float(np.exp(1.96 * PRIOR))
"""How much slower than its full rates a device may be, before any profile of it: 95 % of the prior."""

RATIO_ERROR = 0.07
"""Median error of predicted ratios of training times against those that PEFT published, see ``compare_published``."""


@dataclass(frozen=True)
class Pricer:
    """A device's rates with fitted efficiencies, or none.

    Attributes:
        rates: of the device. dtype: of products that do not say their own. fitted: efficiencies; None for 1.
        records: that they were fitted to. held: factors around a step of a shape that is not among them; None unknown.
    """

    rates: Rates
    dtype: str
    fitted: Fit | None = None
    records: int = 0
    held: Factors = None

    def predict(self, kernels: Kernels) -> Predicted:
        """One call of these kernels."""
        if self.fitted is None:
            terms = make_terms([Work(kernels, self.rates, self.dtype)])
            return predict(terms, np.zeros(len(terms.kinds)))
        return self.fitted.predict(make_terms([Work(kernels, self.rates, self.dtype)], self.fitted.kinds))

    def seconds(self, kernels: Kernels) -> float:
        """Seconds of one call."""
        return float(self.predict(kernels).seconds[0])

    def shares(self, kernels: Kernels) -> dict[Bound, float]:
        """Seconds that arithmetic, bytes and launches decide."""
        return dict(zip(BOUNDS, map(float, self.predict(kernels).bounds[0]), strict=True))

    @property
    def spread(self) -> tuple[float, float]:
        """Factors around a prediction: of left-out errors, else from full rates to the prior's worst."""
        return self.held or (1.0, WORST)

    @property
    def corrected(self) -> bool:
        """Whether records of the device correct its full rates, which alone give a lower bound."""
        return self.held is not None

    @property
    def tie(self) -> float:
        """Share by which two predicted times must differ to be told apart: the median error of left-out records."""
        if self.fitted is None or not self.corrected:
            return RATIO_ERROR
        return float(np.median(np.exp(np.abs(self.fitted.left_out)) - 1))

    @property
    def error(self) -> str:
        """How far predictions miss, in words."""
        if self.fitted is None or not self.corrected:
            return (
                f"{NOT_MEASURED} on this device: times are those of full rates, a lower bound; ranges go up to "
                f"{WORST:.1f} times as long, the prior's 95 %"
            )
        errors = np.exp(np.abs(self.fitted.left_out)) - 1
        return (
            f"{self.records} records of this device, each left out: median error {100 * np.median(errors):.0f} %, 90th "
            f"percentile {100 * np.quantile(errors, 0.9):.0f} %; ranges hold 95 % of the steps of shapes left out"
        )


def make_pricer(
    rates: Rates, dtype: str, records: Iterable[Record] = (), environments: Mapping[str, Environment] | None = None
) -> Pricer:
    """Fit efficiencies to the records of this device: a GPU by its name, a CPU by its number of threads."""
    known = environments or {}
    mine = [r for r in records if r.environment in known and hold(rates, r, known[r.environment])]
    found, _ = samples(mine, known, {device_name(r.case, known[r.environment]): rates for r in mine})
    if not found:
        return Pricer(rates, dtype)
    fitted = fit(make_terms([s.work for s in found]), np.array([s.seconds for s in found]))
    return Pricer(rates, dtype, fitted, len(found), around(fitted, found, "shape", "step"))
