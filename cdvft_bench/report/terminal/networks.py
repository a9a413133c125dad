"""What predict and count print of a whole network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cdvft_bench.core.text import integer, prefixed
from cdvft_bench.report.terminal.console import notes, open_console, say, show_table, table

if TYPE_CHECKING:
    from cdvft_bench.core.counted import CountedNetwork, ModuleCount
    from cdvft_bench.core.record import PredictedPass
    from cdvft_bench.predictor.results import MemoryBudget
    from cdvft_bench.sweep.network_cost import NetworkCost


def pass_rows(passes: Sequence[PredictedPass], transforms: bool = False) -> list[tuple[str, ...]]:
    """What each pass costs, a row a quantity; with ``transforms`` also their number."""
    rows = [("multiply-adds (mac)", *(integer(p.macs) for p in passes))]
    for convention in passes[0].flops:
        rows.append((f"FLOPs, convention {convention}", *(prefixed(p.flops[convention]) for p in passes)))
    rows.append(("  of these the adapter's, convention flop", *(prefixed(p.adapter_flops["flop"]) for p in passes)))
    if transforms:
        rows.append(("1-D transforms", *(integer(p.ffts) for p in passes)))
    return [
        *rows,
        ("kernel launches", *(integer(p.launches) for p in passes)),
        ("  of these the adapter's", *(integer(p.adapter_launches) for p in passes)),
        ("bytes read", *(prefixed(p.read) for p in passes)),
        ("bytes written", *(prefixed(p.written) for p in passes)),
    ]


def show_network_cost(title: str, cost: NetworkCost) -> None:
    """Print what an adapter on a network costs."""
    passes = {"forward": cost.forward, "backward": cost.backward, "update": cost.update}
    title = f"{cost.method} on {title}"
    show_table(title, ("base counted, adapter by closed form", *passes), pass_rows(tuple(passes.values())))
    share = 100 * cost.parameters / cost.total_parameters if cost.total_parameters else 0.0
    say(
        f"trainable parameters {integer(cost.parameters)} beside {integer(cost.total_parameters)} of the network "
        f"({share:.3g} %), in {integer(len(cost.adapted))} layers; activations kept for backward at most "
        f"{integer(cost.saved_bytes)} bytes; optimiser state {integer(cost.optimizer_bytes)} bytes"
    )
    notes("note", cost.notes)


ITEMS = ("weights", "gradients", "optimizer", "activations", "workspace", "overhead", "total")


def show_memory(budget: MemoryBudget, said: Sequence[str]) -> None:
    """Print the memory of a training step, item by item, and how the network is trained."""
    values = {name: getattr(budget, name) for name in ITEMS}
    rows = [(name, integer(value), f"{prefixed(value)}B") for name, value in values.items()]
    show_table("memory of a training step", ("item", "bytes", ""), rows)
    notes("trained", said)


@dataclass
class Sums:
    """A module with everything inside it."""

    module: ModuleCount
    macs: int = 0
    backward: int = 0
    parameters: int = 0
    written: int = 0
    launches: int = 0


def summed_tree(counted: CountedNetwork) -> dict[str, Sums]:
    """Every module by name, with the sums over the modules inside it; the network itself is ""."""
    found = {m.name: Sums(m) for m in counted.modules}
    for m in counted.modules:
        parts = m.name.split(".") if m.name else []
        for n in range(len(parts) + 1):
            into = found.get(".".join(parts[:n]))
            if into is None:
                continue
            into.macs += m.forward.macs
            into.backward += m.backward.macs
            into.parameters += m.parameters
            into.written += m.forward.written
            into.launches += m.forward.launches + m.backward.launches
    root = found.get("")
    if root is not None:
        root.parameters = counted.parameters  # shared ones once
    return found


def show_modules(title: str, counted: CountedNetwork, depth: int, sort: str) -> None:
    """Print the tree of modules down to ``depth``, or a list of the innermost ones where it is sorted."""
    sums = summed_tree(counted)
    columns = ["module", "kind", "calls", "parameters", "forward macs", "backward macs", "share", "activations"]
    shown = table(title, columns, numeric_from=2)
    whole = max(sums[""].macs + sums[""].backward, 1)
    rows = [s for name, s in sums.items() if (name.count(".") + 1 if name else 0) <= depth]
    if sort != "order":
        parents = {name.rpartition(".")[0] for name in sums if name}
        rows = [s for name, s in sums.items() if name not in parents and name]
        key = {
            "flops": lambda s: s.macs + s.backward,
            "parameters": lambda s: s.parameters,
            "activations": lambda s: s.written,
        }[sort]
        rows = sorted(rows, key=key, reverse=True)
    for s in rows:
        name = s.module.name
        label = name if sort != "order" else "  " * (name.count(".") + 1) + name.rpartition(".")[2] if name else "(all)"
        shown.add_row(
            label,
            s.module.kind,
            integer(s.module.calls),
            integer(s.parameters),
            prefixed(s.macs),
            prefixed(s.backward),
            f"{100 * (s.macs + s.backward) / whole:.1f} %",
            f"{prefixed(s.written)}B",
        )
    open_console().print(shown)
    _ends(counted)


def show_operators(title: str, counted: CountedNetwork) -> None:
    """Print launches and products by operator."""
    figures = (counted.forward.operators, counted.backward.operators if counted.backward else {}, counted.macs)
    names = sorted({*figures[0], *figures[1]}, key=lambda n: (-counted.macs.get(n, 0), n))
    rows = [(name, *(integer(one.get(name, 0)) for one in figures)) for name in names]
    show_table(title, ("operator", "forward launches", "backward launches", "macs"), rows)
    _ends(counted)


def _ends(counted: CountedNetwork) -> None:
    for name, pass_ in (("forward", counted.forward), ("backward", counted.backward)):
        if pass_ is None:
            continue
        say(
            f"{name}: {integer(pass_.macs)} multiply-adds, {integer(pass_.elementwise_flops)} element-wise FLOPs, "
            f"{integer(pass_.launches)} launches"
        )
    say(f"activations kept for backward: {integer(counted.saved_bytes)} bytes")
    notes("note", (*counted.notes, *counted.unpriced))
