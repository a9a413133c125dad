"""Which annotated range of a trace an event belongs to, in the backward too, and the shares of base and adapter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from cdvft_bench.core.timed import Part
from cdvft_bench.timing.chrome import Event
from cdvft_bench.timing.families import is_operator
from cdvft_bench.timing.scopes import ADAPTER, BASE, NEITHER, PARTS

UNSCOPED = "unscoped"
_FRAMES = ("ProfilerStep#", "PyTorch Profiler")  # ranges that the profiler itself makes
_ENGINE = "autograd::engine::evaluate_function"
_ACCUMULATION = f"{_ENGINE}: torch::autograd::AccumulateGrad"
_NODES = 3  # autograd nodes that one operator makes, at most


class Scopes:
    """Finds the annotated range that an event belongs to."""

    def __init__(self, operators: Iterable[Event]) -> None:
        # An autograd node bears the sequence number that was next when its forward operator started: of the
        # operators that saw that number, the last made the node.
        self._forward: dict[int, Event] = {}
        # A gradient is stored right after the node that made it: the engine knows nothing more urgent.
        self._producer: dict[int, Event] = {}
        producers: dict[tuple[str, str], Event] = {}
        for event in operators:
            number = event.number("Sequence number")
            if number is not None and not event.number("Fwd thread id"):
                self._forward[number] = event
            if event.name == _ACCUMULATION and event.track in producers:
                self._producer[id(event)] = producers[event.track]
            elif event.name.startswith(_ENGINE):
                producers[event.track] = event
        self._known: dict[int, str] = {}
        self._parts: dict[int, str] = {}

    def of(self, event: Event) -> str:
        """Name of the innermost range around ``event``, or around its forward operator."""
        return self._find(event, self._known, lambda name: not name.startswith(_FRAMES), UNSCOPED)

    def part(self, event: Event) -> str:
        """Name of the innermost range of ``timing.scopes``, whatever other ranges lie inside it."""
        found = self._find(event, self._parts, PARTS.__contains__, NEITHER)
        return ADAPTER if found == BASE and self._sums_for_adapter(event) else found

    def _sums_for_adapter(self, event: Event) -> bool:
        """Whether the engine here adds the base's input gradient to the adapter's: without adapter it would not."""
        for e in event.above():
            if e.name.startswith(_ENGINE):
                forward = self._maker(e)
                return forward is not None and any(a.name == ADAPTER for a in forward.above())
            if e.kind == "operator" and not is_operator(e.name):
                return False  # it is the node itself that works
        return False

    def _find(self, event: Event, known: dict[int, str], accepts: Callable[[str], bool], otherwise: str) -> str:
        path: list[Event] = []
        found: str | None = None
        for e in event.above():
            found = known.get(id(e))
            if found is None and e.kind == "annotation" and accepts(e.name):
                found = e.name
            maker = self._maker(e) if found is None else None
            if maker is not None:
                found = self._find(maker, known, accepts, otherwise)
            path.append(e)
            if found is not None:
                break
        result = found or otherwise
        for e in path:
            known[id(e)] = result
        return result

    def _maker(self, event: Event) -> Event | None:
        """The forward operator of a backward one; for a gradient's accumulation, the node that made the gradient."""
        if id(event) in self._producer:
            return self._producer[id(event)]
        number = event.number("Sequence number")
        if event.kind != "operator" or number is None or not event.number("Fwd thread id"):
            return None
        # An in-place operator on a view makes several nodes, and no operator sees the numbers of the later ones.
        seen = (self._forward.get(n) for n in range(number, number - _NODES, -1))
        forward = next((f for f in seen if f is not None), None)
        return forward if forward is not None and forward.start < event.start else None


def shares(scopes: Scopes, launched: Iterable[tuple[Event | None, list[str], int]]) -> dict[str, Part]:
    """Shares of base, adapter and neither of what was launched; none where no part's range is in the trace.

    Args:
        scopes: of the trace.
        launched: leaf operator or launching call, families of what it launched, ns.
    """
    families: dict[str, Counter[str]] = {name: Counter() for name in (*PARTS.values(), NEITHER)}
    backward: Counter[str] = Counter()
    ns: Counter[str] = Counter()
    for event, labels, duration in launched:
        name = PARTS.get(scopes.part(event), NEITHER) if event is not None else NEITHER
        families[name].update(labels)
        ns[name] += duration
        if event is not None and any(e.name.startswith(_ENGINE) for e in event.above()):
            backward[name] += len(labels)
    if not any(families[name] for name in PARTS.values()):
        return {}
    return {
        name: Part(sum(found.values()), backward[name], ns[name] / 1e9, dict(sorted(found.items())))
        for name, found in families.items()
    }
