"""Runs of fine-tuning that come as a table: which method of the suite each is, and their accuracies.

A table names methods as PEFT does, for which many a method is a switch of another: what tells DoRA or LoRA-FA from
LoRA is a hyperparameter of the row, or only its name. A row whose name or hyperparameters say something that is not
known here is left out and named, never pooled with the plain method.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import variance

from cdvft_bench.accuracy.published import PublishedRun
from cdvft_bench.claims.ledger.figures import Figure
from cdvft_bench.claims.ledger.point import MethodSubject
from cdvft_bench.claims.ledger.terms import Value
from cdvft_bench.claims.sources.source import NotAvailable
from cdvft_bench.claims.sources.trained import fieller
from cdvft_bench.core.interval import LEAST_SEEDS
from cdvft_bench.core.student import half_width, joint_freedom
from cdvft_bench.core.text import plural
from cdvft_bench.core.ties import mean_share

# A hyperparameter's name in this suite, and in the configurations that tables of runs quote.
_ALIASES = {"rank": "r", "n_frequency": "n"}
_SWITCHES = {"use_dora": "dora", "use_rslora": "rslora"}
_VARIANTS = {"dora": "dora", "rslora": "rslora", "lorafa": "lora_fa", "fa": "lora_fa"}
_PLAIN_STARTS = (True, False, None, "default", "gaussian", "kaiming")
"""Values of ``init_lora_weights`` that leave the method what it is."""
_NEUTRAL = re.compile(
    "default|e|ex|exp|experiment|run|test|trial|seed|random|targets?|mlp|all|attn|attention|llama|peft|lr|rank|r|"
    "finetuning|tuning|full"
)
"""Words of a row's name that say nothing of the method: other columns hold what they mean."""
_MEASURES = re.compile(
    "lr|rank|r|alpha|a|n|p|m|k|b|s|batch|block|size|blocksize|block_size|frequency|n_frequency|factor|seed|random_seed|"
    "epochs|steps|tokens|len|length|lora_alpha|run|e|exp|trial"
)
"""What a number in a row's name may be of."""


def method_of(run: PublishedRun) -> tuple[str, str]:
    """The suite's method that a run is of, and what of its name or hyperparameters is not known ("" for nothing)."""
    name = _plain(run.method)
    for key, value in run.hyperparameters.items():
        if name != "lora":
            break
        if key in _SWITCHES:
            name = _SWITCHES[key] if value is True else name
        elif key.startswith("use_") and value is True:
            return name, key
        elif key == "init_lora_weights" and value not in _PLAIN_STARTS:
            return name, f"{key} = {value}"
    for word in _words(run):
        if word in _VARIANTS and name in ("lora", _plain(_VARIANTS[word])):
            name = _VARIANTS[word]
        elif (
            word != _plain(name)
            and word != _plain(run.method)
            and not (_NEUTRAL.fullmatch(word) or _MEASURES.fullmatch(word))
        ):
            return name, word
    return name, ""


def _words(run: PublishedRun) -> list[str]:
    """Words of a run's name that may say which method it is."""
    text = run.experiment.lower()
    for own in (run.method.lower(), run.method.lower().replace("_", "-"), run.method.lower().replace("_", "")):
        text = text.removeprefix(own)
    found = []
    for part in re.split(r"[-+\s]+", re.sub(r"(\d)e-(\d)", r"\1e~\2", text)):
        of, number = re.fullmatch(r"(.*?)_?(\d[\d.e~]*(?:[a-z]{1,2})?)?", part).groups()  # type: ignore[union-attr]
        if number is not None and (not of or _MEASURES.fullmatch(of)):
            continue
        found += [word for word in (part if number is not None else of).split("_") if word]
    return [word for word in found if not _NEUTRAL.fullmatch(word) and not _MEASURES.fullmatch(word)]


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
            interval = fieller(lambda rho: _apart(a, b, rho))
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
            if not unknown and _plain(name) == _plain(subject.name) and _has(run, subject):
                configuration = repr((sorted(run.hyperparameters.items()), run.target_modules, run.lr, run.steps))
                found.setdefault(configuration, []).append(run.test_accuracy)
        if not found:
            raise NotAvailable(
                f"no recorded fine-tuning run of {subject}{self._left_out(subject)}",
                "give results of 'cdvft-bench train' (.jsonl), or a table of runs (.csv), with --records",
            )
        return max(found.values(), key=mean_share)

    def _left_out(self, *subjects: MethodSubject | None) -> str:
        """Rows of the same PEFT type that are variants which the suite does not know, in words."""
        names = {_plain(s.name) for s in subjects if s is not None}
        rows = [(run.experiment, *method_of(run)) for run in self.runs]
        said = [f"{experiment} ({unknown})" for experiment, name, unknown in rows if unknown and _plain(name) in names]
        return f"; left out, since a variant is not known: {', '.join(said)}" if said else ""


def _apart(a: Sequence[float], b: Sequence[float], rho: float) -> tuple[float, float]:
    """Mean and half-width of ``a - rho b``, not paired; one value is taken as exact."""
    parts = [(scale * variance(v) / len(v), len(v) - 1) for v, scale in ((a, 1.0), (b, rho * rho)) if len(v) > 1]
    total = sum(v for v, _ in parts)
    return mean_share(a) - rho * mean_share(b), half_width(math.sqrt(total), joint_freedom(parts)) if total else 0.0


def _plain(name: str) -> str:
    return name.replace("_", "").lower()


def _has(run: PublishedRun, subject: MethodSubject) -> bool:
    def given(name: str) -> Value | None:
        value = run.hyperparameters.get(name, run.hyperparameters.get(_ALIASES.get(name, name)))
        return value if isinstance(value, int | float | str) else None

    return all(given(name) == value for name, value in subject.values)
