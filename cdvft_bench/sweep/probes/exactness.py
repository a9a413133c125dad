"""Formula against count over random layers and settings: zero difference, or the method's closed form is wrong."""

from collections import Counter
from dataclasses import dataclass
from random import Random
from typing import Literal, get_args, get_origin

from cdvft_bench.analytic.cost import Cost, flops, total
from cdvft_bench.analytic.kernels import ITEMSIZE, Kernels
from cdvft_bench.analytic.linear import LinearShape
from cdvft_bench.core.counted import Counted, PassCount
from cdvft_bench.core.errors import UserError
from cdvft_bench.methods import Method, method_class
from cdvft_bench.methods._values import hints

DRAWS = 1000
"""Layers tried before a method is said to have no example."""


@dataclass(frozen=True)
class Exactness:
    """Cases of one method.

    Attributes:
        method: its name. cases: layers that were built, counted and compared.
        differences: one line each; empty where formula and count agree.
        constant: fields that took one value alone in all examples, so that nothing is known of others.
    """

    method: str
    cases: int
    differences: tuple[str, ...]
    constant: tuple[str, ...]


def check_method(name: str, cases: int = 40, path: str | None = None) -> Exactness:
    """Compare formula and count of a method on ``cases`` random layers.

    Args:
        name: of a registered method. path: the only way of executing it to draw; None draws all.

    Raises:
        UserError: the method is not known.
    """
    drawn = [draw_case(name, seed, path) for seed in range(cases)]
    found = [text for seed in range(cases) for text in check_case(name, seed, path)]
    return Exactness(name, cases, tuple(found), constant_fields(name, [case.method for case in drawn]))


def constant_fields(name: str, drawn: list[Method]) -> tuple[str, ...]:
    """Fields of which the settings hold one value alone, though they could hold more."""
    cls = method_class(name)
    return tuple(
        field
        for field, hint in hints(cls).items()
        if not (get_origin(hint) is Literal and len(get_args(hint)) == 1)
        and len({repr(getattr(method, field)) for method in drawn}) < 2
    )


@dataclass(frozen=True)
class LayerCase:
    """A method on one layer, its rows, and the dtype of its base."""

    method: Method
    layer: LinearShape
    tokens: int
    dtype: str

    def __str__(self) -> str:
        shape = f"{self.layer.d_in}x{self.layer.d_out}{'' if self.layer.bias else ' without a bias'}"
        return f"{self.method} on {shape}, {self.tokens} tokens, {self.dtype}"


def draw_case(name: str, seed: int, path: str | None = None) -> LayerCase:
    """A random layer and an example of the method that fits it; the same for the same arguments.

    Raises:
        UserError: no layer of many had an example.
    """
    cls = method_class(name)
    rng = Random(f"{name} {seed} {path}")
    for _ in range(DRAWS):
        layer = _draw_layer(rng)
        dtype = rng.choice(list(ITEMSIZE))
        tokens = rng.choice([1, *range(1, 20)])
        for method in cls.examples(rng, layer):
            if path is None or getattr(method, "path", None) == path:
                return LayerCase(method, layer, tokens, dtype)
    wanted = f" on the path {path}" if path else ""
    raise UserError(f"{name}.examples drew no setting{wanted} for any of {DRAWS} layers")


def _draw_layer(rng: Random) -> LinearShape:
    # Widths of many divisors, any widths, and now and then ones so small that shapes degenerate.
    step, most = rng.choice([(16, 4), (1, 60), (1, 60), (1, 60), (1, 3)])
    d_in = step * rng.randint(1, most)
    d_out = rng.choice([d_in, step * rng.randint(1, most)])
    return LinearShape(d_in, d_out, rng.random() < 0.5)


def check_case(name: str, seed: int, path: str | None = None) -> list[str]:
    """Draw a case, build it, and say where formula and count differ; nothing where this machine cannot build it."""
    case = draw_case(name, seed, path)
    if getattr(case.method, "path", None) == "native":
        import torch

        from cdvft_bench.execution import native

        if native.missing(torch.float32):
            return []
    return [f"seed {seed}: {text}" for text in check_layer(case)]


def check_layer(case: LayerCase) -> list[str]:
    """Build an adapted layer with random parameters, and say where formula and count differ."""
    import torch
    from torch import nn

    from cdvft_bench.counting.count import count_layer

    layer, dtype = case.layer, getattr(torch, case.dtype)
    base = nn.Linear(int(layer.d_in), int(layer.d_out), bias=layer.bias, dtype=dtype)
    module = case.method.adapt_linear(base)
    found = [] if case.method.writes_base else _written(module, base)
    for parameter in module.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.1)

    def rows(width: int) -> torch.Tensor:
        # Of like size, as the closed form of the compiled kernels assumes them to be.
        return torch.randn(1, case.tokens, width, dtype=dtype).sign() + torch.rand(1, case.tokens, width).to(dtype) / 2

    x = rows(int(layer.d_in)).requires_grad_()
    cost = case.method.cost(layer, case.tokens, case.dtype, device="cpu")
    return [f"{case}: {text}" for text in (*found, *differences(cost, count_layer(module, x, rows(int(layer.d_out)))))]


def _written(module: object, base: object) -> list[str]:
    from torch import nn

    assert isinstance(module, nn.Module)
    assert isinstance(base, nn.Module)
    own = {id(p) for p in base.parameters()}
    trained = [name for name, p in module.named_parameters() if p.requires_grad and id(p) in own]
    return [f"{', '.join(trained)} of the base is trained: the class must say writes_base = True"] if trained else []


def differences(cost: Cost, counted: Counted) -> list[str]:
    """Where a formula and a count differ, a line each."""
    pairs = [
        ("parameters", cost.parameters, counted.parameters),
        ("saved bytes", cost.saved_bytes, counted.saved_bytes),
    ]
    found = [f"{what}: formula {a}, counted {b}" for what, a, b in pairs if a != b]
    for name in ("forward", "backward", "update"):
        found += _compare_pass(name, getattr(cost, name), getattr(counted, name))
    if counted.fvcore is None:
        return [*found, f"fvcore: {counted.notes}"]
    sums = total(cost.forward)
    compared: list[tuple[str, object, object]] = [
        ("multiply-adds", sums.macs, counted.fvcore.macs),
        ("FFT FLOPs", _rounded(cost.forward), round(counted.fvcore.fft_flops, 3)),
        ("unsupported operators", {}, counted.fvcore.unsupported),
    ]
    return found + [f"fvcore: {what}: formula {a}, counted {b}" for what, a, b in compared if a != b]


def _compare_pass(name: str, kernels: Kernels, counted: PassCount | None) -> list[str]:
    if counted is None:
        return [f"{name}: not counted"] if kernels and total(kernels).launches else []
    sums = total(kernels)
    pairs = [
        ("operators", _operators(kernels), counted.operators),
        ("multiply-adds", sums.macs, counted.macs),
        ("element-wise FLOPs", sums.elementwise_flops, counted.elementwise_flops),
        ("transforms", sums.ffts, counted.ffts),
        ("FFT FLOPs", _rounded(kernels), round(counted.fft_flops, 3)),
        ("launches", sums.launches, counted.launches),
        ("bytes read", sums.read, counted.read),
        ("bytes written", sums.written, counted.written),
        ("unpriced", {}, counted.unpriced),
    ]
    return [f"{name}: {what}: formula {a}, counted {b}" for what, a, b in pairs if a != b]


def _rounded(kernels: Kernels) -> float:
    return round(float(flops(kernels, "flop", "fft")), 3)


def _operators(kernels: Kernels) -> dict[str, int]:
    found: Counter[str] = Counter()
    for kernel in kernels:
        found[kernel.op] += int(kernel.launches)
    return {name: n for name, n in sorted(found.items()) if n}
