"""The sentences of a verdict: what it rests on, in one line."""

import math
import statistics
from collections.abc import Sequence

from cdvft_bench.claims.conditions import Chance, Conditions, Terms
from cdvft_bench.claims.ledger.claim import Claim
from cdvft_bench.claims.ledger.laws import Ratio
from cdvft_bench.claims.ledger.terms import Value
from cdvft_bench.claims.ledger.text import axis_text, number, percent, setting, share_text, value_text
from cdvft_bench.claims.verdict import Reading
from cdvft_bench.core.text import listed, plural
from cdvft_bench.core.ties import steady

LISTED = 8
"""Values of an axis that are written out; of more the first few, and their number."""


def missing(reading: Reading) -> str:
    """Which sources are not available, and what would supply them."""
    absent = [r for r in reading.results if r.holds is None]
    return "; ".join(f"not available: {r.source} ({r.text}; to supply it: {r.remedy})" for r in absent)


def unclear(open_: Sequence[Reading], hits: Sequence[Reading]) -> str:
    """Not shown either way: where, and what would show it."""
    remedies = dict.fromkeys(r.remedy for reading in open_ for r in reading.results if r.open)
    text = f"not shown either way{_where(open_)}: the interval reaches both sides"
    text += f"; shown to hold{_where(hits)}" if hits else ""
    return f"{text}; to settle it: {'; '.join(remedies)}"


def besides_unclear(open_: Sequence[Reading]) -> str:
    """Settings on which a claim that is judged on others is not shown either way."""
    return f"; not shown either way{_where(open_)}" if open_ else ""


def everywhere(claim: Claim, readings: Sequence[Reading]) -> str:
    """A claim that holds in every setting that was judged."""
    judged = sum(r.judged for r in readings)
    if _groups(readings):
        return f"shown{_where(readings)}, and nowhere else"
    if len(readings) == 1:
        text = f"{listed(claim.sources)} agree" if len(claim.sources) > 1 else f"as the {claim.sources[0]} says"
    else:
        text = f"in all {plural(judged, 'setting')} tried"
        text += "" if judged == len(readings) else f"; {plural(len(readings) - judged, 'setting')} not judged"
    return text


def fails(nearest: Reading, judged: Sequence[Reading]) -> str:
    """A claim that holds nowhere: by how much the nearest setting misses it."""
    off = "off" if nearest.miss is None else f"off by {percent(nearest.miss)}"
    if nearest.disagree:
        pro = ", ".join(r.source for r in nearest.results if r.holds)
        con = ", ".join(r.source for r in nearest.results if not r.holds)
        off += f"; the sources disagree: {pro} for it, {con} against"
    if len(judged) == 1:
        return off + (f", at {setting(judged[0].setting)}" if judged[0].setting else "")
    return f"in none of {plural(len(judged), 'setting')} tried; nearest: {off}, at {setting(nearest.setting)}"


def only_if(
    claim: Claim, found: Conditions, hits: Sequence[Reading], judged: Sequence[Reading], chance: Chance | None
) -> str:
    """A claim that holds in some settings: in which, how far the others are off, and what chance has to do with it."""
    parts = [terms_text(found.needed) or "axes are chosen together"]
    if not found.exact:
        parts[0] += " (needed; not each combination of them will do)"
        if found.size > 1:
            parts.append(f"wherever {terms_text(found.wherever)} ({plural(found.size, 'setting')})")
    parts.append(f"{len(hits):,} of {plural(len(judged), 'setting')} tried")
    parts.append(_others(claim, judged))
    law = claim.law
    values = [r.results[0].value for r in judged if r.results[0].value is not None]
    if isinstance(law, Ratio) and law.digits is not None:
        parts += [_printed(law, e, values) for e in law.expected] if len(law.expected) > 1 else []
        different = len({round(r.results[0].value or 0.0, 9) for r in hits})
        parts.append(f"the hits come to {plural(different, 'different ratio')}")
    if chance is not None:
        parts.append(chance_text(chance, len(getattr(law, "expected", ()))))
    return "; ".join(part for part in parts if part)


def chance_text(chance: Chance, figures: int) -> str:
    """What the chance was taken over, and what it is."""
    of = "a figure" if chance.digits is None else f"a figure of {plural(chance.digits, 'decimal')}"
    text = f"{of} from {number(chance.low, 3)} to {number(chance.high, 3)} that nobody claimed is hit with a chance of "
    text += share_text(chance.each)
    return text + (f", one of {figures} with {share_text(chance.share)}" if figures > 1 else "")


def _others(claim: Claim, judged: Sequence[Reading]) -> str:
    rest = [r for reading in judged if not reading.holds for r in reading.results]
    values = [r.value for r in rest if r.value is not None]
    if isinstance(claim.law, Ratio) and values:
        low, high, middle = min(values), max(values), statistics.median(values)
        return f"the others give {number(low)} to {number(high)} (median {number(middle)})"
    misses = sorted(math.inf if r.miss is None else abs(r.miss) for r in rest if not r.holds)
    texts = [
        percent(m).removeprefix("+") if math.isfinite(m) else "more than can be said" for m in (misses[0], misses[-1])
    ]
    return f"the others are off by {texts[0] if texts[0] == texts[1] else f'{texts[0]} to {texts[1]}'}"


def _printed(law: Ratio, expected: float, ratios: Sequence[float]) -> str:
    """How one of several printed figures fares."""
    found = sum(law.gives(r, expected) for r in ratios)
    if found:
        return f"{expected} comes out {found} times" if found > 1 else f"{expected} comes out once"
    nearest = min(ratios, key=lambda r: steady(abs(r / expected - 1)))
    return f"{expected} never, nearest {number(nearest, 5)} ({percent(nearest / expected - 1)})"


def terms_text(terms: Terms) -> str:
    """``tokens = 256 or 512, subject.path = fft``."""
    return ", ".join(f"{axis_text(axis)} = {values_text(values)}" for axis, values in terms)


def values_text(values: Sequence[Value]) -> str:
    """``256 or 512``; of many the first few and how many more."""
    texts = [value_text(v) for v in values]
    rest = len(texts) - LISTED
    return " or ".join(texts if rest <= 1 else [*texts[:LISTED], f"{rest} more"])


def _groups(readings: Sequence[Reading]) -> list[str]:
    """Workloads or machines that readings name."""
    return list(dict.fromkeys(str(v) for r in readings for axis, v in r.setting if axis in ("workload", "machine")))


def _where(readings: Sequence[Reading]) -> str:
    """The workloads or machines of readings; how many settings where they name none and there are several."""
    names = _groups(readings)
    if names:
        return f" on {'; '.join(names)}"
    return f" in {plural(len(readings), 'setting')}" if readings[0].setting else ""
