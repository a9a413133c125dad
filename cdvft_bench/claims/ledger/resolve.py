"""From the names in a ledger to the things they mean: methods on a layer, layers of a model, imported objects."""

import importlib
import inspect
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from cdvft_bench.analytic.linear import LinearShape, itemsize
from cdvft_bench.analytic.models import Rows, layer_shape, model_shape, target_linears
from cdvft_bench.claims.ledger.point import MethodSubject, ModuleSubject, Point, Subject
from cdvft_bench.claims.ledger.quantities import Quantity, check_option
from cdvft_bench.core.errors import UserError
from cdvft_bench.methods import Method, make_method

FROZEN = "frozen"
ALL = ("all",)


@contextmanager
def importable_from(folder: Path) -> Iterator[None]:
    """Let modules in ``folder`` be imported, after everything that is installed."""
    entry = str(folder.resolve())
    sys.path.append(entry)
    try:
        yield
    finally:
        sys.path.remove(entry)


@cache
def load_object(path: str, folder: Path) -> Any:
    """What "package.module:name" names, importable from the environment or from ``folder``.

    Raises:
        UserError: it does not import, is not there, or cannot be called.
    """
    module, colon, name = path.partition(":")
    if not (module and colon and name):
        raise UserError(f'{path!r} must be "package.module:name"')
    try:
        with importable_from(folder):
            found = getattr(importlib.import_module(module), name)
    except (Exception, SystemExit) as error:  # whatever a foreign module does at import is the ledger author's to mend
        cause = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise UserError(
            f"module {path!r} does not import ({cause}); install it, or put it in the ledger's folder"
        ) from error
    if not callable(found):
        raise UserError(f"{path!r} cannot be called; name a class or a function")
    return found


def shape_name(shape: LinearShape) -> str:
    """The layer's name as ``layer_shape`` reads it."""
    return f"{shape.d_in}x{shape.d_out}" + ("" if shape.bias else "-nobias")


@cache
def method_on(subject: MethodSubject, shape: LinearShape) -> Method | None:
    """The method with its hyperparameters as they are on a layer; None for the frozen layer.

    Raises:
        UserError: name or hyperparameters are unknown, or do not fit the layer.
    """
    from cdvft_bench.sweep.grid import make_case

    case = make_case(subject.name, dict(subject.values), "layer", shape_name(shape))  # type: ignore[arg-type]
    return None if case.method == FROZEN else make_method(case.method, dict(case.hyperparameters))


def factors_of(subject: Subject) -> int:
    """Circulant factors of a method, for figures that are stated a factor.

    Raises:
        UserError: the subject has none.
    """
    if isinstance(subject, MethodSubject):
        if subject.name == "block_circulant":
            return 1
        if subject.name == "cdvft":
            m = dict(subject.values).get("m", 2)
            if isinstance(m, int) and m > 1:
                return m - 1
    raise UserError("per_factor divides by the circulant factors of cdvft (m >= 2) or block_circulant; leave it out")


def targets_of(subject: Subject) -> tuple[str, ...]:
    """Endings of the modules that a subject adapts; none for the model's default."""
    return subject.targets if isinstance(subject, MethodSubject) else ()


@cache
def layers(kind: str, place: str, targets: tuple[str, ...]) -> tuple[tuple[LinearShape, Rows, int], ...]:
    """Shapes of the layers at a place, what passes through them, and how many there are of each.

    Raises:
        UserError: the place is not known, or the targets match none of its layers.
    """
    if kind == "layer":
        return ((layer_shape(place), "tokens", 1),)
    shape = model_shape(place)
    if targets == ALL:
        chosen = [x for x in shape.linears if x.rows == "tokens" and x.name != "lm_head"]
    else:
        chosen = target_linears(shape, targets)
    return tuple((s, rows, n) for (s, rows), n in Counter((x.shape, x.rows) for x in chosen).items())


def check_point(point: Point, spec: Quantity, folder: Path) -> None:
    """Raise UserError unless everything that the point names is known and fits together."""
    for key, value in point.options:
        check_option(point.quantity, key, value)
        if spec.free and key in spec.options:
            load_object(str(value), folder)
    itemsize(point.dtype)
    if isinstance(point.tokens, bool) or not isinstance(point.tokens, int) or point.tokens < 1:
        raise UserError(f"tokens = {point.tokens!r} must be an integer >= 1")
    if point.kind == "model" and not spec.on_models:
        raise UserError(f"quantity {point.quantity!r} is measured on a layer, not on a model; give 'layer'")
    for subject in (point.subject, point.against):
        if isinstance(subject, ModuleSubject):
            _check_call(subject, folder)
            if not spec.needs_place or "count" not in spec.sources:
                raise UserError(f"quantity {point.quantity!r} is recorded for methods of the suite only")
        elif subject is not None:
            places = (
                layers(point.kind, point.place, subject.targets)
                if point.place
                else ((layer_shape("64x64"), "tokens", 1),)
            )
            for shape, _, _ in places:
                method_on(subject, shape)


def _check_call(subject: ModuleSubject, folder: Path) -> None:
    cls = load_object(subject.module, folder)
    first: tuple[Any, ...] = (None,) if subject.build == "base" else (1, 1)
    try:
        signature = inspect.signature(cls)
    except (TypeError, ValueError):  # a class written in C says nothing about its arguments
        return
    try:
        signature.bind(*first, **dict(subject.values))
    except TypeError as error:
        names = ", ".join(name for name, _ in subject.values)
        how = "Class(linear" if subject.build == "base" else "Class(d_in, d_out"
        raise UserError(f"module {subject.module!r} cannot be called as {how}, {names or '...'}): {error}") from error
