"""The second witness: modules are built, run and watched."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cdvft_bench.analytic.conventions import convention
from cdvft_bench.analytic.linear import LinearShape
from cdvft_bench.claims.ledger.point import MethodSubject, ModuleSubject, Point, Subject
from cdvft_bench.claims.ledger.quantities import QUANTITIES, TALLIED
from cdvft_bench.claims.ledger.resolve import FROZEN, layers, load_object, method_on, shape_name, targets_of
from cdvft_bench.claims.ledger.terms import Value
from cdvft_bench.claims.sources.analytic import TRANSFORMS, factors_of
from cdvft_bench.claims.sources.availability import Silent
from cdvft_bench.claims.sources.pricing import Terms, Transform, fft_flops, price
from cdvft_bench.claims.sources.watch import count_terms, largest_allocation, watch_transforms
from cdvft_bench.core.counted import PassCount
from cdvft_bench.core.errors import UserError
from cdvft_bench.counting.count import trainable_parameters
from cdvft_bench.counting.dispatch import count_dispatch
from cdvft_bench.counting.saved import saved_bytes
from cdvft_bench.timing.built import prepared, random_linear

LEARNING_RATE = 1e-3

_FROZEN = MethodSubject(FROZEN)


@dataclass(frozen=True)
class Passes:
    """A layer's forward and backward pass as they ran, and the FFTs of each."""

    forward: PassCount
    backward: PassCount
    forward_ffts: tuple[Transform, ...]
    backward_ffts: tuple[Transform, ...]
    saved_bytes: int


@dataclass
class Count:
    """Speaks by running things. What was seen of a subject on a layer is kept for the next claim.

    Attributes:
        folder: of the ledger.
    """

    folder: Path
    _passes: dict[tuple[Subject, LinearShape, int, str], Passes] = field(default_factory=dict)
    _terms: dict[tuple[Subject, LinearShape, int, str], Terms] = field(default_factory=dict)
    _parameters: dict[tuple[Subject, LinearShape, str], int] = field(default_factory=dict)

    def say(self, point: Point, subject: Subject | None) -> tuple[float, ...]:
        """The quantity's figure for a subject at a point, summed over the layers of a model.

        Raises:
            Silent: the counter cannot price what ran.
            UserError: a foreign module or function fails.
        """
        if subject is None:
            return (_difference(point, self.folder) if point.quantity == "difference" else _figure(point, self.folder),)
        totals: list[float] = []
        for shape, rows, n in layers(point.kind, point.place, targets_of(subject)):
            tokens = point.tokens if rows == "tokens" else 1
            try:
                values = self._on_layer(point, subject, shape, tokens)
            except (UserError, Silent):
                raise
            except Exception as error:
                raise UserError(
                    f"{_name(subject)} failed on a {shape_name(shape)} layer with {tokens} tokens: "
                    f"{type(error).__name__}: {' '.join(str(error).split())}"
                ) from error
            totals = [a + n * b for a, b in zip(totals or [0.0] * len(values), values, strict=True)]
        return tuple(totals)

    def _on_layer(self, point: Point, subject: Subject, shape: LinearShape, tokens: int) -> tuple[float, ...]:
        options = dict(point.options)
        name, dtype = point.quantity, point.dtype
        if name == "parameters":
            key = (subject, shape, dtype)
            if key not in self._parameters:
                self._parameters[key] = trainable_parameters(self.build(subject, shape, dtype))
            return (float(self._parameters[key]),)
        if name == "priced_flops":
            return (price(self.terms(subject, shape, tokens, dtype), options, tokens),)
        if name == "largest_allocation":
            return (self._largest(subject, shape, tokens, dtype),)
        if name == "gradient_ratio":
            return (self._gradient_ratio(subject, shape, tokens, dtype, options),)
        if name == "step_ratio":
            return (self._step_ratio(subject, shape, tokens, dtype, options),)
        passes = self.passes(subject, shape, tokens, dtype)
        if name == "saved_bytes":
            return (float(passes.saved_bytes),)
        counted, ffts = _of_pass(passes, options)
        if name == "transforms":
            divisor = factors_of(subject) if options["per_factor"] else 1
            return tuple(counted.operators.get(op, 0) / divisor for op in TRANSFORMS)
        alone = _zero()
        if options["scope"] == "adapter" and not (isinstance(subject, ModuleSubject) and subject.build == "widths"):
            alone = _of_pass(self.passes(_FROZEN, shape, tokens, dtype), options)[0]
        if name == "launches":
            return (float(counted.launches - alone.launches),)
        if counted.unpriced:
            operators = ", ".join(f"{op} x {n}" for op, n in counted.unpriced.items())
            raise Silent(f"the counter has no price for {operators}", "price them in counting/dispatch.py")
        return (_flops(counted, ffts, str(options["convention"])) - _flops(alone, (), str(options["convention"])),)

    # --- building and running --------------------------------------------------------------

    def build(self, subject: Subject, shape: LinearShape, dtype: str) -> nn.Module:
        """A subject's layer with random weights, by the rule of ``timing.built``."""
        kind = getattr(torch, dtype)
        d_in, d_out = int(shape.d_in), int(shape.d_out)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            if isinstance(subject, ModuleSubject) and subject.build == "widths":
                module = load_object(subject.module, self.folder)(d_in, d_out, **dict(subject.values)).to(kind)
            else:
                module = self._around(subject, shape, random_linear(d_in, d_out, bias=shape.bias, dtype=kind))
        if not isinstance(module, nn.Module):
            raise UserError(f"{_name(subject)} gives a {type(module).__name__}; it must give an nn.Module")
        return prepared(module)

    def _around(self, subject: Subject, shape: LinearShape, base: nn.Linear) -> Any:
        if isinstance(subject, ModuleSubject):
            return load_object(subject.module, self.folder)(base, **dict(subject.values))
        method = method_on(subject, shape)
        return base if method is None else method.adapt_linear(base)

    def passes(self, subject: Subject, shape: LinearShape, tokens: int, dtype: str) -> Passes:
        """Both passes of a subject's layer inside a network: its input needs a gradient."""
        key = (subject, shape, tokens, dtype)
        if key not in self._passes:
            module, x = self.build(subject, shape, dtype), _input(shape, tokens, dtype)
            with watch_transforms() as forward_ffts, count_dispatch() as forward:
                kept, y = saved_bytes(module, lambda: module(x))
            gradient = torch.randn_like(y)
            with watch_transforms() as backward_ffts, count_dispatch() as backward:
                y.backward(gradient)
            self._passes[key] = Passes(
                forward.result(), backward.result(), tuple(forward_ffts.found), tuple(backward_ffts.found), kept
            )
        return self._passes[key]

    def terms(self, subject: Subject, shape: LinearShape, tokens: int, dtype: str) -> Terms:
        """Terms of the change's forward pass, see ``claims.pricing``."""
        key = (subject, shape, tokens, dtype)
        if key not in self._terms:
            module = self.build(subject, shape, dtype)
            own = isinstance(subject, ModuleSubject) and subject.build == "widths"
            frozen = None if own else self.build(_FROZEN, shape, dtype)
            self._terms[key] = count_terms(module, frozen, _input(shape, tokens, dtype).detach())
        return self._terms[key]

    def _largest(self, subject: Subject, shape: LinearShape, tokens: int, dtype: str) -> float:
        module, x = self.build(subject, shape, dtype), _input(shape, tokens, dtype)
        gradient = torch.randn(1, tokens, int(shape.d_out), dtype=x.dtype)

        def call() -> None:
            module.zero_grad(set_to_none=True)
            x.grad = None
            module(x).backward(gradient)

        return largest_allocation(call) / (int(shape.weights) * x.element_size())

    # --- gradients and steps ---------------------------------------------------------------

    def _backward(
        self, subject: Subject, shape: LinearShape, tokens: int, dtype: str, options: dict[str, Value]
    ) -> tuple[nn.Module, Tensor]:
        """A module with gradients, and a dense weight's gradient (d_out, d_in) for the same input and upstream."""
        module, x = self.build(subject, shape, dtype), _input(shape, tokens, dtype).detach()
        gradient = torch.randn(1, tokens, int(shape.d_out), dtype=x.dtype, generator=torch.Generator().manual_seed(2))
        if options["gradient"] == "alike":
            x, gradient = torch.ones_like(x), torch.ones_like(gradient)
        module(x).backward(gradient)
        return module, gradient[0].T @ x[0]

    def _gradient_ratio(
        self, subject: Subject, shape: LinearShape, tokens: int, dtype: str, options: dict[str, Value]
    ) -> float:
        module, dense = self._backward(subject, shape, tokens, dtype, options)
        return _rms([p.grad for p in module.parameters() if p.grad is not None]) / _rms([dense])

    def _step_ratio(
        self, subject: Subject, shape: LinearShape, tokens: int, dtype: str, options: dict[str, Value]
    ) -> float:
        module, dense = self._backward(subject, shape, tokens, dtype, options)
        weight = nn.Parameter(torch.zeros_like(dense))
        weight.grad = dense
        optimizer = torch.optim.SGD if options["optimizer"] == "sgd" else torch.optim.Adam
        divisor = float(options["lr_divisor"])  # type: ignore[arg-type]
        eye = torch.eye(int(shape.d_in), dtype=dense.dtype)[None]
        with torch.no_grad():
            before = module(eye)
        optimizer([p for p in module.parameters() if p.grad is not None], lr=LEARNING_RATE / divisor).step()
        optimizer([weight], lr=LEARNING_RATE).step()
        with torch.no_grad():
            return _rms([module(eye) - before]) / _rms([weight])


def _returned(point: Point, folder: Path) -> list[Tensor]:
    """What each function that a quantity names returns for the further options, in float64."""
    options = dict(point.options)
    known = QUANTITIES[point.quantity].options
    arguments = {k: v for k, v in options.items() if k not in known}
    found = []
    for name in known:
        path = str(options[name])
        try:
            found.append(torch.as_tensor(load_object(path, folder)(**arguments)).double())
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"{path!r} failed: {type(error).__name__}: {' '.join(str(error).split())}") from error
    return found


def _figure(point: Point, folder: Path) -> float:
    (value,) = _returned(point, folder)
    if value.numel() != 1 or not bool(torch.isfinite(value)):
        raise UserError(f"{point.option('function')!r} returned {value.tolist()}; it must return one finite number")
    return float(value)


def _difference(point: Point, folder: Path) -> float:
    left, right = _returned(point, folder)
    if left.shape != right.shape:
        raise UserError(
            f"the two sides have shapes {tuple(left.shape)} and {tuple(right.shape)}; they must be the same"
        )
    norm = max(float(left.norm()), float(right.norm()))
    if not norm:
        raise UserError("both sides are zero: nothing is shown by their being equal; return something that is not")
    return float((left - right).norm()) / norm


def _name(subject: Subject) -> str:
    return f"module {subject.module!r}" if isinstance(subject, ModuleSubject) else f"method {subject.name!r}"


def _input(shape: LinearShape, tokens: int, dtype: str) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, tokens, int(shape.d_in), generator=generator, dtype=torch.float64).to(getattr(torch, dtype))
    return x.requires_grad_()


def _of_pass(passes: Passes, options: dict[str, Value]) -> tuple[PassCount, Sequence[Transform]]:
    if options["pass"] == "forward":
        return passes.forward, passes.forward_ffts
    return passes.backward, passes.backward_ffts


def _zero() -> PassCount:
    return PassCount(macs=0, elementwise_flops=0, ffts=0, fft_flops=0.0, launches=0)


def _flops(counted: PassCount, ffts: Sequence[Transform], name: str) -> float:
    """FLOPs of a pass at a convention's prices, from what was counted."""
    price_list = convention("flop" if name == TALLIED else name)
    work = price_list.mac * counted.macs + price_list.elementwise * counted.elementwise_flops
    each: Callable[[Transform], float]
    if name == TALLIED:
        each = lambda t: t.batch * fft_flops(t.dims, t.real, TALLIED, half=True)  # noqa: E731
    else:
        each = lambda t: float(price_list.fft(_points(t), t.batch, t.real))  # noqa: E731
    return work + sum(each(t) for t in ffts)


def _points(transform: Transform) -> int:
    n = 1
    for length in transform.dims:
        n *= length
    return n


def _rms(parts: Sequence[Tensor]) -> float:
    entries = torch.cat([p.detach().double().flatten() for p in parts])
    return float(entries.square().mean().sqrt())
