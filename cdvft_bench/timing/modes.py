"""Ways to run one case: eagerly, as a replayed CUDA graph, compiled. Eager minus graph is what launching costs."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from cdvft_bench.core.errors import UserError
from cdvft_bench.core.interval import Interval
from cdvft_bench.core.timed import Mode, Modes, Timing
from cdvft_bench.timing.clock import Contender, Timer, require_device, time_interleaved
from cdvft_bench.timing.statistics import median_interval

Call = Callable[[], object]

_CAPTURE_WARM_UPS = 3  # lets lazy initialisation and the allocator come to rest before the capture


def time_modes(
    call: Call,
    *,
    device: str = "cpu",
    modes: Sequence[Mode] | None = None,
    precision: float = 0.05,
    budget_s: float = 2.0,
    seed: int = 0,
    threads: int | None = None,
    timer: Timer = time.perf_counter,
    prepare_s: float | None = None,
) -> Modes:
    """Time a call eagerly and in other ways, interleaved in one run.

    For a graph, everything the call reads and writes must stay where it is from call to call: static
    inputs, gradients dropped by ``set_to_none`` inside the call, an optimiser made with ``capturable=True``.
    A way that cannot run is left out, and ``notes`` says why.

    Args:
        call: a forward pass or a whole step. Where eager calls return equal tensors, the other ways' outputs
            are compared with them.
        device: "cpu" or "cuda".
        modes: ways to try; None for eager and, on a GPU, graph and compile. Eager is always run.
        precision, budget_s, seed, threads, timer: see :func:`time_interleaved`.
        prepare_s: seconds that capturing or compiling may take, each; None is no limit. It holds in the main thread.

    Raises:
        UserError: a mode or the device is not known.
    """
    place = require_device(device)
    cuda = place.type == "cuda"
    wanted: Sequence[Mode] = modes if modes is not None else (("eager", "graph", "compile") if cuda else ("eager",))
    for mode in wanted:
        if mode not in get_args(Mode):
            raise UserError(f"mode {mode!r} is not known; use {', '.join(get_args(Mode))}")
    notes: list[str] = []
    prepared: dict[str, float] = {}
    differences: dict[str, float | None] = {}
    contenders = [Contender("eager", call)]
    expected = _repeatable(call)
    makers: dict[Mode, Callable[[], Call]] = {"graph": lambda: capture(call), "compile": lambda: _compiled(call)}
    # A capture that fails may leave CUDA broken, so graphs come last.
    for mode in sorted({*wanted} - {"eager"}, key=lambda m: m == "graph"):
        if mode == "graph" and not cuda:
            notes.append("graph not run: CUDA graphs need a CUDA device")
            continue
        start = time.perf_counter()
        try:
            with torch.cuda.device(place if cuda else -1), _at_most(prepare_s):
                way = makers[mode]()
        except Exception as error:  # whatever capture or the compiler cannot do is a finding, not a failure
            notes.append(f"{mode} not run: {_first_line(error)}")
            continue
        prepared[mode] = time.perf_counter() - start
        if expected is not None:
            differences[mode] = _difference(way(), expected)
            if differences[mode] is None:
                notes.append(f"{mode}: its output cannot be compared with eager's, by shape or because that is zero")
        contenders.append(Contender(mode, way, queued=mode == "graph"))
    if expected is None and len(contenders) > 1:
        notes.append("outputs not compared: the call returns no tensor, or not the same one each time")
    timing = time_interleaved(
        contenders, precision=precision, budget_s=budget_s, seed=seed, device=device, threads=threads, timer=timer
    )
    return Modes(timing, launch_cost(timing), prepared, differences, tuple(notes))


def launch_cost(timing: Timing) -> Interval | None:
    """Seconds a call that a graph saves: median of eager minus graph, paired by round; None without a graph."""
    seconds = {s.name: np.array(s.seconds) for s in timing.samples}
    if "eager" not in seconds or "graph" not in seconds:
        return None
    return median_interval(seconds["eager"] - seconds["graph"])


def warm_up(call: Call, calls: int) -> None:
    """Make calls on a stream beside the default one, as a capture's is: none of theirs is the first there."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(calls):
            call()
    torch.cuda.current_stream().wait_stream(stream)


def capture(call: Call, warm_ups: int = _CAPTURE_WARM_UPS) -> Call:
    """Capture one call as a CUDA graph, after some on another stream.

    Returns:
        a callable that replays the graph and returns what the captured call returned (its tensors are
        overwritten by every replay).

    Raises:
        UserError: the call does something that a graph cannot hold. The process may then be left with a
            broken capture: measure other things first, or in another process. What fails without a capture, too, as
            for want of memory, is raised as it is.
    """
    if not torch.cuda.is_available():
        raise UserError("CUDA graphs need a CUDA device, and torch sees none here")
    warm_up(call, warm_ups)
    graph = torch.cuda.CUDAGraph()
    try:
        # torch leaves the capture's stream current where the capture cannot be ended.
        with torch.cuda.stream(torch.cuda.current_stream()), torch.cuda.graph(graph):
            output = call()
    except Exception as error:
        # Ending a broken capture raises, too, and says only that: the operator's own error is the one before it.
        first = error.__context__ if isinstance(error.__context__, Exception) else error
        if "captur" not in str(first):
            raise first from None
        raise UserError(f"the call cannot be captured as a CUDA graph: {_first_line(first)}") from error

    def replay() -> object:
        graph.replay()
        return output

    return replay


def _compiled(call: Call) -> Call:
    compiled: Any = torch.compile(call)
    for _ in range(2):  # the first call compiles forward, its backward may compile in the second
        compiled()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    way: Call = compiled
    return way


class TooLongError(RuntimeError):
    """A way to run a call takes too long to prepare."""


@contextmanager
def _at_most(seconds: float | None) -> Iterator[None]:
    """Raise in the block once it has taken so long."""
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise TooLongError(f"it takes longer than {seconds:g} s to prepare")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _repeatable(call: Call) -> Tensor | None:
    """The tensor that the call returns, if it returns an equal one the second time."""
    first = call()
    kept = first.detach().clone() if isinstance(first, Tensor) else None
    second = call()
    if kept is None or not isinstance(second, Tensor) or second.shape != kept.shape:
        return None
    return kept if torch.equal(kept, second.detach()) else None


def _difference(output: object, expected: Tensor) -> float | None:
    if not isinstance(output, Tensor) or output.shape != expected.shape:
        return None
    wide = torch.complex128 if expected.is_complex() else torch.float64
    right = expected.to(wide)
    norm = float(torch.linalg.vector_norm(right))
    return float(torch.linalg.vector_norm(output.detach().to(wide) - right)) / norm if norm > 0 else None


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
