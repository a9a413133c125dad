"""The cost of an adapter on any network: what the base does is counted, what the adapter adds is the closed form.

The network runs once without its numbers, frozen, and is counted by module. Where a layer is adapted, its own count is
taken out and the closed form of the adapted layer, at the layer's own widths and rows, stands in for it as often as it
is called; the closed form of the frozen layer must equal what was taken out, or a note says that it does not.
"""

import re
from collections import Counter
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


@dataclass(frozen=True)
class Adapted:
    """Closed forms that stand in for the counts of the adapted layers.

    Attributes:
        forward, backward: kernels of every call. cost: the rest of it (parameters, tensors, saved bytes), no kernels.
        names: of the layers. notes: what differs, or is not seen.
    """

    forward: Kernels
    backward: Kernels
    cost: Cost
    names: frozenset[str]
    notes: tuple[str, ...]


def adapted_layers(
    counted: CountedNetwork,
    method: Method | None,
    chosen: Sequence[ModuleCount],
    dtype: str,
    *,
    device: str,
    narrow: bool = False,
) -> Adapted:
    """Closed forms of the chosen layers of a counted, frozen network, see :func:`network_cost`.

    Raises:
        UserError: the method does not fit a layer.
    """
    if method is None:
        return Adapted((), (), Cost(0, 0), frozenset(), ())
    forward: Counter[Kernel] = Counter()
    backward: Counter[Kernel] = Counter()
    costs: list[Cost] = []
    notes: list[str] = []
    known: dict[object, tuple[Cost, tuple[int, int]]] = {}
    for m in chosen:
        key = (m.linear, m.rows)
        try:
            one, seen = known[key] = known.get(key) or _layer(m, method, dtype, device, narrow)
        except UserError as error:
            raise UserError(f"layer {m.name!r}: {error}") from error
        again = seen[0] > 0 and m.backward.macs == seen[0] + seen[1]  # computed again for a checkpoint
        if m.forward.macs != seen[0] or (m.backward.launches and not again and m.backward.macs != seen[1]):
            notes.append(
                f"{m.name}: {m.forward.macs:,} multiply-adds counted, {seen[0]:,} by the frozen layer's closed form"
            )
        forward.update(one.forward)
        backward.update((one.forward if again else ()) + (one.backward if m.backward.launches else ()))
        costs.append(replace(one, forward=(), backward=()))
    unseen = [m.name for m in chosen if not m.calls]
    if unseen:
        notes.append(f"{len(unseen)} adapted layers are never called on these inputs, as {unseen[0]}")
    return Adapted(
        tuple(kernel.times(n) for kernel, n in forward.items()),
        tuple(kernel.times(n) for kernel, n in backward.items()),
        sum(costs[1:], costs[0]) if costs else Cost(0, 0),
        frozenset(m.name for m in chosen),
        tuple(notes),
    )


def network_cost(
    counted: CountedNetwork,
    method: Method | None,
    chosen: Sequence[ModuleCount],
    dtype: str,
    *,
    device: str,
    narrow: bool = False,
    more: tuple[Kernels, Kernels] = ((), ()),
    update: Kernels | None = None,
) -> NetworkCost:
    """Cost of a method on the chosen layers of a counted, frozen network.

    Args:
        counted: down to the embeddings. method: None for the frozen network. chosen: see :func:`select_targets`; of a
            method that trains everything, every linear layer.
        dtype: of base and activations. device: "cpu" or "cuda".
        narrow: adapters are held in ``dtype``. more: what both passes do besides, see :func:`conversions`.
        update: the optimiser's kernels; None for AdamW's in its fused form.

    Raises:
        UserError: the method does not fit a layer.
    """
    notes = list(counted.notes)
    base_forward, base_backward = counted.forward, counted.backward or PassCount(0, 0, 0, 0, 0)
    if counted.backward is None:
        notes.append("the backward pass is that of the adapters alone")
    everything = method is not None and method.trains_all
    if everything:
        chosen = [m for m in counted.modules if m.linear is not None]
        notes.append("gradients of parameters outside linear layers (embeddings, norms, convolutions) are not counted")
    adapted = adapted_layers(counted, method, chosen, dtype, device=device, narrow=narrow)
    for m in chosen if method is not None else ():
        base_forward, base_backward = _less(base_forward, m.forward), _less(base_backward, m.backward)
    parameters = counted.parameters if everything else int(adapted.cost.parameters)
    cost = replace(adapted.cost, parameters=parameters)
    return NetworkCost(
        method.label if method is not None else "frozen",
        tuple(m.name for m in chosen) if method is not None and not everything else (),
        counted.parameters,
        parameters,
        _whole(base_forward, adapted.forward + more[0]),
        _whole(base_backward, adapted.backward + more[1]),
        summed(cost.update if update is None else update),
        counted,
        counted.saved_bytes + int(cost.saved_bytes),
        int(cost.optimizer_bytes) if parameters else 0,
        tuple(dict.fromkeys((*notes, *adapted.notes, *counted.unpriced))),
    )


def _layer(m: ModuleCount, method: Method, dtype: str, device: str, narrow: bool) -> tuple[Cost, tuple[int, int]]:
    """Cost of an adapted layer in all of its calls, its parameters once; and products of the frozen one."""
    assert m.linear is not None
    shape = LinearShape(*m.linear)
    seen = [0, 0]
    made: list[Cost] = []
    for rows, calls in m.rows or ((1, 0),):
        one = (_narrow if narrow else layer_cost)(shape, max(rows, 1), dtype, method, device=device)
        frozen = layer_cost(shape, max(rows, 1), dtype, None, device=device)
        seen[0] += calls * int(total(frozen.forward).macs)
        seen[1] += calls * int(total(frozen.backward).macs)
        kernels = (times(one.forward, calls), times(one.backward, calls))
        made.append(replace(one, forward=kernels[0], backward=kernels[1], saved_bytes=int(one.saved_bytes) * calls))
    whole = replace(
        made[0],
        forward=tuple(k for one in made for k in one.forward),
        backward=tuple(k for one in made for k in one.backward),
        saved_bytes=sum(int(one.saved_bytes) for one in made),
    )
    return whole, (seen[0], seen[1])


def _narrow(shape: LinearShape, rows: int, dtype: str, method: Method, *, device: str) -> Cost:
    """An adapter in its base's 16 bits: it casts nothing, as on a base of float32, and moves half of those bytes.

    Transforms, which 16 bits do not have, stay as they are by default; the parameters alone take fewer bytes.
    """
    own = layer_cost(shape, rows, dtype, method, device=device)
    wide = layer_cost(shape, rows, "float32", method, device=device)
    if any(k.kind in ("fft", "native") or k.complex_product for k in (*wide.forward, *wide.backward)):
        return replace(own, parameter_dtype=dtype)

    def halved(kernels: Kernels) -> Kernels:
        return tuple(
            replace(k, read=int(k.read) // 2, written=int(k.written) // 2, dtype=k.dtype and dtype) for k in kernels
        )

    return replace(
        wide,
        forward=halved(wide.forward),
        backward=halved(wide.backward),
        saved_bytes=int(wide.saved_bytes) // 2,
        parameter_dtype=dtype,
    )


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
