"""Where does CDVFT cost less time than a peer? Ratios with intervals by width, tokens, m and block size.

The ratio to LoRA of rank 8 is paired by round, since both were timed in one run. Any other peer has a
record of its own: both are then divided by the frozen subject of their own run, which cancels the
machine's speed, and the two medians are resampled independently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from cdvft_bench.analysis.agreement import ratio_to_lora8
from cdvft_bench.analysis.compare import ratio_of_medians, series
from cdvft_bench.analysis.groups import hyperparameter, is_lora8, sections, title_of
from cdvft_bench.core.case import Case
from cdvft_bench.core.interval import Interval, Side
from cdvft_bench.core.record import Record
from cdvft_bench.core.text import interval, listed, plural

Word = Literal["less", "more", "undecided", "no interval"]

PEERS = ("lora", "fourierft", "c3a")
"""Methods that CDVFT is held against; LoRA at rank 8."""


@dataclass(frozen=True)
class Pair:
    """A CDVFT case beside a peer under the same workload on the same machine.

    Attributes:
        cdvft: its record. peer: the peer's record; of several settings the fastest one.
        ratio: CDVFT's time over the peer's.
    """

    cdvft: Record
    peer: Record
    ratio: Interval

    @property
    def word(self) -> Word:
        """Whether CDVFT costs less: the whole interval lies on one side of 1."""
        if self.ratio.bounds is None:
            return "no interval"
        words: dict[Side, Word] = {"below": "less", "above": "more", "undecided": "undecided"}
        return words[self.ratio.side()]

    @property
    def m(self) -> int:
        """Diagonal factors."""
        value = hyperparameter(self.cdvft.case, "m", 2)
        assert isinstance(value, int)
        return value

    @property
    def block_size(self) -> str:
        """p, "d" where it was left unset, "none" for m = 1, which has no circulant factor."""
        return "none" if self.m == 1 else str(hyperparameter(self.cdvft.case, "block_size") or "d")


@dataclass(frozen=True)
class Point:
    """All CDVFT settings beside one peer at one subject and workload.

    Attributes:
        machine: "" where there is only one.
        case: of any of them: its subject, workload, dtype and device are the point's.
        pairs: the cheapest first.
    """

    machine: str
    case: Case
    pairs: tuple[Pair, ...]

    @property
    def best(self) -> Pair:
        """The setting with the lowest ratio."""
        return self.pairs[0]

    @property
    def paper(self) -> Pair | None:
        """The paper's setting, m = 2 with the largest block size there is; of several paths the fastest."""
        two = [p for p in self.pairs if p.m == 2]
        sizes = [int(p.block_size) for p in two if p.block_size != "d"]
        whole = {"d", str(max(sizes))} if sizes else {"d"}
        return next((p for p in two if p.block_size in whole), None)

    def having(self, word: Word) -> list[Pair]:
        """Pairs of one word."""
        return [p for p in self.pairs if p.word == word]


def crossover_points(records: Iterable[Record], peer: str) -> list[Point]:
    """Points at which CDVFT and the peer were both timed, layers and models, small workloads first.

    Args:
        records: the latest of every case.
        peer: one of ``PEERS``.
    """
    points = []
    for section in sections(records):
        for rows in section.workloads().values():
            ours = [r for r in rows if r.case.method == "cdvft"]
            theirs = [r for r in rows if r.case.method == peer and (peer != "lora" or is_lora8(r.case))]
            pairs = [pair for record in ours if (pair := _pair(record, theirs)) is not None]
            if pairs:
                pairs.sort(key=lambda p: (p.ratio.value, p.cdvft.label))
                points.append(Point(section.machine, pairs[0].cdvft.case, tuple(pairs)))
    return points


def _pair(record: Record, peers: Sequence[Record]) -> Pair | None:
    best: Pair | None = None
    for peer in peers:
        ratio = ratio_to_lora8(record) if is_lora8(peer.case) else None
        if ratio is None:
            ours, theirs = series(record, "frozen")[0], series(peer, "frozen")[0]
            if not ours or not theirs:
                continue
            ratio = ratio_of_medians(theirs, ours)
        if best is None or ratio.value > best.ratio.value:  # the fastest peer is the hardest to beat
            best = Pair(record, peer, ratio)
    return best


def fft_path(points: Sequence[Point]) -> list[Point]:
    """The points with the pairs alone in which CDVFT runs as the paper writes it: by torch.fft, through autograd."""
    kept = ((p, tuple(x for x in p.pairs if hyperparameter(x.cdvft.case, "path", "fft") == "fft")) for p in points)
    return [replace(point, pairs=pairs) for point, pairs in kept if pairs]


def summary(points: Sequence[Point], peer: str, who: str = "CDVFT") -> str:
    """One sentence on where CDVFT costs less than the peer; "not measured" where nothing was.

    Args:
        points: of one pass, dtype, device and machine.
        peer: method name. who: how the sentence calls what is held against it.
    """
    name = f"{title_of(peer)}{' of rank 8' if peer == 'lora' else ''}"
    pairs = [pair for point in points for pair in point.pairs]
    if not pairs:
        return f"{who} against {name}: not measured."
    cheaper = [p for p in pairs if p.word == "less"]
    best = min(pairs, key=lambda p: p.ratio.value)
    at = f"{best.cdvft.label} on {_place(best.cdvft.case)}, {_ratio(best.ratio)}"
    dearer = sum(p.word == "more" for p in pairs)
    open_ = len(pairs) - len(cheaper) - dearer
    rest = f"more in {dearer:,}, undecided in {open_:,}" if open_ else f"more in {dearer:,}"
    settings = plural(len(pairs), "measured setting")
    if not cheaper:
        return f"{who} costs less time than {name} in none of {settings} ({rest}); nearest is {at}."
    said = [
        _values("on", {p.cdvft.case.subject for p in cheaper}, {p.cdvft.case.subject for p in pairs}, str),
        _values("tokens", {p.cdvft.case.tokens for p in cheaper}, {p.cdvft.case.tokens for p in pairs}, "{:,}".format),
        _values("m", {p.m for p in cheaper}, {p.m for p in pairs}, str),
        _values("p", {p.block_size for p in cheaper}, {p.block_size for p in pairs}, str),
    ]
    return (
        f"{who} costs less time than {name} in {len(cheaper):,} of {settings} ({rest}): "
        f"{'; '.join(said)}. Best is {at}."
    )


def _values(name: str, found: set[object], measured: set[object], show: Callable[..., str]) -> str:
    """Which values of an axis occur, and whether that is all that was measured."""
    if found == measured and len(measured) > 1:
        return f"{name} any measured"
    return f"{name} {listed([show(v) for v in sorted(found, key=_natural)])}"


def _natural(value: object) -> tuple[int, str]:
    digits = "".join(c for c in str(value).partition("x")[0] if c.isdigit())
    return int(digits or 0), str(value)


def _place(case: Case) -> str:
    return f"{case.subject} at {case.batch} × {case.sequence:,} tokens"


def _ratio(ratio: Interval) -> str:
    return interval(ratio.value, ratio.low, ratio.high)
