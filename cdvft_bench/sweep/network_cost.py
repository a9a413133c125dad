"""The cost of an adapter on any network: what the base does is counted, what the adapter adds is the closed form.

The network runs once without its numbers, frozen, and is counted by module. Where a layer is adapted, its own count is
taken out and the closed form of the adapted layer, at the layer's own widths and rows, stands in for it as often as it
is called; the closed form of the frozen layer must equal what was taken out, or a note says that it does not.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from cdvft_bench.analytic.conventions import CONVENTIONS
from cdvft_bench.analytic.cost import Cost, total
from cdvft_bench.analytic.kernels import Kernel, Kernels, times
from cdvft_bench.analytic.linear import LinearShape
from cdvft_bench.core.counted import CountedNetwork, ModuleCount, PassCount
from cdvft_bench.core.errors import UserError
from cdvft_bench.core.record import PredictedPass
from cdvft_bench.methods import Method
from cdvft_bench.sweep.evaluate import summed
from cdvft_bench.sweep.model_cost import layer_cost

ALL_LINEAR = "all-linear"


@dataclass(frozen=True)
class NetworkCost:
    """An adapter on a network.

    Attributes:
        method: its label, "frozen" for none. adapted: names of the adapted layers, in order.
        total_parameters: of the base. parameters: trainable ones.
        forward, backward, update: passes of the whole; conventions price the base's transforms as counted.
        base: counted, frozen. saved_bytes: kept for backward, at most: inputs that layers share count once a layer.
        optimizer_bytes: of AdamW. notes: what was not seen, or differs.
    """

    method: str
    adapted: tuple[str, ...]
    total_parameters: int
    parameters: int
    forward: PredictedPass
    backward: PredictedPass
    update: PredictedPass
    base: CountedNetwork
    saved_bytes: int
    optimizer_bytes: int
    notes: tuple[str, ...] = ()


def select_targets(
    modules: Iterable[ModuleCount], targets: Sequence[str], head: frozenset[str] = frozenset()
) -> list[ModuleCount]:
    """The layers that PEFT would adapt.

    Args:
        modules: of a network. targets: "all-linear" (without ``head``); or names and endings of names; or one regular
            expression of whole names.
        head: names of output layers.

    Raises:
        UserError: a target selects nothing, or selects no linear layer alone.
    """
    every = [m for m in modules if m.name]
    linear = [m for m in every if m.linear is not None]
    if list(targets) == [ALL_LINEAR]:
        chosen = [m for m in linear if m.name not in head]
        if not chosen:
            raise UserError("targets all-linear match nothing: the network has no linear layer")
        return chosen
    if not targets:
        raise UserError(f"give --targets: names of layers to adapt, or {ALL_LINEAR}; {_endings(linear)}")
    found: dict[str, ModuleCount] = {}
    for target in targets:
        hits = [m for m in every if m.name == target or m.name.endswith("." + target)]
        if not hits:
            try:
                hits = [m for m in every if re.fullmatch(target, m.name)]
            except re.error as error:
                raise UserError(
                    f"target {target!r} is no name of a layer, and no regular expression: {error}"
                ) from error
        if not hits:
            raise UserError(f"target {target!r} matches no module; {_endings(linear)}")
        fitting = [m for m in hits if m.linear is not None]
        if not fitting:
            kinds = ", ".join(sorted({m.kind for m in hits}))
            raise UserError(f"target {target!r} matches no linear layer, only {kinds}; {_endings(linear)}")
        found |= {m.name: m for m in fitting}
    return [m for m in linear if m.name in found]


def _endings(linear: Sequence[ModuleCount]) -> str:
    names = sorted({m.name.rsplit(".", 1)[-1] for m in linear})
    return f"its linear layers end in: {', '.join(names)}" if names else "it has no linear layer"


def network_cost(
    counted: CountedNetwork, method: Method | None, chosen: Sequence[ModuleCount], dtype: str, *, device: str
) -> NetworkCost:
    """Cost of a method on the chosen layers of a counted, frozen network.

    Args:
        counted: down to the embeddings. method: None for the frozen network. chosen: see :func:`select_targets`; of a
            method that trains everything, every linear layer.
        dtype: of base and activations. device: "cpu" or "cuda".

    Raises:
        UserError: the method does not fit a layer.
    """
    notes = list(counted.notes)
    base_forward, base_backward = counted.forward, counted.backward or PassCount(0, 0, 0, 0, 0)
    if counted.backward is None:
        notes.append("the backward pass is that of the adapters alone")
    forward: Kernels = ()
    backward: Kernels = ()
    costs = Cost(0, 0)
    everything = method is not None and method.trains_all
    if everything:
        chosen = [m for m in counted.modules if m.linear is not None]
        notes.append("gradients of parameters outside linear layers (embeddings, norms, convolutions) are not counted")
    for m in chosen if method is not None else ():
        one, seen = _layer(m, method, dtype, device, notes)
        again = seen[0] > 0 and m.backward.macs == seen[0] + seen[1]  # computed again for a checkpoint
        if m.forward.macs != seen[0] or (m.backward.launches and not again and m.backward.macs != seen[1]):
            notes.append(
                f"{m.name}: {m.forward.macs:,} multiply-adds counted, {seen[0]:,} by the frozen layer's closed form"
            )
        base_forward = _less(base_forward, m.forward)
        base_backward = _less(base_backward, m.backward)
        forward += one.forward
        backward += (one.forward if again else ()) + (one.backward if m.backward.launches else ())
        costs = (
            replace(one, forward=(), backward=())
            if not costs.tensors
            else costs + replace(one, forward=(), backward=())
        )
    unseen = [m.name for m in chosen if not m.calls]
    if unseen:
        notes.append(f"{len(unseen)} adapted layers are never called on these inputs, as {unseen[0]}")
    parameters = counted.parameters if everything else int(costs.parameters)
    cost = replace(costs, parameters=parameters)
    for name, pass_ in (("forward", counted.forward), ("backward", counted.backward)):
        if pass_ is not None and pass_.unpriced:
            listed = ", ".join(f"{op} × {n}" for op, n in pass_.unpriced.items())
            notes.append(
                f"{name}: {sum(pass_.unpriced.values())} of {pass_.launches:,} launches have no price: {listed}"
            )
    return NetworkCost(
        method.label if method is not None else "frozen",
        tuple(m.name for m in chosen) if method is not None and not everything else (),
        counted.parameters,
        parameters,
        _whole(base_forward, forward),
        _whole(base_backward, backward),
        summed(cost.update),
        counted,
        counted.saved_bytes + int(costs.saved_bytes),
        int(cost.optimizer_bytes) if parameters else 0,
        tuple(dict.fromkeys(notes)),
    )


def _layer(
    m: ModuleCount, method: Method | None, dtype: str, device: str, notes: list[str]
) -> tuple[Cost, tuple[int, int]]:
    """Cost of an adapted layer in all of its calls, its parameters once; and products of the frozen one."""
    assert m.linear is not None
    shape = LinearShape(*m.linear)
    whole: Cost | None = None
    seen = [0, 0]
    for rows, calls in m.rows or ((1, 0),):
        try:
            one = layer_cost(shape, max(rows, 1), dtype, method, device=device)
        except UserError as error:
            raise UserError(f"layer {m.name!r}: {error}") from error
        frozen = layer_cost(shape, max(rows, 1), dtype, None, device=device)
        seen[0] += calls * int(total(frozen.forward).macs)
        seen[1] += calls * int(total(frozen.backward).macs)
        kernels = (times(one.forward, calls), times(one.backward, calls))
        saved = int(one.saved_bytes) * calls
        if whole is None:
            whole = replace(one, forward=kernels[0], backward=kernels[1], saved_bytes=saved)
        else:
            whole = replace(
                whole,
                forward=whole.forward + kernels[0],
                backward=whole.backward + kernels[1],
                saved_bytes=int(whole.saved_bytes) + saved,
            )
    assert whole is not None
    return whole, (seen[0], seen[1])


def _less(whole: PassCount, part: PassCount) -> PassCount:
    return replace(
        whole,
        macs=whole.macs - part.macs,
        elementwise_flops=whole.elementwise_flops - part.elementwise_flops,
        ffts=whole.ffts - part.ffts,
        fft_flops=whole.fft_flops - part.fft_flops,
        launches=whole.launches - part.launches,
        read=whole.read - part.read,
        written=whole.written - part.written,
        operators={k: n for k, v in whole.operators.items() if (n := v - part.operators.get(k, 0))},
    )


def _whole(base: PassCount, kernels: Kernels) -> PredictedPass:
    """A pass of what was counted of the base, and of closed forms."""
    # One kernel stands for all of the base, so that conventions price its arithmetic; its launches are added below.
    priced = Kernel(
        "base",
        "matmul",
        macs=base.macs,
        flops=base.elementwise_flops,
        read=base.read,
        written=base.written,
        scope="base",
    )
    found = summed((priced, *kernels))
    operators = dict(found.operators)
    operators.pop("base", None)
    for name, n in base.operators.items():
        operators[name] = operators.get(name, 0) + n
    transforms = {c: base.fft_flops if c not in ("mac", "paper") else 0.0 for c in CONVENTIONS}
    return replace(
        found,
        launches=found.launches - 1 + base.launches,
        ffts=found.ffts + base.ffts,
        flops={c: v + transforms[c] for c, v in found.flops.items()},
        fft_flops={c: v + transforms[c] for c, v in found.fft_flops.items()},
        operators=dict(sorted(operators.items())),
    )
