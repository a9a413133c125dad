"""The counted source: modules are built, run and watched. It shares no price and no closed form with ``analytic``."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cdvft_bench.analytic.linear import LinearShape
from cdvft_bench.claims.ledger.point import MethodSubject, ModuleSubject, Point, Subject
from cdvft_bench.claims.ledger.quantities import QUANTITIES
from cdvft_bench.claims.ledger.resolve import FROZEN, factors_of, layers, load_object, method_on, shape_name, targets_of
from cdvft_bench.claims.ledger.terms import Value
from cdvft_bench.claims.sources import watch
from cdvft_bench.claims.sources.source import ExactSource, NotAvailable
from cdvft_bench.core.counted import PassCount
from cdvft_bench.core.errors import UserError
from cdvft_bench.counting.count import saved_bytes, trainable_parameters
from cdvft_bench.counting.dispatch import count_dispatch
from cdvft_bench.counting.prices import Transform, flops_of
from cdvft_bench.timing.built import prepared, random_linear

LARGE = 2**21
"""Weights of a layer above which its operators run on tensors without data: the same operators, of the same shapes."""

KEPT = 64
"""Layers that are kept at a time."""

_FROZEN = MethodSubject(FROZEN)


@dataclass(frozen=True)
class Passes:
    """A layer's forward and backward pass as they ran, and the FFTs of each; ``saved_bytes`` None without data."""

    forward: PassCount
    backward: PassCount
    forward_ffts: tuple[Transform, ...]
    backward_ffts: tuple[Transform, ...]
    saved_bytes: int | None

    def of(self, options: dict[str, Value]) -> tuple[PassCount, Sequence[Transform]]:
        """The pass that the options name."""
        if options["pass"] == "forward":
            return self.forward, self.forward_ffts
        return self.backward, self.backward_ffts


@dataclass
class CountSource(ExactSource):
    """Gives figures by running things. Layers, and what was seen of them, are kept for the next claim.

    Attributes:
        folder: of the ledger.
    """

    folder: Path
    _modules: dict[tuple[Subject, LinearShape, str, str], nn.Module] = field(default_factory=dict)
    _passes: dict[tuple[Subject, LinearShape, int, str, str], Passes] = field(default_factory=dict)
    _observed: dict[tuple[Subject, LinearShape, int, str], watch.Observed] = field(default_factory=dict)
    _parameters: dict[tuple[Subject, LinearShape, str], int] = field(default_factory=dict)

    def value(self, point: Point, subject: Subject | None) -> tuple[float, ...]:
        """The quantity's figure for a subject at a point, summed over the layers of a model.

        Raises:
            NotAvailable: the counter cannot price what ran, or it cannot run here.
            UserError: a foreign module or function fails.
        """
        if subject is None:
            return (_difference(point, self.folder) if point.quantity == "difference" else _figure(point, self.folder),)
        totals: list[float] = []
        for shape, rows, n in layers(point.kind, point.place, targets_of(subject)):
            tokens = point.tokens if rows == "tokens" else 1
            try:
                values = self._on_layer(point, subject, shape, tokens)
            except (UserError, NotAvailable):
                raise
            except Exception as error:
                raise UserError(
                    f"{subject} failed on a {shape_name(shape)} layer with {tokens} tokens: "
                    f"{type(error).__name__}: {' '.join(str(error).split())}"
                ) from error
            totals = [a + n * b for a, b in zip(totals or [0.0] * len(values), values, strict=True)]
        return tuple(totals)

    def _on_layer(self, point: Point, subject: Subject, shape: LinearShape, tokens: int) -> tuple[float, ...]:
        options = dict(point.options)
        name, dtype = point.quantity, point.dtype
        if name == "parameters":
            return (float(self.parameters(subject, shape, dtype)),)
        if name == "priced_flops":
            return (watch.price(self.observed(subject, shape, tokens, dtype), options, tokens),)
        if name in ("largest_allocation", "resident_growth"):
            return (self._memory(name, subject, shape, tokens, dtype),)
        if name == "gradient_ratio":
            return (self._gradient_ratio(subject, shape, tokens, dtype, options["gradient"] == "alike"),)
        if name == "saved_bytes":
            kept = self.passes(subject, shape, tokens, dtype, "cpu").saved_bytes
            assert kept is not None
            return (float(kept),)
        device = "meta" if int(shape.weights) > LARGE else "cpu"
        counted, ffts = self.passes(subject, shape, tokens, dtype, device).of(options)
        if name == "transforms":
            divisor = factors_of(subject) if options["per_factor"] else 1
            return tuple(counted.operators.get(op, 0) / divisor for op in watch.FFTS)
        alone = PassCount(macs=0, elementwise_flops=0, ffts=0, fft_flops=0.0, launches=0)
        if options["scope"] == "adapter" and not _is_whole(subject):
            alone = self.passes(_FROZEN, shape, tokens, dtype, device).of(options)[0]
        if name == "launches":
            return (float(counted.launches - alone.launches),)
        if counted.unpriced:
            operators = ", ".join(f"{op} x {n}" for op, n in counted.unpriced.items())
            raise NotAvailable(
                f"the counter has no price for {operators}",
                "register their price: cdvft_bench.counting.operator_prices.register_price",
            )
        convention = str(options["convention"])
        return (flops_of(counted, ffts, convention) - flops_of(alone, (), convention),)

    # --- building and running --------------------------------------------------------------

    def build(self, subject: Subject, shape: LinearShape, dtype: str, device: str = "cpu") -> nn.Module:
        """A subject's layer with random weights, by the rule of ``timing.built``; on "meta" it has operators alone."""
        kind = getattr(torch, dtype)
        d_in, d_out = int(shape.d_in), int(shape.d_out)
        with torch.random.fork_rng(devices=[]), torch.device(device):
            torch.manual_seed(0)
            if _is_whole(subject):
                assert isinstance(subject, ModuleSubject)
                module = load_object(subject.module, self.folder)(d_in, d_out, **dict(subject.values)).to(kind)
            elif device == "meta":
                base = nn.Linear(d_in, d_out, bias=shape.bias, dtype=kind).requires_grad_(False)
                module = self._around(subject, shape, base)
            else:
                module = self._around(subject, shape, random_linear(d_in, d_out, bias=shape.bias, dtype=kind))
        if not isinstance(module, nn.Module):
            raise UserError(f"{subject} gives a {type(module).__name__}; it must give an nn.Module")
        if device != "meta":
            return prepared(module)
        for part in module.train().modules():
            if isinstance(part, nn.Dropout):
                part.p = 0.0
        return module

    def built(self, subject: Subject, shape: LinearShape, dtype: str, device: str = "cpu") -> nn.Module:
        """A layer as :meth:`build` makes it, kept: whoever runs it must not change its weights."""
        key = (subject, shape, dtype, device)
        if key not in self._modules:
            if len(self._modules) >= KEPT:
                self._modules.clear()
            self._modules[key] = self.build(subject, shape, dtype, device)
        return self._modules[key]

    def _around(self, subject: Subject, shape: LinearShape, base: nn.Linear) -> Any:
        if isinstance(subject, ModuleSubject):
            return load_object(subject.module, self.folder)(base, **dict(subject.values))
        method = method_on(subject, shape)
        return base if method is None else method.adapt_linear(base)

    def parameters(self, subject: Subject, shape: LinearShape, dtype: str) -> int:
        """Trained entries of a subject's layer, built without data where it can be."""
        key = (subject, shape, dtype)
        if key not in self._parameters:
            own = isinstance(subject, ModuleSubject)  # it may look at its weights, and what it prints stays one line
            try:
                module = self.build(subject, shape, dtype, "cpu" if own else "meta")
            except (RuntimeError, NotImplementedError):
                module = self.build(subject, shape, dtype)
            self._parameters[key] = trainable_parameters(module)
        return self._parameters[key]

    def passes(self, subject: Subject, shape: LinearShape, tokens: int, dtype: str, device: str) -> Passes:
        """Both passes of a subject's layer inside a network: its input needs a gradient."""
        key = (subject, shape, tokens, dtype, device)
        if key not in self._passes:
            try:
                self._passes[key] = self._run(subject, shape, tokens, dtype, device)
            except (RuntimeError, NotImplementedError):
                if device == "cpu":
                    raise
                self._passes[key] = self.passes(subject, shape, tokens, dtype, "cpu")
        return self._passes[key]

    def _run(self, subject: Subject, shape: LinearShape, tokens: int, dtype: str, device: str) -> Passes:
        module, x = self.built(subject, shape, dtype, device), _input(shape, tokens, dtype, device)
        module.zero_grad(set_to_none=True)
        with watch.watch_transforms() as forward_ffts, count_dispatch() as forward:
            kept, y = saved_bytes(module, lambda: module(x))
        gradient = torch.randn_like(y)
        with watch.watch_transforms() as backward_ffts, count_dispatch() as backward:
            y.backward(gradient)
        return Passes(
            forward.result(),
            backward.result(),
            tuple(forward_ffts.found),
            tuple(backward_ffts.found),
            None if device == "meta" else kept,
        )

    def observed(self, subject: Subject, shape: LinearShape, tokens: int, dtype: str) -> watch.Observed:
        """What the change's forward pass consists of."""
        key = (subject, shape, tokens, dtype)
        if key not in self._observed:
            module = self.built(subject, shape, dtype)
            frozen = None if _is_whole(subject) else self.built(_FROZEN, shape, dtype)
            x = torch.ones(1, tokens, int(shape.d_in), dtype=getattr(torch, dtype))  # what runs does not hang on values
            self._observed[key] = watch.observe(module, frozen, x)
        return self._observed[key]

    def _memory(self, name: str, subject: Subject, shape: LinearShape, tokens: int, dtype: str) -> float:
        module, x = self.build(subject, shape, dtype), _input(shape, tokens, dtype)
        gradient = torch.randn(1, tokens, int(shape.d_out), dtype=x.dtype)

        def call() -> None:
            module.zero_grad(set_to_none=True)
            x.grad = None
            module(x).backward(gradient)

        if name == "largest_allocation":
            return watch.largest_allocation(call) / (int(shape.weights) * x.element_size())
        small = LinearShape(64, 64, shape.bias)  # what a library loads at its first call is no weight change
        self.passes(subject, small, tokens, dtype, "cpu")
        return watch.resident_growth(call) / (int(shape.weights) * x.element_size())

    def _gradient_ratio(self, subject: Subject, shape: LinearShape, tokens: int, dtype: str, alike: bool) -> float:
        """RMS of the trained entries' gradients over a dense weight's, with the sign of the slope along them."""
        module, x = self.build(subject, shape, dtype), _input(shape, tokens, dtype).detach()
        gradient = torch.randn(1, tokens, int(shape.d_out), dtype=x.dtype, generator=torch.Generator().manual_seed(2))
        if alike:
            x, gradient = torch.ones_like(x), torch.ones_like(gradient)
        module(x).backward(gradient)
        trained = [(p, p.grad) for p in module.parameters() if p.grad is not None]
        ratio = _rms([g for _, g in trained]) / _rms([gradient[0].T @ x[0]])
        with torch.no_grad():
            before = module(x).double()
            step = 1e-3 * _rms([p for p, _ in trained]) / max(_rms([g for _, g in trained]), 1e-30)
            for p, g in trained:
                p.add_(g, alpha=step)
            rise = float(((module(x).double() - before) * gradient.double()).sum())
        return ratio if rise > 0 else -ratio


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
        except (UserError, NotAvailable):
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


def _is_whole(subject: Subject) -> bool:
    """Whether a subject is a layer by itself, not around a frozen one."""
    return isinstance(subject, ModuleSubject) and subject.build == "widths"


def _input(shape: LinearShape, tokens: int, dtype: str, device: str = "cpu") -> Tensor:
    kind = getattr(torch, dtype)
    if device == "meta":
        return torch.empty(1, tokens, int(shape.d_in), dtype=kind, device=device, requires_grad=True)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, tokens, int(shape.d_in), generator=generator, dtype=torch.float64).to(kind)
    return x.requires_grad_()


def _rms(parts: Sequence[Tensor]) -> float:
    entries = torch.cat([p.detach().double().flatten() for p in parts])
    return float(entries.square().mean().sqrt())
