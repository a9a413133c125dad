"""Runs of fine-tuning that were made elsewhere, and their accuracies by method.

A run whose name or hyperparameters say something that is not known here is left out and named, never pooled with the
plain method, see ``accuracy.published.methods``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import variance

from cdvft_bench.accuracy.published.methods import method_of, plain, spellings
from cdvft_bench.accuracy.published.run import PublishedRun
from cdvft_bench.claims.ledger.figures import Figure
from cdvft_bench.claims.ledger.point import MethodSubject
from cdvft_bench.claims.ledger.terms import Value
from cdvft_bench.claims.sources.source import NotAvailable
from cdvft_bench.core.interval import LEAST_SEEDS
from cdvft_bench.core.student import fieller, t_value
from cdvft_bench.core.text import plural
from cdvft_bench.core.ties import mean_share


@dataclass(frozen=True)
class RunTable:
    """A table of runs.

    Attributes:
        name: of its file. runs: its rows.
    """

    name: str
    runs: Sequence[PublishedRun]

    def figure(self, one: MethodSubject, other: MethodSubject | None) -> Figure:
        """Accuracy of a method's best configuration, or of one over the other's, not paired.

        Raises:
            NotAvailable: there is no run of a side.
        """
        a = self.best(one)
        b = [1.0] if other is None else self.best(other)
        note = (
            plural(len(a), "run") + ("" if other is None else f" and {len(b)}, not paired") + self._left_out(one, other)
        )
        interval = (-math.inf, math.inf)
        if len(a) >= LEAST_SEEDS and (other is None or len(b) >= LEAST_SEEDS):
            interval = fieller(mean_share(a), mean_share(b), _spread(a), 0.0, _spread(b))
        remedy = "give a table with several runs of every configuration"
        against = None if other is None else (mean_share(b),)
        return Figure((mean_share(a),), against, interval=interval, note=note, remedy=remedy)

    def best(self, subject: MethodSubject) -> list[float]:
        """Accuracies of the best configuration's runs; of equals the first in the table.

        Raises:
            NotAvailable: there is no run of the method.
        """
        found: dict[str, list[float]] = {}
        for run in self.runs:
            name, unknown = method_of(run)
            if not unknown and plain(name) == plain(subject.name) and _has(run, subject):
                configuration = repr(
                    (sorted(run.hyperparameters.items(), key=str), run.target_modules, run.lr, run.steps)
                )
                found.setdefault(configuration, []).append(run.score)
        if not found:
            raise NotAvailable(
                f"no recorded fine-tuning run of {subject}{self._left_out(subject)}",
                "give results of 'cdvft-bench train' (.jsonl), or a table of runs (.csv), with --records",
            )
        return max(found.values(), key=mean_share)

    def _left_out(self, *subjects: MethodSubject | None) -> str:
        """Rows of the same PEFT type that are variants which the suite does not know, in words."""
        names = {plain(s.name) for s in subjects if s is not None}
        rows = [(run.experiment, *method_of(run)) for run in self.runs]
        said = [f"{experiment} ({unknown})" for experiment, name, unknown in rows if unknown and plain(name) in names]
        return f"; left out, since a variant is not known: {', '.join(said)}" if said else ""


def _spread(values: Sequence[float]) -> float:
    """Variance of a mean times its squared half-width in standard errors; one value is taken as exact."""
    n = len(values)
    return t_value(n - 1) ** 2 * variance(values) / n if n > 1 else 0.0


def _has(run: PublishedRun, subject: MethodSubject) -> bool:
    def given(name: str) -> Value | None:
        values = run.hyperparameters
        value = next((values[key] for key in spellings(subject.name, name) if key in values), None)
        return value if isinstance(value, int | float | str) else None

    return all(given(name) == value for name, value in subject.values)
