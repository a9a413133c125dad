"""Whose work is it, the adapter's or the base's? Ranges in a profile that tell them apart.

Inside :func:`scoped` an adapted layer runs under ``cdvft_bench::adapter``, the layer that it adapts
under ``cdvft_bench::base``, and so does the rest of a model. The innermost range counts. A backward operator belongs
where its forward operator ran: torch.profiler gives both the same sequence number, and
``timing.traces.events.attribution`` follows it. Storing a gradient belongs to the node that made the gradient, after
which the engine does it at once.

What cannot be told apart, and stands under "neither":

- what runs outside the module: the loss, the optimiser's update, gradients that are zeroed;
- a replayed CUDA graph, whose kernels all come from one launching call, and compiled code, which
  fuses across the border;
- on a GPU, kernels whose launching call the trace has lost.

Two things are told by a rule. Where the base of an adapted layer and its adapter both send a
gradient to the layer's input, the sum of the two is the adapter's: alone, the base would need none.
(Where several layers share an input, the frozen model sums too, so up to one sum an adapted layer
may be the base's.) A method that multiplies with the base's weight itself, without calling the base
layer (BOFT, a merged weight), has that product under "adapter": ``Scoping.bypassing`` names such layers.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.profiler import record_function

from cdvft_bench.timing.traces.events.attribution import ADAPTER, BASE

_BASES = ("base", "base_layer")  # attributes under which adapted layers keep what they adapt


@dataclass
class Scoping:
    """What was wrapped.

    Attributes:
        adapted: names of the adapted layers; "" is the module itself.
        bypassing: those of them that ran without calling their base layer.
    """

    adapted: tuple[str, ...]
    _ran: set[str] = field(default_factory=set)
    _called: set[str] = field(default_factory=set)

    @property
    def bypassing(self) -> tuple[str, ...]:
        return tuple(name for name in self.adapted if name in self._ran and name not in self._called)


@contextmanager
def scoped(module: nn.Module) -> Iterator[Scoping]:
    """Run a module's parts under their ranges while the block lasts; the module is as before afterwards.

    A range costs some microseconds a call even when nothing profiles, so trace inside the block and
    time outside of it.

    Args:
        module: an adapted layer (one with a submodule ``base`` or ``base_layer``), a model with such
            layers, or one without any: then all of it is the base.
    """
    layers = {name: m for name, m in module.named_modules() if _base_of(m) is not None}
    scoping = Scoping(tuple(layers))
    wrapped: list[tuple[nn.Module, Any]] = []

    def wrap(part: nn.Module, range_: str, seen: Callable[[], None]) -> None:
        forward = part.forward

        def run(*args: Any, **kwargs: Any) -> Any:
            seen()
            with record_function(range_):
                return forward(*args, **kwargs)

        before = part.__dict__.get("forward")
        # A path that need not call a plain base need not call it here: what is traced is what runs (execution.base).
        run.only_watches = before is None or getattr(before, "only_watches", False)  # type: ignore[attr-defined]
        wrapped.append((part, before))
        part.forward = run

    try:
        if "" not in layers:
            wrap(module, BASE, lambda: None)
        for name, layer in layers.items():
            base = _base_of(layer)
            assert base is not None
            # A base that is itself an adapted layer has its own turn.
            if _base_of(base) is None:
                wrap(base, BASE, lambda name=name: scoping._called.add(name))  # type: ignore[misc]
            else:
                scoping._called.add(name)
            wrap(layer, ADAPTER, lambda name=name: scoping._ran.add(name))  # type: ignore[misc]
        yield scoping
    finally:
        for part, forward in reversed(wrapped):
            if forward is None:
                del part.forward
            else:
                part.forward = forward


def _base_of(module: nn.Module) -> nn.Module | None:
    for name in _BASES:
        child = module._modules.get(name)
        if child is not None:
            return child
    return None
