"""A point: everything that a source must know to give one figure. Points change axis by axis."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from cdvft_bench.claims.ledger.terms import Setting, Value
from cdvft_bench.claims.ledger.text import setting
from cdvft_bench.core.errors import UserError

Build = Literal["base", "widths"]


@dataclass(frozen=True)
class MethodSubject:
    """A method of the suite; ``frozen`` is the layer without any.

    Attributes:
        name: registry name.
        values: hyperparameters; a block size may be written "d" or "d/4".
        targets: endings of the adapted modules of a model; empty is the model's default, ("all",) every linear
            layer that tokens pass but the output head.
    """

    name: str
    values: Setting = ()
    targets: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name} ({setting(self.values)})" if self.values else self.name


@dataclass(frozen=True)
class ModuleSubject:
    """Somebody's own ``nn.Module``.

    Attributes:
        module: "package.module:Class".
        build: "base" calls ``Class(linear, **values)`` with a frozen ``nn.Linear``; "widths" calls
            ``Class(d_in, d_out, **values)``.
        values: keyword arguments.
        formula: "package.module:function" that gives the module's cost by closed form; "" for none.
    """

    module: str
    build: Build = "base"
    values: Setting = ()
    formula: str = ""

    def __str__(self) -> str:
        return f"module {self.module!r}"


Subject = MethodSubject | ModuleSubject


@dataclass(frozen=True)
class Point:
    """What one figure is of.

    Attributes:
        quantity: its name. options: of the quantity.
        subject: whose figure. against: whose figure it is divided by, in a ratio.
        kind: "layer" or "model". place: "768x768", "roberta-base:query", or a model of the table.
        tokens: rows that pass the layer. dtype: of base weights and activations.
    """

    quantity: str
    options: Setting = ()
    subject: Subject | None = None
    against: Subject | None = None
    kind: Literal["layer", "model"] = "layer"
    place: str = ""
    tokens: int = 16
    dtype: str = "float32"

    def changed(self, axis: str, value: Value) -> Point:
        """The point with one axis at another value.

        Axes: ``d`` (a square layer of that width), ``layer``, ``model``, ``tokens``, ``dtype``,
        ``quantity.<option>``, ``subject.<hyperparameter or argument>``, ``against.<likewise>``, and
        ``subject.targets`` or ``against.targets``.

        Raises:
            UserError: there is no such axis.
        """
        head, dot, name = axis.partition(".")
        if dot and name:
            if head == "quantity":
                return replace(self, options=put(self.options, name, value))
            if head == "subject" and self.subject is not None:
                return replace(self, subject=_changed(self.subject, name, value))
            if head == "against" and self.against is not None:
                return replace(self, against=_changed(self.against, name, value))
        elif axis == "d":
            return replace(self, kind="layer", place=f"{value}x{value}")
        elif axis == "layer":
            return replace(self, kind="layer", place=str(value))
        elif axis == "model":
            return replace(self, kind="model", place=str(value))
        elif axis == "tokens":
            return replace(self, tokens=value)  # type: ignore[arg-type]  # check_point refuses what is no integer
        elif axis == "dtype":
            return replace(self, dtype=str(value))
        raise UserError(
            f"axis {axis!r} is not known here; use d, layer, model, tokens, dtype, quantity.<option>, "
            "subject.<name> or against.<name>"
        )

    def at(self, values: Setting) -> Point:
        """The point with several axes changed."""
        point = self
        options = {axis.removeprefix("quantity."): v for axis, v in values if axis.startswith("quantity.")}
        if options:  # at once: a claim may leave half a dozen of them open
            point = replace(point, options=tuple(sorted({**dict(self.options), **options}.items())))
        for axis, value in values:
            if not axis.startswith("quantity."):
                point = point.changed(axis, value)
        return point

    def option(self, name: str) -> Value:
        """An option of the quantity."""
        return dict(self.options)[name]


def put(values: Setting, name: str, value: Value) -> Setting:
    """``values`` with one set, sorted by name."""
    return tuple(sorted({**dict(values), name: value}.items()))


def _changed(subject: Subject, name: str, value: Value) -> Subject:
    if name == "targets" and isinstance(subject, MethodSubject):
        return replace(subject, targets=value if isinstance(value, tuple) else (str(value),))
    return replace(subject, values=put(subject.values, name, value))
