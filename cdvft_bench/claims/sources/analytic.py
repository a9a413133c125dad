"""The analytic source: closed forms."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cdvft_bench.analytic.cost import Cost, Pass
from cdvft_bench.analytic.kernels import Kernels, Scope
from cdvft_bench.analytic.linear import LinearShape, frozen_backward, frozen_forward
from cdvft_bench.claims.ledger.point import MethodSubject, ModuleSubject, Point, Subject
from cdvft_bench.claims.ledger.quantities import TALLIED
from cdvft_bench.claims.ledger.resolve import factors_of, layers, load_object, method_on, targets_of
from cdvft_bench.claims.sources.priced import price, work_of
from cdvft_bench.claims.sources.source import ExactSource, NotAvailable
from cdvft_bench.core.errors import UserError

TRANSFORMS = ("_fft_r2c", "_fft_c2r", "_fft_c2c")
"""FFT operators: real forward, real inverse, complex."""


@dataclass(frozen=True)
class FormulaSource(ExactSource):
    """Gives figures by closed forms.

    Attributes:
        folder: of the ledger.
    """

    folder: Path

    def value(self, point: Point, subject: Subject | None) -> tuple[float, ...]:
        """The quantity's figure for a subject at a point.

        Raises:
            NotAvailable: there is no closed form for it.
        """
        assert subject is not None  # quantities without a subject are not the formula's
        sums: Counter[int] = Counter()
        for shape, rows, n in layers(point.kind, point.place, targets_of(subject)):
            tokens = point.tokens if rows == "tokens" else 1
            for i, value in enumerate(self._on_layer(point, subject, shape, tokens)):
                sums[i] += value * n  # type: ignore[assignment]
        return tuple(float(sums[i]) for i in range(len(sums)))

    def _on_layer(self, point: Point, subject: Subject, shape: LinearShape, tokens: int) -> tuple[float, ...]:
        if point.quantity == "priced_flops":
            return (self._priced(point, subject, shape, tokens),)
        cost = self._cost(point, subject, shape, tokens)
        if isinstance(cost, Mapping):
            return (_from_mapping(cost, point),)
        return figures(cost, point, subject)

    def _priced(self, point: Point, subject: Subject, shape: LinearShape, tokens: int) -> float:
        method = method_on(subject, shape) if isinstance(subject, MethodSubject) else None
        return price(work_of(method, shape, tokens), dict(point.options), tokens)

    def _cost(self, point: Point, subject: Subject, shape: LinearShape, tokens: int) -> Cost | Mapping[str, float]:
        if isinstance(subject, MethodSubject):
            method = method_on(subject, shape)
            if method is not None:
                return method.cost(shape, tokens, point.dtype, device=str(dict(point.options).get("device", "cpu")))
            return Cost(0, 0, frozen_forward(shape, tokens, point.dtype), frozen_backward(shape, tokens, point.dtype))
        if not subject.formula:
            raise NotAvailable("the module comes with no closed form", "give 'formula' in the subject")
        return _ask(subject, shape, tokens, self.folder)


def _ask(subject: ModuleSubject, shape: LinearShape, tokens: int, folder: Path) -> Cost | Mapping[str, float]:
    function = load_object(subject.formula, folder)
    try:
        given = function(int(shape.d_in), int(shape.d_out), tokens, **dict(subject.values))
    except Exception as error:
        raise UserError(f"formula {subject.formula!r} failed: {type(error).__name__}: {error}") from error
    if not isinstance(given, Cost | Mapping):
        raise UserError(
            f"formula {subject.formula!r} returned a {type(given).__name__}; it must return a Cost or a mapping"
        )
    return given


def mapping_key(point: Point) -> str:
    """Where a formula that returns a mapping keeps a figure, e.g. "flops.forward.flop" or "parameters"."""
    options = dict(point.options)
    parts = [point.quantity, *(str(options[k]) for k in ("pass", "convention") if k in options)]
    return ".".join(parts)


def _from_mapping(given: Mapping[str, float], point: Point) -> float:
    key = mapping_key(point)
    if key not in given:
        raise NotAvailable(f"the closed form says nothing of {key!r}", f"let the mapping that it returns have {key!r}")
    return float(given[key])


def figures(cost: Cost, point: Point, subject: Subject) -> tuple[float, ...]:
    """A quantity's figure from a cost.

    Raises:
        NotAvailable: the cost does not hold it.
    """
    options = dict(point.options)
    if point.quantity == "parameters":
        return (float(cost.parameters),)
    if point.quantity == "saved_bytes":
        return (float(cost.saved_bytes),)
    pass_: Pass = "forward" if options["pass"] == "forward" else "backward"
    if point.quantity == "transforms":
        found = _launched(cost.kernels(pass_))
        divisor = factors_of(subject) if options["per_factor"] else 1
        return tuple(found[op] / divisor for op in TRANSFORMS)
    scope: Scope | None = "adapter" if options["scope"] == "adapter" else None
    if point.quantity == "launches":
        return (float(cost.launches(pass_, scope)),)
    assert point.quantity == "flops"
    if options["convention"] == TALLIED:
        raise NotAvailable(
            "no closed form says what an FFT takes exactly", "leave the formula out of this claim's sources"
        )
    return (float(cost.flops(pass_, str(options["convention"]), scope)),)


def _launched(kernels: Kernels) -> Counter[str]:
    found: Counter[str] = Counter()
    for kernel in kernels:
        found[kernel.op] += int(kernel.launches)
    return found
